"""One job of a walk-forward: an agent trained and judged in one fold at one cost tier, kept in one file.

A job depends on its settings, the data and the code alone, so that jobs may run in any order, in several processes
or on several machines (`job_pool`), today or tomorrow. Its file appears whole or not at all.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sac_kernel.agent.config import EXACT, GAUSSIAN, SACConfig
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.backtest import baselines, drift, policies, runner, stress, validation
from sac_kernel.backtest.judgement import RANDOM_DRAWS
from sac_kernel.backtest.runner import EpisodeResult
from sac_kernel.backtest.validation import Fold
from sac_kernel.core import files, packages
from sac_kernel.core.config import from_flat, require, to_flat
from sac_kernel.core.device import set_threads
from sac_kernel.core.errors import DataError
from sac_kernel.experiment import fold_training, run_config
from sac_kernel.experiment.fold_training import Features, Recipe, Refit
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.features.series import FILE_PREFIX
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.report import sections
from sac_kernel.stats.trials import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sac_kernel.agent.sac import SACAgent
    from sac_kernel.backtest.validation import Pass
    from sac_kernel.experiment.job_pool import Place
    from sac_kernel.features.series import Series
    from sac_kernel.market.market import Market
    from sac_kernel.prices.bars import BarsByInstrument

    FloatArray = NDArray[np.float64]

BASELINES = 0
"""The agent id of the jobs that run the baselines of a fold."""
FILE, BARS, OWN, EXTRA = "result.npz", "bars", "own_features", "series"
"""What a job leaves in its folder; its inputs' names."""
COST_MULTIPLES = (0.0, *stress.COST_MULTIPLES)
UPDATES = {EXACT: 3_000, GAUSSIAN: 5_000}
_SHARED = ("folds", "test_days", "val_days", "purge_days", "updates", "evaluations", "final", "own_split")
_SERIES = ("close", "equity", "exposure", "cost_paid", "action", "day")


@dataclass(frozen=True)
class Settings:
    """What all jobs of a walk-forward share.

    Attributes
    ----------
    h5_path : the processed file; its three splits are put together, the embargoes between them stay holes
    agents : presets 1, 2, 3
    seeds : one training of each agent in each fold and tier
    folds, test_days, val_days, purge_days : of `validation.walk_forward`, in trading days
    tiers : cost tiers; an agent is trained, chosen and judged at the same one
    updates, evaluations : of each training (`fold_training.Recipe`); 0 updates is the learner's own, 3,000 of exact SAC
        and 5,000 of Gaussian SAC
    config : learner, features, settings of agents and account; warm-up and schedule are shortened
        (`fold_training.shortened`)
    final : agents are the last ones, not the best on the validation days
    own_split : the last fold is the file's own split
    """

    h5_path: str
    agents: tuple[int, ...] = (1, 2, 3)
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: int = 4
    tiers: tuple[str, ...] = ("raw", "base", "retail")
    updates: int = 0
    evaluations: int = 5
    test_days: int = 60
    val_days: int = 40
    purge_days: int = 5
    config: RunConfig = field(default_factory=RunConfig)
    final: bool = False
    own_split: bool = False

    def __post_init__(self) -> None:
        where = "walk_forward"
        for name in ("agents", "seeds", "tiers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            values = getattr(self, name)
            required = f"{name} must not be empty or repeat a value"
            require(bool(values) and len(set(values)) == len(values), where, required, values)
        require(self.config.learner != "both", where, "learner must be auto, exact or gaussian", "both")
        object.__setattr__(self, "updates", self.updates or UPDATES[self.learner])
        known = set(self.tiers) <= set(COST_TIERS) and "base" in self.tiers
        require(known, where, f"tiers must include base and be among {', '.join(COST_TIERS)}", self.tiers)
        for agent_id in self.agents:
            self.recipe(Job(agent_id, 0, 1, "base"))

    @property
    def jobs(self) -> list[Job]:
        """Return every job: the base tier first, fold by fold, the baselines of a fold first."""
        out = []
        for tier in sorted(self.tiers, key=lambda name: name != "base"):
            for fold in range(1, self.folds + 1):
                out.append(Job(BASELINES, 0, fold, tier))
                out += [Job(a, s, fold, tier) for a in self.agents for s in self.seeds]
        return out

    def recipe(self, job: Job) -> Recipe:
        """Return how the agent of a job is trained."""
        agent_id = job.agent_id or 1
        one = run_config.Job(agent_id, job.seed)
        shared = {name: getattr(self, name) for name in ("updates", "evaluations", "final")}
        recipe = Recipe.of_run(self.config, one, tier=job.tier, **shared)
        if job.agent_id == BASELINES:
            env = dataclasses.replace(recipe.env_config, decision_interval_min=0, observes="account")
            recipe = dataclasses.replace(recipe, env=env)
        return recipe

    @property
    def learner(self) -> str:
        """Return the learner of every agent."""
        return self.config.learner_of(run_config.Job(self.agents[0], 0))[0]

    def identity(self, job: Job) -> dict[str, Any]:
        """Return what decides the result of a job beside the code, as plain values."""
        recipe = self.recipe(job)
        shared = {name: getattr(self, name) for name in _SHARED}
        own: dict[str, Any] = {"settings": to_flat(recipe.config), "env": to_flat(recipe.env_config)}
        if self.config.has_own:
            own[OWN] = [self.config.features_hash, self.config.only_own_features]
        if several := self.config.own_series:
            own[EXTRA] = {_extra(one): one.digest() for one in several}
        return {**shared, "learner": self.learner, **own, "data_hash": opened(self.h5_path).content_hash}

    @property
    def inputs(self) -> dict[str, Path]:
        """Return the files that jobs read, by their names in `job_pool`."""
        own = {OWN: self.config.own_file} if self.config.features_file else {}
        more = {_extra(one): one.path for one in self.config.own_series}
        return {BARS: Path(self.h5_path), **own, **more}

    def fold_list(self) -> list[Fold]:
        """Return the folds of the file's trading days."""
        source = opened(self.h5_path)
        folds = validation.walk_forward(
            source.days.size, self.folds, self.test_days, self.val_days, self.purge_days
        )
        if self.own_split:
            ends = np.searchsorted(source.days, source.split_days)
            folds[-1] = Fold(*(np.arange(*ends[i : i + 2]) for i in (0, 2, 4)))
        return folds


def _extra(one: Series) -> str:
    return f"{FILE_PREFIX}{one.name}.csv"


class Job(NamedTuple):
    """An agent (or `BASELINES`), a seed, a fold from 1, a cost tier."""

    agent_id: int
    seed: int
    fold: int
    tier: str

    @property
    def name(self) -> str:
        """Return its name, also that of its file."""
        who = f"agent_{self.agent_id}_seed_{self.seed}" if self.agent_id else "baselines"
        return f"{who}_fold_{self.fold}_{self.tier}"


@dataclass(frozen=True)
class Opened:
    """The bars of a whole file, its splits put together in time order; first day and the one after each split's."""

    bars: BarsByInstrument
    instrument: str
    days: NDArray[np.int64]
    split_days: list[int]
    content_hash: str
    facts: dict[str, Any]


@functools.lru_cache(maxsize=1)
def opened(h5_path: str) -> Opened:
    """Return the bars of a processed file; read once a process."""
    data = read_processed(Path(h5_path))
    bars: BarsByInstrument = {name: data.whole(name) for name in sorted(data.train)}
    days = np.unique(validation.trading_days(bars[data.traded]))
    splits = [validation.trading_days(split[data.traded]) for split in data.splits.values()]
    ends = [int(end) for day in splits for end in (day[0], day[-1] + 1)]
    return Opened(bars, data.traded, days, ends, data.content_hash, data.describe())


@functools.lru_cache(maxsize=2)
def _fitted(settings: Settings, fold: int, agent_id: int) -> Features:
    """Return what a fold's agents of one preset share; jobs of a process come fold by fold."""
    source = opened(settings.h5_path)
    pipeline = settings.config.feature_pipeline(source.instrument, agent_id or 1)
    block = settings.fold_list()[fold - 1]
    train = [validation.cut(source.bars, source.days[days]) for days in block.train_blocks]
    val = validation.cut(source.bars, source.days[block.val])
    return fold_training.fit_features(train, val, source.instrument, pipeline)


@dataclass(frozen=True)
class JobResult:
    """What a finished job holds.

    Attributes
    ----------
    passes : over the fold's test days: the agent's, or one a baseline
    facts : plain values: trials, stats, inputs, cost_growth, drift, seconds
    random_growth : log growth of random policies with the agent's turnover, base tier only
    """

    job: Job
    passes: list[EpisodeResult]
    facts: dict[str, Any]
    random_growth: FloatArray

    @property
    def trials(self) -> list[Trial]:
        """Return the validated checkpoints of a base-tier job; cost tiers are no trials."""
        return [_trial(row) for row in self.facts["trials"]] if self.job.tier == "base" else []


# -- running ------------------------------------------------------------------------------------------


def pool_job(settings: Settings, job: Job) -> dict[str, Any]:
    """Return a job for `job_pool`: all that decides its result."""
    code = packages.code_hash()
    return {"label": job.name, "job": list(job), **settings.identity(job), "code_hash": code}


def run_pool_job(given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Run a job on whatever process or machine `job_pool` chose."""
    fields = given["settings"]
    if given["learner"] == EXACT:
        exact = from_flat(ExactConfig, fields, "fold_jobs")
        shared = {name: getattr(exact, name) for name in run_config.SHARED}
        agent: dict[str, Any] = {"exact": exact, "sac": dataclasses.replace(run_config.DEFAULT_SAC, **shared)}
    else:
        agent = {"sac": from_flat(SACConfig, fields, "fold_jobs"), "num_envs": 1}  # `learning` has its own
    own: dict[str, Any] = {}
    if OWN in given:
        digest, alone = given[OWN]
        own = {"features_file": str(place.inputs.get(OWN, "")), "features_hash": digest}
        extra = [str(place.inputs[name]) for name in given.get(EXTRA, ())]
        own |= {"only_own_features": alone, "series_files": extra}
    config = RunConfig(
        learner=given["learner"],
        env=from_flat(TradingEnvConfig, given["env"], "fold_jobs"),
        left_to_preset=(),
        **agent,
        **own,
    )
    settings = Settings(str(place.inputs[BARS]), config=config, **{name: given[name] for name in _SHARED})
    run_job(settings, Job(*given["job"]), place.folder / FILE)
    return {"label": given["label"]}


def run_job(settings: Settings, job: Job, path: Path) -> None:
    """Train, judge, and write the job's file."""
    set_threads(1)
    source, recipe = opened(settings.h5_path), settings.recipe(job)
    fold = settings.fold_list()[job.fold - 1]
    started_s = time.process_time()

    def fit(_train: list[BarsByInstrument], _val: BarsByInstrument) -> Features:
        fitted = _fitted(settings, job.fold, job.agent_id)
        return fitted if job.agent_id == BASELINES else fold_training.train_agent(fitted, recipe)

    # Nobody knows the memory of the user's own features, so they are made from all days before.
    warmup = source.days.size if settings.config.features_file else fold_training.WARMUP_DAYS
    passes = validation.fold_passes(
        source.bars, source.instrument, [fold], fit, recipe.env_config, job.tier, warmup
    )
    one = next(iter(passes))
    if job.agent_id == BASELINES:
        results, facts, growth = *_baselines(one, recipe, job), np.zeros(0)
    else:
        results, facts, growth = _agent(one, job)
    facts |= {
        "train_days": int(fold.train.size),
        "trials": _trial_rows(one.fitted, settings, job),
        "cpu_s": time.process_time() - started_s,
    }
    save(path, JobResult(job, results, facts, growth))


def _agent(one: Pass, job: Job) -> tuple[list[EpisodeResult], dict[str, Any], FloatArray]:
    result, market, refit = one
    assert isinstance(refit, Refit)
    named = dataclasses.replace(result, policy=policies.agent(job.agent_id, seed=job.seed))
    facts, growth = agent_facts(result, market, refit.agent, job)
    return [named], {"stats": refit.stats, "updates": refit.updates, **facts}, growth


def agent_facts(
    result: EpisodeResult, market: Market, agent: SACAgent, job: Job
) -> tuple[dict[str, Any], FloatArray]:
    """Return the inputs' weights and growth at each of `COST_MULTIPLES` of a base-tier job, and random growth."""
    facts: dict[str, Any] = {}
    growth = np.zeros(0)
    if job.tier == "base":
        start = result.start_equity
        # The same shifts for every seed of a fold: seeds that bet alike stay alike.
        own = runner.filled_targets(market, result.action, start)
        growth = runner.random_same_turnover(market, own, start, RANDOM_DRAWS, job.fold)
        seen, act = stress.observations(market, result), runner.greedy_batch(agent)
        facts["inputs"] = stress.permutation_importance(act, seen, market.observation_names)
        facts["cost_growth"] = [
            runner.run_targets(stress.with_costs(market, k), result.action, start, "", "").log_growth
            for k in COST_MULTIPLES
        ]
    return facts, growth


def _baselines(one: Pass, recipe: Recipe, job: Job) -> tuple[list[EpisodeResult], dict[str, Any]]:
    _, market, features = one
    assert isinstance(features, Features)
    config, start = recipe.env_config, recipe.env_config.initial_equity
    fitted_on = runner.market_of(*features.train, config, "base")
    targets = baselines.all_targets(market, fitted_on)
    results = [
        runner.run_targets(market, t, start, baselines.policy(name), job.tier) for name, t in targets.items()
    ]
    facts: dict[str, Any] = {}
    watched = sections.watched_series(fitted_on, market)
    if min(series.now.size for series in watched.values()) >= drift.MIN_DAYS:
        found = drift.check(watched)
        first = list(dict.fromkeys(row["name"] for row in found["rows"]))[:4]
        facts["drift"] = {**found, "paths": {name: drift.cusum(watched[name]) for name in first}}
    return results, facts


def _trial_rows(fitted: object, settings: Settings, job: Job) -> list[dict[str, Any]]:
    if not isinstance(fitted, Refit):
        return []
    identity = settings.identity(job)
    rows = []
    for updates, result in fitted.trials:
        trial = runner.trial_of(
            result,
            agent_id=job.agent_id,
            seed=job.seed,
            split=f"walk-forward val {job.fold}",
            checkpoint=updates,
            config_hash=files.content_hash(identity),
            data_hash=identity["data_hash"],
        )
        rows.append({**dataclasses.asdict(trial), "day": trial.day.tolist(), "daily": trial.daily.tolist()})
    return rows


def _trial(row: dict[str, Any]) -> Trial:
    return Trial(**{**row, "day": np.array(row["day"], np.int64), "daily": np.array(row["daily"])})


def bare_market(settings: Settings, job: Job) -> Market:
    """Return the job's test days without features: enough to run targets on."""
    source = opened(settings.h5_path)
    frame = source.bars[source.instrument]
    inside = np.isin(validation.trading_days(frame), source.days[settings.fold_list()[job.fold - 1].test])
    bars = frame[inside]
    blank = pd.DataFrame({"none": np.zeros(len(bars), np.float32)}, index=bars.index)
    return runner.market_of(bars, blank, settings.recipe(job).env_config, job.tier)


# -- files --------------------------------------------------------------------------------------------


def save(path: Path, result: JobResult) -> None:
    """Write a finished job atomically."""
    arrays: dict[str, NDArray[Any]] = {"random_growth": result.random_growth}
    plain = []
    for i, one in enumerate(result.passes):
        arrays[f"{i}_time"] = one.open_time_utc.as_unit("ns").asi8
        arrays |= {f"{i}_{name}": getattr(one, name) for name in _SERIES}
        scalars = ("tier", "turnover", "trades", "start_equity", "costs")
        policy = {"policy": dataclasses.asdict(one.policy)}
        plain.append(policy | {name: getattr(one, name) for name in scalars})
    text = files.strict_json({**result.facts, "job": list(result.job), "passes": plain})
    arrays["facts"] = np.frombuffer(text.encode("utf-8"), np.uint8)
    files.write_npz(path, arrays)


def load(path: Path) -> JobResult:
    """Read a finished job."""
    try:
        with np.load(path, allow_pickle=False) as found:
            facts = json.loads(found["facts"].tobytes().decode("utf-8"))
            passes = []
            for i, plain in enumerate(facts.pop("passes")):
                time_utc = pd.DatetimeIndex(found[f"{i}_time"], tz="UTC")
                series = {name: found[f"{i}_{name}"] for name in _SERIES}
                policy = policies.from_plain(plain.pop("policy"))
                passes.append(EpisodeResult(policy, open_time_utc=time_utc, **series, **plain))
            return JobResult(Job(*facts.pop("job")), passes, facts, found["random_growth"])
    except (OSError, ValueError, KeyError) as err:
        msg = f"{path} is damaged ({err}). Delete the result.json beside it and run the same command again."
        raise DataError(msg) from err
