"""The actor and the two critics of Soft Actor-Critic, and their initialisation.

Shapes: B batch, S observation width, A action width.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Range of the log standard deviation, which is squashed, not clamped: a clamp has no gradient."""

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)


class Actor(nn.Module):
    """A tanh-squashed Gaussian policy, actions in [-1, 1]."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.body = _mlp(state_dim, hidden_dims)
        self.head = nn.Linear(hidden_dims[-1], 2 * action_dim)
        # A zero mean head starts flat for every observation, not at an arbitrary position.
        with torch.no_grad():
            self.head.weight[:action_dim].zero_()
            self.head.bias.zero_()

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log standard deviation before the tanh; (B, S) -> (B, A), (B, A)."""
        mean, raw = self.head(self.body(obs)).chunk(2, dim=-1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1.0)
        return mean, log_std

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions (B, A) and their log densities (B,) for standard normal `noise` (B, A)."""
        mean, log_std = self(obs)
        pre_tanh = mean + log_std.exp() * noise
        return torch.tanh(pre_tanh), squashed_log_prob(pre_tanh, noise, log_std)

    def explore(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Return the actions of `sample` (B, A) without their densities."""
        mean, log_std = self(obs)
        return torch.tanh(mean + log_std.exp() * noise)

    def greedy(self, obs: Tensor) -> Tensor:
        """Return tanh(mean), the deterministic action; (B, S) -> (B, A)."""
        return torch.tanh(self(obs)[0])


class Critic(nn.Module):
    """One action-value function Q(s, a)."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.body = _mlp(state_dim + action_dim, hidden_dims)
        self.head = nn.Linear(hidden_dims[-1], 1)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return values; (B, S), (B, A) -> (B,)."""
        value: Tensor = self.head(self.body(torch.cat((obs, action), dim=-1)))
        return value.squeeze(-1)


class TwinCritic(nn.Module):
    """Two independent critics; their minimum bounds the overestimation of one."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.q1 = Critic(state_dim, action_dim, hidden_dims)
        self.q2 = Critic(state_dim, action_dim, hidden_dims)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both values, (B,) each."""
        return self.q1(obs, action), self.q2(obs, action)

    def minimum(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the smaller value, (B,)."""
        return torch.minimum(*self(obs, action))


class Networks(nn.Module):
    """All parameters of an agent: actor, average actor, critics, target critics, log temperature."""

    def __init__(
        self, state_dim: int, action_dim: int, hidden_dims: Sequence[int], initial_alpha: float
    ) -> None:
        super().__init__()
        self.actor = Actor(state_dim, action_dim, hidden_dims)
        self.critic = TwinCritic(state_dim, action_dim, hidden_dims)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.average = copy.deepcopy(self.actor).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(initial_alpha)))


def squashed_log_prob(pre_tanh: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """Return log pi of a = tanh(u), summed over action dimensions; (B, A) -> (B,).

    log N(u) - sum log(1 - tanh(u)^2) with log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which is
    exact for any u; the form with 1 - a^2 + 1e-6 is wrong for |u| > 7. Haarnoja et al. 2018,
    arXiv:1812.05905, eq. 21.
    """
    gaussian = -0.5 * noise.square() - log_std - _LOG_SQRT_2PI
    correction = 2.0 * (_LOG_2 - pre_tanh - F.softplus(-2.0 * pre_tanh))
    return (gaussian - correction).sum(dim=-1)


def _mlp(width: int, hidden_dims: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden in hidden_dims:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers)
