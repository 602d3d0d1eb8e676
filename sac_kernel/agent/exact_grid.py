"""Positions, and the rule that trades on their values: what acting needs, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

SAME_POSITION = 1e-6
"""Positions nearer than this are one: a held position may have been through float32."""


def position_grid(positions: int) -> FloatArray:
    """Return the grid of positions from -1 to 1, (positions,): symmetric to the last bit, with an exact 0."""
    half = (positions - 1) // 2
    return (np.arange(positions) - half) / half


def greedy_target(
    values: ArrayLike, grid: FloatArray, position: ArrayLike, cost: ArrayLike, tradable: ArrayLike = True
) -> FloatArray:
    """Return the target of each row, (n,): argmax_a W(a) - c |a - p|, or what is held where that is no worse.

    *Holding* is always a candidate, with W at p by linear interpolation; ties go to it, and then the position comes
    back bit for bit, so that no order goes out. This is the no-trade band of a linear cost (de Lataillade, Deremble,
    Potters and Bouchaud 2012, arXiv:1203.5957), exact by construction.

    Parameters
    ----------
    values : (n, G), W at each position of `grid`, in return units
    grid : (G,), from `position_grid`
    position : (n,), the last target that was filled, in [-1, 1]; not the exposure that has drifted since
    cost : of a unit traded, as a fraction, (n,) or one for all
    tradable : whether an order can be filled, (n,) or one for all; where not, what is held is held

    Raises
    ------
    DataError
        If shapes do not fit, a position is outside [-1, 1] or a cost is negative or not finite.
    """
    w = np.asarray(values, np.float64)
    held = _column(position, len(w), "position")
    price = _column(cost, len(w), "cost")
    if not (np.abs(held) <= 1.0).all():
        row = int(np.argmin(np.abs(held) <= 1.0))
        msg = (
            f"greedy_target: position[{row}] = {held[row]} lies outside [-1, 1]; give the last filled target"
        )
        raise DataError(msg)
    if not ((price >= 0.0) & np.isfinite(price)).all():
        row = int(np.argmin((price >= 0.0) & np.isfinite(price)))
        msg = f"greedy_target: cost[{row}] = {price[row]} is not a cost; give a finite fraction >= 0"
        raise DataError(msg)
    half = (len(grid) - 1) / 2.0
    place = (held + 1.0) * half
    below = np.minimum(place.astype(np.int64), len(grid) - 2)
    share = place - below
    rows = np.arange(len(w))
    holding = w[rows, below] * (1.0 - share) + w[rows, below + 1] * share
    distance = np.abs(grid - held[:, None])
    gain = w - price[:, None] * distance
    gain[distance < SAME_POSITION] = -np.inf  # this is holding, without the rounding
    best = gain.argmax(axis=1)
    trades = (gain[rows, best] > holding) & np.broadcast_to(np.asarray(tradable, bool), held.shape)
    return np.where(trades, grid[best], held)


def _column(value: ArrayLike, rows: int, name: str) -> FloatArray:
    column = np.asarray(value, np.float64)
    if column.ndim == 0:
        return np.full(rows, float(column))
    if column.shape != (rows,):
        msg = f"greedy_target: {name} has shape {column.shape}. Give one number, or shape ({rows},)."
        raise DataError(msg)
    return column
