"""What exact SAC leaves behind: one network W(x, a), and the rule that trades on it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_update import Layout, values_of
from sac_kernel.errors import DataError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

SAME_POSITION = 1e-6
"""Positions nearer than this are one: a held position may have been through float32."""

_ROWS_AT_ONCE = 65_536


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


@dataclass(frozen=True)
class ExactPolicy:
    """A trained network and what acting with it needs.

    Attributes
    ----------
    config : the settings it was trained with
    weights : (size,), CPU, laid out as `exact_update.Layout` says
    inputs : number of features
    scale : factor from return units to the units that W was learnt in
    updates : done in training
    """

    config: ExactConfig
    weights: Tensor
    inputs: int
    scale: float
    updates: int

    @property
    def grid(self) -> FloatArray:
        """Return the positions that W is known at, (G,)."""
        return position_grid(self.config.positions)

    def values(self, features: ArrayLike) -> FloatArray:
        """Return W(x, a) in return units, (n, G), for features (n, D).

        Raises
        ------
        DataError
            If the features have another width or are not finite.
        NonFiniteError
            If the network is not finite: its training diverged.
        """
        x = np.asarray(features, np.float32)
        if x.ndim != 2 or x.shape[1] != self.inputs:
            msg = f"ExactPolicy: features of shape (n, {self.inputs}) are required, found {x.shape}"
            raise DataError(msg)
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            msg = f"ExactPolicy: features[{row}, {column}] = {x[row, column]}; leave rows of the warm-up out"
            raise DataError(msg)
        w = np.empty((len(x), self.config.positions))
        with torch.inference_mode():
            for at in range(0, len(x), _ROWS_AT_ONCE):
                part = torch.from_numpy(x[at : at + _ROWS_AT_ONCE])
                w[at : at + _ROWS_AT_ONCE] = values_of(self._layout, self.weights, part).numpy()
        if not np.isfinite(w).all():
            msg = f"ExactPolicy: W is not finite after {self.updates} updates; lower learning_rate"
            raise NonFiniteError(msg)
        return w / self.scale

    def target(
        self, features: ArrayLike, position: ArrayLike, cost: ArrayLike, tradable: ArrayLike = True
    ) -> FloatArray:
        """Return the target position of each row, (n,), in [-1, 1]; `greedy_target` on this network's values."""
        return greedy_target(self.values(features), self.grid, position, cost, tradable)

    def state(self) -> dict[str, Any]:
        """Return the policy as plain values and one tensor."""
        config = {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self.config).items()
        }
        return {
            "config": config, "weights": self.weights.clone(), "inputs": self.inputs, "scale": self.scale,
            "updates": self.updates,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ExactPolicy:
        """Return the policy that `state` describes."""
        config = ExactConfig(**state["config"])
        return cls(
            config, state["weights"], int(state["inputs"]), float(state["scale"]), int(state["updates"])
        )

    @property
    def _layout(self) -> Layout:
        return Layout((self.inputs, *self.config.hidden_dims, self.config.positions))


def _column(value: ArrayLike, rows: int, name: str) -> FloatArray:
    column = np.asarray(value, np.float64)
    if column.ndim == 0:
        return np.full(rows, float(column))
    if column.shape != (rows,):
        msg = f"greedy_target: {name} of shape ({rows},) or one number is required, found {column.shape}"
        raise DataError(msg)
    return column
