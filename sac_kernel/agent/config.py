"""Hyper-parameters of one Gaussian agent: plain numbers, so a build or a fetch can check them without a framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sac_kernel.core.config import require
from sac_kernel.core.renamed import removed_fields

GAUSSIAN, EXACT = "gaussian", "exact"
"""The two learners."""

MAX_WIDTH = 1 << 16
"""Largest observation, action or hidden layer: a file's config may claim any width."""

_AVERAGED_PARTS = 10.0
"""The average reaches back over 1 / this of the updates so far."""


@removed_fields("cuda_graph")
@dataclass(frozen=True)
class SACConfig:
    """Hyper-parameters of one Gaussian agent; the defaults are those of Stable-Baselines3 2.7.

    They are SAC as published (Haarnoja et al. 2018, arXiv:1812.05905), for any Gymnasium task. `for_market` has the
    settings that the ablations on known-answer markets earn (docs/learning.md).

    Attributes
    ----------
    state_dim, action_dim : widths of observation and action, those of the env's spaces
    hidden_dims : widths of the hidden layers of actor and critics
    buffer_capacity : transitions kept for replay
    batch_size : transitions per gradient update
    warmup_steps : transitions with uniform random actions before the first update
    gamma : discount per decision
    utd_ratio : gradient updates per environment transition, warm-up included
    learning_rate : of Adam, for actor, critics and temperature
    tau : Polyak weight of the online critic: target = (1 - tau) target + tau online
    initial_alpha : entropy temperature at the start, in units of scaled reward
    target_entropy : nats, at the start; None is -action_dim
    final_target_entropy : nats, from update `schedule_updates` on; None is `target_entropy`
    schedule_updates : updates over which the target entropy moves linearly to its final value
    reward_scale : factor on rewards inside the update; statistics stay unscaled. Temperature is in units
        of scaled reward, so a reward of 3e-4 a step needs a factor that brings it near one. KaggleTrainer sets
        it from the train bars; elsewhere None is 1
    average_decay : a greedy action comes from an average of the actor's weights, so that no single noisy update
        decides: over the last tenth of the updates so far, up to a horizon of 1 / (1 - average_decay). 0 is the
        newest actor
    """

    state_dim: int = 30
    action_dim: int = 1
    hidden_dims: tuple[int, ...] = (256, 256)
    buffer_capacity: int = 1_000_000
    batch_size: int = 256
    warmup_steps: int = 100
    gamma: float = 0.99
    utd_ratio: float = 1.0
    learning_rate: float = 3e-4
    tau: float = 0.005
    initial_alpha: float = 1.0
    target_entropy: float | None = None
    final_target_entropy: float | None = None
    schedule_updates: int = 10_000
    reward_scale: float | None = None
    average_decay: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_dims", tuple(self.hidden_dims))
        where = "SACConfig"
        for name in ("state_dim", "action_dim", "buffer_capacity", "batch_size", "schedule_updates"):
            require(getattr(self, name) > 0, where, f"{name} must be > 0", getattr(self, name))
        widths = self.hidden_dims
        require(bool(widths) and min(widths) > 0, where, "hidden_dims must be positive widths", list(widths))
        widest = max(self.state_dim, self.action_dim, *widths)
        required = f"state_dim, action_dim and hidden_dims must be at most {MAX_WIDTH}"
        require(widest <= MAX_WIDTH, where, required, widest)
        require(self.warmup_steps >= 0, where, "warmup_steps must be >= 0", self.warmup_steps)
        require(0 <= self.gamma < 1, where, "gamma must be in [0, 1)", self.gamma)
        require(0 <= self.average_decay < 1, where, "average_decay must be in [0, 1)", self.average_decay)
        require(0 < self.tau <= 1, where, "tau must be in (0, 1]", self.tau)
        for name in ("utd_ratio", "learning_rate", "initial_alpha", "reward_scale"):
            value = getattr(self, name)
            value = 1.0 if value is None else value
            require(value > 0 and math.isfinite(value), where, f"{name} must be > 0 and finite", value)

    @classmethod
    def for_market(cls, **changes: Any) -> SACConfig:  # noqa: ANN401  # the fields
        """Return the settings for an account on bars.

        Small nets and a quarter of an update a step suit noisy rewards. Exploration is broad first, then the policy
        gets sharp enough for the no-trade bands that costs make optimal. An averaged actor decides.

        Parameters
        ----------
        changes : fields that differ
        """
        market = {
            "hidden_dims": (64, 64), "buffer_capacity": 300_000, "warmup_steps": 5_000, "utd_ratio": 0.25,
            "initial_alpha": 0.02, "final_target_entropy": -2.5 * changes.get("action_dim", 1),
            "average_decay": 0.999,
        }  # fmt: skip
        return cls(**{**market, **changes})

    def entropy_target(self, updates: int) -> float:
        """Return the target entropy in nats after `updates`."""
        first = -float(self.action_dim) if self.target_entropy is None else self.target_entropy
        last = first if self.final_target_entropy is None else self.final_target_entropy
        return first + (last - first) * min(updates / self.schedule_updates, 1.0)

    def average_weight(self, updates: int) -> float:
        """Return the weight of the newest actor in the average after `updates`.

        A fixed horizon would keep the untrained start for thousands of updates. The horizon therefore grows with
        the run (polynomial-decay averaging, Shamir & Zhang 2013) until it is 1 / (1 - average_decay).
        """
        return max(1.0 - self.average_decay, min(1.0, _AVERAGED_PARTS / (updates + 1)))
