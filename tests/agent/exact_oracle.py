"""Exact SAC as one would first write it: autograd, the definition of the soft value, torch's own optimiser."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from sac_kernel.agent.exact_grid import position_grid


def plain_soft_value(values, cost, alpha, tradable=None):
    """V(x, p) less b(p) from W (B, G) and cost (B,): alpha log mean_a exp((W(a) - c |a - p|) / alpha), or W(p)."""
    grid = torch.from_numpy(position_grid(values.shape[1])).to(values.dtype)
    distance = (grid[:, None] - grid[None, :]).abs()  # (p, a)
    inside = (values[:, None, :] - cost[:, None, None] * distance) / alpha
    soft = alpha * (torch.logsumexp(inside, -1) - math.log(values.shape[1]))
    return soft if tradable is None else torch.where(tradable[:, None], soft, values)


class PlainAgent:
    """One agent with an autograd update; the first weights can be copied from an `ExactTraining`."""

    def __init__(self, problem, config, scale, dtype=torch.float32):
        self.config, self.scale, self.dtype = config, scale, dtype
        widths = (problem.features.shape[1], *config.hidden_dims, config.positions)
        self.online, self.target, self.average = (self._net(widths) for _ in range(3))
        self.optimiser = torch.optim.AdamW(
            self.online.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.grid = torch.from_numpy(position_grid(config.positions)).to(dtype)
        # With everything given, rows need no case of their own.
        rows, zeros = problem.rows, np.zeros((problem.rows, config.positions))
        self.features = torch.from_numpy(problem.features).to(dtype)
        self.returns = self._tensor(problem.returns)
        self.cost = self._tensor(problem.cost)
        self.tradable = torch.from_numpy(
            np.ones(rows, bool) if problem.tradable is None else problem.tradable
        )
        self.holding = self._tensor(zeros if problem.holding_cost is None else problem.holding_cost)
        self.before = self._tensor(zeros if problem.before_fill is None else problem.before_fill)
        self.variance = self._tensor(np.zeros(rows) if problem.variance is None else problem.variance)
        self.stride, self.updates = problem.stride, 0

    def copy_first(self, layers):
        """Take the first weights from layers (out, in + 1) whose last column is the bias."""
        with torch.no_grad():
            for net in (self.online, self.target, self.average):
                linear = [m for m in net if isinstance(m, nn.Linear)]
                for m, layer in zip(linear, layers, strict=True):
                    m.weight.copy_(layer[:, :-1])
                    m.bias.copy_(layer[:, -1])

    def loss(self, rows):
        c, s, g = self.config, self.scale, self.grid
        after = rows + self.stride
        with torch.no_grad():
            nxt = plain_soft_value(
                self.target(self.features[after]), s * self.cost[after], c.alpha, self.tradable[after]
            )
            nxt = nxt + s * self.before[after]
            reward = self.returns[rows, None] * g - self.holding[rows]
            reward = reward - c.risk_aversion / 2 * self.variance[rows, None] * g**2
            target = s * reward + c.gamma * nxt
        return (self.online(self.features[rows]) - target).square().mean()

    def update(self, rows):
        loss = self.loss(rows)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.updates += 1
        share = max(self.config.averaging, 10.0 / (9.0 + self.updates))
        with torch.no_grad():
            for mine, slow, acting in zip(
                self.online.parameters(), self.target.parameters(), self.average.parameters(), strict=True
            ):
                slow.lerp_(mine, self.config.tau)
                acting.lerp_(mine, share)
        return loss

    def layers(self, net):
        linear = [m for m in net if isinstance(m, nn.Linear)]
        return [torch.cat((m.weight, m.bias[:, None]), 1).detach() for m in linear]

    def _net(self, widths):
        parts = []
        for fan_in, out in pairwise(widths):
            parts += [nn.Linear(fan_in, out, dtype=self.dtype), nn.ReLU()]
        return nn.Sequential(*parts[:-1])

    def _tensor(self, values):
        return torch.from_numpy(np.asarray(values)).to(self.dtype)
