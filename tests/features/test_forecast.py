"""Expected returns: cross-fitted without their own noise, true to scale, and zero where nothing is predicted."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.features.forecast import PENALTIES, fit_forecast, mean_ahead, reward_spread
from sac_kernel.market.known_answer import MARKETS
from tests.support import says


def planted(ic=0.1, rows=8_000, columns=10, seed=0):
    """Uncorrelated inputs of which the first predicts; units and offsets differ."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((rows, columns))
    y = 3e-4 * (ic * z[:, 0] + rng.standard_normal(rows))
    return z * np.linspace(0.1, 50, columns) + 7.0, y, 3e-4 * ic * z[:, 0]


def test_estimates_of_a_fold_are_those_of_a_ridge_that_never_saw_it_nor_its_edges():
    x, y, _ = planted(rows=1_000)
    purge, folds = 30, 4
    fitted = fit_forecast(x, y, folds=folds, purge=purge, heads=("ridge",))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    raw = np.zeros(len(y))
    for k in range(folds):
        held = np.arange(k * 250, (k + 1) * 250)
        away = (np.arange(1000) < held[0] - purge) | (np.arange(1000) > held[-1] + purge)
        ridge = Ridge(alpha=fitted.penalty * away.sum(), fit_intercept=False).fit(z[away], y[away])
        raw[held] = ridge.predict(z[held])
    slope = (raw @ y) / (raw @ raw)
    np.testing.assert_allclose(fitted.train, slope * raw, rtol=1e-6, atol=1e-12)
    assert fitted.slope == pytest.approx(slope, rel=1e-6)
    share = 1 - np.square(y - slope * raw).sum() / np.square(y).sum()
    assert fitted.share == pytest.approx(share, rel=1e-6)


def test_the_penalty_is_the_one_that_predicts_best_out_of_fold():
    # One strong input among 60 and few rows: a small penalty overfits, a huge one flattens.
    x, y, _ = planted(ic=0.3, rows=600, columns=60)
    fitted = fit_forecast(x, y, folds=3, purge=0, heads=("ridge",))
    assert PENALTIES[0] < fitted.penalty < PENALTIES[-1]


def test_a_rows_own_noise_never_comes_back_as_signal():
    # White noise fitted in sample agrees with itself by sqrt(columns / rows); cross-fitted it must not.
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4_000, 40)), rng.standard_normal(4_000)
    in_sample = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    fitted = fit_forecast(x, y, purge=0, heads=("ridge",))
    assert np.corrcoef(in_sample, y)[0, 1] > 0.07
    assert fitted.t_stat < 2.5
    assert fitted.head == "flat"


@pytest.mark.parametrize("row", [2_500, 1_950, 3_020])
def test_returns_of_a_fold_and_of_its_edges_leave_its_estimates_alone(row):
    # Rows 2,000 to 2,999 are the third of five folds; 50 rows on either side are purged.
    x, y, _ = planted(ic=0.2, rows=5_000)
    other = y.copy()
    other[row] += 2 * y.std()
    a, b = (fit_forecast(x, r, purge=50, heads=("ridge",)) for r in (y, other))
    assert a.penalty == b.penalty
    third, first = slice(2_000, 3_000), slice(0, 1_000)
    np.testing.assert_allclose(a.train[third] / a.slope, b.train[third] / b.slope, rtol=1e-9)
    assert not np.allclose(a.train[first] / a.slope, b.train[first] / b.slope, rtol=1e-5)


@pytest.mark.parametrize("ic", [0.05, 0.2])
def test_scale_is_kept_the_truth_rises_one_for_one_with_the_estimate(ic):
    x, y, truth = planted(ic, rows=20_000)
    fitted = fit_forecast(x, y, heads=("ridge",))
    assert fitted.head == "ridge"
    assert (truth @ fitted.train) / (fitted.train @ fitted.train) == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(truth, fitted.train)[0, 1] > 0.8
    assert fitted.share == pytest.approx(ic**2 / (1 + ic**2), rel=0.4)


def test_no_signal_means_flat():
    flat = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = np.cumsum(rng.standard_normal((1_500, 12)), axis=0)  # as persistent as features get
        fitted = fit_forecast(x, rng.standard_normal(1_500), heads=("ridge",))
        flat += fitted.head == "flat"
        if fitted.head == "flat":
            assert not fitted.train.any()
            assert not fitted.predict(x).any()
    assert flat >= 57  # 2.5 standard errors: fewer than one in a hundred is expected


def slow(rows, ic, seed, rho=0.98):
    """A predictor that fades by 2 % a row, and returns of white noise beside what it predicts."""
    rng = np.random.default_rng(seed)
    z = np.empty(rows)
    z[0] = rng.standard_normal()
    for t, shock in enumerate(np.sqrt(1 - rho**2) * rng.standard_normal(rows - 1)):
        z[t + 1] = rho * z[t] + shock
    return z, ic * z + rng.standard_normal(rows)


def test_over_a_decision_of_bars_the_estimate_is_of_the_mean_of_the_returns_ahead():
    z, y = slow(60_000, ic=0.1, seed=0)
    other = np.random.default_rng(1).standard_normal((60_000, 3))
    fitted = fit_forecast(np.column_stack((z, other)), mean_ahead(y, 12), heads=("ridge",), stride=12)
    assert fitted.head == "ridge"
    # E[mean of 12 returns | z] = .1 z (1 - .98^12) / (12 x .02) = .0897 z.
    truth = 0.1 * z * (1 - 0.98**12) / (12 * 0.02)
    assert np.corrcoef(truth, fitted.train)[0, 1] > 0.97
    assert np.polyfit(truth, fitted.train, 1)[0] == pytest.approx(1.0, abs=0.15)


def test_overlapping_returns_are_not_taken_for_as_many_looks():
    # Each row's mean of 24 returns shares 23 of them with the next, and features fade as slowly.
    flat = 0
    for seed in range(40):
        columns = [slow(6_000, 0.0, 1_000 + 4 * seed + i)[0] for i in range(4)]
        returns = np.random.default_rng(seed).standard_normal(6_000)
        fitted = fit_forecast(np.stack(columns, axis=1), mean_ahead(returns, 24), heads=("ridge",), stride=24)
        flat += fitted.head == "flat"
    assert flat >= 38  # about one in a hundred is expected to be taken for a signal


def test_too_few_independent_looks_show_nothing():
    # 1,000 rows are ten runs of four strides of 24.
    z, y = slow(1_000, ic=1.0, seed=3)
    fitted = fit_forecast(z[:, None], mean_ahead(y, 24), heads=("ridge",), stride=24)
    assert (fitted.t_stat, fitted.head) == (0.0, "flat")
    assert fit_forecast(z[:, None], mean_ahead(y, 2), heads=("ridge",), stride=2).head == "ridge"


@pytest.mark.parametrize("row", [2_500, 1_950, 3_068])
def test_over_a_decision_of_bars_the_purge_covers_what_the_targets_overlap(row):
    x, y, _ = planted(ic=0.2, rows=5_000)
    other = y.copy()
    other[row] += 2 * y.std()
    a, b = (fit_forecast(x, mean_ahead(r, 20), purge=50, heads=("ridge",), stride=20) for r in (y, other))
    assert a.penalty == b.penalty
    np.testing.assert_allclose(a._weights[2], b._weights[2], rtol=1e-9)
    assert not np.allclose(a._weights[0], b._weights[0], rtol=1e-5, atol=0)


def test_a_drift_is_no_signal():
    x, y, _ = planted(ic=0.0, seed=3)
    assert fit_forecast(x, y + 0.2 * y.std(), heads=("ridge",)).head == "flat"


RESPONSES = {
    "boosting": lambda x: np.sqrt(2) * np.sin(3 * x[:, 0]),
    "products": lambda x: x[:, 0] * x[:, 2],
    "sparse": lambda x: x[:, 1],
    "ridge": lambda x: x.sum(axis=1) / np.sqrt(x.shape[1]),
}


@pytest.mark.parametrize("head", RESPONSES)
def test_each_head_is_taken_where_the_response_is_its_own(head):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12_000, 12))
    truth = 0.2 * RESPONSES[head](x)
    fitted = fit_forecast(x, truth + rng.standard_normal(12_000))
    assert fitted.head == head
    assert np.corrcoef(fitted.train, truth)[0, 1] > 0.8
    assert np.corrcoef(fitted.predict(x), truth)[0, 1] > 0.9
    assert (truth @ fitted.train) / (fitted.train @ fitted.train) == pytest.approx(1.0, abs=0.15)
    np.testing.assert_allclose(fitted.share, 0.04 / 1.04, rtol=0.4)


def test_lines_alone_find_nothing_in_a_square():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12_000, 4))
    y = 0.2 * (x[:, 0] ** 2 - 1) / np.sqrt(2) + rng.standard_normal(12_000)
    assert fit_forecast(x, y, heads=("ridge", "sparse")).head == "flat"
    assert fit_forecast(x, y, heads=("ridge", "boosting")).head == "boosting"
    assert fit_forecast(x, y).head == "products"


def test_no_head_takes_noise_for_a_signal():
    flat = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = np.cumsum(rng.standard_normal((1_500, 12)), axis=0)
        flat += fit_forecast(x, rng.standard_normal(1_500)).head == "flat"
    assert flat >= 28  # the best of four heads by luck: about one in fifty


def test_over_a_decision_of_bars_a_non_linear_head_may_win_too():
    z, y = slow(60_000, ic=0.0, seed=4)
    y = y + 0.2 * (z**2 - 1) / np.sqrt(2)
    fitted = fit_forecast(z[:, None], mean_ahead(y, 4), stride=4)
    assert fitted.head == "products"
    # z^2 - 1 fades by .98^2 a row.
    truth = 0.2 * (z**2 - 1) / np.sqrt(2) * np.mean(0.98 ** (2 * np.arange(4)))
    assert np.polyfit(truth, fitted.train, 1)[0] == pytest.approx(1.0, abs=0.15)


def test_a_block_is_predicted_by_weights_and_products_of_the_others():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((5_000, 6))
    y = 0.3 * x[:, 0] * x[:, 1] + rng.standard_normal(5_000)
    other = y.copy()
    other[2_000:3_000] = rng.standard_normal(1_000)
    a, b = (fit_forecast(x, r, purge=50, heads=("ridge", "products")) for r in (y, other))
    assert a.head == b.head == "products"
    third, first = slice(2_000, 3_000), slice(0, 1_000)
    np.testing.assert_allclose(a.train[third] / a.slope, b.train[third] / b.slope, rtol=1e-9)
    assert not np.allclose(a.train[first] / a.slope, b.train[first] / b.slope, rtol=1e-3)


def test_heads_are_named_and_the_older_switch_still_works():
    x, y, _ = planted(ic=0.2, rows=1_000)
    with pytest.raises(ConfigError, match="heads"):
        fit_forecast(x, y, heads=("boosting",))
    with pytest.raises(ConfigError, match="heads"):
        fit_forecast(x, y, heads=("ridge", "forest"))
    with pytest.warns(FutureWarning, match="heads"):
        old = fit_forecast(x, y, boosting=False)
    np.testing.assert_array_equal(old.train, fit_forecast(x, y, heads=("ridge",)).train)


def test_fits_are_equal_bit_for_bit():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3_000, 3))
    y = 0.5 * np.abs(x[:, 0]) + rng.standard_normal(3_000)
    first, second = fit_forecast(x, y), fit_forecast(x, y)
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(first.predict(x), second.predict(x))
    assert first.summary() == second.summary()


def test_rows_that_are_not_known_are_zero_and_teach_nothing():
    x, y, _ = planted(ic=0.2)
    holes = x.copy()
    holes[::10, 3] = np.nan
    spoilt = y.copy()
    spoilt[::10] = 1e6  # a return beside unknown features must not be used
    spoilt[-1] = np.nan  # the last return lies outside the train rows
    fitted = fit_forecast(holes, spoilt, heads=("ridge",))
    assert not fitted.train[::10].any()
    assert np.isfinite(fitted.train).all()
    assert fitted.train[-1] != 0
    assert fitted.predict(holes[:20])[0] == 0.0
    assert fitted.share == pytest.approx(0.04, abs=0.02)


def test_a_constant_feature_does_no_harm():
    x, y, _ = planted(ic=0.2)
    x[:, 4] = 1.0
    assert np.isfinite(fit_forecast(x, y, heads=("ridge",)).train).all()


def test_on_the_market_that_counts_most_of_the_signal_is_found():
    market = MARKETS["M11"]
    path = market.simulate(50_000, 1, np.random.default_rng(0))
    fitted = fit_forecast(path.features[:-1, 0], path.returns[:, 0], heads=("ridge",))
    assert np.corrcoef(fitted.train, path.mean[:, 0])[0, 1] > 0.8  # plain least squares has about .9
    assert fitted.summary()["head"] == "ridge"


def test_rewards_are_measured_in_their_own_spread_or_in_costs_where_those_are_larger():
    returns = [3.0, -3.0, np.nan, 3.0, -3.0]
    assert reward_spread(returns, cost=2.0) == pytest.approx(3.0)
    assert reward_spread(returns, cost=10.0) == pytest.approx(5.0)
    assert reward_spread(np.zeros(4), cost=0.2) == pytest.approx(0.1)


def test_what_cannot_be_fitted_is_refused():
    x, y, _ = planted(rows=400)
    with pytest.raises(DataError, match=says("(400,)", "(399,)")):
        fit_forecast(x, y[:-1])
    with pytest.raises(DataError, match=says("50")):
        fit_forecast(x[:200], y[:200])
    with pytest.raises(DataError, match=says("rows, columns")):
        fit_forecast(x[:, 0], y)
    with pytest.raises(ConfigError, match="folds"):
        fit_forecast(x, y, folds=1)
    with pytest.raises(ConfigError, match="purge"):
        fit_forecast(x, y, purge=-1)
