"""The mixture prior and the tested products: against textbook shrinkage, and on responses of known form."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from sac_kernel.features import mixture_prior, products


def test_an_orthogonal_input_gets_the_posterior_mean_of_its_own_least_squares_weight():
    # Orthogonal inputs: given shares and noise each weight is a scalar problem, and the shares are those of the
    # expectation-maximisation algorithm (Dempster, Laird & Rubin 1977), here run on its own.
    rng = np.random.default_rng(0)
    n, columns = 64, 24
    x = np.linalg.qr(rng.standard_normal((n, columns)))[0] * np.sqrt(n)
    true = np.where(np.arange(columns) < 4, 1.0, 0.0)
    y = x @ true + rng.standard_normal(n)
    ols, prior = x.T @ y / n, mixture_prior._VARIANCES / n
    share, noise = np.full(len(prior), 1 / len(prior)), y @ y / n
    for _ in range(1_000):
        spread = noise * (prior + 1 / n)
        chance = share * np.exp(-0.5 * ols[:, None] ** 2 / spread) / np.sqrt(spread)
        chance /= chance.sum(axis=1, keepdims=True)
        mean = ols[:, None] * prior / (prior + 1 / n)
        w = (chance * mean).sum(axis=1)
        second = (chance * (mean**2 + noise * prior / n / (prior + 1 / n))).sum(axis=1)
        share = chance.mean(axis=0)
        noise = np.square(y - x @ w).mean() + (second - w**2).sum()
    np.testing.assert_allclose(mixture_prior.weights(x, y), w, atol=8e-3)  # both stop short of the limit
    assert np.median(np.abs(w[4:] / ols[4:])) < 0.2  # noise is shrunk
    assert (w[:4] / ols[:4]).min() > 0.8


def error(weights, true):
    return float(np.square(weights - true).sum())


def test_it_is_ridge_where_all_inputs_count_and_far_better_where_one_does():
    rng = np.random.default_rng(1)
    dense, single = [], []
    for _ in range(20):
        x = rng.standard_normal((3_000, 30))
        noise = rng.standard_normal(3_000)
        for true, ratios in ((np.full(30, 0.03), dense), (np.eye(30)[4] * 0.16, single)):
            y = x @ true + noise
            # the best ridge there is for this true size: alpha = noise variance / weight variance
            best = Ridge(alpha=1 / np.square(true).mean(), fit_intercept=False).fit(x, y).coef_
            ratios.append(error(mixture_prior.weights(x, y), true) / error(best, true))
    assert np.median(dense) < 1.1
    assert np.median(single) < 0.3


def test_noise_gets_no_weights_and_a_constant_none():
    rng = np.random.default_rng(2)
    x = np.column_stack((rng.standard_normal((5_000, 10)), np.zeros(5_000)))
    w = mixture_prior.weights(x, rng.standard_normal(5_000))
    assert np.abs(w).max() < 0.01  # least squares: sd .014, the largest about .025
    assert w[-1] == 0.0


def test_overlapping_targets_count_as_fewer_rows():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 5))
    y = 0.1 * x[:, 0] + rng.standard_normal(400)
    repeated = mixture_prior.weights(np.repeat(x, 4, axis=0), np.repeat(y, 4), stride=4)
    np.testing.assert_allclose(repeated, mixture_prior.weights(x, y), rtol=1e-6)


def test_the_planted_product_is_found_and_noise_passes_hardly_ever():
    rng = np.random.default_rng(4)
    passed = 0
    for _ in range(40):
        z = rng.standard_normal((2_000, 29))
        noise = rng.standard_normal(2_000)
        _, table = products.fit(z, noise, np.zeros(29))
        passed += int((table[:, 3] != 0).any())
    assert passed <= 5  # 435 pairs beyond 4 standard errors: 2.7 % of fits
    weights, table = products.fit(z, 0.3 * z[:, 3] * z[:, 7] + noise, np.zeros(29))
    assert table[0, :2].tolist() == [3, 7]
    assert table[0, 3] == pytest.approx(0.3, abs=0.07)
    predicted = products.added(weights, table, z)
    own = z @ weights + sum(w * (z[:, int(i)] * z[:, int(j)] - mean) for i, j, mean, w in table)
    np.testing.assert_allclose(predicted, own, atol=1e-12)
    assert np.corrcoef(predicted, z[:, 3] * z[:, 7])[0, 1] > 0.9
