"""The pipeline's own null: shifts and planted bars by hand, and short runs on markets with and without a signal."""

import math

import numpy as np
import pandas as pd
import pytest

from benchmarks.planted_market import planted_data
from sac_kernel.experiment import pipeline_null
from sac_kernel.experiment.fold_jobs import Settings
from sac_kernel.prices.ingest.writer import write_processed

WEEK_S = 7 * 86_400


def test_a_copy_has_market_features_of_an_earlier_week_and_its_own_clock():
    # Two rows a week; the second week lacks its later one, so the row after it takes the latest before.
    local = np.array([0, 3600, WEEK_S, 2 * WEEK_S, 2 * WEEK_S + 3600])
    features = pd.DataFrame({"move": [1.0, 2, 3, 4, 5], "hour_sin": [10.0, 20, 30, 40, 50]}, dtype=np.float32)
    made = pipeline_null.shifted(features, local, 1, ["hour_sin"])
    np.testing.assert_array_equal(made["move"], [math.nan, math.nan, 1, 3, 3])
    np.testing.assert_array_equal(made["hour_sin"], features["hour_sin"])
    two = pipeline_null.shifted(features, local, 2, ["hour_sin"])
    np.testing.assert_array_equal(two["move"], [math.nan] * 3 + [1, 2])
    pd.testing.assert_frame_equal(pipeline_null.shifted(features, local, 0, ["hour_sin"]), features)
    assert features["move"].tolist() == [1, 2, 3, 4, 5]


def test_clock_and_volatility_stay():
    clock = ("hour_sin", "london_open")
    names = ["hour_sin", "eurusd_return_1h", "eurusd_parkinson_1h", "regime_high_vol_prob", "eurusd_rsi_4h"]
    assert [pipeline_null.stays(name, clock) for name in names] == [True, False, True, True, False]


def test_planted_moves_are_added_to_the_returns_and_bars_stay_bars():
    bars = pd.DataFrame({"open": [1.0, 2], "high": [2.0, 2], "low": [1.0, 1], "close": [2.0, 1]})
    made = pipeline_null.planted(bars, np.log([2.0, 0.25]))
    np.testing.assert_allclose(made["open"], [1, 4])
    np.testing.assert_allclose(made["close"], [4, 0.5])
    np.testing.assert_allclose(made["high"], [4, 4])
    np.testing.assert_allclose(made["low"], [1, 0.5])


def test_power_counts_planted_runs_by_their_p():
    def one(t, growth, **more):
        return {"t": t, "growth_per_day": growth, "gate": [3.0, 1.0], "cpu_s": 2.0, **more}

    nulls = [one(float(i), float(i)) for i in range(39)]
    band = {"sharpe_ann": 2.0, "growth_per_day": 100.0}
    weak = [
        one(5.0, 5.0, band={**band, "sharpe_ann": 1.0}),
        one(99.0, None, band={**band, "sharpe_ann": 1.0}),
    ]
    strong = [one(50.0, 50.0, band=band), one(50.0, 50.0, band=band)]
    found = pipeline_null.summarised(one(40.0, None), nulls, weak + strong, 2)
    assert found["null"]["p_value"] == pytest.approx(2 / 40)
    assert found["null"]["gate"] == {"fits": 2, "flat": 1}
    assert [row["found"] for row in found["power"]["rows"]] == [1, 2]
    assert found["power"]["rows"][1]["agent_growth_per_day"] == 50.0


@pytest.mark.parametrize(("ic", "seed"), [(0.25, 0), (0.0, 1)])
def test_short_run_on_a_market(tmp_path, ic, seed):
    write_processed(planted_data(ic, seed, 2.5), tmp_path / "bars.h5")
    settings = Settings(
        str(tmp_path / "bars.h5"), (1,), (0,), folds=1, tiers=("base",), updates=100, val_days=0
    )
    summary = pipeline_null.run(settings, tmp_path / "out", copies=3)
    found = summary["null"]
    assert found["copies"] == 3
    assert len(set(summary["offsets_weeks"])) == 3
    assert found["least_p"] == pytest.approx(2 / 4)
    if ic:
        assert found["p_values"]["t"] == pytest.approx(1 / 4)
        assert found["p_value"] == found["least_p"]
    again = pipeline_null.run(settings, tmp_path / "out", copies=3)
    assert again == summary
