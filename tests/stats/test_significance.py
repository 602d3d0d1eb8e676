"""Statistics of daily returns, against published numbers, other libraries and slow twins."""

import importlib.util
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.stats import fold_statistics, metrics, significance
from sac_kernel.stats.significance import Moments, lo_factor
from tests.support import says

needs_arch = pytest.mark.skipif(importlib.util.find_spec("arch") is None, reason="arch is not installed")


def ar1(rho, n, seed=0, sd=0.01):
    """AR(1) returns after a burn-in of 100."""
    noise = np.random.default_rng(seed).normal(0, sd, n + 100)
    x = np.empty(n + 100)
    x[0] = noise[0]
    for t in range(1, n + 100):
        x[t] = rho * x[t - 1] + noise[t]
    return x[100:]


# -- Sharpe ratios and their distribution ---------------------------------------------------------


def test_moments_are_those_of_another_library():
    stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(0).standard_t(5, 400) * 0.01 + 0.001
    found = significance.moments(x)
    assert found.sharpe == pytest.approx(x.mean() / x.std(ddof=1), rel=1e-12)
    assert found.skew == pytest.approx(stats.skew(x), rel=1e-10)
    assert found.kurtosis == pytest.approx(stats.kurtosis(x, fisher=False), rel=1e-10)
    assert found.n == 400
    assert found.rho == max(0.0, significance.autocorrelations(x, 1)[0])


def test_constant_returns_have_no_sharpe_ratio_and_no_probability():
    for daily in (np.zeros(60), np.full(60, 0.001)):
        m = significance.moments(daily)
        assert math.isnan(m.sharpe)
        assert math.isnan(significance.psr(m))
        assert math.isnan(significance.dsr(m, 20.0, 1.0 / 60))
        assert significance.min_track_record(m) == math.inf


def test_serial_correlation_is_that_of_another_library_and_never_below_zero():
    tools = pytest.importorskip("statsmodels.tsa.stattools")
    x = ar1(0.3, 500)
    assert significance.moments(x).rho == pytest.approx(tools.acf(x, nlags=1)[1], rel=1e-9)
    assert significance.moments(ar1(-0.3, 500)).rho == 0.0


# The numeric example of Lopez de Prado, Lipton & Zoonekynd 2025 (SSRN 5520741): mean .036, deviation .079, 24 months.
EXAMPLE = Moments(0.036 / 0.079, -2.448, 10.164, 25)  # their 24 is our n - 1
SERIAL = EXAMPLE._replace(rho=0.2)


@pytest.mark.parametrize(
    ("m", "true", "published"),
    [
        (EXAMPLE, None, 0.329),
        (EXAMPLE._replace(skew=0.0, kurtosis=3.0), None, 0.214),
        (SERIAL, None, 0.379),
        (EXAMPLE, 0.0, 0.204),
        (EXAMPLE, 0.5, 0.341),
        (SERIAL, 0.0, 0.250),
        (SERIAL, 0.5, 0.393),
    ],
)
def test_standard_errors_of_the_published_example_with_serial_correlation(m, true, published):
    assert significance.sharpe_sd(m, true) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("m", "benchmark", "published"),
    [(EXAMPLE, 0.0, 0.987), (EXAMPLE, 0.1, 0.939), (SERIAL, 0.0, 0.966), (SERIAL, 0.1, 0.900)],
)
def test_null_form_of_the_published_example(m, benchmark, published):
    stats = pytest.importorskip("scipy.stats")
    z = (m.sharpe - benchmark) / significance.sharpe_sd(m, benchmark)
    assert stats.norm.cdf(z) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("m", "level", "published"), [(EXAMPLE, 0.95, 13.029), (EXAMPLE, 0.9, 7.909), (SERIAL, 0.9, 11.863)]
)
def test_minimum_track_record_of_the_published_example_in_its_null_form(m, level, published):
    stats = pytest.importorskip("scipy.stats")
    found = 24 * (significance.sharpe_sd(m, 0.0) * stats.norm.ppf(level) / m.sharpe) ** 2
    assert found == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("m", "level", "published"), [(EXAMPLE, 0.95, 0.685), (EXAMPLE, 0.9, 0.758), (SERIAL, 0.9, 0.676)]
)
def test_power_of_the_published_example(m, level, published):
    assert significance.sharpe_power(m, 0.5, level=level) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("power", "prior", "level", "published"),
    [(0.685, 0.05, 0.95, 0.581), (0.758, 0.10, 0.9, 0.543), (0.676, 0.10, 0.9, 0.571)],
)
def test_planned_false_discovery_rate_of_the_published_example(power, prior, level, published):
    assert significance.planned_fdr(power, prior, level) == pytest.approx(published, abs=5e-4)


def test_standard_error_with_serial_correlation_is_the_deviation_of_simulated_sharpe_ratios():
    # 3,000 series of 400 AR(1) days, coefficient .3: the deviation of their Sharpe ratios has an error of 1.3 %.
    rng = np.random.default_rng(12)
    x = rng.normal(0, 1, (3000, 500))
    for t in range(1, 500):
        x[:, t] += 0.3 * x[:, t - 1]
    x = x[:, 100:] + 0.1
    found = (x.mean(axis=1) / x.std(axis=1, ddof=1)).std()
    true = 0.1 * math.sqrt(1 - 0.3**2)
    assert significance.sharpe_sd(Moments(true, 0.0, 3.0, 401, 0.3)) == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize(("skew", "kurtosis", "published"), [(0.0, 3.0, 0.982), (-2.448, 10.164, 0.913)])
def test_psr_of_the_published_example(skew, kurtosis, published):
    # Bailey & Lopez de Prado 2012, section 4.3: two years of months, Sharpe .458 a month.
    assert significance.psr(Moments(0.458, skew, kurtosis, 24)) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("per_year", "skew", "kurtosis", "years"),
    [(250, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_minimum_track_record_of_the_published_examples(per_year, skew, kurtosis, years):
    # Bailey & Lopez de Prado 2012, section 5: an annual Sharpe ratio of 2, to be shown above 1 at 95 %.
    root = math.sqrt(per_year)
    found = significance.min_track_record(Moments(2 / root, skew, kurtosis, 0), 1 / root)
    assert found / per_year == pytest.approx(years, abs=0.005)


def test_minimum_track_record_is_where_psr_reaches_the_level():
    m = Moments(0.1, -0.5, 6.0, 10)
    n = significance.min_track_record(m, 0.02)
    assert significance.psr(m._replace(n=math.floor(n)), 0.02) < 0.95
    assert significance.psr(m._replace(n=math.ceil(n)), 0.02) >= 0.95
    assert significance.min_track_record(m, 0.1) == math.inf


@pytest.mark.parametrize(
    ("trials", "skew", "kurtosis", "published"),
    [(100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)],
)
def test_dsr_of_the_published_example(trials, skew, kurtosis, published):
    # Bailey & Lopez de Prado 2014, "A numerical example": annual Sharpe 2.5 over 5 years of 250 days, the
    # variance of the trials' annual Sharpe ratios is 1/2.
    m = Moments(2.5 / math.sqrt(250), skew, kurtosis, 1250)
    assert significance.dsr(m, trials, 0.5 / 250) == pytest.approx(published, abs=5e-5)


def test_expected_maximum_scales_with_the_deviation_of_the_trials():
    # The example's SR0 is .1132 a day; without the factor sd it would be 2.53.
    assert significance.expected_max_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert significance.expected_max_sharpe(100, 2.0 / 250) == pytest.approx(2 * 0.11317, abs=5e-5)
    assert significance.expected_max_sharpe(1.0, 1.0) == 0.0


def test_expected_maximum_is_that_of_simulated_normals():
    draws = np.random.default_rng(1).normal(0, 0.3, (4000, 50)).max(axis=1)
    found = significance.expected_max_sharpe(50, 0.09)
    assert found == pytest.approx(draws.mean(), rel=0.03)  # the formula is an approximation, ~1 % off at 50


def test_psr_is_uniform_under_the_null():
    # 2,000 sets of 250 days without skill: 5 % above .95, give or take four standard errors of .5 %.
    days = np.random.default_rng(2).normal(0, 0.01, (2000, 250))
    above = np.mean([significance.psr(significance.moments(x)) > 0.95 for x in days])
    assert above == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    ("sharpe", "n", "published"), [(0.50, 12, 0.306), (0.50, 60, 0.137), (3.00, 36, 0.391)]
)
def test_standard_error_of_normal_returns_is_los(sharpe, n, published):
    # Lo 2002, table 1; his n is our n - 1.
    assert significance.sharpe_sd(Moments(sharpe, 0.0, 3.0, n + 1)) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.2, 0.7])
def test_lo_factor_is_that_of_the_covariance_matrix_of_q_returns(rho):
    # The variance of a sum of q returns is the sum over their covariance matrix, written out here.
    q = 12
    matrix = rho ** np.abs(np.subtract.outer(np.arange(q), np.arange(q))) if rho else np.eye(q)
    expected = q / math.sqrt(matrix.sum())
    assert lo_factor(rho ** np.arange(1, q + 5), q) == pytest.approx(expected, rel=1e-12)


def test_lo_factor_without_correlation_is_the_square_root():
    assert lo_factor([], 12) == pytest.approx(3.4641, abs=1e-4)
    with pytest.raises(DataError, match=says("autocorrelation")):
        lo_factor([-1.0, -1.0], 12)


def test_lo_factor_annualises_what_aggregation_finds():
    # 400,000 AR(1) returns with coefficient .2: the Sharpe ratio of sums of 12 is the factor times that of one.
    x = ar1(0.2, 400_000, seed=3) + 0.002
    rho = significance.autocorrelations(x, 11)
    assert rho[:2] == pytest.approx([0.2, 0.04], abs=0.01)
    sums = x[: 400_000 // 12 * 12].reshape(-1, 12).sum(axis=1)
    found = lo_factor(rho, 12) * x.mean() / x.std()
    assert found == pytest.approx(sums.mean() / sums.std(), rel=0.02)


# -- many trials -----------------------------------------------------------------------------------


def rank(columns):
    return significance.rank_of_correlation(np.corrcoef(columns, rowvar=False))


def test_effective_rank_counts_independent_columns():
    rng = np.random.default_rng(4)
    base = rng.normal(0, 1, (4000, 5))
    assert rank(base) == pytest.approx(5.0, abs=0.01)
    assert rank(np.repeat(base[:, :1], 6, axis=1)) == pytest.approx(1.0, abs=1e-6)
    assert rank(np.repeat(base, 3, axis=1)) == pytest.approx(5.0, abs=0.01)
    # Two columns with correlation r: eigenvalues 1 + r and 1 - r, shares .75 and .25 at r = .5.
    shares = np.array([0.75, 0.25])
    expected = math.exp(-np.sum(shares * np.log(shares)))
    assert significance.rank_of_correlation(np.array([[1.0, 0.5], [0.5, 1.0]])) == pytest.approx(expected)


def test_holm_by_hand():
    # Sorted .01 .02 .04: x3 = .03, x2 = .04, x1 = .04 (never below the one before).
    assert significance.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert significance.holm([0.5, 0.6]) == [1.0, 1.0]
    assert significance.holm([0.03]) == [0.03]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_keeps_the_order_and_lies_between_the_raw_value_and_bonferroni(p):
    adjusted = significance.holm(p)
    assert all(a <= b <= min(1.0, len(p) * a) + 1e-12 for a, b in zip(p, adjusted, strict=True))
    ordered = [adjusted[i] for i in np.argsort(p)]
    assert ordered == sorted(ordered)


def slow_pbo(returns, blocks):
    """The definition, written as loops: rank of the in-sample best among all out of sample."""
    size = len(returns) // blocks
    parts = [returns[i * size : (i + 1) * size] for i in range(blocks)]
    low = []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[i] for i in chosen])
        outside = np.concatenate([parts[i] for i in range(blocks) if i not in chosen])
        best = int(np.argmax(inside.mean(axis=0) / inside.std(axis=0)))
        sharpe = outside.mean(axis=0) / outside.std(axis=0)
        rank = 1 + sum(sharpe[best] > other for other in sharpe)
        omega = rank / (returns.shape[1] + 1)
        low.append(math.log(omega / (1 - omega)) <= 0)
    return float(np.mean(low))


def test_pbo_is_that_of_the_definition():
    returns = np.random.default_rng(6).normal(0, 0.01, (123, 7))
    returns[:, 3] += 0.001
    assert significance.pbo(returns, 6) == slow_pbo(returns, 6)
    assert 0.0 < significance.pbo(returns, 6) < 1.0


def test_pbo_is_near_a_half_on_noise_and_zero_for_one_that_is_better():
    rng = np.random.default_rng(7)
    noise = [significance.pbo(rng.normal(0, 1, (320, 12)), 8) for _ in range(60)]
    assert 0.4 < np.mean(noise) < 0.75
    good = rng.normal(0, 1, (640, 12))
    good[:, 4] += 0.5
    assert significance.pbo(good) == 0.0


@pytest.mark.parametrize(("shape", "blocks"), [((100, 5), 7), ((100, 1), 4), ((20, 5), 16), ((900, 3), 22)])
def test_pbo_refuses_what_it_cannot_split(shape, blocks):
    with pytest.raises(DataError, match=says("blocks")):
        significance.pbo(np.zeros(shape), blocks)


def test_iqm_is_the_trimmed_mean_of_another_library():
    stats = pytest.importorskip("scipy.stats")
    for n in (3, 8, 15, 20):
        scores = np.random.default_rng(n).normal(0, 1, n)
        assert fold_statistics.iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-12)


def test_iqm_interval_resamples_seeds_within_folds():
    # Seeds agree within a fold and folds differ: only resampling across folds would move the IQM.
    scores = np.tile([1.0, 2.0, 3.0, 10.0], (5, 1))
    assert fold_statistics.iqm_interval(scores) == (2.5, 2.5)
    rng = np.random.default_rng(8)
    low, high = fold_statistics.iqm_interval(rng.normal(0, 1, (5, 40)))
    # 100 middle runs of 200: the deviation of an IQM of normals is about 1.09 / sqrt(200) = .077.
    assert high - low == pytest.approx(2 * 1.96 * 0.077, rel=0.3)


def test_probability_of_improvement_counts_pairs():
    ours, theirs = np.array([[1.0, 5.0], [2.0, 5.0]]), np.array([[1.5, 5.0]])
    # Fold 1: 1 < 1.5, 2 > 1.5 -> .5; fold 2: ties -> .5.
    assert fold_statistics.probability_of_improvement(ours, theirs) == 0.5
    assert fold_statistics.probability_of_improvement(ours + 10, theirs) == 1.0


# -- resampling --------------------------------------------------------------------------------------


@needs_arch
@pytest.mark.parametrize("n", [60, 250, 1300])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7, -0.4])
def test_optimal_block_is_that_of_another_library(n, rho):
    from arch.bootstrap import optimal_block_length

    x = ar1(rho, n, seed=9)
    expected = float(optimal_block_length(x)["stationary"].iloc[0])
    assert significance.optimal_block(x) == pytest.approx(max(1.0, expected), rel=1e-9)


def test_optimal_block_of_constant_returns_is_one():
    assert significance.optimal_block(np.zeros(100)) == 1.0


@needs_arch
def test_spa_sees_an_edge_and_not_its_absence():
    rng = np.random.default_rng(10)
    models, flat = rng.normal(0, 0.01, (400, 6)), np.zeros(400)
    assert significance.spa_p_value(models, flat, draws=300) > 0.05
    assert significance.step_m(models, flat, draws=300) == []
    models[:, 2] += 0.003  # t = 6
    assert significance.spa_p_value(models, flat, draws=300) < 0.01
    assert significance.step_m(models, flat, draws=300) == [2]
    # Losses where gains belong would find the edge in the mirror image.
    assert significance.spa_p_value(-models, flat, draws=300) > 0.05


@needs_arch
def test_step_m_finds_all_models_if_they_beat_the_benchmark_one_after_another():
    # The first has t = 16, the second t = 2.8, which is seen only when the first is set aside; then none is left.
    models = np.random.default_rng(18).normal(0, 0.01, (250, 2)) + np.array([0.01, 0.0018])
    assert significance.step_m(models, np.zeros(250), draws=300) == [0, 1]


def test_without_arch_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(significance.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=says("arch==8.0.0")):
        significance.spa_p_value(np.zeros((50, 2)), np.zeros(50))


def test_bootstrap_indices_continue_on_a_circle_or_start_anew():
    indices = significance.stationary_bootstrap_indices(50, 400, 5.0, np.random.default_rng(0))
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
    indices = significance.stationary_bootstrap_indices(1000, 20, 1.0, np.random.default_rng(1))
    follows = (indices[:, 1:] - indices[:, :-1]) % 1000 == 1
    assert follows.mean() < 0.005


def test_bootstrap_means_have_the_distribution_of_another_library():
    bootstrap = pytest.importorskip("arch.bootstrap")
    rng = np.random.default_rng(2)
    days = np.convolve(rng.normal(0, 1, 305), np.ones(6), "valid")  # correlated: the block length matters
    theirs = bootstrap.StationaryBootstrap(6, days, seed=np.random.default_rng(3))
    expected = theirs.apply(np.mean, 4000).ravel()
    indices = significance.stationary_bootstrap_indices(300, 4000, 6.0, np.random.default_rng(4))
    found = days[indices].mean(axis=1)
    # The standard error of a mean of 4,000 is sd / 63; that of an sd is sd / 89. Four of each.
    assert found.mean() == pytest.approx(expected.mean(), abs=4 * 1.5 * expected.std() / 63)
    assert found.std() == pytest.approx(expected.std(), rel=4 * 1.5 / 89)
    independent = days[np.random.default_rng(5).integers(0, 300, (4000, 300))].mean(axis=1)
    assert expected.std() > 1.5 * independent.std()  # the comparison can tell block lengths apart


def test_interval_of_the_mean_is_annualised_and_holds_it():
    returns = np.random.default_rng(6).normal(0.001, 0.01, 500)
    low, high = significance.bootstrap_interval(returns, "mean", seed=1)
    centre = 260 * returns.mean()
    assert low < centre < high
    # Independent days: half width about 1.96 x 260 x sd / sqrt(500), a little less for 500 of 500 draws.
    half = 1.96 * 260 * returns.std() / math.sqrt(500)
    assert (high - low) / 2 == pytest.approx(half, rel=0.2)


def test_interval_of_the_sharpe_ratio_holds_it():
    returns = np.random.default_rng(7).normal(0.001, 0.01, 500)
    low, high = significance.bootstrap_interval(returns, "sharpe")
    assert low < metrics.sharpe_ann(returns) < high
    # The standard error of an annual Sharpe ratio from 500 days is about sqrt(260 / 500) = .72.
    assert (high - low) / 2 == pytest.approx(1.96 * 0.72, rel=0.25)


def test_interval_is_fixed_by_its_seed_and_wider_at_a_higher_level():
    returns = np.random.default_rng(8).normal(0, 0.01, 100)
    assert significance.bootstrap_interval(returns, seed=3) == significance.bootstrap_interval(
        returns, seed=3
    )
    assert significance.bootstrap_interval(returns, seed=3) != significance.bootstrap_interval(
        returns, seed=4
    )
    low, high = significance.bootstrap_interval(returns, level=0.99)
    inner_low, inner_high = significance.bootstrap_interval(returns, level=0.8)
    assert low < inner_low < inner_high < high


def test_interval_is_nan_below_twenty_days():
    assert all(map(math.isnan, significance.bootstrap_interval(np.zeros(19))))


def test_interval_covers_the_true_mean_of_correlated_days():
    # AR(1) days with coefficient .3 and mean zero. 95 % is the aim; blocks of the optimal length
    # keep most of the correlation, independent days would keep none and cover about 85 %.
    covered = 0
    for seed in range(300):
        noise = np.random.default_rng(seed).normal(0, 0.01, 300)
        days = np.empty(300)
        days[0] = noise[0]
        for t in range(1, 300):
            days[t] = 0.3 * days[t - 1] + noise[t]
        low, high = significance.bootstrap_interval(days[50:], draws=300, seed=seed)
        covered += low <= 0.0 <= high
    assert 0.88 <= covered / 300 <= 0.985


def test_interval_is_that_of_the_resampled_days_themselves():
    # The visits counted once and shared must give what indexing every resample gives.
    days = np.random.default_rng(11).normal(0.001, 0.01, 90)
    block = round(1.5 * significance.optimal_block(days))
    assert 2 <= block <= 22
    indices = significance.stationary_bootstrap_indices(90, 500, block, np.random.default_rng(5))
    sample = days[indices]
    for statistic, value, middle in (
        ("mean", 260 * sample.mean(axis=1), 260 * days.mean()),
        (
            "sharpe",
            math.sqrt(260) * sample.mean(axis=1) / sample.std(axis=1, ddof=1),
            math.sqrt(260) * days.mean() / days.std(ddof=1),
        ),
    ):
        ends = np.quantile(value, [0.025, 0.975])
        expected = middle + (ends - middle) / math.sqrt(1 - 2 * block / 90)
        found = significance.bootstrap_interval(days, statistic, draws=500, seed=5)
        assert found == pytest.approx(expected, rel=1e-9)


def test_interval_of_growth_is_that_of_the_mean_log_return_compounded():
    days = np.random.default_rng(13).normal(0.001, 0.01, 300)
    low, high = significance.bootstrap_interval(np.log1p(days), "mean")
    assert significance.bootstrap_interval(days) == pytest.approx((math.exp(low) - 1, math.exp(high) - 1))
    assert significance.bootstrap_interval(days - 0.02)[0] > -1.0  # no loss above all that there is


def test_distribution_over_backtest_paths_is_that_of_their_sharpe_ratios():
    paths = np.random.default_rng(14).normal(0.0003, 0.005, (5, 300))
    found = fold_statistics.path_sharpes(paths)
    sharpes = math.sqrt(260) * paths.mean(axis=1) / paths.std(axis=1, ddof=1)
    assert found["sharpe_ann"] == pytest.approx(sorted(sharpes))
    assert (found["mean"], found["sd"]) == pytest.approx((sharpes.mean(), sharpes.std(ddof=1)))
    # Of five the quartiles are the second, third and fourth.
    assert [found[k] for k in ("low", "middle", "high")] == pytest.approx(sorted(sharpes)[1:4])
    assert found["negative"] == np.mean(sharpes < 0)
    assert math.isnan(fold_statistics.path_sharpes(paths[:1])["sd"])
