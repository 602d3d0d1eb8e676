"""The agent of either learner on markets with a known optimum: captured share of it, turnover, mark.

The captured share is that of the optimum's noise-free reward on fresh paths, by the final greedy policy (the
averaged actor); `best` is the best of ten evaluations during training. docs/learning.md, "Markets with a known
optimum", says how each market is learnt.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sac_kernel.agent.config import EXACT, SACConfig
from sac_kernel.agent.exact import ExactTraining
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_rewards import ExactProblem
from sac_kernel.agent.sac import Interaction, SACAgent
from sac_kernel.experiment.planted_edge import band_policy, one_path
from sac_kernel.experiment.run_config import UTD_RATIO
from sac_kernel.features.forecast import ReturnForecast, fit_forecast, reward_spread
from sac_kernel.features.forecast_input import ForecastInput
from sac_kernel.market.known_answer import (
    MARKETS,
    Judge,
    KnownAnswerMarket,
)
from sac_kernel.market.known_answer_envs import BanditVectorEnv, MarketVectorEnv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sac_kernel.experiment.planted_edge import Policy
    from sac_kernel.market.known_answer import Array

SIMULATED_ENVS, PATH_ENVS = 64, 60
PATH_BARS = 150_000
REPLAYED_BARS = 5_000  # of M7, which replays one path many times
FINITE = ("M7", "M11", "M11-02", "M12", "M13", "M14")
"""Markets with one path, whatever the rewards."""
NOISY_PATHS = ("M11", "M11-02", "M14")
"""Of these, judged against ridge and dynamic programming on the same path."""
EVALUATIONS = 10
BANDIT_UPDATES = 1_000

SHORT = {"M0": (300, 0.95), "M2": (2_000, 0.97), "M11": (1_500, 0.85)}
"""Updates and lower marks of the short form, by exact SAC."""
TABLE_HEAD = "| market | captured, median (range) | turnover | mark | |\n|---|---|---|---|---|"


class Row(NamedTuple):
    """One trained agent."""

    final: float
    best: float
    turnover: float
    reference: float  # what ridge + DP captures on the same path; NaN elsewhere
    loss: float  # noise-free loss a bar


class Setting(NamedTuple):
    """Settings of a proof.

    Attributes
    ----------
    updates : gradient updates
    rewards : 'denoised' or 'raw'
    changes : fields of `SACConfig`, or of `ExactConfig`
    log : called with one line per agent
    forecast : whether the agent sees the forecast as agent 2 does (`features.forecast_input`), on a path
    bars : of the path
    every : bars between decisions; rewards are summed, the discount is gamma^every, the judge holds too
    learner : 'exact', which learns every market from one path and knows no `forecast` and no `every`, or 'gaussian'
    """

    updates: int
    rewards: str
    changes: dict[str, Any]
    log: Callable[[str], None]
    forecast: bool = False
    bars: int = PATH_BARS
    every: int = 1
    learner: str = EXACT


class Task(NamedTuple):
    """Training task of an agent.

    Attributes
    ----------
    env : the market as a vector env
    spread : standard deviation of a unit position's reward
    reference : what ridge + band captures on the same path; NaN without a path or a linear predictor
    see : the market's observations (n, S) -> the agent's
    """

    env: Any
    spread: float
    reference: float
    see: Callable[[Array], Array]


def reference(market: KnownAnswerMarket, fitted: ReturnForecast, judge: Judge) -> float:
    """Return the share that the path's ridge captures with the best band for its strength."""
    return judge.capture(judge.result(band_policy(market, fitted)))


def on_path(market: KnownAnswerMarket, rewards: str) -> bool:
    """Return whether the market is learnt from one finite path."""
    return market.name in FINITE or (market.noise > 0 and rewards == "denoised")


def prepare(market: KnownAnswerMarket, seed: int, setting: Setting, judge: Judge | None) -> Task:
    """Return the training task of one market."""
    unseen = float("nan")
    if judge is None:
        return Task(BanditVectorEnv(SIMULATED_ENVS), 1.0, unseen, _as_is)
    if not on_path(market, setting.rewards):
        spread = float(np.hypot(market.ic, market.noise))
        env = MarketVectorEnv(market, SIMULATED_ENVS, every=setting.every)
        return Task(env, spread, unseen, _as_is)
    bars = REPLAYED_BARS if market.name == "M7" else setting.bars
    path = one_path(market, bars, seed)
    features, returns, see = path.features[:-1, 0], path.returns[:, 0], _as_is
    bound = unseen
    if market.ic and market.linear:
        bound = reference(market, fit_forecast(features, returns, heads=("ridge",)), judge)
    task = ForecastInput.fit(features, returns, np.arange(bars), purge=100)
    earned = returns if setting.rewards == "raw" else task.estimate.train
    seen_market = market
    if setting.forecast:
        # One input more: the env takes its width from the market.
        seen_market = dataclasses.replace(market, distractors=market.distractors + 1)
        column = task.column(path.features[:, 0], np.arange(bars + 1))
        path = path._replace(features=np.concatenate((path.features, column[:, None, None]), axis=-1))

        def see(obs: Array) -> Array:
            predicted = task.column(obs[:, :-1], np.full(len(obs), bars))
            return np.concatenate((obs[:, :-1], predicted[:, None], obs[:, -1:]), axis=1)

    env = MarketVectorEnv(seen_market, PATH_ENVS, path=path, returns=earned, every=setting.every)
    return Task(env, reward_spread(earned, market.cost), bound, see)


def _as_is(obs: Array) -> Array:
    return obs


def trained(
    market: KnownAnswerMarket, seed: int, setting: Setting, judge: Judge | None
) -> tuple[Policy, Row]:
    """Train the default agent on one market and judge it; return its greedy policy and row."""
    task = prepare(market, seed, setting, judge)
    utd_ratio = UTD_RATIO if on_path(market, setting.rewards) else 1.0 / SIMULATED_ENVS
    fields = {
        "gamma": market.gamma**setting.every, "utd_ratio": utd_ratio, "reward_scale": 1.0 / task.spread,
        **setting.changes,
    }  # fmt: skip
    width = task.env.single_observation_space.shape[0]
    agent = SACAgent(SACConfig.for_market(state_dim=width, **fields), device="cpu", seed=seed)
    loop, captures, result = Interaction(agent, task.env, seed), [], None

    def policy(obs: Array) -> Array:
        return np.asarray(agent.select_action(task.see(obs), evaluate=True), np.float64)

    started = time.process_time()
    for part in range(1, EVALUATIONS + 1):
        while agent.updates < setting.updates * part // EVALUATIONS:
            loop.advance()
        if judge is None:
            signs = np.array([[-1.0], [1.0]])
            captures.append(float((policy(signs) * signs).mean()))
            continue
        result = judge.result(policy, setting.every)
        captures.append(judge.capture(result) if market.ic else result.reward)
    metrics = agent.pop_metrics(agent.updates)
    turnover = (
        judge.turnover_ratio(result) if judge and result and market.ic else getattr(result, "turnover", 0.0)
    )
    setting.log(
        f"  {market.name} seed {seed}: {' '.join(f'{c:.4g}' for c in captures)}; turnover {turnover:.3f}, "
        f"reference {task.reference:.3f}, mean entropy {metrics['entropy']:.2f}, alpha {metrics['alpha']:.4f}, "
        f"{time.process_time() - started:.0f} s"
    )
    return policy, Row(captures[-1], max(captures), turnover, task.reference, -captures[-1])


def trained_exact(
    market: KnownAnswerMarket, seed: int, setting: Setting, judge: Judge | None
) -> tuple[Policy, Row]:
    """Train exact SAC on one path of a market and judge it; return its greedy policy and row."""
    bound, started = float("nan"), time.process_time()
    if judge is None:  # the bandit
        returns = np.random.default_rng(seed).choice([-1.0, 1.0], PATH_ENVS * PATH_ENVS)
        features = np.append(returns, 1.0)[:, None]
    else:
        path = one_path(market, REPLAYED_BARS if market.name == "M7" else setting.bars, seed)
        features, returns = path.features[:, 0], path.returns[:, 0]
        if market.name in NOISY_PATHS:
            bound = reference(market, fit_forecast(features[:-1], returns, heads=("ridge",)), judge)
        if market.noise and setting.rewards == "denoised":
            returns = fit_forecast(features[:-1], returns).train
    cost = market.cost if judge else 0.0
    settings = ExactConfig(**{"gamma": market.gamma if judge else 0.0, **setting.changes})
    training = ExactTraining([ExactProblem(features, returns, cost)], [settings], [seed])
    captures, result = [], None

    def policy(obs: Array) -> Array:
        held = np.zeros(len(obs)) if judge is None else obs[:, -1]
        return acting.target(obs if judge is None else obs[:, :-1], held, cost)

    for part in range(1, EVALUATIONS + 1):
        training.run(setting.updates * part // EVALUATIONS - training.updates)
        acting = training.policy(0)
        if judge is None:
            signs = np.array([[-1.0], [1.0]])
            captures.append(float((policy(signs) * signs[:, 0]).mean()))
            continue
        result = judge.result(policy)
        captures.append(judge.capture(result) if market.ic else result.reward)
    turnover = getattr(result, "turnover", 0.0)
    if judge and result and market.ic:
        turnover = judge.turnover_ratio(result)
    setting.log(
        f"  {market.name} seed {seed}: {' '.join(f'{c:.4g}' for c in captures)}; turnover {turnover:.3f}, "
        f"reference {bound:.3f}, {time.process_time() - started:.0f} s"
    )
    return policy, Row(captures[-1], max(captures), turnover, bound, -captures[-1])


def verdict(market: KnownAnswerMarket, rows: Sequence[Row], mark: float) -> tuple[str, bool]:
    """Return one table row and whether the mark is met."""
    finals = sorted(row.final for row in rows)
    drop = max(row.best - row.final for row in rows)
    median, turnover = statistics.median(finals), statistics.median(row.turnover for row in rows)
    goal, value = f">= {mark:.2f}", median
    passed = median >= mark
    if not market.ic:  # the optimum is flat
        loss = statistics.median(row.loss for row in rows)
        share = loss / (2.0 * market.cost / 3.0)
        passed = turnover < mark and share < 0.02 if market.name == "M6" else loss > -1e-4
        goal = f"turnover < {mark:.0%}, loss < 2 % of random" if market.name == "M6" else "earns nothing"
        return (
            f"| {market.name} | loss {share:.2%} of random trading | {turnover:.2%} of cap a bar | {goal} | "
            f"{'met' if passed else 'MISSED'} |"
        ), passed
    if market.name in NOISY_PATHS:
        value = statistics.median(row.final / row.reference for row in rows)
        steady = statistics.median(row.final / row.best for row in rows)
        passed = value >= mark and steady >= 0.95
        goal = f">= {mark:.2f} x reference ({value:.2f}), final >= .95 best ({steady:.2f})"
    bounds = [row.reference for row in rows if np.isfinite(row.reference)]
    reference_text = f", reference {statistics.median(bounds):.3f}" if bounds else ""
    return (
        f"| {market.name} | {median:.3f} ({finals[0]:.3f}-{finals[-1]:.3f}){reference_text}, "
        f"largest drop from best {drop:.3f} | {turnover:.2f} x | {goal} | {'met' if passed else 'MISSED'} |"
    ), passed


class Proven(NamedTuple):
    """One market: its table row, whether the mark is met, the greedy policy of the first seed, each seed's row."""

    line: str
    passed: bool
    policy: Policy
    rows: list[Row]


def prove(market: KnownAnswerMarket, seeds: range, setting: Setting, mark: float | None = None) -> Proven:
    """Train and judge one market, every seed."""
    judge = None if market.name == "M0" else Judge(market, bars=300, n=256)
    if market.name == "M0":
        setting = setting._replace(updates=min(setting.updates, BANDIT_UPDATES))
    learn = trained_exact if setting.learner == EXACT else trained
    policies, rows = zip(*(learn(market, seed, setting, judge) for seed in seeds), strict=True)
    return Proven(*verdict(market, rows, market.mark if mark is None else mark), policies[0], list(rows))


def prove_short(log: Callable[[str], None]) -> dict[str, Proven]:
    """Prove the markets of the short form, one seed each, with lower marks."""
    return {
        name: prove(MARKETS[name], range(1), Setting(updates, "denoised", {}, log), mark)
        for name, (updates, mark) in SHORT.items()
    }
