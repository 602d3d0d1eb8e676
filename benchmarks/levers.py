"""Agents that differ from the default in one thing that no setting can change: for ablation rows.

Each is the package's agent with one method replaced, so that a row measures that method and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.networks import Actor
from sac_kernel.agent.replay import Batch
from sac_kernel.agent.sac import SACAgent
from sac_kernel.experiment.proof import band_policy, one_path
from sac_kernel.features.forecast import fit_forecast
from tests.sac_oracle import AutogradLearner

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from sac_kernel.experiment.proof import Policy
    from sac_kernel.market.known_answer import Array, KnownAnswerMarket

CLONE_STEPS, CLONE_BATCH, CLONE_RATE = 1_000, 1_024, 1e-3
"""Of Adam, for an actor that is fitted to a policy."""

HEAD_RATE = 3e-4
"""Learning rate of an auxiliary head and of the bodies under it."""


class RandomMeanHead(SACAgent):
    """The mean head starts as torch's linear layers do, not at zero."""

    def __init__(self, config: SACConfig, agent_id: int = 1, device: str = "auto", seed: int = 0) -> None:
        super().__init__(config, agent_id, device, seed)
        head = nn.Linear(config.hidden_dims[-1], 2 * config.action_dim)
        with torch.no_grad():
            for actor in (self.nets.actor, self.nets.average):
                actor.head.load_state_dict(head.state_dict())


class WeightDecay(SACAgent):
    """Decoupled weight decay of 1e-2 on the matrices of actor and critics (AdamW)."""

    def update(self) -> None:
        """Do the default's update, then shrink."""
        super().update()
        shrink = 1.0 - 1e-2 * self.config.learning_rate
        with torch.no_grad():
            for name, parameter in self.nets.named_parameters():
                if parameter.ndim > 1 and name.startswith(("actor.", "critic.")):
                    parameter.mul_(shrink)


class FixedHorizon(SACAgent):
    """The average of the actor has its last horizon from the first update on, corrected for its start as Adam's."""

    class _Config(SACConfig):
        def average_weight(self, updates: int) -> float:
            return (1.0 - self.average_decay) / (1.0 - self.average_decay ** (updates + 1))

    def __init__(self, config: SACConfig, agent_id: int = 1, device: str = "auto", seed: int = 0) -> None:
        super().__init__(self._Config(**vars(config)), agent_id, device, seed)


class ByAutograd(SACAgent):
    """The default, its update by autograd: for another policy than the one that is written out."""

    actor: type[Actor] = Actor

    def __init__(self, config: SACConfig, agent_id: int = 1, device: str = "auto", seed: int = 0) -> None:
        super().__init__(config, agent_id, device, seed)
        self.nets.actor.__class__ = self.nets.average.__class__ = self.actor
        self.learner = _AutogradLearner(self.nets, config.learning_rate)


class _AutogradLearner(AutogradLearner):
    def update(self, batch: Batch, noise: Tensor, schedule: Any) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return super().update(Batch(*(value.clone() for value in batch)), noise.clone(), schedule)


class ClampedActor(Actor):
    """The raw log standard deviation, clipped: no gradient beyond, and a start at 0, not -1.5."""

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.head(self.body(obs)).chunk(2, dim=-1)
        return mean, log_std.clamp(-20.0, 2.0)


class ClampedLogStd(ByAutograd):
    """Log standard deviation as in Stable-Baselines3."""

    actor = ClampedActor


def warm_start(market: KnownAnswerMarket, bars: int, held: int) -> type[SACAgent]:
    """Return an agent that starts as a clone of what the ridge of its own path plays with the best band.

    Parameters
    ----------
    market, bars : of the path, whose seed is the agent's
    held : updates at the start that the actor and the temperature sit out, so that critics which know nothing yet
        cannot unlearn the clone; the actor's Adam runs on
    """

    class WarmStart(SACAgent):
        def __init__(self, config: SACConfig, agent_id: int = 1, device: str = "auto", seed: int = 0) -> None:
            super().__init__(config, agent_id, device, seed)
            path = one_path(market, bars, seed)
            features = path.features[:-1, 0]
            fitted = fit_forecast(features, path.returns[:, 0], boosting=False)
            _clone(self.nets.actor, band_policy(market, fitted), features, seed)
            self.nets.average.load_state_dict(self.nets.actor.state_dict())

        def update(self) -> None:
            """Do the default's update, and take back what is held."""
            names = ("actor.", "average.", "log_alpha") if self.updates < held else ()
            before = {k: v.clone() for k, v in self.nets.state_dict().items() if k.startswith(names)}
            super().update()
            if before:
                self.nets.load_state_dict(before, strict=False)

    return WarmStart


def _clone(actor: Actor, policy: Policy, features: Array, seed: int) -> None:
    """Fit tanh(mean) to a policy's actions, least squares, on rows of features with random positions."""
    position = np.random.default_rng(seed).uniform(-1.0, 1.0, (len(features), 1))
    seen = np.concatenate((features, position), axis=1)
    obs, action = (torch.as_tensor(v, dtype=torch.float32) for v in (seen, policy(seen)))
    adam = torch.optim.Adam(actor.parameters(), lr=CLONE_RATE, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for rows in torch.randint(len(obs), (CLONE_STEPS, CLONE_BATCH), generator=generator):
        adam.zero_grad()
        (actor.greedy(obs[rows])[:, 0] - action[rows]).square().mean().backward()
        adam.step()


def relabelled(cost: float) -> type[SACAgent]:
    """Return an agent that sees half of each batch with another previous position and action.

    Exact for a price taker: reward(p, a) = a y - c |a - p| and the next state has position a, where the last
    number of an observation is the position. y is recovered from the stored reward; rows of |a| < .01 stay.
    """

    class Relabelled(SACAgent):
        @property
        def buffer(self) -> Any:
            ring = super().buffer
            if not hasattr(ring, "plain_sample"):
                ring.plain_sample = ring.sample
                ring.sample = lambda size, generator: _relabel(
                    ring.plain_sample(size, generator), cost, generator
                )
            return ring

    return Relabelled


def _relabel(batch: Batch, cost: float, generator: torch.Generator) -> Batch:
    action = batch.action[:, 0]
    earned = batch.reward + cost * (action - batch.obs[:, -1]).abs()
    drawn = 2.0 * torch.rand((2, len(action)), generator=generator) - 1.0
    half = torch.arange(len(action)) % 2 == 0
    changed = half & (action.abs() > 0.01)
    position = torch.where(changed, drawn[0], batch.obs[:, -1])
    target = torch.where(changed, drawn[1], action)
    reward = torch.where(changed, target * earned / action - cost * (target - position).abs(), batch.reward)
    obs, next_obs = batch.obs.clone(), batch.next_obs.clone()
    obs[:, -1], next_obs[:, -1] = position, target
    return batch._replace(obs=obs, action=target[:, None], reward=reward, next_obs=next_obs)


def with_head(width: int, loss: Callable[[Tensor, Batch], Tensor]) -> type[SACAgent]:
    """Return an agent whose actor's and critics' bodies also learn a task, one head on each.

    Parameters
    ----------
    width : of a head
    loss : (output of a head (B, width), batch) -> scalar
    """

    class WithHead(SACAgent):
        def __init__(self, config: SACConfig, agent_id: int = 1, device: str = "auto", seed: int = 0) -> None:
            super().__init__(config, agent_id, device, seed)
            critic = self.nets.critic
            self._bodies = [self.nets.actor.body, critic.q1.body, critic.q2.body]
            self._heads = [nn.Linear(config.hidden_dims[-1], width) for _ in self._bodies]
            modules = nn.ModuleList([*self._bodies, *self._heads])
            self._adam = torch.optim.Adam(modules.parameters(), lr=HEAD_RATE, fused=True)

        def update(self) -> None:
            """Do the default's update, then one of the heads and the bodies under them."""
            super().update()
            batch = self.buffer.sample(self.config.batch_size, self.generator)
            inputs = [batch.obs, *[torch.cat((batch.obs, batch.action), dim=-1)] * 2]
            outputs = (head(body(x)) for head, body, x in zip(self._heads, self._bodies, inputs, strict=True))
            self._adam.zero_grad(set_to_none=True)
            sum(loss(output, batch) for output in outputs).backward()  # type: ignore[union-attr]  # not empty
            self._adam.step()

    return WithHead


def next_return_head(cost: float, spread: float) -> type[SACAgent]:
    """Return an agent that also predicts the next return y: (a h(s) - (r + c |a - p|))^2, in rewards' spread."""

    def loss(output: Tensor, batch: Batch) -> Tensor:
        action = batch.action[:, 0]
        earned = batch.reward + cost * (action - batch.obs[:, -1]).abs()
        return (action * output[:, 0] - earned / spread).square().mean()

    return with_head(1, loss)


def next_features_head(columns: int) -> type[SACAgent]:
    """Return an agent that also predicts the next bar's features."""
    return with_head(columns, lambda output, batch: (output - batch.next_obs[:, :columns]).square().mean())
