"""Boosted stumps: against a plain loop over rows, and on responses that no line sees."""

import numpy as np
import pytest

from sac_kernel.features.stumps import BINS, LEARNING_RATE, added, bin_edges, grow, to_bins


def slow_rounds(bins, y, rounds):
    """The same boosting by residuals of every row: the best split by squared error, tried one by one."""
    left, total = y.copy(), np.zeros_like(y)
    for _ in range(rounds):
        best = None
        for j in range(bins.shape[1]):
            for k in range(BINS - 1):
                low = bins[:, j] <= k
                if low.all() or not low.any():
                    continue
                fitted = np.where(low, left[low].mean(), left[~low].mean())
                error = np.square(left - fitted).sum()
                if best is None or error < best[0] - 1e-9:
                    best = (error, fitted)
        left = left - LEARNING_RATE * best[1]
        total = total + LEARNING_RATE * best[1]
    return total


def test_rounds_are_those_of_a_loop_over_rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 3))
    y = np.sign(x[:, 1]) + 0.5 * x[:, 2] ** 2 + rng.standard_normal(300)
    y -= y.mean()
    bins = to_bins(x, bin_edges(x))
    few, many = (added(steps, bins) for steps in grow(bins, y, (3, 12)))
    np.testing.assert_allclose(few, slow_rounds(bins, y, 3), atol=1e-10)
    np.testing.assert_allclose(many, slow_rounds(bins, y, 12), atol=1e-10)


def test_two_levels_are_found_at_their_edge():
    x = np.repeat([[0.0], [1.0]], 500, axis=0)
    y = np.repeat([-1.0, 1.0], 500)
    edges = bin_edges(x)
    steps = grow(to_bins(x, edges), y, (200,))[0]
    short = (1 - LEARNING_RATE) ** 200  # what is left after as many rounds
    np.testing.assert_allclose(added(steps, to_bins(np.array([[-3.0], [0.0], [1.0], [9.0]]), edges)),
                               [-1 + short, -1 + short, 1 - short, 1 - short], atol=1e-9)  # fmt: skip


def test_a_value_at_an_edge_lies_above_it_and_bins_cover_everything():
    edges = np.array([[0.0, 1.0]])
    np.testing.assert_array_equal(
        to_bins(np.array([[-9.0], [0.0], [0.5], [1.0], [9.0]]), edges)[:, 0], [0, 1, 1, 2, 2]
    )


def test_a_curve_is_seen_and_a_constant_feature_never_used():
    rng = np.random.default_rng(1)
    x = np.column_stack((rng.standard_normal(5_000), np.ones(5_000), rng.standard_normal(5_000)))
    truth = x[:, 0] ** 2 - 1
    bins = to_bins(x, bin_edges(x))
    steps = grow(bins, truth + rng.standard_normal(5_000), (200,))[0]
    assert np.corrcoef(added(steps, bins), truth)[0, 1] > 0.97
    assert not steps[1].any()
    assert np.abs(steps[2]).max() < 0.2 * np.abs(steps[0]).max()


@pytest.mark.parametrize("rows", [40, 4_000])
def test_bins_hold_their_shares(rows):
    x = np.random.default_rng(2).standard_normal((rows, 2))
    shares = np.bincount(to_bins(x, bin_edges(x))[:, 0], minlength=BINS) / rows
    assert shares[BINS // 2] == pytest.approx(0.0637, abs=0.03)  # Phi(0.08) - Phi(-0.08)
    assert shares[0] == pytest.approx(0.0082, abs=0.03)  # Phi(-2.4)
