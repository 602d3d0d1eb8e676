"""Numbers from equity curves, against hand calculations and another library."""

import math

import numpy as np
import pytest

from sac_kernel import metrics
from sac_kernel.errors import DataError


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
    with pytest.raises(DataError, match=r"metrics\.max_drawdown: finite positive equity is required, found"):
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


def test_bootstrap_indices_continue_on_a_circle_or_start_anew():
    indices = metrics.stationary_bootstrap_indices(50, 400, 5.0, np.random.default_rng(0))
    assert indices.shape == (400, 50)
    assert indices.min() == 0
    assert indices.max() == 49
    follows = (indices[:, 1:] - indices[:, :-1]) % 50 == 1
    # Continues with 1 - 1/5, or a fresh start lands there by chance, 1/5 x 1/50: .804. 19,600 draws,
    # standard error sqrt(.804 x .196 / 19600) = .0028; four of them.
    assert follows.mean() == pytest.approx(0.804, abs=0.0114)
    # Every place is equally likely: 400 visits each on average, correlated in blocks of five.
    assert np.bincount(indices.ravel(), minlength=50) == pytest.approx(np.full(50, 400), abs=200)


def test_bootstrap_with_blocks_of_one_is_the_ordinary_bootstrap():
    indices = metrics.stationary_bootstrap_indices(1000, 20, 1.0, np.random.default_rng(1))
    follows = (indices[:, 1:] - indices[:, :-1]) % 1000 == 1
    assert follows.mean() < 0.005


def test_bootstrap_means_have_the_distribution_of_another_library():
    bootstrap = pytest.importorskip("arch.bootstrap")
    rng = np.random.default_rng(2)
    days = np.convolve(rng.normal(0, 1, 305), np.ones(6), "valid")  # correlated: the block length matters
    theirs = bootstrap.StationaryBootstrap(6, days, seed=np.random.default_rng(3))
    expected = theirs.apply(np.mean, 4000).ravel()
    indices = metrics.stationary_bootstrap_indices(300, 4000, 6.0, np.random.default_rng(4))
    found = days[indices].mean(axis=1)
    # The standard error of a mean of 4,000 is sd / 63; that of an sd is sd / 89. Four of each.
    assert found.mean() == pytest.approx(expected.mean(), abs=4 * 1.5 * expected.std() / 63)
    assert found.std() == pytest.approx(expected.std(), rel=4 * 1.5 / 89)
    independent = days[np.random.default_rng(5).integers(0, 300, (4000, 300))].mean(axis=1)
    assert expected.std() > 1.5 * independent.std()  # the comparison can tell block lengths apart


def test_interval_of_the_mean_is_annualised_and_holds_it():
    returns = np.random.default_rng(6).normal(0.001, 0.01, 500)
    low, high = metrics.bootstrap_interval(returns, "mean", seed=1)
    centre = 260 * returns.mean()
    assert low < centre < high
    # Independent days: half width about 1.96 x 260 x sd / sqrt(500), a little less for 500 of 500 draws.
    half = 1.96 * 260 * returns.std() / math.sqrt(500)
    assert (high - low) / 2 == pytest.approx(half, rel=0.2)


def test_interval_of_the_sharpe_ratio_holds_it():
    returns = np.random.default_rng(7).normal(0.001, 0.01, 500)
    low, high = metrics.bootstrap_interval(returns, "sharpe")
    assert low < metrics.sharpe_ann(returns) < high
    # The standard error of an annual Sharpe ratio from 500 days is about sqrt(260 / 500) = .72.
    assert (high - low) / 2 == pytest.approx(1.96 * 0.72, rel=0.25)


def test_interval_is_fixed_by_its_seed_and_wider_at_a_higher_level():
    returns = np.random.default_rng(8).normal(0, 0.01, 100)
    assert metrics.bootstrap_interval(returns, seed=3) == metrics.bootstrap_interval(returns, seed=3)
    assert metrics.bootstrap_interval(returns, seed=3) != metrics.bootstrap_interval(returns, seed=4)
    low, high = metrics.bootstrap_interval(returns, level=0.99)
    inner_low, inner_high = metrics.bootstrap_interval(returns, level=0.8)
    assert low < inner_low < inner_high < high


def test_interval_is_nan_below_twenty_days():
    assert all(map(math.isnan, metrics.bootstrap_interval(np.zeros(19))))


def test_interval_covers_the_true_mean_of_correlated_days():
    # AR(1) days with coefficient .3 and mean zero. 95 % is the aim; mean blocks of n^(1/3) = 6 days keep
    # most of the correlation, independent days would keep none and cover about 85 %.
    covered = 0
    for seed in range(300):
        noise = np.random.default_rng(seed).normal(0, 0.01, 300)
        days = np.empty(300)
        days[0] = noise[0]
        for t in range(1, 300):
            days[t] = 0.3 * days[t - 1] + noise[t]
        low, high = metrics.bootstrap_interval(days[50:], draws=300, seed=seed)
        covered += low <= 0.0 <= high
    assert 0.88 <= covered / 300 <= 0.985
