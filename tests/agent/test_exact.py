"""Exact SAC: the update against autograd, values against brute force, the policy's rule, populations, bad input."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sac_kernel.agent.exact import ExactTraining, train_exact, train_exact_population
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_grid import greedy_target, position_grid
from sac_kernel.agent.exact_policy import ExactPolicy
from sac_kernel.agent.exact_rewards import ExactProblem, reward_scale, reward_table
from sac_kernel.agent.exact_update import Workspace, soft_value
from sac_kernel.core.errors import ConfigError, DataError, NonFiniteError
from sac_kernel.market.known_answer import Judge
from sac_kernel.market.known_answer_kinds import ALL_MARKETS
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
    """Four states in a ring, seen one-hot, with costs, gaps, a frozen state and swaps: W by iterating its equation."""
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


@pytest.mark.parametrize("fills", [True, False])
def test_a_row_of_the_reward_table_is_what_the_equation_says(fills):
    tradable = np.full(400, fills)
    problem = problem_of(stride=2, tradable=tradable)
    config = dataclasses.replace(SMALL, risk_aversion=3.0)
    grid, t, scale = position_grid(5), 7, 500.0
    table = reward_table(problem, config, scale)
    paid = problem.returns[t] * grid - 1.5 * problem.variance[t] * grid**2 - problem.holding_cost[t]
    entropy, exponent = (0.1 * math.log(5), scale * problem.cost[9] * 0.5 / 0.1) if fills else (0.0, math.inf)
    expected = scale * paid + 0.9 * (scale * problem.before_fill[9] - entropy)
    np.testing.assert_allclose(table[t, :-1], expected, rtol=1e-9)
    assert table[t, -1] == pytest.approx(exponent)


def test_a_successor_beyond_the_rows_has_the_last_rows_cost_and_no_gap():
    problem = problem_of(stride=2, tradable=np.zeros(400, bool))
    table, grid = reward_table(problem, SMALL, 500.0), position_grid(5)
    paid = problem.returns[-1] * grid - problem.holding_cost[-1]
    np.testing.assert_allclose(table[-1, :-1], 500.0 * paid - 0.9 * 0.1 * math.log(5), rtol=1e-9)
    assert table[-1, -1] == pytest.approx(500.0 * problem.cost[-1] * 0.5 / 0.1)


# -- the greedy rule --------------------------------------------------------------------------------------


def brute_target(w, grid, p, cost):
    """The rule by its words, one row."""
    best, value = p, float(np.interp(p, grid, w))
    for a, own in zip(grid, w, strict=True):
        if abs(a - p) >= 1e-6 and own - cost * abs(a - p) > value:
            best, value = a, own - cost * abs(a - p)
    return best


def test_the_greedy_target_is_the_best_of_all_candidates():
    rng = np.random.default_rng(0)
    grid = position_grid(21)
    w, cost = np.cumsum(rng.normal(0, 1e-3, (500, 21)), axis=1), rng.uniform(0, 2e-2, 500)
    held = rng.uniform(-1, 1, 500)
    held[:100] = grid[rng.integers(21, size=100)]
    expected = np.array([brute_target(*row) for row in zip(w, [grid] * 500, held, cost, strict=True)])
    chosen = greedy_target(w, grid, held, cost)
    np.testing.assert_array_equal(chosen, expected)
    kept = chosen == held
    assert 50 < kept.sum() < 450


@pytest.mark.parametrize("held", [0.3, -1.0, 1.0, 0.123456789, np.float32(0.1), np.nextafter(0.5, 1.0)])
def test_what_is_held_comes_back_bit_for_bit(held):
    grid = position_grid(21)
    flat = np.zeros((1, 21))
    for cost in (0.0, 1e-4):  # ties go to holding
        assert greedy_target(flat, grid, [held], cost)[0] == held
    # A slope above the cost moves it only to another grid position, never by the rounding of the same one.
    steep = grid[None, :] * 1e-3
    assert greedy_target(steep, grid, [held], 1e-4)[0] == 1.0
    assert greedy_target(steep, grid, [held], 1e-4, tradable=False)[0] == held


def test_a_hair_beside_a_grid_position_is_that_position():
    grid = position_grid(21)
    peak = -np.abs(grid - 0.3)[None, :]
    held = float(np.float32(0.3))
    assert held != 0.3
    assert greedy_target(peak, grid, [held], 0.0)[0] == held


def test_the_grid_is_symmetric_and_flat_is_on_it():
    for positions in (3, 11, 21, 41):
        grid = position_grid(positions)
        np.testing.assert_array_equal(grid, -grid[::-1])
        assert grid[positions // 2] == 0.0
        assert grid[-1] == 1.0
    np.testing.assert_allclose(position_grid(21), np.linspace(-1, 1, 21), atol=1e-15)


def policy_of(seed=0, columns=3):
    problem = problem_of(columns=columns)
    return train_exact(problem, SMALL, 20, seed=seed)


def test_a_policys_target_is_the_rule_on_its_values_in_return_units():
    policy = policy_of()
    x = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    held = np.linspace(-1, 1, 50)
    values = policy.values(x)
    np.testing.assert_array_equal(
        policy.target(x, held, 1e-5), greedy_target(values, policy.grid, held, 1e-5)
    )
    layers = policy._layout.layers(policy.weights[None])
    h = torch.from_numpy(x).T
    for i, layer in enumerate(layers):
        h = layer[0, :, :-1] @ (h.relu() if i else h) + layer[0, :, -1:]
    np.testing.assert_allclose(values, h.T.numpy() / policy.scale, rtol=1e-4, atol=1e-9)


def test_a_policy_comes_back_from_its_state():
    policy = policy_of()
    again = ExactPolicy.from_state(policy.state())
    x = np.random.default_rng(1).standard_normal((9, 3))
    np.testing.assert_array_equal(again.values(x), policy.values(x))
    assert again.config == policy.config
    assert (again.scale, again.updates) == (policy.scale, 20)


# -- determinism, populations, resume ----------------------------------------------------------------------


def test_equal_seeds_give_equal_bits_and_others_do_not():
    assert torch.equal(policy_of(4).weights, policy_of(4).weights)
    assert not torch.equal(policy_of(4).weights, policy_of(5).weights)


def test_each_seed_draws_its_own_decisions_and_each_block_others():
    first, other = (ExactTraining([problem_of()], [SMALL], [seed])._draw(0)[1] for seed in (0, 1))
    again = ExactTraining([problem_of()], [SMALL], [0])
    assert torch.equal(again._draw(0)[1], first)
    assert not torch.equal(first, other)
    assert not torch.equal(again._draw(1)[1], first)
    starts = problem_of().starts
    drawn = np.unique(torch.cat([again._draw(block)[1] for block in range(4)]))
    np.testing.assert_array_equal(drawn, starts)  # every valid row and no other


def members():
    """Agents that differ in all that may differ."""
    shared = problem_of(seed=1)
    problems = [
        shared,
        shared,
        problem_of(rows=300, seed=2, stride=2),
        problem_of(seed=3, tradable=None),
        shared,
    ]
    configs = [
        SMALL,
        dataclasses.replace(SMALL, gamma=0.5, alpha=0.5),
        dataclasses.replace(SMALL, learning_rate=3e-3, tau=0.2),
        dataclasses.replace(SMALL, weight_decay=1.0, averaging=1.0),
        dataclasses.replace(SMALL, risk_aversion=2.0),
    ]
    return problems, configs, [40, 70, 130, 40, 40], [0, 0, 1, 2, 3]


def test_each_agent_of_a_population_is_the_same_one_alone_bit_for_bit():
    problems, configs, updates, seeds = members()
    together = train_exact_population(problems, configs, updates, seeds)
    for problem, config, number, seed, policy in zip(
        problems, configs, updates, seeds, together, strict=True
    ):
        alone = train_exact(problem, config, number, seed)
        assert torch.equal(policy.weights, alone.weights)
        assert (policy.updates, policy.scale) == (number, alone.scale)
    assert len({tuple(policy.weights.tolist()) for policy in together}) == 5


def test_a_large_population_of_the_default_shape_is_its_agents_alone():
    problem = problem_of(rows=2000, columns=7, positions=21)
    seeds = list(range(6))
    together = train_exact_population([problem] * 6, [ExactConfig()] * 6, 30, seeds)
    for seed in seeds:
        alone = train_exact(problem, ExactConfig(), 30, seed)
        assert torch.equal(together[seed].weights, alone.weights)


class Counting(TorchDispatchMode):
    """Counts operations."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_depend_on_the_number_of_agents():
    problem, counts = problem_of(), []
    for agents in (1, 2, 16):
        training = ExactTraining([problem] * agents, [SMALL] * agents, list(range(agents)))
        training.run(1)
        with Counting() as counting:
            training.run(1)
        counts.append(counting.count)
    assert counts[0] == counts[1] == counts[2]
    assert 40 < counts[0] < 120


def test_cut_and_gone_on_is_uncut_bit_for_bit():
    problems, configs, _, seeds = members()
    whole = ExactTraining(problems, configs, seeds)
    whole.run(150)
    first = ExactTraining(problems, configs, seeds)
    first.run(77)
    second = ExactTraining(problems, configs, seeds)
    second.run(3)  # what it has done is overwritten
    second.restore(first.state())
    second.run(73)
    for name, value in whole.state().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(second.state()[name])), name


def test_the_state_of_one_agent_of_the_default_shape_is_small():
    training = ExactTraining([problem_of(columns=40, positions=21)], [ExactConfig()], [0])
    size = sum(v.numel() * v.element_size() for v in training.state().values() if isinstance(v, torch.Tensor))
    assert size < 2_000_000


def test_one_that_diverges_is_named_and_the_others_go_on(caplog):
    problem = problem_of()
    bad = dataclasses.replace(SMALL, learning_rate=1e30)
    good, diverged = train_exact_population([problem] * 2, [SMALL, bad], 50, [0, 17])
    assert torch.equal(good.weights, train_exact(problem, SMALL, 50, 0).weights)
    assert "17" in caplog.text
    with pytest.raises(NonFiniteError):
        diverged.target(np.zeros((1, 3)), [0.0], 1e-4)
    with pytest.raises(NonFiniteError, match="17"):
        train_exact(problem, bad, 50, 17)


def test_the_metrics_satisfy_the_identity_of_soft_values():
    """V = E_pi[Q] + alpha H - alpha log G, and an untrained agent is indifferent but for costs."""
    training = ExactTraining([problem_of(cost=0.0)], [SMALL], [0])
    first = training.metrics(0)
    assert first["entropy"] == pytest.approx(math.log(5))
    assert first["value"] == pytest.approx(0.0, abs=1e-12)
    training.run(50)
    later = training.metrics(0)
    assert later["value"] == pytest.approx(later["q"] + 0.1 * (later["entropy"] - math.log(5)))
    assert later["entropy"] < first["entropy"]
    assert first["abs_action"] == 0.0 < later["abs_action"] <= 1.0


# -- learning -------------------------------------------------------------------------------------------------


def path_problem(market, bars, seed, returns=None):
    path = market.simulate(bars, 1, np.random.default_rng(seed))
    earned = path.mean[:, 0] if returns is None else returns
    return ExactProblem(path.features[:, 0], earned, market.cost)


@pytest.mark.learns
@pytest.mark.parametrize(("name", "seed"), [("M3", 0), ("M4", 1)])
def test_a_market_with_an_edge_is_learnt_in_seconds(name, seed):
    market = ALL_MARKETS[name]
    policy = train_exact(path_problem(market, 20_000, seed), ExactConfig(gamma=market.gamma), 800, seed)
    judge = Judge(market, bars=200, n=128)
    result = judge.result(lambda obs: policy.target(obs[:, :-1], obs[:, -1], market.cost))
    assert judge.capture(result) > 0.95
    assert judge.turnover_ratio(result) == pytest.approx(1.0, abs=0.15)


@pytest.mark.learns
@pytest.mark.parametrize("start", [0.0, 0.7, -0.123])
def test_on_a_market_without_an_edge_what_is_held_is_held(start):
    market = ALL_MARKETS["M6"]
    problem = path_problem(market, 20_000, 0, np.zeros(20_000))
    policy = train_exact(problem, ExactConfig(gamma=market.gamma), 300)
    paths = market.simulate(500, 1, np.random.default_rng(5))
    position = np.array([start])
    for t in range(500):
        position = policy.target(paths.features[t], position, market.cost)
    assert position[0] == start


@pytest.mark.learns
def test_risk_aversion_makes_positions_smaller():
    market = ALL_MARKETS["M4"]
    path = market.simulate(20_000, 1, np.random.default_rng(0))
    used = []
    for risk_aversion in (0.0, 0.3):
        problem = ExactProblem(path.features[:, 0], path.mean[:, 0], 0.01, variance=np.ones(20_000))
        config = ExactConfig(gamma=market.gamma, risk_aversion=risk_aversion)
        policy = train_exact(problem, config, 600)
        used.append(np.abs(policy.target(path.features[:2000, 0], np.zeros(2000), 0.01)).mean())
    assert used[1] < 0.5 * used[0]


@pytest.mark.learns
def test_what_cannot_be_traded_is_planned_for():
    """Two rows in turn: only the first can be traded, all is earned in the second: the position is taken before."""
    rows = 600
    open_now = np.arange(rows) % 2 == 0
    sign = np.repeat(np.random.default_rng(0).choice([-1.0, 1.0], rows // 2), 2)
    features = np.stack((np.append(open_now, True), np.append(sign, 1.0)), axis=1)
    before = np.where(open_now, 0.0, sign)[:, None] * position_grid(21)
    problem = ExactProblem(features, np.zeros(rows), 0.1, open_now, before_fill=before)
    policy = train_exact(problem, ExactConfig(gamma=0.9, hidden_dims=(32,)), 800)
    chosen = policy.target([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0], 0.1)
    np.testing.assert_array_equal(chosen, [1.0, -1.0])


# -- scale and refusals ------------------------------------------------------------------------------------------


def test_the_scale_is_of_the_returns_or_half_the_cost():
    returns = np.tile([3e-3, -3e-3], 50)
    x = np.zeros((101, 1))
    assert reward_scale(ExactProblem(x, returns, 1e-4)) == pytest.approx(1 / 3e-3, rel=1e-5)
    assert reward_scale(ExactProblem(x, returns, 8e-3)) == pytest.approx(1 / 4e-3, rel=1e-5)
    assert reward_scale(ExactProblem(x, 0 * returns, 8e-3)) == pytest.approx(1 / 4e-3, rel=1e-5)
    gap = np.outer(np.full(100, 4e-3), position_grid(5))  # a unit then earns 7e-3 or 1e-3, the last row 3e-3
    with_gap = reward_scale(ExactProblem(x, returns, 1e-4, before_fill=gap))
    assert with_gap == pytest.approx(1 / math.sqrt((50 * 49e-6 + 49 * 1e-6 + 9e-6) / 100), rel=1e-5)
    valid = np.arange(100) < 50
    mixed = np.where(valid, returns, 1e3)
    assert reward_scale(ExactProblem(x, mixed, 1e-4, valid=valid)) == pytest.approx(1 / 3e-3, rel=1e-5)


def test_the_unit_of_the_returns_changes_no_decision():
    policies = []
    for unit in (1.0, 1024.0):
        own = problem_of(seed=1)
        problem = ExactProblem(
            own.features, unit * own.returns, unit * own.cost, own.tradable, unit * own.holding_cost,
            unit * own.before_fill, valid=own.valid,
        )  # fmt: skip
        policies.append(train_exact(problem, SMALL, 100))
    x = np.random.default_rng(0).standard_normal((200, 3))
    np.testing.assert_allclose(policies[1].values(x), 1024 * policies[0].values(x), rtol=1e-3, atol=1e-6)


def bad(name, value, at):
    problem = problem_of()
    changed = np.array(getattr(problem, name), np.float64)
    changed[at] = value
    return {name: changed}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"features": np.zeros((400, 3))}, "features"),
        ({"features": np.zeros(401)}, "features"),
        ({"features": np.zeros((401, 0))}, "features"),
        ({"returns": np.zeros((400, 1))}, "returns"),
        ({"cost": np.zeros(399)}, "cost"),
        ({"tradable": np.ones(401, bool)}, "tradable"),
        ({"valid": np.ones(401, bool)}, "valid"),
        ({"variance": np.ones(5)}, "variance"),
        ({"holding_cost": np.zeros((399, 5))}, "holding_cost"),
        ({"before_fill": np.zeros(400)}, "before_fill"),
        (bad("features", np.nan, (7, 1)), r"features\[7\]"),
        (bad("features", np.inf, (48, 0)), r"features\[48\]"),
        (bad("features", np.nan, (397, 2)), r"features\[397\]"),  # no start, but a successor
        (bad("returns", np.nan, 9), r"returns\[9\]"),
        (bad("cost", np.nan, 11), r"cost\[11\]"),
        (bad("cost", -1e-9, 12), r"cost\[12\]"),
        (bad("variance", -1.0, 13), r"variance\[13\]"),
        (bad("holding_cost", np.nan, (14, 2)), r"holding_cost\[14\]"),
        (bad("before_fill", np.inf, (15, 2)), r"before_fill\[15\]"),
        (bad("before_fill", np.nan, (50, 2)), r"before_fill\[50\]"),  # no start, but a successor
        ({"valid": np.zeros(400, bool)}, "0 of 400"),
        ({"valid": np.arange(400) < 5}, "5 of 400"),
        ({"stride": 0}, "stride"),
    ],
)
def test_bad_input_is_refused_by_name_and_place(changes, place):
    with pytest.raises((DataError, ConfigError), match=place):
        problem_of(**changes)


@pytest.mark.parametrize("name", ["features", "returns", "cost", "holding_cost", "before_fill", "variance"])
def test_rows_that_are_never_learnt_from_may_hold_anything(name):
    at = (55, 1) if np.ndim(getattr(problem_of(), name)) == 2 else 55
    clean, dirty = problem_of(), problem_of(**bad(name, np.nan, at))
    assert torch.equal(train_exact(clean, SMALL, 20).weights, train_exact(dirty, SMALL, 20).weights)


def test_a_problem_without_a_scale_is_refused():
    with pytest.raises(DataError, match="0"):
        train_exact(ExactProblem(np.zeros((101, 1)), np.zeros(100), 0.0), SMALL, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": 1.0},
        {"positions": 4},
        {"positions": 1},
        {"hidden_dims": ()},
        {"hidden_dims": (0,)},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"tau": 0.0},
        {"alpha": 0.0},
        {"risk_aversion": -1.0},
        {"weight_decay": -1.0},
        {"averaging": 0.0},
        {"learning_rate": math.nan},
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(changes):
    (name,) = changes
    with pytest.raises(ConfigError, match=name):
        ExactConfig(**changes)


def test_settings_that_do_not_fit_the_problem_are_refused():
    problem = problem_of()
    with pytest.raises(ConfigError, match="positions"):
        train_exact(problem, ExactConfig(), 1)
    with pytest.raises(ConfigError, match="risk_aversion"):
        train_exact(problem_of(variance=None), dataclasses.replace(SMALL, risk_aversion=1.0), 1)
    with pytest.raises(ConfigError, match="updates"):
        train_exact(problem, SMALL, -1)
    with pytest.raises(ConfigError, match="seeds"):
        train_exact(problem, SMALL, 1, seed=-1)


@pytest.mark.parametrize(
    ("problems", "configs", "seeds", "name"),
    [
        ([0, 0], [0], [0, 1], r"\(2, 1, 2\)"),
        ([], [], [], r"\(0, 0, 0\)"),
        ([0, 0], [0, 1], [0, 1], "hidden_dims"),
        ([0, 1], [0, 0], [0, 1], "features"),
    ],
)
def test_agents_that_cannot_be_stacked_are_refused(problems, configs, seeds, name):
    kinds = [problem_of(), problem_of(columns=4)]
    settings = [SMALL, dataclasses.replace(SMALL, hidden_dims=(8, 8))]
    with pytest.raises(ConfigError, match=name):
        train_exact_population([kinds[i] for i in problems], [settings[i] for i in configs], 1, seeds)


@pytest.mark.parametrize(
    ("features", "position", "cost", "place"),
    [
        (np.zeros((2, 4)), [0, 0], 1e-4, "features"),
        (np.full((2, 3), np.nan), [0, 0], 1e-4, "features"),
        (np.zeros((2, 3)), [0, 1.5], 1e-4, r"position\[1\]"),
        (np.zeros((2, 3)), [math.nan, 0], 1e-4, r"position\[0\]"),
        (np.zeros((2, 3)), [0, 0, 0], 1e-4, "position"),
        (np.zeros((2, 3)), [0, 0], -1.0, "cost"),
        (np.zeros((2, 3)), [0, 0], [0.0, math.nan], r"cost\[1\]"),
    ],
)
def test_what_cannot_be_acted_on_is_refused(features, position, cost, place):
    with pytest.raises(DataError, match=place):
        policy_of().target(features, position, cost)
