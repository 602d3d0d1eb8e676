"""Linear regression with a prior that the data choose: many small weights, or few large ones.

A weight's prior is a mixture of normal distributions of nine spreads and a point at 0, whose shares are fitted with the
weights (empirical Bayes, coordinate ascent: Kim, Wang, Carbonetto & Stephens, arXiv:2208.10910). Where all inputs
count alike this is ridge; where one of many counts, the others get almost nothing. Only products of the inputs with
each other and with the target are needed, so a fit costs the same for a thousand rows as for a million.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_VARIANCES = np.concatenate(([0.0], np.logspace(-1.0, 3.0, 9)))
"""Of the normal distributions, in units of a least-squares weight's sampling variance."""

SWEEPS, TOLERANCE = 500, 1e-4


def weights(x: Array, y: Array, stride: int = 1) -> Array:
    """Return the posterior means (columns,) of the weights of x (rows, columns), about standardised, for y (rows,).

    There is no intercept. Targets of `stride` rows overlap, so that as many rows count as one.
    """
    rows, n = len(y), len(y) / stride
    gram, moment = np.ascontiguousarray(x.T @ x / rows), x.T @ y / rows
    start = np.linalg.solve(gram + len(gram) / n * np.eye(len(gram)), moment)
    return np.asarray(_ascend(gram, moment, float(y @ y / rows), _VARIANCES / n, start, n))


@numba.njit(cache=True, fastmath=False)
def _ascend(  # pragma: no cover  # compiled
    gram: Array, moment: Array, power: float, prior: Array, w: Array, n: float
) -> Array:
    columns, kinds = len(moment), len(prior)
    share, chance = np.full(kinds, 1.0 / kinds), np.empty(kinds)
    noise = power
    for _ in range(SWEEPS):
        left = moment - gram @ w  # of each input with the residual
        total, spread, moved, size = np.zeros(kinds), 0.0, 0.0, 0.0
        for j in range(columns):
            scale = gram[j, j]
            if scale < 1e-9:  # a constant
                w[j] = 0.0
                continue
            least_squares, sampling = left[j] / scale + w[j], 1.0 / (n * scale)
            for k in range(kinds):
                variance = prior[k] + sampling
                fit = least_squares**2 / (variance * noise) + np.log(variance)
                chance[k] = np.log(share[k] + 1e-300) - 0.5 * fit
            chance = np.exp(chance - chance.max())
            chance /= chance.sum()
            new, square = 0.0, 0.0
            for k in range(kinds):
                mean = least_squares * prior[k] / (prior[k] + sampling)
                new += chance[k] * mean
                square += chance[k] * (mean**2 + noise * prior[k] * sampling / (prior[k] + sampling))
            spread += scale * (square - new**2)
            total += chance
            moved += abs(new - w[j])
            size += abs(new)
            left -= gram[:, j] * (new - w[j])
            w[j] = new
        share = total / max(total.sum(), 1.0)
        error = float(power - 2.0 * (w @ moment) + w @ (gram @ w) + spread)
        noise = max(error, 1e-12 * power)
        if moved <= TOLERANCE * size:
            break
    return w
