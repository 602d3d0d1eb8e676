"""Settings of exact SAC: plain values, no tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sac_kernel.core.config import require

if TYPE_CHECKING:
    from collections.abc import Callable

_WHERE = "ExactConfig"
_BOUNDS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("gamma", "in [0, 1)", lambda value: 0.0 <= value < 1.0),
    ("batch_size", ">= 1", lambda value: value >= 1),
    ("learning_rate", "> 0", lambda value: 0.0 < value < math.inf),
    ("tau", "in (0, 1]", lambda value: 0.0 < value <= 1.0),
    ("alpha", "> 0", lambda value: 0.0 < value < math.inf),
    ("risk_aversion", ">= 0", lambda value: 0.0 <= value < math.inf),
    ("weight_decay", ">= 0", lambda value: 0.0 <= value < math.inf),
    ("averaging", "in (0, 1]", lambda value: 0.0 < value <= 1.0),
)


@dataclass(frozen=True)
class ExactConfig:
    """Settings of exact SAC.

    Attributes
    ----------
    gamma : discount per decision, in [0, 1)
    positions : size of the grid of positions from -1 to 1; odd, so that flat is one of them
    hidden_dims : widths of the ReLU layers
    batch_size : decisions drawn per update
    learning_rate : of AdamW, from start to end
    tau : share of the online network that the target network takes at each update (Polyak)
    alpha : temperature, in units of the scaled reward (`exact.reward_scale`)
    risk_aversion : lambda of the mean-variance reward a y - lambda / 2 sigma^2 a^2, in return units: 1 makes the
        reward the expected log growth, 0 is risk neutral
    weight_decay : of AdamW (decoupled); 0 for denoised returns, 1 to 3 where realised returns are learnt
    averaging : least weight of the newest network in the average that acts; 1 acts with the newest
    """

    gamma: float = 0.99
    positions: int = 21
    hidden_dims: tuple[int, ...] = (64, 64)
    batch_size: int = 256
    learning_rate: float = 1e-3
    tau: float = 0.02
    alpha: float = 0.02
    risk_aversion: float = 0.0
    weight_decay: float = 0.0
    averaging: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_dims", tuple(self.hidden_dims))
        for name, bounds, inside in _BOUNDS:
            value = getattr(self, name)
            require(inside(value), _WHERE, f"{name} must be {bounds}", value)
        odd = self.positions >= 3 and self.positions % 2 == 1
        require(
            odd, _WHERE, "positions must be odd and at least 3, so that flat is one of them", self.positions
        )
        widths = len(self.hidden_dims) > 0 and all(width >= 1 for width in self.hidden_dims)
        require(widths, _WHERE, "hidden_dims must hold at least one width >= 1", self.hidden_dims)
