"""An agent refitted for one fold: scaler, regime model and policy on its train days, chosen on its validation days.

What `validation.fold_passes` calls in each fold. The train days may come in several stretches (CPCV, or data
with an embargo in it): features run on across a hole as across a weekend, but no episode crosses one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sac_kernel.agent.config import GAUSSIAN, SACConfig
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import policies, runner
from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.experiment import learning
from sac_kernel.experiment.learning import Selection
from sac_kernel.experiment.run_config import Job, RunConfig, preset_of
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.bars import concat_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.agent.exact_config import ExactConfig
    from sac_kernel.backtest.runner import EpisodeResult, Policy
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.prices.bars import BarsByInstrument

    FeatureArray = NDArray[np.float32]

WARMUP_DAYS = 15
"""Trading days before a test block that its features are computed from: over ten half-lives of the slowest."""
REPORTS = 20
_CURVES = (
    "episode_rewards", "episode_lengths", "critic_losses", "actor_losses", "alpha_values", "entropies",
)  # fmt: skip
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
    learner_config : settings of the learner, which they decide; None is the run's default of an account (`RunConfig`).
        Widths, reward scale and tier are set here
    env : the account as that learner observes it; None is the run's default
    tier : costs in training, selection and judgement alike
    updates : gradient updates of a training
    evaluations : passes over the validation days, evenly spaced; each is a trial
    final : the fold's agent is the last one, not the best on the validation days
    """

    agent_id: int = 1
    seed: int = 0
    tier: str = "base"
    updates: int = 3_000
    evaluations: int = 5
    final: bool = False
    learner_config: SACConfig | ExactConfig | None = None
    env: TradingEnvConfig | None = None

    @classmethod
    def of_run(cls, config: RunConfig, job: Job, **fields: Any) -> Recipe:  # noqa: ANN401  # its own fields
        """Return the recipe of a job of a run: settings (Gaussian: `shortened`) and account of its learner."""
        learner, agent_id = config.learner_of(job)[0], job.agent_id
        own: SACConfig | ExactConfig = config.exact_config(agent_id)
        recipe = cls(agent_id, job.seed, env=config.env_config(agent_id, learner), **fields)
        if learner == GAUSSIAN:
            own = shortened(config.sac_config(agent_id), recipe.updates)
        return dataclasses.replace(recipe, learner_config=own)

    def __post_init__(self) -> None:
        where = "Recipe"
        require(self.updates >= 1, where, "updates must be >= 1", self.updates)
        divides = self.evaluations >= 1 and REPORTS % self.evaluations == 0
        require(divides, where, f"evaluations must divide {REPORTS}", self.evaluations)

    @property
    def config(self) -> SACConfig | ExactConfig:
        """Return the settings of the learner."""
        return self.learner_config or RunConfig().exact_config(self.agent_id)

    @property
    def env_config(self) -> TradingEnvConfig:
        """Return the account at this recipe's costs."""
        env = self.env or RunConfig().env_config(self.agent_id)
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
    updates : done in all, the chosen agent's included
    trials : (updates, pass over the validation days) of every evaluation
    stats : training curves, one value a report, as `plots.training_figure` reads them
    """

    agent: SACAgent
    policy: Policy
    updates: int = 0
    trials: list[tuple[int, EpisodeResult]] = field(default_factory=list)
    stats: dict[str, list[float | None]] = field(default_factory=dict)

    def act(self, obs: FeatureArray) -> float:
        """Return the greedy target."""
        return self.policy(obs)


def fit_features(
    train: Sequence[BarsByInstrument],
    val: BarsByInstrument,
    instrument: str,
    pipeline: FeaturePipeline | None = None,
) -> Features:
    """Return scaler, choice of instruments and regime model fitted on the train days alone.

    Parameters
    ----------
    train : stretches of train days in time order
    val : validation bars, later than all of `train` where the features of both are to be causal; may be empty
    pipeline : the unfitted features; None is the plain thirty
    """
    blocks = [block for block in train if len(block[instrument])]
    if not blocks:
        msg = f"A fold has no train bars of {instrument}. Make the folds longer."
        raise DataError(msg)
    splits = {"train": _together(blocks)}
    if len(val[instrument]):
        splits["val"] = val
    pipeline = pipeline or FeaturePipeline(instrument)
    frames = pipeline.run_splits(splits)
    pairs = {name: (part[instrument], frames[name]) for name, part in splits.items()}
    return Features(pipeline, pairs["train"], pairs.get("val"))


def fit_agent(
    train: Sequence[BarsByInstrument], val: BarsByInstrument, recipe: Recipe, instrument: str
) -> Refit:
    """Train an agent on a fold's train days and choose its checkpoint on the fold's validation days.

    The rule is the trainer's (`learning.Selection`).
    """
    return train_agent(preset_features(train, val, recipe, instrument), recipe)


def train_agent(fitted: Features, recipe: Recipe) -> Refit:
    """Train an agent on the fitted features of a fold."""
    fold = FoldTraining(fitted, recipe)
    for report in range(1, REPORTS + 1):
        fold.learning.advance_to(fold.updates_at(report))
        fold.report(report)
    return fold.chosen()


def preset_features(
    train: Sequence[BarsByInstrument], val: BarsByInstrument, recipe: Recipe, instrument: str
) -> Features:
    """Return the features of an agent's preset, fitted on the train days."""
    preset = preset_of(recipe.agent_id)
    return fit_features(train, val, instrument, FeaturePipeline(instrument, preset.regimes, preset.forecast))


class FoldTraining:
    """One agent of a fold, its reports and its selection."""

    def __init__(self, fitted: Features, recipe: Recipe) -> None:
        self._recipe, self._env = recipe, recipe.env_config
        self.learning = learning.make(
            *fitted.train, self._env, recipe.config, recipe.agent_id, recipe.seed, blocks=True
        )
        agent = self.learning.agent
        self._refit = Refit(fitted.pipeline, fitted.train, fitted.val, agent, runner.greedy_policy(agent))
        self._checked = runner.market_of(*fitted.val, self._env, recipe.tier) if fitted.val else None
        self._selection = Selection()
        names = (*_CURVES, "eval_episodes", "eval_rewards", "eval_sharpes")
        self._refit.stats = {name: [] for name in names}

    def updates_at(self, report: int) -> int:
        """Return the updates that a report comes after."""
        return math.ceil(self._recipe.updates * report / REPORTS)

    def report(self, report: int) -> None:
        """Enter what happened since the last report into the curves; validate if due."""
        recipe, env, stats = self._recipe, self._env, self._refit.stats
        self.learning.agent.check_finite()
        row = self.learning.take_row()
        steps, length = row["episode_lengths"], env.episode_length
        row["episode_rewards"] = row["episode_rewards"] / steps * length if steps else None
        for name in _CURVES:
            stats[name].append(row[name])
        if self._checked is None or report % (REPORTS // recipe.evaluations):
            return
        act, policy = runner.greedy_policy(self.learning.agent), policies.agent(recipe.agent_id)
        result = runner.run_policy(self._checked, act, env.initial_equity, policy, recipe.tier)
        self._refit.trials.append((self.learning.updates, result))
        stats["eval_episodes"].append(report)
        stats["eval_rewards"].append(result.log_growth / len(result.equity) * length)
        stats["eval_sharpes"].append(result.row()["sharpe_ann"])
        self._selection.look(self.learning.agent, result)

    def chosen(self) -> Refit:
        """Return the fold's agent: the best on the validation days, or the last."""
        refit, best = self._refit, None if self._recipe.final else self._selection.best
        refit.updates = self.learning.updates
        if best is not None:
            refit.agent = SACAgent.from_content(best, device="cpu")
        refit.policy = runner.greedy_policy(refit.agent)
        return refit


def _together(blocks: Sequence[BarsByInstrument]) -> BarsByInstrument:
    return {name: concat_bars([block[name] for block in blocks]) for name in blocks[0]}
