"""Gradient boosting of stumps: a sum of one step function per feature, grown from counts of binned rows.

L2 boosting (Buhlmann & Yu 2003, JASA 98): each round adds, at a small learning rate, the one split of one
feature that lowers the squared error most. Features are binned, so only the joint counts of bins and the sum
of targets in each bin matter: a round costs the same for a thousand rows as for a million, and the model is a
small table of plain numbers. Interactions of features are not modelled.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    BinArray = NDArray[np.uint8]

BINS = 32
"""Per feature, equally wide if it is normal: this resolves the tails, where a curved response is largest."""

_LEVELS = np.array([NormalDist().cdf(z) for z in np.linspace(-2.4, 2.4, BINS - 1)])

LEARNING_RATE = 0.05


def bin_edges(x: Array) -> Array:
    """Return ascending quantiles of each column of x (rows, columns), shape (columns, BINS - 1)."""
    return np.quantile(x, _LEVELS, axis=0).T.copy()


def to_bins(x: Array, edges: Array) -> BinArray:
    """Return the bin of each value, shape (rows, columns); a value equal to an edge lies above it."""
    columns = [np.searchsorted(own, column, side="right") for own, column in zip(edges, x.T, strict=True)]
    return np.stack(columns, axis=1).astype(np.uint8)


def added(steps: Array, bins: BinArray) -> Array:
    """Return the prediction (rows,) for bins (rows, columns): the sum of their steps, given as (columns, BINS)."""
    return np.asarray(sum(own[column] for own, column in zip(steps, bins.T, strict=True)))


def grow(bins: BinArray, y: Array, rounds: Sequence[int]) -> Array:
    """Return the steps after each number of `rounds`, shape (len(rounds), columns, BINS).

    Parameters
    ----------
    bins : (rows, columns)
    y : (rows,), mean near 0: there is no intercept
    rounds : ascending
    """
    columns = bins.shape[1]
    joint = _joint_counts(bins, BINS)
    count = np.diag(joint).reshape(columns, BINS).cumsum(axis=1)[:, :-1]
    above = len(y) - count
    # The sum of residuals in each bin.
    residual = np.stack([np.bincount(column, weights=y, minlength=BINS) for column in bins.T])
    steps, grown = np.zeros((columns, BINS)), []
    # An empty side must never be chosen: a constant feature stays out.
    share = np.where((count > 0) & (above > 0), 1.0, 0.0)
    below_size, above_size = np.maximum(count, 1.0), np.maximum(above, 1.0)
    for done in range(1, rounds[-1] + 1):
        below = residual.cumsum(axis=1)
        total, below = below[:, -1:], below[:, :-1]
        gain = share * (below**2 / below_size + (total - below) ** 2 / above_size)
        j, k = np.unravel_index(int(gain.argmax()), gain.shape)
        step = np.empty(BINS)
        step[: k + 1] = LEARNING_RATE * below[j, k] / below_size[j, k]
        step[k + 1 :] = LEARNING_RATE * (total[j, 0] - below[j, k]) / above_size[j, k]
        steps[j] += step
        residual -= (joint[:, j * BINS : (j + 1) * BINS] @ step).reshape(columns, BINS)
        if done in rounds:
            grown.append(steps.copy())
    return np.stack(grown)


@numba.njit(cache=True, fastmath=False)
def _joint_counts(bins: BinArray, size: int) -> Array:  # pragma: no cover  # compiled
    """Return how many rows are in both of two bins, shape (columns x size, columns x size)."""
    rows, columns = bins.shape
    counts = np.zeros((columns * size, columns * size))
    place = np.empty(columns, np.int64)
    for r in range(rows):
        for i in range(columns):
            place[i] = i * size + bins[r, i]
            for j in range(i + 1):
                counts[place[i], place[j]] += 1.0
    for i in range(columns * size):
        for j in range(i):
            counts[j, i] = counts[i, j]
    return counts
