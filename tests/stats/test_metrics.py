"""Numbers from equity curves, against hand calculations and another library."""

import math

import numpy as np
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.stats import metrics
from tests.support import says


def test_max_drawdown_is_the_largest_fall_from_the_running_peak():
    # Peaks 100, 120, 120, 120, 150: falls 0, 0, 30/120 = .25, 0, and 150 -> 120 = .2. The largest is .25.
    curve = np.array([100.0, 120.0, 90.0, 118.0, 150.0, 120.0])
    assert metrics.max_drawdown(curve) == pytest.approx(0.25, abs=1e-15)


def test_max_drawdown_counts_the_loss_against_the_start():
    assert metrics.max_drawdown(np.array([100.0, 60.0, 80.0])) == pytest.approx(0.4, abs=1e-15)


def test_max_drawdown_of_a_rising_curve_is_zero():
    assert metrics.max_drawdown(np.array([1.0, 2.0, 3.0])) == 0.0


@pytest.mark.parametrize("curve", [[], [1.0, math.nan], [1.0, math.inf], [1.0, 0.0], [1.0, -1.0]])
def test_max_drawdown_refuses_what_is_no_equity_curve(curve):
    with pytest.raises(DataError, match=says("equity")):
        metrics.max_drawdown(np.array(curve))


def test_daily_returns_take_the_last_equity_of_each_day():
    # Days 7, 8, 10 end at 102, 99.96, 104.958: 102/100, 99.96/102, 104.958/99.96 less one.
    equity = np.array([101.0, 102.0, 90.0, 99.96, 104.958])
    day = np.array([7, 7, 8, 8, 10])
    found = metrics.daily_returns(equity, day, 100.0)
    assert found == pytest.approx([0.02, -0.02, 0.05], abs=1e-12)


def test_daily_returns_compound_to_the_total_return():
    rng = np.random.default_rng(0)
    equity = 50.0 * np.exp(np.cumsum(rng.normal(0, 0.01, 200)))
    found = metrics.daily_returns(equity, np.arange(200) // 24, 50.0)
    assert np.prod(1.0 + found) == pytest.approx(equity[-1] / 50.0, rel=1e-12)


def test_sharpe_is_root_260_mean_over_sample_deviation():
    # Ten days of +2 % and ten of -1 %: mean .005, squares of the deviations 20 x .015^2 = .0045,
    # sd = sqrt(.0045 / 19) = .0153897; .005 / .0153897 x sqrt(260) = sqrt(247 / 9) = 5.238744548.
    returns = np.array([0.02, -0.01] * 10)
    assert metrics.sharpe_ann(returns) == pytest.approx(5.238744548, abs=1e-8)


def test_sharpe_needs_twenty_days():
    returns = np.array([0.02, -0.01] * 10)
    assert math.isnan(metrics.sharpe_ann(returns[:19]))
    assert math.isfinite(metrics.sharpe_ann(returns))


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (0.01, math.nan), (-0.01, math.nan)])
def test_sharpe_of_constant_returns_is_zero_only_at_zero(value, expected):
    assert metrics.sharpe_ann(np.full(30, value)) == pytest.approx(expected, nan_ok=True)


def test_annual_return_compounds_over_the_days_of_a_year():
    daily = np.array([0.01, -0.02, 0.005])
    growth = 1.01 * 0.98 * 1.005
    assert metrics.annual_return(daily) == pytest.approx(growth ** (260 / 3) - 1)
    assert metrics.annual_return(daily, 365) == pytest.approx(growth ** (365 / 3) - 1)
    # Arithmetic, a loss of .7 % a day would be -182 % a year.
    assert metrics.annual_return(np.full(30, -0.007)) == pytest.approx(0.993**260 - 1)
    assert math.isnan(metrics.annual_return(np.zeros(0)))
