"""An agent refitted for one fold: scaler, regime model and policy on its train days, chosen on its validation days.

What `validation.fold_passes` calls in each fold. The train days may come in several stretches (CPCV, or data
with an embargo in it): features run on across a hole as across a weekend, but no episode crosses one.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import Interaction, SACAgent
from sac_kernel.backtest import policies, runner, validation
from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.experiment.run_config import DEFAULT_NUM_ENVS, UTD_RATIO, preset_of
from sac_kernel.experiment.trainer import SELECTION_WINDOW
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import training
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingVectorEnv
from sac_kernel.market.market import HOLE, Market
from sac_kernel.prices.bars import concat_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.backtest.runner import EpisodeResult, Policy
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.prices.bars import BarsByInstrument

    FeatureArray = NDArray[np.float32]

WARMUP_DAYS = 15
"""Trading days before a test block that its features are computed from: over ten half-lives of the slowest."""
REPORTS = 20
"""Values of each training curve."""


def shortened(sac: SACConfig, updates: int) -> SACConfig:
    """Return settings with warm-up and schedule inside a training of so many updates.

    The warm-up takes at most a tenth of the steps, and the entropy schedule ends with the training at the
    latest: else a few thousand updates would be spent on a policy that only explores.
    """
    return dataclasses.replace(
        sac,
        warmup_steps=min(sac.warmup_steps, int(0.1 * updates / sac.utd_ratio)),
        schedule_updates=min(sac.schedule_updates, updates),
    )


@dataclass(frozen=True)
class Recipe:
    """How an agent is trained in every fold.

    Attributes
    ----------
    agent_id : preset of decision interval, discount and regimes
    tier : costs in training, selection and judgement alike
    updates : gradient updates of a training
    evaluations : passes over the validation days, evenly spaced; each is a trial
    sac, env : settings beyond the presets; widths, reward scale and tier are set here
    """

    agent_id: int = 1
    seed: int = 0
    tier: str = "base"
    updates: int = 5_000
    evaluations: int = 5
    sac: SACConfig | None = None
    env: TradingEnvConfig | None = None

    def __post_init__(self) -> None:
        where = "Recipe"
        require(self.updates >= 1, where, "updates must be >= 1", self.updates)
        divides = self.evaluations >= 1 and REPORTS % self.evaluations == 0
        require(divides, where, f"evaluations must divide {REPORTS}", self.evaluations)

    @property
    def sac_config(self) -> SACConfig:
        """Return the agent's settings: the trainer's own, `shortened`."""
        if self.sac is not None:
            return self.sac
        plain = SACConfig.for_market(gamma=preset_of(self.agent_id).gamma, utd_ratio=UTD_RATIO)
        return shortened(plain, self.updates)

    @property
    def env_config(self) -> TradingEnvConfig:
        """Return the account at this recipe's costs."""
        env = self.env or preset_of(self.agent_id).env_config
        return dataclasses.replace(env, cost_tier=self.tier)


@dataclass
class Features:
    """Scaler and regime model of a fold; flat as a policy: what baselines of the fold are fitted with.

    Attributes
    ----------
    train : bars and scaled features of the train days
    val : those of the validation days, None if the fold has none
    """

    pipeline: FeaturePipeline
    train: tuple[pd.DataFrame, pd.DataFrame]
    val: tuple[pd.DataFrame, pd.DataFrame] | None

    def features(self, bars: BarsByInstrument) -> pd.DataFrame:
        """Return scaled features of later bars, their first two days NaN."""
        fitted = FeaturePipeline.from_state(self.pipeline.state())
        return fitted.run_splits({"bars": bars})["bars"]

    def act(self, obs: FeatureArray) -> float:  # noqa: ARG002  # the interface has it
        """Stay flat."""
        return 0.0


@dataclass
class Refit(Features):
    """An agent of a fold (`validation.Fitted`): the best on the validation days, or the last without any.

    Attributes
    ----------
    trials : (updates, pass over the validation days) of every evaluation
    stats : training curves, one value a report, as `plots.training_figure` reads them
    """

    agent: SACAgent
    policy: Policy
    trials: list[tuple[int, EpisodeResult]] = field(default_factory=list)
    stats: dict[str, list[float | None]] = field(default_factory=dict)

    def act(self, obs: FeatureArray) -> float:
        """Return the greedy target."""
        return self.policy(obs)


def fit_features(
    train: Sequence[BarsByInstrument],
    val: BarsByInstrument,
    instrument: str,
    *,
    regimes: bool = False,
    forecast: bool = False,
) -> Features:
    """Return scaler, choice of instruments and regime model fitted on the train days alone.

    Parameters
    ----------
    train : stretches of train days in time order
    val : validation bars, later than all of `train` where the features of both are to be causal; may be empty
    """
    blocks = [block for block in train if len(block[instrument])]
    if not blocks:
        msg = f"A fold has no train bars of {instrument}. Make the folds longer."
        raise DataError(msg)
    splits = {"train": _together(blocks)}
    if len(val[instrument]):
        splits["val"] = val
    pipeline = FeaturePipeline(instrument, regimes=regimes, forecast=forecast)
    frames = pipeline.run_splits(splits)
    pairs = {name: (part[instrument], frames[name]) for name, part in splits.items()}
    return Features(pipeline, pairs["train"], pairs.get("val"))


def fit_agent(
    train: Sequence[BarsByInstrument], val: BarsByInstrument, recipe: Recipe, instrument: str
) -> Refit:
    """Train an agent on a fold's train days and choose its checkpoint on the fold's validation days.

    The rule is the trainer's: the highest mean of the last `SELECTION_WINDOW` evaluations.
    """
    preset, env = preset_of(recipe.agent_id), recipe.env_config
    fitted = fit_features(train, val, instrument, regimes=preset.regimes, forecast=preset.forecast)
    market, _ = training.build_training_market(*fitted.train, env)
    scale = recipe.sac_config.reward_scale or training.reward_scale(market)
    width = len(market.observation_names)
    sac = dataclasses.replace(recipe.sac_config, state_dim=width, action_dim=1, reward_scale=scale)
    agent = SACAgent(sac, recipe.agent_id, "cpu", recipe.seed)
    loop = Interaction(agent, block_env(market, env), recipe.seed)
    refit = Refit(fitted.pipeline, fitted.train, fitted.val, agent, runner.greedy_policy(agent))
    checked = runner.market_of(*fitted.val, env, recipe.tier) if fitted.val else None
    best, best_score, scores = None, -math.inf, list[float]()
    keys = ("episode_rewards", "episode_lengths", "critic_losses", "actor_losses", "alpha_values")
    refit.stats = {name: [] for name in (*keys, "entropies", "eval_episodes", "eval_rewards", "eval_sharpes")}
    for report in range(1, REPORTS + 1):
        _report(refit, loop, math.ceil(recipe.updates * report / REPORTS), env.episode_length)
        if checked is None or report % (REPORTS // recipe.evaluations):
            continue
        act, policy = runner.greedy_policy(agent), policies.agent(recipe.agent_id)
        result = runner.run_policy(checked, act, env.initial_equity, policy, recipe.tier)
        refit.trials.append((agent.updates, result))
        growth = result.log_growth / len(result.equity)
        refit.stats["eval_episodes"].append(report)
        refit.stats["eval_rewards"].append(growth * env.episode_length)
        refit.stats["eval_sharpes"].append(result.row()["sharpe_ann"])
        scores = [*scores, growth][-SELECTION_WINDOW:]
        if np.mean(scores) > best_score:
            best, best_score = copy.deepcopy(agent.nets.state_dict()), float(np.mean(scores))
    if best is not None:
        agent.nets.load_state_dict(best)
    refit.policy = runner.greedy_policy(agent)
    return refit


def _report(refit: Refit, loop: Interaction, until: int, episode_length: int) -> None:
    """Train until so many updates are done; enter what happened into the curves."""
    before, rewards, steps = refit.agent.updates, 0.0, 0
    while refit.agent.updates < until:
        rewards += float(loop.advance().sum())
        steps += loop.env.num_envs
    done = refit.agent.updates - before
    means = refit.agent.pop_metrics(done)
    row = {
        "episode_rewards": rewards / steps * episode_length if steps else None,
        "episode_lengths": steps,
        "critic_losses": means["critic_loss"],
        "actor_losses": means["actor_loss"],
        "alpha_values": means["alpha"],
        "entropies": means["entropy"],
    }
    for name, value in row.items():
        refit.stats[name].append(value)


# -- stretches of bars ---------------------------------------------------------------------------------


def block_env(
    market: Market, config: TradingEnvConfig, num_envs: int | None = None
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return the vector env over a market with holes: accounts are shared out, and no episode crosses a hole.

    Stretches shorter than the horizon are not trained on.
    """
    if num_envs is None:
        num_envs = max(n for n in range(1, DEFAULT_NUM_ENVS + 1) if config.episode_length % n == 0)
    edges = np.flatnonzero(np.diff(market.open_time.to_numpy("datetime64[ns]")) > HOLE) + 1
    bounds = [*zip([0, *edges], [*edges, len(market.bars)], strict=True)]
    stretches = [
        (max(a, market.first_bar), b)
        for a, b in bounds
        if b - 1 - max(a, market.first_bar) >= config.horizon_bars
    ]
    if not stretches:
        longest = max(b - 1 - max(a, market.first_bar) for a, b in bounds)
        msg = (
            f"The horizon needs {config.horizon_bars} train bars without a gap, but the longest stretch has "
            f"{longest}. Make the folds longer or the horizon shorter."
        )
        raise DataError(msg)
    lengths = np.array([b - a for a, b in stretches])
    shares = _shares(num_envs, lengths)
    envs = [
        TradingVectorEnv(_slice(market, *where), config, int(n))
        for where, n in zip(stretches, shares, strict=True)
        if n
    ]
    return envs[0] if len(envs) == 1 else BlockVectorEnv(envs)


class BlockVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Vector envs over different stretches of one market, as one."""

    metadata = TradingVectorEnv.metadata

    def __init__(self, envs: Sequence[TradingVectorEnv]) -> None:
        self.envs = list(envs)
        self.num_envs = sum(env.num_envs for env in envs)
        self.single_observation_space = envs[0].single_observation_space
        self.single_action_space = envs[0].single_action_space
        self._cuts = np.cumsum([env.num_envs for env in envs])[:-1]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Start all accounts; each stretch draws its own starts."""
        seeds = [None if seed is None else 1000 * i + seed for i in range(len(self.envs))]
        obs = [env.reset(seed=s, options=options)[0] for env, s in zip(self.envs, seeds, strict=True)]
        return np.concatenate(obs), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Step every account; `final_obs` is given where one ended."""
        parts = [
            env.step(a) for env, a in zip(self.envs, np.split(np.asarray(actions), self._cuts), strict=True)
        ]
        obs, rewards, terminated, truncated = (np.concatenate([part[i] for part in parts]) for i in range(4))
        infos: dict[str, Any] = {}
        if (terminated | truncated).any():
            final = np.concatenate([part[4].get("final_obs", part[0]) for part in parts])
            infos = {"final_obs": final, "_final_obs": terminated | truncated}
        return obs, rewards, terminated, truncated, infos


def _shares(total: int, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return accounts a stretch, in proportion to its bars, by largest remainder."""
    exact = total * lengths / lengths.sum()
    out = np.floor(exact).astype(np.int64)
    out[np.argsort(out - exact, kind="stable")[: total - out.sum()]] += 1
    return out


def _slice(market: Market, start: int, end: int) -> Market:
    expected = market.return_forecast
    return dataclasses.replace(
        market,
        bars=market.bars[start:end],
        minutes=market.minutes[start:end],
        observed=market.observed[start:end],
        first_bar=0,
        open_time=market.open_time[start:end],
        return_forecast=None if expected is None else expected[start:end],
    )


def _together(blocks: Sequence[BarsByInstrument]) -> BarsByInstrument:
    return {name: concat_bars([block[name] for block in blocks]) for name in blocks[0]}


# -- CPCV ----------------------------------------------------------------------------------------------


def combinatorial_paths(
    bars: BarsByInstrument,
    instrument: str,
    recipe: Recipe,
    groups: int = 6,
    test_groups: int = 2,
    purge_days: int = 5,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return days and the daily returns of each CPCV path, shape (n_days,) and (paths, n_days).

    Trains C(groups, test_groups) agents, 15 by default, without selection: a small budget is meant. Purge and
    embargo are `purge_days` each. The first two days, before any feature, are NaN. All paths judge the same
    days by other trainings: their spread says how much of a walk-forward hangs on the one history it saw.
    """
    days = np.unique(validation.trading_days(bars[instrument]))
    folds = validation.combinatorial(days.size, groups, test_groups, purge_days, purge_days)
    daily = np.full((len(folds), days.size), np.nan)
    for i, fold in enumerate(folds):
        passes = validation.fold_passes(
            bars,
            instrument,
            [fold],
            lambda train, val: fit_agent(train, val, recipe, instrument),
            recipe.env_config,
            recipe.tier,
            WARMUP_DAYS,
        )
        for one in passes:
            daily[i, np.searchsorted(days, np.unique(one.result.day))] = one.result.daily_returns
    of_group = np.repeat(np.arange(groups), [block.size for block in np.array_split(days, groups)])
    chosen = validation.paths(groups, test_groups)[:, of_group]
    return days, np.take_along_axis(daily, chosen, axis=0)
