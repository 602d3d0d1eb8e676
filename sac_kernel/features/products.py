"""A linear model of the inputs and of those squares and products of two that stand out of the noise.

Each square and product is tested against what the inputs leave unexplained, on the rows of the fit alone. The few that
pass join the inputs, and all weights are fitted together under `mixture_prior`. The model is a table of plain numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.features import mixture_prior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MOST = 16
"""Products at most."""
PASSES = 4.0
"""Standard errors that a product needs: by luck one of 435 does so in 36 fits."""


def fit(z: Array, y: Array, linear: Array, stride: int = 1) -> tuple[Array, Array]:
    """Return weights (columns,) and products (MOST, 4) of z (rows, columns), standardised, for y (rows,).

    A product is (column, other column, its mean, weight); without one the row is 0.

    Parameters
    ----------
    linear : (columns,), the weights of a fit without products
    stride : as of `mixture_prior.weights`
    """
    table = np.zeros((MOST, 4))
    residual = y - z @ linear
    pairs = _standing_out(z, residual - residual.mean(), PASSES * np.sqrt(stride))
    if not len(pairs):
        return linear, table
    made = z[:, pairs[:, 0]] * z[:, pairs[:, 1]]
    mean, scale = made.mean(axis=0), made.std(axis=0)
    w = mixture_prior.weights(np.concatenate((z, (made - mean) / scale), axis=1), y, stride)
    columns = z.shape[1]
    table[: len(pairs)] = np.column_stack((pairs, mean, w[columns:] / scale))
    return w[:columns], table


def added(weights: Array, table: Array, z: Array) -> Array:
    """Return the prediction (rows,) of a fit; a row's does not depend on the other rows, bit for bit."""
    # Column by column: a matrix product's last bits depend on the number of rows.
    raw = np.zeros(len(z)) + sum(w * column for w, column in zip(weights, z.T, strict=True))
    for i, j, mean, weight in table:
        if weight:
            raw += weight * (z[:, int(i)] * z[:, int(j)] - mean)
    return np.asarray(raw)


def _standing_out(z: Array, residual: Array, passes: float) -> NDArray[np.int64]:
    """Return the pairs of columns (pairs, 2) whose product predicts the residual, the clearest first."""
    n = len(z)
    square = z * z
    covariance = z.T @ (z * residual[:, None])
    spread = (square.T @ square - (z.T @ z) ** 2 / n) * residual.var()
    first, second = np.triu_indices(z.shape[1])
    known = spread[first, second] > 1e-9 * n * residual.var()
    score = np.zeros(len(first))
    score[known] = np.abs(covariance[first, second][known]) / np.sqrt(spread[first, second][known])
    order = np.argsort(-score, kind="stable")[:MOST]
    order = order[score[order] > passes]
    return np.column_stack((first[order], second[order]))
