"""Exact SAC: discrete SAC on a grid of positions with the policy step solved exactly.

The trader is a price taker: of the state (x, p) the market part x moves by itself, and what a decision pays is
known for every position p held before and every target a. Let t be a decision at a close and f the first open of its
interval at which an order can fill:

    b(p)     what the old position earns and pays from close t to f
    y        return of a unit from f to the close that ends the interval
    k(a)     swap and other costs of holding a after f
    c        one-way cost at f, as it is known at close t

    W(x, a)    = a y - lambda / 2 sigma^2 a^2 - k(a) + gamma E[ V(x', a) | x ]     post-decision value
    Q(x, p, a) = b(p) + W(x, a) - c |a - p|
    pi(a|x, p) = softmax_a( (W(x, a) - c |a - p|) / alpha )
    V(x, p)    = b(p) + alpha log mean_a exp( (W(x, a) - c |a - p|) / alpha )
    V(x, p)    = b(p) + W(x, p)                                                     where nothing can fill

W does not depend on p (post-decision value: Powell 2011, "Approximate Dynamic Programming", ch. 4), pi is the exact
minimiser of SAC's policy step (Haarnoja et al. 2018, arXiv:1812.05905, eq. 10) on the grid, and V is the soft value
relative to the uniform policy, a constant off SAC's. It is discrete SAC (Christodoulou 2019, arXiv:1910.07207)
without an actor to fit; equally, soft value iteration fitted to bars. One network maps x to W at every position, one
drawn decision trains all its outputs, every valid row is a start: no replay, no exploration, no environment steps.

It holds only where the next market state does not depend on position or target: no stops inside bars, no margin
close-out, no loss limits, no impact in the path.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sac_kernel.agent.exact_grid import greedy_target
from sac_kernel.agent.exact_policy import ExactPolicy
from sac_kernel.agent.exact_rewards import reward_scale, reward_table
from sac_kernel.agent.exact_update import Batch, Layout, Terms, Weights, Workspace, update
from sac_kernel.core.config import require
from sac_kernel.core.errors import ConfigError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sac_kernel.agent.exact_config import ExactConfig
    from sac_kernel.agent.exact_rewards import ExactProblem

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

_AVERAGE_START = 10.0  # early networks are bad: the newest counts 10 / (9 + number of the update) at least
_TIMED = 20  # updates between two looks at the clock
_DRAWN_AT_ONCE = 64  # updates; the draws of a block are a function of (seed, number of the block)

logger = logging.getLogger(__name__)


class ExactTraining:
    """P agents of equal shape in training. Each has its own problem, settings and seed.

    All of it is a function of the number of updates done: a training that is cut, saved (`state`), restored and
    gone on with is bit for bit the one that was not cut.

    Parameters
    ----------
    problems, configs, seeds : one of each for each agent; positions, hidden_dims, batch_size and the number of
        features must agree
    device : where to train
    dtype : of weights and products

    Raises
    ------
    ConfigError
        If their lengths or shapes differ, or a setting needs what its problem lacks.
    DataError
        If a problem has no scale.
    """

    def __init__(
        self,
        problems: Sequence[ExactProblem],
        configs: Sequence[ExactConfig],
        seeds: Sequence[int],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _check_alike(problems, configs, seeds)
        self.problems, self.configs, self.seeds = tuple(problems), tuple(configs), tuple(seeds)
        self._device, self._dtype = torch.device(device), dtype
        self.scales = [reward_scale(problem) for problem in problems]
        first = configs[0]
        self._inputs = problems[0].features.shape[1]
        self._layout = Layout((self._inputs, *first.hidden_dims, first.positions))
        start = torch.stack([self._layout.initial(seed, dtype) for seed in seeds])
        self.weights = Weights(self._layout, start.to(self._device))
        like = self.weights.online
        self._space = Workspace(self._layout.widths, len(seeds), first.batch_size, like)
        self._terms = self._make_terms()
        self._lay_out()
        self.updates = 0
        self._rows: tuple[torch.Tensor, ...] | None = None

    def run(self, updates: int) -> FloatArray:
        """Do so many updates and return each agent's last loss, (P,), in scaled units squared."""
        error: torch.Tensor | None = None
        for _ in range(updates):
            error = update(self.weights, self._batch(), self._terms, self._space)
            self.updates += 1
        if error is None:
            return np.full(len(self.seeds), np.nan)
        return np.asarray(error.square().mean((1, 2)).cpu().numpy(), np.float64)

    def policy(self, agent: int) -> ExactPolicy:
        """Return what one agent acts with now."""
        weights = self.weights.average[agent].detach().clone().to("cpu", torch.float32)
        return ExactPolicy(self.configs[agent], weights, self._inputs, self.scales[agent], self.updates)

    def metrics(self, agent: int, rows: int = 1_000) -> dict[str, float]:
        """Return what one agent's values and policy are now, means over evenly spaced starts that can be traded.

        For a position of each of the grid, without b(p), in scaled units: `value` V, `q` the mean of Q under pi,
        `entropy` of pi in nats, `abs_action` of the greedy target from flat.
        """
        problem, config, policy = self.problems[agent], self.configs[agent], self.policy(agent)
        starts = problem.starts
        if problem.tradable is not None:
            starts = starts[problem.tradable[starts]]
        taken = starts[np.linspace(0, len(starts) - 1, min(rows, len(starts))).astype(np.int64)]
        values, cost, grid = policy.values(problem.features[taken]), problem.cost[taken], policy.grid
        q = values[:, None, :] - cost[:, None, None] * np.abs(grid[:, None] - grid)  # (n, p, a)
        q = torch.from_numpy(q * policy.scale)
        log_pi = torch.log_softmax(q / config.alpha, -1)
        pi = log_pi.exp()
        value = config.alpha * (torch.logsumexp(q / config.alpha, -1) - np.log(config.positions))
        target = greedy_target(values, grid, np.zeros(len(taken)), cost)
        return {
            "value": float(value.mean()),
            "q": float((pi * q).sum(-1).mean()),
            "entropy": float(-(pi * log_pi).sum(-1).mean()),
            "abs_action": float(np.abs(target).mean()),
        }

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as tensors on the CPU and a number."""
        vectors = {name: value.cpu().clone() for name, value in self.weights.vectors().items()}
        return {"updates": self.updates, **vectors}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same problems, configs and seeds."""
        for name, value in self.weights.vectors().items():
            value.copy_(state[name])
        self.updates, self._rows = int(state["updates"]), None

    def begin(self, agent: int, policy: ExactPolicy) -> None:
        """Begin one agent with the weights of a policy of the same shape, in this problem's scale."""
        start = policy.weights.to(self._dtype).clone()
        self._layout.layers(start[None])[-1].mul_(self.scales[agent] / policy.scale)
        for vector in (self.weights.online, self.weights.target, self.weights.average):
            vector[agent] = start.to(self._device)

    def _batch(self) -> Batch:
        place = self.updates % _DRAWN_AT_ONCE
        if place == 0 or self._rows is None:
            self._rows = self._draw(self.updates // _DRAWN_AT_ONCE)
        features, rewards, share = (rows[place] for rows in self._rows)
        p, size = len(self.seeds), self.configs[0].batch_size
        taken = self._table.index_select(0, rewards).view(p, size, -1).mT  # (P, G + 1, B)
        return Batch(
            self._features.index_select(0, features).view(2 * p, size, -1),
            taken[:, :-1],
            taken[:, -1].double().neg_().exp_(),
            share,
        )

    def _draw(self, block: int) -> tuple[torch.Tensor, ...]:
        """Return for a block of n updates rows of features (n, 2 P B), rows of rewards (n, P B), shares (n, P, 1)."""
        size = self.configs[0].batch_size
        drawn = np.stack([
            starts[np.random.default_rng((seed, block)).integers(len(starts), size=(_DRAWN_AT_ONCE, size))]
            for seed, starts in zip(self.seeds, self._starts, strict=True)
        ], axis=1)  # fmt: skip
        own = drawn + self._feature_offset
        features = np.stack((own, own + self._stride), axis=1).reshape(_DRAWN_AT_ONCE, -1)
        rewards = (drawn + self._reward_offset).reshape(_DRAWN_AT_ONCE, -1)
        number = 1.0 + block * _DRAWN_AT_ONCE + np.arange(_DRAWN_AT_ONCE)
        least = np.array([config.averaging for config in self.configs])
        share = np.maximum(least, _AVERAGE_START / (_AVERAGE_START - 1.0 + number[:, None]))[:, :, None]
        return (
            torch.from_numpy(features).to(self._device),
            torch.from_numpy(rewards).to(self._device),
            torch.from_numpy(share).to(self._device, self._dtype),
        )

    def _lay_out(self) -> None:
        """Put features and rewards on the device, each once, however many agents share them."""
        features: dict[int, tuple[int, torch.Tensor]] = {}
        rewards: dict[tuple[Any, ...], tuple[int, torch.Tensor]] = {}
        feature_at = reward_at = 0
        offsets = []
        for problem, config, scale in zip(self.problems, self.configs, self.scales, strict=True):
            if id(problem.features) not in features:
                table = torch.from_numpy(problem.features).to(self._dtype)
                ones = table.new_ones(len(table), 1)  # the input that the bias is the weight of
                features[id(problem.features)] = (feature_at, torch.cat((table, ones), dim=1))
                feature_at += len(table)
            key = (id(problem), config.gamma, config.alpha, config.risk_aversion)
            if key not in rewards:
                reward = torch.from_numpy(reward_table(problem, config, scale)).to(self._dtype)
                rewards[key] = (reward_at, reward)
                reward_at += len(reward)
            offsets.append((features[id(problem.features)][0], rewards[key][0], problem.stride))
        column = np.asarray(offsets, np.int64).T[:, :, None]
        self._feature_offset, self._reward_offset, self._stride = column
        self._starts = [problem.starts for problem in self.problems]
        self._features = torch.cat([table for _, table in features.values()]).to(self._device)
        self._table = torch.cat([table for _, table in rewards.values()]).to(self._device)

    def _make_terms(self) -> Terms:
        def column(name: str, *shape: int) -> torch.Tensor:
            values = [getattr(config, name) for config in self.configs]
            return torch.tensor(values, dtype=self._dtype, device=self._device).view(-1, *shape)

        groups: dict[tuple[float, float], list[int]] = {}
        for agent, config in enumerate(self.configs):
            groups.setdefault((config.learning_rate, config.weight_decay), []).append(agent)
        descents = tuple(
            (None if len(groups) == 1 else tuple(members), *setting) for setting, members in groups.items()
        )
        return Terms(column("gamma", 1, 1), column("alpha", 1, 1), column("tau", 1), descents)


def train_exact(
    problem: ExactProblem, config: ExactConfig, updates: int, seed: int = 0, device: str = "cpu"
) -> ExactPolicy:
    """Train one agent and return what it acts with. Equal arguments give equal bits on the CPU.

    Raises
    ------
    ConfigError, DataError
        If problem and settings do not fit each other, or the problem has no scale.
    NonFiniteError
        If the training diverges.
    """
    require(updates >= 0, "train_exact", "updates must be >= 0", updates)
    training = ExactTraining([problem], [config], [seed], device)
    training.run(updates)
    policy = training.policy(0)
    if not torch.isfinite(policy.weights).all():
        msg = f"train_exact: the weights are not finite after {updates} updates of seed {seed}; lower learning_rate"
        raise NonFiniteError(msg)
    return policy


def train_exact_population(
    problems: Sequence[ExactProblem],
    configs: Sequence[ExactConfig],
    updates: int | Sequence[int],
    seeds: Sequence[int],
    device: str = "cpu",
) -> list[ExactPolicy]:
    """Train agents of equal shape side by side, and return what each acts with.

    Each agent equals the same one trained alone (`train_exact`). One that diverges is named in the log, and its policy
    raises NonFiniteError when it is used; the others go on.

    Parameters
    ----------
    problems, configs, seeds : as of `ExactTraining`
    updates : of all, or of each

    Raises
    ------
    ConfigError, DataError
        As of `ExactTraining`.
    """
    training = ExactTraining(problems, configs, seeds, device)
    ends = [updates] * len(seeds) if isinstance(updates, int) else list(updates)
    require(
        len(ends) == len(seeds), "train_exact_population", f"updates must be one or {len(seeds)}", len(ends)
    )
    require(min(ends) >= 0, "train_exact_population", "updates must be >= 0", min(ends))
    policies: dict[int, ExactPolicy] = {}
    for end in sorted(set(ends)):
        training.run(end - training.updates)
        policies |= {agent: training.policy(agent) for agent, own in enumerate(ends) if own == end}
    for agent, policy in policies.items():
        if not torch.isfinite(policy.weights).all():
            logger.warning("agent %d (seed %d) diverged within %d updates", agent, seeds[agent], ends[agent])
    return [policies[agent] for agent in range(len(seeds))]


def faster_device(
    problems: Sequence[ExactProblem],
    configs: Sequence[ExactConfig],
    seeds: Sequence[int],
    devices: Sequence[str],
    seconds: float = 0.5,
) -> tuple[str, dict[str, float]]:
    """Return the device that does most agent-updates a second, and the rates; one device is not timed.

    A small network is mostly launches on a GPU: one agent belongs on the CPU, a hundred on the GPU.
    """
    rates: dict[str, float] = {}
    for device in devices if len(devices) > 1 else ():
        training = ExactTraining(problems, configs, seeds, device)
        training.run(_TIMED)  # `run` ends with a read of the last loss: the work is done
        started_s, done = time.perf_counter(), 0
        while time.perf_counter() - started_s < seconds:
            training.run(_TIMED)
            done += _TIMED
        rates[device] = done * len(seeds) / (time.perf_counter() - started_s)
    return max(rates, key=lambda device: rates[device]) if rates else devices[0], rates


def _check_alike(
    problems: Sequence[ExactProblem], configs: Sequence[ExactConfig], seeds: Sequence[int]
) -> None:
    where = "ExactTraining"
    counts = (len(problems), len(configs), len(seeds))
    require(
        len(set(counts)) == 1 and counts[0] > 0,
        where,
        "give one config and one seed for each problem",
        counts,
    )
    require(min(seeds) >= 0, where, "seeds must be >= 0", min(seeds))
    for name in ("positions", "hidden_dims", "batch_size"):
        values = {getattr(config, name) for config in configs}
        require(len(values) == 1, where, f"{name} must be the same for all agents of a population", values)
    widths = {problem.features.shape[1] for problem in problems}
    require(len(widths) == 1, where, "all problems must have the same number of features", widths)
    for agent, (problem, config) in enumerate(zip(problems, configs, strict=True)):
        for name in ("holding_cost", "before_fill"):
            value = getattr(problem, name)
            if value is not None and value.shape[1] != config.positions:
                msg = (
                    f"{where}: {name} of agent {agent} has {value.shape[1]} columns, but its config has "
                    f"{config.positions} positions. Use the same grid for both."
                )
                raise ConfigError(msg)
        if config.risk_aversion > 0.0 and problem.variance is None:
            msg = (
                f"{where}: agent {agent} has risk_aversion = {config.risk_aversion}, but its problem has no variance. "
                "Pass ExactProblem(variance=...)."
            )
            raise ConfigError(msg)
