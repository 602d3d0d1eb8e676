"""Exact SAC: the update against autograd, values against brute force, the policy's rule, populations, bad input."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sac_kernel.agent.exact import (
    ExactConfig,
    ExactPolicy,
    ExactProblem,
    ExactTraining,
    greedy_target,
    position_grid,
    reward_scale,
    reward_table,
    train_exact,
    train_exact_population,
)
from sac_kernel.agent.exact_update import Workspace, soft_value
from sac_kernel.errors import ConfigError, DataError, NonFiniteError
from sac_kernel.synthetic_markets import MARKETS, Judge
from tests.agent.exact_oracle import PlainAgent, plain_soft_value

SMALL = ExactConfig(positions=5, hidden_dims=(16, 8), batch_size=32, alpha=0.1, gamma=0.9)


def problem_of(rows=400, columns=3, positions=5, seed=0, stride=1, **changes):
    """A problem with every part given: costs, freeze, swaps, gaps, variances, holes."""
    rng = np.random.default_rng(seed)
    valid = np.ones(rows, bool)
    valid[50:60] = valid[-3:] = False
    fields = {
        "features": rng.standard_normal((rows + stride, columns)),
        "returns": 1e-3 * rng.standard_normal(rows),
        "cost": 1e-4 * rng.uniform(0.5, 3.0, rows),
        "tradable": rng.random(rows) < 0.8,
        "holding_cost": 1e-5 * rng.uniform(0.0, 1.0, (rows, positions)),
        "before_fill": 3e-4 * rng.standard_normal((rows, positions)),
        "variance": 1e-6 * rng.uniform(0.5, 2.0, rows),
        "valid": valid,
        "stride": stride,
    }
    return ExactProblem(**(fields | changes))


# -- the update ---------------------------------------------------------------------------------------


def close(a, b, tolerance=1e-9):
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(SMALL, risk_aversion=2.0, weight_decay=0.5, tau=0.3, averaging=0.5),
        dataclasses.replace(SMALL, positions=21, alpha=0.02, hidden_dims=(16,)),
    ],
    ids=["plain", "risk and decay", "21 positions"],
)
def test_the_update_by_hand_is_that_of_autograd(config, stride):
    problem = problem_of(positions=config.positions, stride=stride)
    training = ExactTraining([problem], [config], [3], dtype=torch.float64)
    plain = PlainAgent(problem, config, training.scales[0], torch.float64)
    plain.copy_first([layer[0] for layer in training.weights.layers])
    feature_rows = training._draw(0)[0][:, : config.batch_size]
    for rows in feature_rows[:20]:
        loss = plain.loss(rows).detach()
        assert training.run(1)[0] == pytest.approx(float(loss), rel=1e-6)
        plain.update(rows)
    for mine, net in (
        (training.weights.online, plain.online),
        (training.weights.target, plain.target),
        (training.weights.average, plain.average),
    ):
        own = training._layout.layers(mine)
        assert all(close(a[0], b) for a, b in zip(own, plain.layers(net), strict=True))


def test_the_gradient_by_hand_is_that_of_autograd():
    problem = problem_of()
    training = ExactTraining([problem], [SMALL], [0], dtype=torch.float64)
    training.run(5)  # away from the first weights, whose last layer is zero
    plain = PlainAgent(problem, SMALL, training.scales[0], torch.float64)
    plain.copy_first([layer[0].clone() for layer in training.weights.layers])
    plain_target = [layer[1].clone() for layer in training.weights.layers]
    linear = [m for m in plain.target if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        for m, layer in zip(linear, plain_target, strict=True):
            m.weight.copy_(layer[:, :-1])
            m.bias.copy_(layer[:, -1])
    rows = training._draw(0)[0][5, : SMALL.batch_size]
    plain.loss(rows).backward()
    training.run(1)
    linear = [m for m in plain.online if isinstance(m, torch.nn.Linear)]
    for m, own in zip(linear, training.weights.gradients, strict=True):
        assert close(own[0], torch.cat((m.weight.grad, m.bias.grad[:, None]), 1))
        assert own.abs().max() > 1e-6


@pytest.mark.parametrize("alpha", [0.02, 1.0])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_soft_value_is_the_log_of_the_mean_over_all_pairs(alpha, scale):
    g = torch.Generator().manual_seed(0)
    values = scale * torch.randn(7, 21, generator=g, dtype=torch.float64)
    cost = torch.tensor([0.0, 1e-3, 0.1, 0.5, 2.0, 10.0, 1e4], dtype=torch.float64)
    decay = torch.exp(-cost * 0.1 / alpha)
    space = Workspace((1, 1, 21), 1, 7, values)
    soft = soft_value(values.T[None], decay[None], torch.full((1, 1, 1), alpha, dtype=torch.float64), space)
    expected = plain_soft_value(values, cost, alpha) + alpha * math.log(21)
    assert close(soft[0].T, expected, 1e-12)


def test_the_soft_value_of_what_cannot_fill_is_the_value_of_the_position():
    values = 30.0 * torch.randn(1, 21, 4, generator=torch.Generator().manual_seed(0))  # exp underflows to 0
    space = Workspace((1, 1, 21), 1, 4, values)
    soft = soft_value(values, torch.zeros(1, 4, dtype=torch.float64), torch.full((1, 1, 1), 0.02), space)
    assert torch.allclose(soft, values, rtol=1e-6)


def test_the_learnt_value_is_that_of_exact_dynamic_programming():
    """Four states in a ring, seen one-hot, with a cost, a gap, a frozen state and swaps: W by iterating its equation."""
    states, grid = 4, position_grid(5)
    rows = np.arange(800) % states
    returns = np.array([1.0, -0.6, 0.0, 0.3])
    cost = np.array([0.2, 0.1, 0.4, 0.3])
    gap = np.array([0.1, 0.0, -0.5, 0.2])
    tradable = np.array([True, True, False, True])
    holding = 0.05 * np.abs(grid) * np.array([[1.0], [0.0], [0.0], [2.0]])
    before = gap[:, None] * grid
    config = ExactConfig(
        positions=5, gamma=0.8, alpha=0.1, hidden_dims=(32,), batch_size=64, learning_rate=3e-3, tau=0.05,
        risk_aversion=0.2,
    )  # fmt: skip
    variance = np.array([0.5, 1.0, 0.0, 2.0])
    problem = ExactProblem(
        np.eye(states)[np.arange(801) % states], returns[rows], cost[rows], tradable[rows], holding[rows],
        before[rows], variance[rows],
    )  # fmt: skip
    policy = train_exact(problem, config, 4_000)
    scale = policy.scale
    w = np.zeros((states, 5))  # scaled units
    after = (np.arange(states) + 1) % states
    own = returns[:, None] * grid - 0.1 * variance[:, None] * grid**2 - holding
    for _ in range(300):
        soft = plain_soft_value(
            torch.from_numpy(w), torch.from_numpy(scale * cost), 0.1, torch.from_numpy(tradable)
        ).numpy()
        w = scale * own + 0.8 * (scale * before + soft)[after]
    learnt = policy.values(np.eye(states)) * scale
    assert np.abs(learnt - w).max() < 0.02
    assert np.abs(w).max() > 0.5


def test_a_row_of_the_reward_table_is_what_the_equation_says():
    problem = problem_of(stride=2)
    config = dataclasses.replace(SMALL, risk_aversion=3.0)
    grid, t, scale = position_grid(5), 7, 500.0
    table = reward_table(problem, config, scale)
    paid = problem.returns[t] * grid - 1.5 * problem.variance[t] * grid**2 - problem.holding_cost[t]
    entropy = 0.1 * math.log(5) if problem.tradable[9] else 0.0
    expected = scale * paid + 0.9 * (scale * problem.before_fill[9] - entropy)
    np.testing.assert_allclose(table[t, :-1], expected, rtol=1e-5)
    exponent = scale * problem.cost[9] * 0.5 / 0.1 if problem.tradable[9] else math.inf
    assert table[t, -1] == pytest.approx(exponent, rel=1e-6)
