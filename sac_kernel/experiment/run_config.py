"""All settings of a run, including those of agent and account, and their flat names.

A parameters cell, `--set` and a settings file hold scalars and flat lists under names such as `sac_gamma`. These
names, their types, defaults and help are generated from the configurations: one entry in `_SHOWN` makes a field of
`SACConfig` or `TradingEnvConfig` a parameter.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sac_kernel.agent.config import EXACT, GAUSSIAN, SACConfig
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.core import packages, paths
from sac_kernel.core.config import check_names, field_help, require, typed
from sac_kernel.core.errors import ConfigError
from sac_kernel.core.renamed import current, current_value, renamed_names
from sac_kernel.experiment import learner, output_layout
from sac_kernel.features.own import OwnFeatures
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.features.series import Series
from sac_kernel.market.account import RENAMED_REWARDS, TradingEnvConfig
from sac_kernel.prices.costs import COST_TIERS

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NUM_ENVS = 60
PURGE_DAYS = 5
"""Days left out between the parts of a fold of a walk-forward."""
UTD_RATIO = 0.25
"""Of the Gaussian trainer: 75,000 updates in 100 episodes of 3,000 steps."""
EXACT_UPDATES = 30
"""Updates of an episode of exact SAC: 3,000 in 100 episodes."""
RAW_WEIGHT_DECAY = 1.0
"""Of exact SAC on realised returns, which it would learn by heart without (docs/learning.md)."""
NO_TRADE_BAND = 0.1
"""Of a Gaussian agent's account: a tenth of a full position (docs/learning.md)."""


@dataclass(frozen=True)
class Preset:
    """Short-term, medium or swing agent; `regimes` and `forecast` add a feature each."""

    label: str
    decision_interval_min: int
    gamma: float
    regimes: bool = False
    forecast: bool = False


AGENT_PRESETS = {
    1: Preset("short-term", 0, 0.99),
    2: Preset("medium", 60, 0.99, forecast=True),
    3: Preset("swing", 240, 0.99, regimes=True),
}
RUN_PRESETS = {"quick": (50, 5, 10), "full": (500, 10, 20), "long": (1000, 20, 50)}
"""num_episodes, eval_frequency, checkpoint_frequency."""


DEFAULT_SAC = SACConfig.for_market(utd_ratio=UTD_RATIO)
DEFAULT_EXACT = ExactConfig()
DEFAULT_ENV = TradingEnvConfig()
LEFT_TO_PRESET = (
    "sac_gamma", "sac_learning_rate", "exact_weight_decay", "env_decision_interval_min", "env_no_trade_band",
    "env_reward",
)  # fmt: skip
"""Parameters that the agent's preset or learner sets unless the run does."""
SHARED = ("gamma", "hidden_dims", "batch_size", "learning_rate")
"""Fields of `sac` that exact SAC has too; it takes them from there."""
GAUSSIAN_ONLY = ("sac_buffer_capacity", "sac_warmup_steps", "sac_utd_ratio", "num_envs")


class Job(NamedTuple):
    """One training of a run; `learner` is '' where the run has one for each account, not both."""

    agent_id: int
    seed: int
    learner: str = ""


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run: its own, and those of its agents and their account.

    The notebook's parameters cell, `--set` and settings files use flat names: `PARAMETERS`.

    Attributes
    ----------
    h5_path : processed bars; empty: found under the mounted inputs, or data/processed/processed_data.h5
    output_dir : output folder; empty: /kaggle/working on Kaggle, ./outputs elsewhere
    agent_ids : 1 short-term, 2 medium, 3 swing; one job for each agent and seed
    seeds : random seeds; one job for each agent and seed, with folds for each agent and the first seed
    folds : blocks of test days of a walk-forward, the last one the test split; 0 judges the test split alone
    tiers : cost tiers of a walk-forward, each with its own trainings
    null_copies : copies of the bars without signal that the whole chain is refitted on after a walk-forward
    power_copies : copies with each of four planted signals, which show what the chain would have found
    learner : auto, exact, gaussian or both. 'auto' is exact SAC unless the account has a setting that it cannot
        represent
    num_episodes : episodes of 30 updates (exact) or env_episode_length environment steps (Gaussian)
    eval_frequency : episodes between two validations
    checkpoint_frequency : episodes between two checkpoints
    num_envs : parallel accounts of Gaussian SAC; divides env_episode_length
    device : auto, cpu, cuda or cuda:N
    time_budget_h : hours after which training saves its state and stops
    resume : auto, never, or the path of a state folder
    allow_cpu : continue without the requested GPU
    warm_start : set by a retraining: SHA-256 of the saved agent whose weights this run starts from
    self_test : first show that exact SAC learns, on a market whose best policy is known: seconds
    features_file : Python file with your own features(bars); empty: none
    series_files : extra series, CSV with a column known_at
    only_own_features : your own features replace the thirty instead of joining them
    features_hash : set by the build: SHA-256 of the feature file
    expect_data_hash : set by the build: content hash of the bars that must be mounted
    expect_env_steps : set by the build: step from which each job of a resumed run must continue
    expect_files : set by the build: name and SHA-256 of each mounted file that the run may use
    run_id : set by the build: name of the run in its manifest; the sessions of a run share it
    notebook_hash : set by the build: SHA-256 of the notebook in which this value is empty
    sac : settings of Gaussian agents; widths and an unset reward scale come from env and train bars
    exact : settings of exact agents, but for `SHARED`
    env : account and episode
    left_to_preset : names among `LEFT_TO_PRESET` whose value in `sac` or `env` the agent's preset replaces
    """

    h5_path: str = ""
    output_dir: str = ""
    agent_ids: tuple[int, ...] = (1,)
    seeds: tuple[int, ...] = (0,)
    folds: int = 0
    tiers: tuple[str, ...] = tuple(COST_TIERS)
    null_copies: int = 0
    power_copies: int = 0
    learner: str = learner.AUTO
    num_episodes: int = 100
    eval_frequency: int = 10
    checkpoint_frequency: int = 5
    num_envs: int = DEFAULT_NUM_ENVS
    device: str = "auto"
    time_budget_h: float = 11.0
    resume: str = "auto"
    allow_cpu: bool = False
    warm_start: str = ""
    self_test: bool = True
    features_file: str = ""
    series_files: tuple[str, ...] = ()
    only_own_features: bool = False
    features_hash: str = ""
    expect_data_hash: str = ""
    expect_env_steps: tuple[int, ...] = ()
    expect_files: tuple[str, ...] = ()
    run_id: str = ""
    notebook_hash: str = ""
    sac: SACConfig = DEFAULT_SAC
    exact: ExactConfig = DEFAULT_EXACT
    env: TradingEnvConfig = DEFAULT_ENV
    left_to_preset: tuple[str, ...] = LEFT_TO_PRESET

    def __post_init__(self) -> None:
        for name in ("agent_ids", "seeds", "tiers", "expect_env_steps", "expect_files", "series_files"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        pairs, where = self.jobs, "RunConfig"
        require(bool(pairs), where, "agent_ids and seeds must not be empty", [self.agent_ids, self.seeds])
        require(len(set(pairs)) == len(pairs), where, "agent_ids and seeds must be distinct", pairs)
        for name in ("num_episodes", "eval_frequency", "checkpoint_frequency", "num_envs", "time_budget_h"):
            require(getattr(self, name) > 0, where, f"{name} must be > 0", getattr(self, name))
        self._check_folds()
        for job in pairs:
            self.sac_config(job.agent_id)
            self.exact_config(job.agent_id)
            self.env_config(job.agent_id, self.learner_of(job)[0])
        needs = self.has_own or not self.only_own_features
        require(needs, where, "only_own_features needs features_file or series_files", self.features_file)
        steps = self.expect_env_steps
        fits = len(steps) in (0, len(pairs))
        require(
            fits, where, f"expect_env_steps must be empty or one for each of {len(pairs)} jobs", list(steps)
        )
        odd = [entry for entry in self.expect_files if not paths.is_expected(entry)]
        require(not odd, where, "expect_files must hold entries 'NAME SHA256'", odd[:1])
        if GAUSSIAN in (learners := {self.learner_of(job)[0] for job in pairs}):
            check_divides(self.num_envs, self.env.episode_length)
        else:
            self._refuse_gaussian_settings(learners)
        output_layout.check_file_count(len(pairs), self.num_episodes, self.checkpoint_frequency)

    @classmethod
    def from_flat(cls, values: Mapping[str, object], where: str = "RunConfig") -> RunConfig:
        """Return the run of some flat parameters; the others have their defaults.

        Raises
        ------
        ConfigError
            If a name is not one of `PARAMETERS`, or a value has the wrong type or range.
        """
        fields: dict[str, dict[str, Any]] = {"": {}, **{part: {} for part in _PARTS}}
        for name, value in checked(values, where).items():
            parameter = PARAMETERS[name]
            if not (name in LEFT_TO_PRESET and value == parameter.default):
                fields[parameter.part][parameter.field] = parameter.field_value(value)
        left = (
            name for name in LEFT_TO_PRESET if PARAMETERS[name].field not in fields[PARAMETERS[name].part]
        )
        own = fields.pop("")
        parts: dict[str, Any] = {part: dataclasses.replace(_PARTS[part], **fields[part]) for part in fields}
        return cls(**own, **parts, left_to_preset=tuple(left))

    def flat(self) -> dict[str, Any]:
        """Return every parameter by its flat name as plain values: `RunConfig.from_flat` takes them back."""
        values = {name: self._flat(name) for name in PARAMETERS}
        return {**values, **{name: PARAMETERS[name].default for name in self.left_to_preset}}

    def _check_folds(self) -> None:
        where, tiers = "RunConfig", self.tiers
        known = len({*tiers}) == len(tiers) and {"base"} <= {*tiers} <= {*COST_TIERS}
        require(known, where, f"tiers must include base and be among {', '.join(COST_TIERS)}", list(tiers))
        require(len({*self.seeds}) == len(self.seeds), where, "seeds must be distinct", list(self.seeds))
        for name in ("folds", "null_copies", "power_copies"):
            require(getattr(self, name) >= 0, where, f"{name} must be >= 0", getattr(self, name))
        require(self.folds != 1, where, "folds must be 0 or at least 2", self.folds)
        if not self.folds:
            return
        alike = self.env.cost_tier == "base" and self.learner != learner.BOTH
        found = [self.env.cost_tier, self.learner]
        require(alike, where, "with folds, env_cost_tier must be base and learner one alone", found)

    def _refuse_gaussian_settings(self, learners: set[str]) -> None:
        plain = {name: PARAMETERS[name].default for name in GAUSSIAN_ONLY}
        own = {name: self._flat(name) for name in GAUSSIAN_ONLY}
        if found := [f"{name} = {own[name]}" for name in plain if own[name] != plain[name]]:
            msg = (
                f"RunConfig: {', '.join(found)} has no meaning for the learner of this run, {', '.join(learners)} SAC. "
                "Leave it out, or set learner=gaussian."
            )
            raise ConfigError(msg)

    @property
    def jobs(self) -> list[Job]:
        """Return every job, in order; the other seeds of a walk-forward are trained in its folds."""
        learners = (EXACT, GAUSSIAN) if self.learner == learner.BOTH else ("",)
        seeds = self.seeds[:1] if self.folds else self.seeds
        return [Job(a, seed, name) for name in learners for a in self.agent_ids for seed in seeds]

    def learner_of(self, job: Job) -> tuple[str, str]:
        """Return a job's learner and why it is that one (`learner.choose`)."""
        found, why = learner.choose(self._account(job.agent_id), self.learner)
        return (job.learner, "both are trained") if job.learner else (found, why)

    def updates_of(self, job: Job) -> float:
        """Return the planned updates of a job."""
        steps = self.env.episode_length * self.sac.utd_ratio
        return self.num_episodes * (EXACT_UPDATES if self.learner_of(job)[0] == EXACT else steps)

    def find_input(self, name: str) -> Path:
        """Return the mounted file of this build called `name`; InputNotFoundError if there is none."""
        return paths.find_input(name, digests=self.expected(name))

    @property
    def data_file(self) -> Path:
        """Return the processed bars: as set, else mounted or local."""
        return Path(self.h5_path) if self.h5_path else self.find_input(paths.DATA_FILE)

    def expected(self, name: str) -> list[str]:
        """Return the SHA-256 that a mounted file called `name` may have; [] if the build knows none."""
        return paths.expected(self.expect_files, name)

    @property
    def top_folder(self) -> Path:
        """Return the output folder of the whole run."""
        return Path(self.output_dir) if self.output_dir else paths.paths().working_dir

    @property
    def own_file(self) -> Path:
        """Return the file of the user's own features: beside the package in a notebook."""
        beside = packages.import_root() / self.features_file
        return beside if beside.is_file() else Path(self.features_file)

    @property
    def own_series(self) -> tuple[Series, ...]:
        """Return the user's extra series."""
        named = self.series_files
        return tuple(Series.load(self.find_input(name) if self.expected(name) else name) for name in named)

    @property
    def has_own(self) -> bool:
        """Whether there are features of the user's own."""
        return bool(self.features_file or self.series_files)

    def feature_pipeline(self, instrument: str, agent_id: int) -> FeaturePipeline:
        """Return the unfitted features of one agent, the user's own among them."""
        preset = preset_of(agent_id)
        own = OwnFeatures.load(self.own_file, self.features_hash) if self.features_file else None
        own = OwnFeatures.of(own, self.own_series)
        return FeaturePipeline(instrument, preset.regimes, preset.forecast, own, self.only_own_features)

    def sac_config(self, agent_id: int) -> SACConfig:
        """Return the hyper-parameters of one agent."""
        if "sac_gamma" not in self.left_to_preset:
            return self.sac
        return dataclasses.replace(self.sac, gamma=preset_of(agent_id).gamma)

    def exact_config(self, agent_id: int) -> ExactConfig:
        """Return the settings of one agent by exact SAC."""
        sac, left = self.sac_config(agent_id), self.left_to_preset
        shared = {
            k: getattr(sac, k) for k in SHARED if not (k == "learning_rate" and "sac_learning_rate" in left)
        }
        if "exact_weight_decay" in left:
            shared["weight_decay"] = 0.0 if self._account(agent_id).reward == "denoised" else RAW_WEIGHT_DECAY
        return dataclasses.replace(self.exact, **shared)

    def env_config(self, agent_id: int, learner_name: str = "") -> TradingEnvConfig:
        """Return the account and episode of one agent, as its learner has them."""
        env, name = self._account(agent_id), learner_name or self.learner_of(self.jobs[0])[0]
        if name == GAUSSIAN and "env_no_trade_band" in self.left_to_preset:
            env = dataclasses.replace(env, no_trade_band=NO_TRADE_BAND)
        return learner.account_of(env, name)

    def _account(self, agent_id: int) -> TradingEnvConfig:
        env, preset = self.env, preset_of(agent_id)
        if "env_decision_interval_min" in self.left_to_preset:
            env = dataclasses.replace(env, decision_interval_min=preset.decision_interval_min)
        if "env_reward" in self.left_to_preset:
            env = dataclasses.replace(env, reward="log_return").with_denoised_reward()
        return env

    def _flat(self, name: str) -> Any:  # noqa: ANN401
        parameter = PARAMETERS[name]
        return parameter.flat_value(
            getattr(getattr(self, parameter.part) if parameter.part else self, parameter.field)
        )


# -- flat names


_PARTS: dict[str, Any] = {"sac": DEFAULT_SAC, "exact": DEFAULT_EXACT, "env": DEFAULT_ENV}
"""Prefix of a flat name -> the configuration that it is part of; a run's own fields have none."""

_SHOWN = {
    "sac": "hidden_dims batch_size buffer_capacity warmup_steps utd_ratio learning_rate gamma",
    "exact": "positions alpha risk_aversion weight_decay",
    "env": "episode_lengths horizon decision_interval_min cost_tier costs exposure_cap no_trade_band swap_long_bps "
    "swap_short_bps stop_loss_bps take_profit_bps volatility_target daily_loss_limit drawdown_stop kill_loss "
    "impact reward",
}
"""Fields of each part that are parameters; name, type, default and help are the field's own."""

_FLAT_FORMS: dict[str, tuple[Any, str]] = {
    "sac_gamma": (0.0, "0 takes the preset of the agent"),
    "sac_learning_rate": (0.0, "0 takes the learner's own: 0.001 exact, 0.0003 Gaussian"),
    "exact_weight_decay": (-1.0, "-1 takes 0 with denoised rewards, 1 with realised ones"),
    "env_horizon": (0, "0 is the episode length"),
    "env_decision_interval_min": (-1, "-1 takes the preset of the agent"),
    "env_swap_long_bps": (1000.0, "1000 takes the instrument's"),
    "env_swap_short_bps": (1000.0, "1000 takes the instrument's"),
    "env_no_trade_band": (-1.0, "-1 takes the learner's own: 0.1 Gaussian, none exact"),
    "env_reward": ("auto", "auto is denoised, or log_return where stops, limits or a cap above 1 are set"),
}
"""Flat name -> the value for 'not set', which a parameters cell can hold, and its help."""


@dataclass(frozen=True)
class Parameter:
    """One flat parameter.

    Attributes
    ----------
    part, field : where its value lives: 'sac', 'exact', 'env' or '' for the run itself, and the field's name there
    type, default : of the flat value: a scalar, or a tuple of scalars
    help : one line
    """

    part: str
    field: str
    type: Any
    default: Any
    help: str

    def field_value(self, flat: Any) -> Any:  # noqa: ANN401
        """Return what the field holds for a flat value."""
        if self.field == "episode_lengths":
            return (flat,)
        unset = self.field == "horizon" or self.field.startswith("swap_")
        return None if unset and flat == self.default else flat

    def flat_value(self, value: Any) -> Any:  # noqa: ANN401
        """Return the flat value of what the field holds."""
        if self.field == "episode_lengths":
            return value[0]
        if value is None:
            return self.default
        return list(value) if isinstance(value, tuple) else value


def _parameters() -> dict[str, Parameter]:
    own = [f.name for f in dataclasses.fields(RunConfig) if f.name not in (*_PARTS, "left_to_preset")]
    parameters = {name: _parameter("", name, name) for name in own}
    for part, names in _SHOWN.items():
        for field in names.split():
            flat = f"{part}_{'episode_length' if field == 'episode_lengths' else field}"
            parameters[flat] = _parameter(part, field, flat)
    return parameters


def _parameter(part: str, field: str, flat: str) -> Parameter:
    owner = type(_PARTS[part]) if part else RunConfig
    annotation, text = typing.get_type_hints(owner)[field], field_help(owner)[field]
    default = getattr(_PARTS[part] if part else RunConfig, field)  # a class holds its fields' defaults
    if flat == "env_episode_length":
        annotation, (default,) = int, default
    if flat in _FLAT_FORMS:
        default, unset = _FLAT_FORMS[flat]
        annotation, text = type(default), f"{text.partition('; None')[0]}; {unset}"
    return Parameter(part, field, annotation, default, text)


PARAMETERS = _parameters()
"""Flat name -> parameter, in the order of the notebook's parameters cell."""

RENAMED_PARAMETERS = {
    f"{part}_{old}": f"{part}_{new}"
    for part, config in _PARTS.items()
    for old, new in renamed_names(type(config)).items()
}


def checked(values: Mapping[str, object], where: str) -> dict[str, Any]:
    """Return flat parameters after a strict check of names and types; an old name or value becomes the new one."""
    values = current(where, values, RENAMED_PARAMETERS)
    check_names(where, values, PARAMETERS)
    flat = {name: typed(where, name, value, PARAMETERS[name].type) for name, value in values.items()}
    if "env_reward" in flat:
        flat["env_reward"] = current_value(f"{where} env_reward", flat["env_reward"], RENAMED_REWARDS)
    return flat


def from_parameters(namespace: Mapping[str, Any]) -> RunConfig:
    """Return the run of a notebook's parameters cell, strict on types."""
    return RunConfig.from_flat({name: namespace[name] for name in PARAMETERS}, "parameters cell")


def preset_of(agent_id: int) -> Preset:
    """Return the preset of agent 1, 2 or 3."""
    if agent_id not in AGENT_PRESETS:
        known = ", ".join(f"{k} {v.label}" for k, v in AGENT_PRESETS.items())
        msg = f"agent_id must be one of {known}; got {agent_id!r}"
        raise ConfigError(msg)
    return AGENT_PRESETS[agent_id]


def check_divides(num_envs: int, episode_length: int) -> None:
    """Raise ConfigError with the nearest divisors unless `num_envs` divides the episode length."""
    if episode_length % num_envs:
        # Bounded: a length of billions must not take minutes.
        divisors = [d for d in range(1, min(episode_length, 100_000) + 1) if episode_length % d == 0]
        below = max(d for d in divisors if d < num_envs) if num_envs > 1 else 1
        above = min((d for d in divisors if d > num_envs), default=episode_length)
        msg = (
            f"num_envs must divide the episode length {episode_length}, got {num_envs}. "
            f"The nearest divisors are {below} and {above}."
        )
        raise ConfigError(msg)
