"""Judge an agent on a split: its passes and the baselines at every cost tier, and the verdict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.agent.ensemble import Ensemble
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import baselines, policies
from sac_kernel.backtest.policies import Form, Kind, PolicyId
from sac_kernel.backtest.runner import (
    filled_targets,
    greedy_policy,
    market_of,
    mirrors_and_shifts,
    random_same_turnover,
    run_policy,
    run_targets,
)
from sac_kernel.core import strings
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.stats import metrics, trials, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.backtest.runner import Agent, EpisodeResult
    from sac_kernel.market.market import Market
    from sac_kernel.prices.processed_file import ProcessedData
    from sac_kernel.stats.verdict import TrialCount

    FloatArray = NDArray[np.float64]

RANDOM_DRAWS = 1000
RANDOM = PolicyId(Kind.RANDOM, strings.RANDOM)


@dataclass(frozen=True)
class Judgement:
    """The agent and its baselines on a split at every tier, and the verdict."""

    results: dict[str, list[EpisodeResult]]  # tier -> policies, the agent's final first
    random_log_growth: FloatArray  # base tier, shape (RANDOM_DRAWS,)
    percentile: float | None
    verdict: dict[str, Any]
    market: Market  # the split at base cost
    train: Market | None = None  # the train split at base cost, if it was given

    @property
    def drawn(self) -> list[EpisodeResult]:
        """Return the passes that the equity figure draws, at base cost: agents and main baselines."""
        rivals = {RANDOM, *map(baselines.policy, (strings.HOLD, strings.MOMENTUM, strings.RIDGE))}
        return [r for r in self.results["base"] if r.policy.is_agent or r.policy in rivals]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the results table, headline tier first."""
        order = ["base", *(t for t in self.results if t != "base")]
        return [result.row() for tier in order for result in self.results[tier]]


def judge(  # noqa: PLR0913  # the verdict needs the last two
    agents: Mapping[PolicyId, Agent | FloatArray],
    data: pd.DataFrame,
    features: pd.DataFrame,
    config: TradingEnvConfig,
    draws: int = RANDOM_DRAWS,
    *,
    train: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    counted: TrialCount | None = None,
    null: Mapping[str, Any] | None = None,
    power: Mapping[str, Any] | None = None,
) -> Judgement:
    """Return agents and baselines on one split at every cost tier, and the verdict on the first agent.

    Parameters
    ----------
    agents : policy -> agent, or targets of somebody else's policy, (n_decisions,); the first is the headline
    data, features : bars and scaled features of the split
    config : the account; its tier is replaced by each tier in turn
    draws : random policies with the headline agent's turnover, at the base tier
    train : bars and scaled features of the train split; without them the fitted baselines are left out
    counted : trials in the ledger; None if it is missing, which caps the verdict at 'not shown'
    null, power : of the pipeline (`stats.null`); None if they were not run
    """
    start, markets = config.initial_equity, {}
    results: dict[str, list[EpisodeResult]] = {}
    fitted_on = market_of(*train, config, "base") if train else None
    for tier in COST_TIERS:
        market = markets[tier] = market_of(data, features, config, tier)
        results[tier] = [
            run_targets(market, agent, start, policy, tier)
            if isinstance(agent, np.ndarray)
            else run_policy(market, greedy_policy(agent), start, policy, tier)
            for policy, agent in agents.items()
        ]
        for name, targets in baselines.all_targets(market, fitted_on).items():
            results[tier].append(run_targets(market, targets, start, baselines.policy(name), tier))
    headline = results["base"][0]
    own = filled_targets(markets["base"], headline.action, start)
    growth = random_same_turnover(markets["base"], own, start, draws)
    random_targets = _median_draw(own, growth)
    for tier, market in markets.items():
        results[tier].append(run_targets(market, random_targets, start, RANDOM, tier))
    traded = headline.turnover > 0.0
    percentile = float(np.mean(growth < headline.log_growth)) if traded else None
    decided = verdict.decide(
        headline.daily_returns,
        percentile,
        counted,
        headline.turnover,
        null=null,
        power=power,
        instrument=instrument_returns(headline, markets["base"]),
        days_a_year=headline.days_a_year,
    )
    return Judgement(results, growth, percentile, decided, markets["base"], fitted_on)


def instrument_returns(result: EpisodeResult, market: Market) -> FloatArray:
    """Return the traded instrument's simple returns on the days of a pass over its market, shape (n_days,)."""
    return metrics.daily_returns(result.close, result.day, float(market.bars["close"][market.first_bar]))


def evaluate_checkpoint(
    path: Path | Sequence[Path],
    data: ProcessedData,
    split: str = "test",
    draws: int = RANDOM_DRAWS,
    trials_path: Path | None = None,
    costs: str = "",
) -> tuple[Agent, Judgement]:
    """Load a saved agent in a fresh process and judge it on a split, with its own features and account.

    The figures equal those of the notebook that trained it: same bars, same scaler, same engine, same trials.

    Parameters
    ----------
    path : a `.pt`, or several of one agent's seeds: their ensemble is judged
    costs : own costs, 'NAME=VALUE,...'; '' takes those that the agent was trained with
    trials_path : the ledger of trials; None looks for `trials.csv` beside the (first) file
    """
    agent: Agent
    if isinstance(path, Path):
        agent = SACAgent.from_checkpoint(path, device="cpu")
        policy = policies.of_file(agent.agent_id, path.name)
    else:
        agent = Ensemble.from_checkpoints(path)
        policy, path = policies.agent(agent.agent_id, Form.ENSEMBLE, seeds=len(path)), path[0]
    features = FeaturePipeline.from_checkpoint(path).run_full_pipeline(data.train, data.val, data.test)
    frames = dict(zip(("train", "val", "test"), features, strict=True))
    config = TradingEnvConfig(**agent.context["env"])
    config = dataclasses.replace(config, costs=costs or config.costs)
    instrument = agent.context["features"]["instrument"]
    train = (data.train[instrument], frames["train"])
    count = trials.count(trials.read(trials_path or path.parent / trials.NAME))
    bars = data.splits[split][instrument]
    return agent, judge({policy: agent}, bars, frames[split], config, draws, train=train, counted=count)


def evaluate_file(
    path: Path | Sequence[Path], h5_path: Path, split: str = "test", costs: str = ""
) -> tuple[Agent, Judgement]:
    """Judge a saved agent on a split of a processed file."""
    return evaluate_checkpoint(path, read_processed(h5_path), split, costs=costs)


def _median_draw(targets: FloatArray, growth: FloatArray, seed: int = 0) -> FloatArray:
    """Return the targets of the draw of `random_same_turnover` whose growth is the median."""
    median = int(np.argsort(growth)[len(growth) // 2])
    sign, shift = mirrors_and_shifts(len(targets), len(growth), seed)[median]
    return sign * np.roll(targets, shift)
