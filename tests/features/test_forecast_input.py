"""Agent 2's auxiliary task: a prediction that train rows never helped to make of themselves, the same after a save."""

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core import files
from sac_kernel.experiment.run_config import AGENT_PRESETS
from sac_kernel.features import forecast_input
from sac_kernel.features.causality import assert_causal
from sac_kernel.features.forecast import HEADS
from sac_kernel.features.forecast_input import FEATURE, ForecastInput, next_returns
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import training
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.pipeline import DataConfig
from tests.conftest import make_bars, make_data
from tests.market.test_training_market import reverting_bars


def reverting_data(n=6000):
    return split_table(BarTable(reverting_bars(n), "synthetic", "UTC"), DataConfig())


@pytest.fixture(scope="module")
def made():
    data, pipeline = reverting_data(), FeaturePipeline(forecast=True)
    return data, pipeline, pipeline.run_full_pipeline(data.train, data.val, data.test)


def planted(rows=3_000, columns=30, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns))
    return x, 0.3 * x[:, 0] + rng.standard_normal(rows), np.arange(rows) * 60


# -- the task ----------------------------------------------------------------------------------------


def test_a_train_row_sees_the_model_of_the_other_blocks_and_a_later_one_that_of_all():
    x, y, seconds = planted()
    task = ForecastInput.fit(x, y, seconds, purge=20)
    own, later = task.column(x, seconds), task.column(x, seconds + 10_000_000)
    np.testing.assert_allclose(own, task.estimate.train / task.unit, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(later, task.estimate.predict(x) / task.unit)
    assert own.std() == pytest.approx(1.0)
    # The model of all rows has fitted their noise; theirs has not: agreement with the noise tells.
    noise = y - 0.3 * x[:, 0]
    assert np.corrcoef(later - own, noise)[0, 1] > 0.02
    assert abs(np.corrcoef(own, noise)[0, 1]) < 3 / np.sqrt(len(y))
    assert np.corrcoef(own, x[:, 0])[0, 1] > 0.9


def test_a_row_is_the_same_bit_for_bit_whatever_rows_it_comes_with():
    x, y, seconds = planted()
    heads = set()
    for target in (y, y + x.sum(axis=1), y + x[:, 1] * x[:, 2], y + np.sin(3 * x[:, 0])):
        task = ForecastInput.fit(x, target, seconds, purge=20)
        whole = task.column(x, seconds)
        for part in (slice(0, 1), slice(500, 1_337), slice(2_999, 3_000)):
            np.testing.assert_array_equal(task.column(x[part], seconds[part]), whole[part])
        again = ForecastInput.from_state(task.state())
        np.testing.assert_array_equal(again.column(x, seconds), whole)
        heads.add(task.estimate.head)
    assert heads == set(HEADS)


def test_where_nothing_is_predicted_the_column_is_zero():
    x, y, seconds = planted()
    task = ForecastInput.fit(x, np.random.default_rng(9).standard_normal(len(y)), seconds, purge=20)
    assert task.estimate.head == "flat"
    assert not task.column(x, seconds).any()


def test_next_returns_are_of_mid():
    bars = make_bars(40)
    plain = next_returns(bars, 3600)
    mid = next_returns(Bars(bars, side="mid"), 3600)
    known = np.isfinite(mid[:-1])
    np.testing.assert_allclose(mid[:-1][known], np.diff(np.log(bars["close"]))[known], rtol=1e-12)
    # 2017-01-02 00:00 UTC is 19:00 New York. The order of bar 23 fills at 19:00; its close, in the last second of
    # 18:59, has twice the normal spread of .55 bps, the next one the normal spread. Bid to mid is half of it.
    assert plain[23] - mid[23] == pytest.approx((1 - 2) * 0.55e-4 / 2, rel=1e-3)
    # At 16:00 New York orders fill, at 17:00 and 18:00 they do not.
    assert np.flatnonzero(np.isnan(mid)).tolist() == [21, 22, 39]


# -- in the feature pipeline -------------------------------------------------------------------------


def test_the_pipeline_appends_the_prediction_and_changes_nothing_else(made):
    data, pipeline, parts = made
    plain = FeaturePipeline()
    for without, part in zip(plain.run_full_pipeline(data.train, data.val, data.test), parts, strict=True):
        pd.testing.assert_frame_equal(part[plain.feature_names], without, check_exact=True)
    assert pipeline.feature_names == [*plain.feature_names, FEATURE]
    assert parts[0].iloc[:48].isna().all().all()
    assert np.isfinite(parts[0].iloc[48:].to_numpy()).all()
    for part, bars in zip(parts, (data.train, data.val, data.test), strict=True):
        # Planted: the next hour takes back 35 % of the last one.
        last = np.diff(np.log(bars["EURUSD"]["close"].to_numpy()))[60:]
        assert np.corrcoef(part[FEATURE].to_numpy()[61:], -last)[0, 1] > 0.85


def test_the_task_knows_nothing_of_validation_and_test(made):
    data, pipeline, _ = made
    again = FeaturePipeline(forecast=True)
    again.run_full_pipeline(
        data.train, {"EURUSD": data.val["EURUSD"] * 3}, {"EURUSD": data.test["EURUSD"] * 2}
    )
    assert again.state() == pipeline.state()


def test_the_column_is_causal(made):
    data, pipeline, _ = made
    assert f"of {len(pipeline.feature_names)} features" in str(assert_causal(pipeline, data.train, rows=6))


def test_a_saved_pipeline_makes_the_same_column_and_never_refits(made, tmp_path, monkeypatch):
    data, pipeline, parts = made
    files.write_bytes(tmp_path / "agent.pt", files.pt_bytes({"features": pipeline.state()}))
    monkeypatch.setattr(forecast_input, "fit_forecast", None)
    again = FeaturePipeline.from_checkpoint(tmp_path / "agent.pt")
    for one, other in zip(again.run_full_pipeline(data.train, data.val, data.test), parts, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert again.state() == pipeline.state()


def test_a_second_run_fits_anew(made):
    _, pipeline, _ = made
    data = make_data(3000)
    other = FeaturePipeline(forecast=True)
    other.run_full_pipeline(*made[0].splits.values())
    other.run_full_pipeline(data.train, data.val, data.test)
    fresh = FeaturePipeline(forecast=True)
    fresh.run_full_pipeline(data.train, data.val, data.test)
    assert other.state() == fresh.state() != pipeline.state()


def test_denoised_rewards_are_fitted_without_the_column(made):
    data, _, parts = made
    config = TradingEnvConfig(reward="denoised", episode_lengths=(60,), horizon=50)
    bars, features = data.train["EURUSD"], parts[0]
    one, other = (
        training.build_training_market(bars, f, config)[0].bars["return_forecast"]
        for f in (features, features.drop(columns=FEATURE))
    )
    np.testing.assert_array_equal(one, other)


def test_only_agent_2_has_the_task():
    assert {i: preset.forecast for i, preset in AGENT_PRESETS.items()} == {1: False, 2: True, 3: False}
