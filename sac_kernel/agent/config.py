"""Hyper-parameters of one agent: plain numbers, so that a build or a fetch needs no framework to check them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sac_kernel.core.config import require

MAX_WIDTH = 1 << 16
"""Of observation, action and hidden layers: a file's config may claim any."""

_AVERAGED_PARTS = 10.0
"""The average reaches back over one of so many parts of the updates so far."""


@dataclass(frozen=True)
class SACConfig:
    """Hyper-parameters of one agent.

    Attributes
    ----------
    state_dim, action_dim : widths of observation and action; the env's spaces own them
    hidden_dims : widths of the hidden layers of actor and critics
    buffer_capacity : transitions kept for replay
    batch_size : transitions a gradient update
    warmup_steps : transitions with uniform random actions before the first update
    gamma : discount per decision
    utd_ratio : gradient updates per environment transition, the warm-up's included
    learning_rate : of Adam, for actor, critics and temperature
    tau : Polyak weight of the online critic: target = (1 - tau) target + tau online
    initial_alpha : entropy temperature at the start, in units of scaled reward
    target_entropy : nats, at the start; None is -action_dim
    final_target_entropy : nats, after `schedule_updates` updates and for ever after; None is -2.5 action_dim.
        Broad exploration first, then a policy sharp enough for the bands that trading costs make optimal
    schedule_updates : updates over which the target entropy goes from the first to the last, in a line
    reward_scale : factor on rewards inside the update; statistics stay unscaled. Temperature is measured in
        scaled reward, so a reward of 3e-4 a step needs a factor that brings it near one: KaggleTrainer sets
        it from the train bars; None is 1 elsewhere
    average_decay : a greedy action comes from an average of the actor's weights, so that one noisy update
        decides nothing: over the last tenth of the updates so far, up to a horizon of 1 / (1 - average_decay)
    cuda_graph : on CUDA, replay the update as one captured graph once it has equalled the eager update; off,
        since no GPU has run it yet
    """

    state_dim: int = 30
    action_dim: int = 1
    hidden_dims: tuple[int, ...] = (64, 64)
    buffer_capacity: int = 300_000
    batch_size: int = 256
    warmup_steps: int = 5_000
    gamma: float = 0.99
    utd_ratio: float = 1.0
    learning_rate: float = 3e-4
    tau: float = 0.005
    initial_alpha: float = 0.02
    target_entropy: float | None = None
    final_target_entropy: float | None = None
    schedule_updates: int = 10_000
    reward_scale: float | None = None
    average_decay: float = 0.999
    cuda_graph: bool = False

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

    def entropy_target(self, updates: int) -> float:
        """Return the target entropy in nats after so many updates."""
        first, last = (
            share * self.action_dim if given is None else given
            for share, given in ((-1.0, self.target_entropy), (-2.5, self.final_target_entropy))
        )
        return first + (last - first) * min(updates / self.schedule_updates, 1.0)

    def average_weight(self, updates: int) -> float:
        """Return what the newest actor weighs in the average, after so many updates.

        A fixed horizon would still hold the untrained start for thousands of updates. So the horizon grows with
        the run (polynomial-decay averaging, Shamir & Zhang 2013) until it is 1 / (1 - average_decay).
        """
        return max(1.0 - self.average_decay, min(1.0, _AVERAGED_PARTS / (updates + 1)))
