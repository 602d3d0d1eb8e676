"""What exact SAC leaves behind: one network W(x, a), and the rule that trades on it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_grid import greedy_target, position_grid
from sac_kernel.agent.exact_update import Layout, values_of
from sac_kernel.core.errors import DataError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

_ROWS_AT_ONCE = 65_536

EXACT_INPUTS = ("fill_cost", "can_fill", "held_target")
"""What an exact agent observes after the features: cost of the next fill, whether it can fill (> 0), target held."""


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
            msg = f"ExactPolicy: features have shape {x.shape}. This policy takes (n, {self.inputs})."
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

    def sample(
        self,
        features: ArrayLike,
        position: ArrayLike,
        cost: ArrayLike,
        tradable: ArrayLike,
        generator: torch.Generator,
    ) -> FloatArray:
        """Return a target of each row drawn from pi, (n,); what is held where nothing can fill."""
        held, price = np.asarray(position, np.float64), np.asarray(cost, np.float64)
        gain = self.values(features) - price[:, None] * np.abs(self.grid - held[:, None])
        pi = torch.softmax(torch.from_numpy(gain * (self.scale / self.config.alpha)), -1)
        drawn = torch.multinomial(pi, 1, generator=generator)[:, 0].numpy()
        return np.where(np.asarray(tradable, bool), self.grid[drawn], held)

    def layers(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Return weight (out, in) and bias (out,) of each layer of W."""
        joined = (layer[0].numpy() for layer in self._layout.layers(self.weights[None]))
        return [(np.ascontiguousarray(layer[:, :-1]), np.ascontiguousarray(layer[:, -1])) for layer in joined]

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


def exact_size(inputs: int, config: ExactConfig) -> int:
    """Return the length of a policy's vector of weights."""
    return Layout((inputs, *config.hidden_dims, config.positions)).size
