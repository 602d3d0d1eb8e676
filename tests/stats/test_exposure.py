"""Static exposure and timing, against regressions of another library."""

import numpy as np
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.stats import exposure, verdict
from sac_kernel.stats.metrics import annual_return
from sac_kernel.stats.verdict import TrialCount
from tests.support import says


def days(n=800, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(-0.0006, 0.005, n), rng.normal(0.0, 0.002, n)


def test_parts_add_up_and_are_those_of_a_regression():
    api = pytest.importorskip("statsmodels.api")
    market, noise = days()
    daily = -0.7 * market + noise + 0.0003
    beta, static, timing = exposure.parts(daily, market)
    fit = api.OLS(daily, api.add_constant(market)).fit()
    assert (timing.mean(), beta) == pytest.approx(tuple(fit.params), rel=1e-9)
    assert static + timing == pytest.approx(daily, abs=1e-15)


def test_interval_of_timing_is_about_that_of_newey_and_west():
    api = pytest.importorskip("statsmodels.api")
    market, noise = days(1300, 1)
    smooth = np.convolve(noise, [0.8, 0.5, 0.3], "same")
    found = verdict.timing(-0.7 * market + smooth + 0.0004, market, TrialCount())
    fit = api.OLS(-0.7 * market + smooth + 0.0004, api.add_constant(market)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 10}
    )
    low, high = np.expm1(260 * fit.conf_int()[0])
    # The interval is of log growth, 260 x .0022^2 / 2 = .0006 lower; draws and block lengths move its width by a tenth.
    assert found["low_frac"] == pytest.approx(low, abs=0.15 * (high - low))
    assert found["high_frac"] == pytest.approx(high, abs=0.15 * (high - low))


def test_a_constant_short_in_a_falling_market_is_no_skill():
    market, noise = days(1300)
    daily = -market + 0.1 * noise
    whole = verdict.decide(daily, 0.99, TrialCount(), instrument=market)
    assert whole["word"] == "edge (null not run)"
    found = whole["timing"]
    assert found["beta"] == pytest.approx(-1.0, abs=0.01)
    assert found["word"] == "not shown"
    assert found["static_frac"] == pytest.approx(annual_return(-market), abs=0.01)
    assert found["static_frac"] > 0.1 > abs(found["timing_frac"])
    assert found["sentence"] in whole["notes"]
    assert whole["questions"][3] == {
        "key": "skill",
        "question": whole["questions"][3]["question"],
        "answer": found["sentence"],
    }


def test_skill_beside_a_static_position_is_seen():
    market, noise = days(1300)
    found = verdict.timing(0.5 * market + noise + 0.0004, market, TrialCount())
    assert found["word"] == "edge"
    assert found["timing_frac"] == pytest.approx(np.exp(260 * (0.0004 + noise.mean())) - 1, abs=0.005)
    loss = verdict.timing(0.5 * market + noise - 0.0004, market, TrialCount())
    assert loss["word"] == "none"


def test_an_instrument_that_never_moves_explains_nothing():
    daily = days()[0]
    beta, static, timing = exposure.parts(daily, np.zeros(800))
    assert beta == 0.0
    assert not static.any()
    assert np.array_equal(timing, daily)


def test_days_of_account_and_instrument_must_be_the_same():
    with pytest.raises(DataError, match=says(10, 9)):
        exposure.parts(np.zeros(10), np.zeros(9))


def test_a_flat_agent_has_no_timing():
    found = verdict.decide(np.zeros(100), None, TrialCount(), 0.0, instrument=days(100)[0])
    assert found["timing"] is None
