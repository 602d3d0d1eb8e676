"""Run policies over a whole split in the training engine: one pass at one cost tier.

Every pass is deterministic. It starts flat and closes its position, at cost, at the end.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sac_kernel.agent import compiled_policy
from sac_kernel.agent.ensemble import Ensemble
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import baselines, policies
from sac_kernel.market import engine
from sac_kernel.market.market import Market, prepare_market
from sac_kernel.market.records import COSTS, Account, Trace, flat, new_table, one_row
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.stats import metrics, significance
from sac_kernel.stats.trials import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.backtest.policies import PolicyId
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.market.records import Records

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]
    Agent = SACAgent | Ensemble
    Policy = Callable[[FeatureArray], float]
    """Observation (width,) -> action in [-1, 1]."""


@dataclass(frozen=True)
class EpisodeResult:
    """One policy over one split at one tier; arrays have one entry per decision, shape (n,).

    Attributes
    ----------
    policy, name : its identity and label
    equity, cost_paid : account currency at the close, costs cumulative
    exposure : held notional over equity, long positive
    action : target, in [-1, 1]; the last one filled where the change was no order
    day : trading-day number
    turnover, trades, start_equity, costs : of the whole pass; costs by kind
    days_a_year : trading days of the instrument
    """

    policy: PolicyId
    tier: str
    open_time_utc: pd.DatetimeIndex
    close: FloatArray
    equity: FloatArray
    exposure: FloatArray
    cost_paid: FloatArray
    action: FloatArray
    day: NDArray[np.int64]
    turnover: float
    trades: int
    start_equity: float
    costs: dict[str, float]
    days_a_year: float = metrics.TRADING_DAYS_PER_YEAR

    @property
    def name(self) -> str:
        """Return the policy's label."""
        return self.policy.label

    @property
    def daily_returns(self) -> FloatArray:
        """Return simple returns per trading day, shape (n_days,)."""
        return metrics.daily_returns(self.equity, self.day, self.start_equity)

    @property
    def log_growth(self) -> float:
        """Return the log of end equity over start equity."""
        return math.log(self.equity[-1] / self.start_equity)

    def row(self) -> dict[str, Any]:
        """Return the pass as a row of the results table: label, tier, figures, identity of the policy."""
        return {"policy": self.name, "tier": self.tier, **self.figures(), **self.policy.facts()}

    def figures(self) -> dict[str, Any]:
        """Return the figures of the results table, fractions unless named otherwise."""
        daily = self.daily_returns
        low, high = significance.bootstrap_interval(daily, days_a_year=self.days_a_year)
        curve = np.concatenate(([self.start_equity], self.equity))
        return {
            "net_return_frac": self.equity[-1] / self.start_equity - 1.0,
            "annual_return_frac": metrics.annual_return(daily, self.days_a_year),
            "low_frac": low,
            "high_frac": high,
            "sharpe_ann": metrics.sharpe_ann(daily, self.days_a_year),
            "max_drawdown_frac": metrics.max_drawdown(curve),
            "turnover_per_day": self.turnover / daily.size,
            "cost_frac": self.cost_paid[-1] / self.start_equity,
            "trades": self.trades,
            "days": int(daily.size),
        }


def run_policy(
    market: Market, act: Policy, start_equity: float, policy: PolicyId | str, tier: str
) -> EpisodeResult:
    """Run a policy that sees observations over the whole market; a string names a baseline."""
    accounts, obs = _start(market, start_equity)
    trace, n, more = new_table(Trace, len(market.bars)), 0, True
    engine.observe(accounts[0], market.bars, market.terms, market.observed, obs)
    account, terms, kept = flat(accounts), flat(one_row(market.terms)), flat(trace)
    bars, minutes, observed = flat(market.bars), flat(market.minutes), market.observed
    while more:
        more = engine.step_traced(account, bars, minutes, terms, observed, act(obs), kept, n, obs)
        n += 1
    return _result(market, accounts[0], trace[:n], policies.named(policy), tier)


def run_targets(
    market: Market, targets: FloatArray, start_equity: float, policy: PolicyId | str, tier: str
) -> EpisodeResult:
    """Run a fixed sequence of targets, one per decision, over the whole market; a string names a baseline."""
    accounts, _ = _start(market, start_equity)
    trace, wanted = new_table(Trace, len(targets)), np.ascontiguousarray(targets, np.float64)
    n = engine.run_targets(accounts[0], market.bars, market.minutes, market.terms, wanted, trace)
    return _result(market, accounts[0], trace[:n], policies.named(policy), tier)


def decisions(market: Market) -> int:
    """Return the number of decisions of a whole pass."""
    return int(baselines.decision_rows(market).size)


def filled_targets(market: Market, targets: FloatArray, start_equity: float) -> FloatArray:
    """Return the last filled target after each decision, ignoring orders that were never filled.

    An order of the evening freeze lapses; shifted in time, it would be filled. Where a stop or a limit closed the
    position, the target is kept.
    """
    accounts, _ = _start(market, start_equity)
    account: Account = accounts[0]
    filled = np.array(targets, np.float64)
    for i, target in enumerate(targets):
        engine.step(account, market.bars, market.minutes, market.terms, target)
        if abs(account.target) <= 1.0:
            filled[i] = account.target
    return filled


def random_same_turnover(
    market: Market, targets: FloatArray, start_equity: float, draws: int, seed: int = 0
) -> FloatArray:
    """Return the log growth of `draws` policies that trade as the agent does, at random times.

    The agent's own sequence of targets (`filled_targets`), shifted around the clock by a random amount and mirrored
    with probability one half: turnover, holding times and sizes stay, the timing is random.
    """
    growth, trace = np.empty(draws), new_table(Trace, len(targets))
    for i, (sign, shift) in enumerate(mirrors_and_shifts(len(targets), draws, seed)):
        accounts, _ = _start(market, start_equity)
        drawn = sign * np.roll(targets, shift)
        engine.run_targets(accounts[0], market.bars, market.minutes, market.terms, drawn, trace)
        growth[i] = math.log(accounts[0].equity / start_equity)
    return growth


def greedy_policy(agent: Agent) -> Policy:
    """Return the deterministic policy as it is now, one observation at a time, compiled, on the CPU.

    Results must not depend on the device. An observation of another width raises CheckpointError.
    """
    members = agent.agents if isinstance(agent, Ensemble) else [agent]
    if exact := [member.exact for member in members if member.exact]:
        target = compiled_policy.compiled_exact(
            [policy.layers() for policy in exact], [policy.scale for policy in exact], exact[0].grid
        )

        def act(obs: FeatureArray) -> float:
            members[0].check_width(len(obs))
            if not (obs[-3] > 0.0 and obs[-2] in (0.0, 1.0)):
                members[0].check_exact_inputs(obs[-3], obs[-2])
            return target(obs)

        return act
    if isinstance(agent, Ensemble):
        acts = [greedy_policy(member) for member in members]
        return lambda obs: sum(act(obs) for act in acts) / len(acts)
    layers = [m for m in agent.nets.average.modules() if isinstance(m, torch.nn.Linear)]
    # The head's first output is the mean, the other the log deviation.
    return _width_checked(
        compiled_policy.compiled(
            [(m.weight.detach().cpu().numpy(), m.bias.detach().cpu().numpy()) for m in layers]
        ),
        agent,
    )


def _width_checked(policy: Policy, agent: SACAgent) -> Policy:
    def act(obs: FeatureArray) -> float:
        agent.check_width(len(obs))
        return policy(obs)

    return act


def greedy_batch(agent: Agent) -> Callable[[FeatureArray], FloatArray]:
    """Return the same policy for many observations at once: (n, width) -> (n,)."""
    acting = _on_cpu(agent)
    return lambda obs: np.asarray(acting.select_action(obs, evaluate=True), np.float64)[:, 0]


def validate(
    agent: SACAgent, market: Market, start_equity: float, check_time: Callable[[], None] = lambda: None
) -> EpisodeResult:
    """Return one greedy pass over a split, for model selection.

    `check_time` is called before every decision; its exception ends the pass.
    """
    act = greedy_policy(agent)

    def policy(obs: FeatureArray) -> float:
        check_time()
        return act(obs)

    return run_policy(market, policy, start_equity, policies.agent(agent.agent_id), "base")


def trial_of(result: EpisodeResult, **identity: Any) -> Trial:  # noqa: ANN401  # the fields of Trial
    """Return a pass as a line of the ledger.

    Parameters
    ----------
    identity : agent_id, seed, split, checkpoint, config_hash, data_hash
    """
    return Trial(**identity, day=np.unique(result.day), daily=result.daily_returns)


def at_every_tier(
    agents: Mapping[PolicyId, Agent], data: pd.DataFrame, features: pd.DataFrame, config: TradingEnvConfig
) -> list[EpisodeResult]:
    """Return one greedy pass of each agent over a split at every cost tier."""
    return [
        run_policy(
            market_of(data, features, config, tier), greedy_policy(agent), config.initial_equity, policy, tier
        )
        for tier in COST_TIERS
        for policy, agent in agents.items()
    ]


def market_of(data: pd.DataFrame, features: pd.DataFrame, config: TradingEnvConfig, tier: str) -> Market:
    """Return the market of one split at one cost tier, closed at the end."""
    return prepare_market(data, features, dataclasses.replace(config, cost_tier=tier), close_at_end=True)


def _on_cpu(agent: Agent) -> Agent:
    if isinstance(agent, Ensemble) or agent.device.type == "cpu":
        return agent
    acting = SACAgent(agent.config, agent.agent_id, "cpu")
    acting.nets.load_state_dict(agent.nets.state_dict())
    acting.context = copy.copy(agent.context)
    return acting


def _start(market: Market, start_equity: float) -> tuple[Records, FeatureArray]:
    """Return a table of one flat account at the first bar, and a buffer for its observation."""
    accounts = new_table(Account, 1)
    left = len(market.bars) - 1 - market.first_bar
    engine.reset(accounts[0], market.bars, market.terms, market.first_bar, left, start_equity, 0.0)
    return accounts, np.empty(len(market.observation_names), np.float32)


def _result(market: Market, account: Account, trace: Records, policy: PolicyId, tier: str) -> EpisodeResult:
    rows = trace["t"].astype(np.int64)
    return EpisodeResult(
        policy=policy,
        tier=tier,
        open_time_utc=market.open_time[rows],
        close=market.bars["close"][rows],
        equity=trace["equity"].copy(),
        exposure=trace["exposure"].copy(),
        cost_paid=trace["costs"].copy(),
        action=trace["target"].copy(),
        day=market.bars["trading_day"][rows].astype(np.int64),
        turnover=float(account.turnover),
        trades=int(account.trades),
        start_equity=float(account.start_equity),
        costs={kind: float(getattr(account, f"{kind}_paid")) for kind in COSTS},
        days_a_year=market.spec.days_a_year,
    )


def mirrors_and_shifts(n: int, draws: int, seed: int) -> list[tuple[float, int]]:
    """Return the sign and the shift in time of each draw of `random_same_turnover`."""
    rng = np.random.default_rng(seed)
    return list(
        zip(rng.choice([-1.0, 1.0], draws).tolist(), rng.integers(n, size=draws).tolist(), strict=True)
    )
