"""The default agent on markets whose optimum is known: captured share of it, turnover, mark.

Captured share of the optimum's noise-free reward on fresh paths, by the final greedy policy (the averaged
actor); `best` is the best of ten evaluations on the way. Markets without noise (M0, M1, M2, M9) are
simulators that cost nothing: each of 64 accounts gives a fresh transition an update. The others are learnt as
a panel of bars is: one path of 150,000 bars, 60 accounts, the trainer's update ratio, rewards denoised by
`expected_return` fitted on that path, judged on fresh paths; beside them what that fit captures with the best
band for its strength. With raw rewards the realised returns are taken instead, from the simulator where there
is one (M3, M4, M5, M6, M8, M10), from the path elsewhere.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sac_kernel.expected_return import ExpectedReturn, fit_expected_return, reward_spread
from sac_kernel.run_config import UTD_RATIO
from sac_kernel.sac_agent import Interaction, SACAgent, SACConfig
from sac_kernel.synthetic_markets import MARKETS, BanditVectorEnv, Judge, Market, MarketVectorEnv, Optimum

if TYPE_CHECKING:
    from collections.abc import Callable

    from sac_kernel.synthetic_markets import Array

SIMULATED_ENVS, PATH_ENVS = 64, 60
PATH_BARS = 150_000
REPLAYED_BARS = 5_000  # of M7, whose point is a path that is seen again and again
FINITE = ("M7", "M11", "M11-02", "M12")
"""Markets that are one path whatever the rewards."""
EVALUATIONS = 10
BANDIT_UPDATES = 1_000
SHORT = {"M0": (1_000, 0.95), "M2": (2_500, 0.60), "M11": (2_500, 0.40)}
"""Updates and loose marks of the short form."""
TABLE_HEAD = "| market | captured, median (range) | turnover | mark | |\n|---|---|---|---|---|"


class Row(NamedTuple):
    """One trained agent."""

    final: float
    best: float
    turnover: float
    reference: float  # what ridge + DP captures on the same path; NaN elsewhere
    loss: float  # noise-free loss a bar


class Setting(NamedTuple):
    """What a run may change."""

    updates: int
    rewards: str
    changes: dict[str, Any]
    log: Callable[[str], None]


def reference(market: Market, fitted: ExpectedReturn, judge: Judge) -> float:
    """Return what the ridge of the same path captures with the best band for its own signal's strength."""
    spread = float(fitted.train.std())
    if spread == 0.0:
        return 0.0
    optimum = Optimum(dataclasses.replace(market, kind="predictor", ic=spread, distractors=0))

    def policy(obs: Array) -> Array:
        return optimum.act(fitted.predict(obs[:, :-1]) / spread, obs[:, -1])

    return judge.capture(judge.result(policy))


def on_path(market: Market, rewards: str) -> bool:
    """Return whether the market is learnt from one finite path."""
    return market.name in FINITE or (market.noise > 0 and rewards == "denoised")


def prepare(market: Market, seed: int, setting: Setting, judge: Judge | None) -> tuple[Any, float, float]:
    """Return (env, standard deviation of a unit position's reward, what the reference captures)."""
    if judge is None:
        return BanditVectorEnv(SIMULATED_ENVS), 1.0, float("nan")
    if not on_path(market, setting.rewards):
        spread = float(np.hypot(market.ic, market.noise))
        return MarketVectorEnv(market, SIMULATED_ENVS), spread, float("nan")
    bars = REPLAYED_BARS if market.name == "M7" else PATH_BARS
    path = market.simulate(bars, 1, np.random.default_rng(1_000 + seed))
    returns = path.returns[:, 0]
    fitted = fit_expected_return(path.features[:-1, 0], returns)
    bound = float("nan")
    if judge and market.ic and market.kind == "predictor":
        bound = reference(market, fit_expected_return(path.features[:-1, 0], returns, boosting=False), judge)
    if setting.rewards == "denoised":
        returns = fitted.train if fitted.head != "flat" else np.zeros_like(returns)
    env = MarketVectorEnv(market, PATH_ENVS, path=path, returns=returns)
    spread = reward_spread(returns, market.cost)
    return env, spread, bound


def train(market: Market, seed: int, setting: Setting, judge: Judge | None) -> Row:
    """Train the default agent on one market and judge it."""
    env, spread, bound = prepare(market, seed, setting, judge)
    utd_ratio = UTD_RATIO if on_path(market, setting.rewards) else 1.0 / SIMULATED_ENVS
    fields = {"gamma": market.gamma, "utd_ratio": utd_ratio, "reward_scale": 1.0 / spread, **setting.changes}
    width = env.single_observation_space.shape[0]
    agent = SACAgent(SACConfig(state_dim=width, **fields), device="cpu", seed=seed)
    loop, captures, result = Interaction(agent, env, seed), [], None
    started = time.process_time()
    for part in range(1, EVALUATIONS + 1):
        while agent.updates < setting.updates * part // EVALUATIONS:
            loop.advance()
        if judge is None:
            signs = np.array([[-1.0], [1.0]], np.float32)
            captures.append(float((agent.select_action(signs, evaluate=True) * signs).mean()))
            continue
        result = judge.result(lambda obs: agent.select_action(obs, evaluate=True))
        captures.append(judge.capture(result) if market.ic else result.reward)
    metrics = agent.take_metrics(agent.updates)
    turnover = (
        judge.turnover_ratio(result) if judge and result and market.ic else getattr(result, "turnover", 0.0)
    )
    setting.log(
        f"  {market.name} seed {seed}: {' '.join(f'{c:.4g}' for c in captures)}; turnover {turnover:.3f}, "
        f"reference {bound:.3f}, mean entropy {metrics['entropy']:.2f}, alpha {metrics['alpha']:.4f}, "
        f"{time.process_time() - started:.0f} s"
    )
    return Row(captures[-1], max(captures), turnover, bound, -captures[-1])


def verdict(market: Market, rows: list[Row], mark: float) -> tuple[str, bool]:
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
    if market.name.startswith("M11"):
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


def prove(name: str, seeds: range, setting: Setting, mark: float | None = None) -> tuple[str, bool]:
    """Train and judge one market, every seed; return its table row and whether the mark is met."""
    market = MARKETS[name]
    judge = None if name == "M0" else Judge(market, bars=300, n=256)
    if name == "M0":
        setting = setting._replace(updates=min(setting.updates, BANDIT_UPDATES))
    rows = [train(market, seed, setting, judge) for seed in seeds]
    return verdict(market, rows, market.mark if mark is None else mark)


def prove_short(log: Callable[[str], None]) -> tuple[list[str], bool]:
    """Return the table rows of the short form, one seed each, and whether its looser marks are met."""
    done = [
        prove(name, range(1), Setting(updates, "denoised", {}, log), mark)
        for name, (updates, mark) in SHORT.items()
    ]
    return [line for line, _ in done], all(passed for _, passed in done)
