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
from typing import TYPE_CHECKING, Any

from sac_kernel.agent.config import SACConfig
from sac_kernel.core import paths
from sac_kernel.core.config import check_names, field_help, require, typed
from sac_kernel.core.errors import ConfigError
from sac_kernel.core.renamed import current, current_value, renamed_names
from sac_kernel.experiment import output_layout
from sac_kernel.market.account import RENAMED_REWARDS, TradingEnvConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NUM_ENVS = 60
UTD_RATIO = 0.25
"""Of the trainer: 75,000 updates in 100 episodes of 3,000 steps."""
NO_TRADE_BAND = 0.1
"""Of the account: a tenth of a full position (docs/learning.md)."""


@dataclass(frozen=True)
class Preset:
    """Short-term, medium or swing agent; `regimes` and `forecast` add a feature each."""

    label: str
    decision_interval_min: int
    gamma: float
    regimes: bool = False
    forecast: bool = False

    @property
    def env_config(self) -> TradingEnvConfig:
        """Return the account that the agent is trained on by default."""
        interval = self.decision_interval_min
        return TradingEnvConfig(
            decision_interval_min=interval, no_trade_band=NO_TRADE_BAND, reward="denoised"
        )


AGENT_PRESETS = {
    1: Preset("short-term", 0, 0.99),
    2: Preset("medium", 60, 0.99, forecast=True),
    3: Preset("swing", 240, 0.99, regimes=True),
}
RUN_PRESETS = {"quick": (50, 5, 10), "full": (500, 10, 20), "long": (1000, 20, 50)}
"""num_episodes, eval_frequency, checkpoint_frequency."""


DEFAULT_SAC = SACConfig.for_market(utd_ratio=UTD_RATIO)
DEFAULT_ENV = TradingEnvConfig(no_trade_band=NO_TRADE_BAND)
LEFT_TO_PRESET = ("sac_gamma", "env_decision_interval_min", "env_reward")
"""Parameters that the agent's preset sets unless the run does."""


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run: its own, and those of its agents and their account.

    The notebook's parameters cell, `--set` and settings files use flat names: `PARAMETERS`.

    Attributes
    ----------
    h5_path : processed bars; empty: found under the mounted inputs, or data/processed/processed_data.h5
    output_dir : output folder; empty: /kaggle/working on Kaggle, ./outputs elsewhere
    agent_ids : 1 short-term, 2 medium, 3 swing; one job for each agent and seed
    seeds : random seeds; one job for each agent and seed
    num_episodes : episodes of env_episode_length environment steps
    eval_frequency : episodes between two validations
    checkpoint_frequency : episodes between two checkpoints
    num_envs : parallel accounts; divides env_episode_length
    device : auto, cpu, cuda or cuda:N
    time_budget_h : hours after which training saves its state and stops
    resume : auto, never, or the path of a state folder
    allow_cpu : continue without the requested GPU
    warm_start : set by a retraining: SHA-256 of the saved agent whose weights this run starts from
    self_test : first prove the agent on markets with known answers, about two minutes
    expect_data_hash : set by the build: content hash of the bars that must be mounted
    expect_env_steps : set by the build: step from which each job of a resumed run must continue
    sac : settings of the agents; widths and an unset reward scale come from env and train bars
    env : account and episode
    left_to_preset : names among `LEFT_TO_PRESET` whose value in `sac` or `env` the agent's preset replaces
    """

    h5_path: str = ""
    output_dir: str = ""
    agent_ids: tuple[int, ...] = (1,)
    seeds: tuple[int, ...] = (0,)
    num_episodes: int = 100
    eval_frequency: int = 10
    checkpoint_frequency: int = 5
    num_envs: int = DEFAULT_NUM_ENVS
    device: str = "auto"
    time_budget_h: float = 11.0
    resume: str = "auto"
    allow_cpu: bool = False
    warm_start: str = ""
    self_test: bool = False
    expect_data_hash: str = ""
    expect_env_steps: tuple[int, ...] = ()
    sac: SACConfig = DEFAULT_SAC
    env: TradingEnvConfig = DEFAULT_ENV
    left_to_preset: tuple[str, ...] = LEFT_TO_PRESET

    def __post_init__(self) -> None:
        for name in ("agent_ids", "seeds", "expect_env_steps"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        pairs, where = self.jobs, "RunConfig"
        require(bool(pairs), where, "agent_ids and seeds must not be empty", [self.agent_ids, self.seeds])
        require(len(set(pairs)) == len(pairs), where, "agent_ids and seeds must be distinct", pairs)
        for name in ("num_episodes", "eval_frequency", "checkpoint_frequency", "num_envs", "time_budget_h"):
            require(getattr(self, name) > 0, where, f"{name} must be > 0", getattr(self, name))
        for agent_id in self.agent_ids:
            self.sac_config(agent_id)
            self.env_config(agent_id)
        steps = self.expect_env_steps
        fits = len(steps) in (0, len(pairs))
        require(
            fits, where, f"expect_env_steps must be empty or one for each of {len(pairs)} jobs", list(steps)
        )
        check_divides(self.num_envs, self.env.episode_length)
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
        values = {}
        for name, parameter in PARAMETERS.items():
            owner = getattr(self, parameter.part) if parameter.part else self
            values[name] = parameter.flat_value(getattr(owner, parameter.field))
        return {**values, **{name: PARAMETERS[name].default for name in self.left_to_preset}}

    @property
    def jobs(self) -> list[tuple[int, int]]:
        """Return (agent_id, seed) of every job, in order."""
        return [(agent_id, seed) for agent_id in self.agent_ids for seed in self.seeds]

    @property
    def top_folder(self) -> Path:
        """Return the output folder of the whole run."""
        return Path(self.output_dir) if self.output_dir else paths.paths().working_dir

    def sac_config(self, agent_id: int) -> SACConfig:
        """Return the hyper-parameters of one agent."""
        if "sac_gamma" not in self.left_to_preset:
            return self.sac
        return dataclasses.replace(self.sac, gamma=preset_of(agent_id).gamma)

    def env_config(self, agent_id: int) -> TradingEnvConfig:
        """Return the account and episode of one agent."""
        env, preset = self.env, preset_of(agent_id)
        if "env_decision_interval_min" in self.left_to_preset:
            env = dataclasses.replace(env, decision_interval_min=preset.decision_interval_min)
        if "env_reward" in self.left_to_preset:
            env = dataclasses.replace(env, reward="log_return").with_denoised_reward()
        return env


# -- flat names


_PARTS: dict[str, SACConfig | TradingEnvConfig] = {"sac": DEFAULT_SAC, "env": DEFAULT_ENV}
"""Prefix of a flat name -> the configuration that it is part of; a run's own fields have none."""

_SHOWN = {
    "sac": "hidden_dims batch_size buffer_capacity warmup_steps utd_ratio learning_rate gamma",
    "env": "episode_lengths horizon decision_interval_min cost_tier exposure_cap no_trade_band swap_long_bps "
    "swap_short_bps stop_loss_bps take_profit_bps volatility_target daily_loss_limit drawdown_stop kill_loss "
    "impact reward",
}
"""Fields of each part that are parameters; name, type, default and help are the field's own."""

_FLAT_FORMS: dict[str, tuple[Any, str]] = {
    "sac_gamma": (0.0, "0 takes the preset of the agent"),
    "env_horizon": (0, "0 is the episode length"),
    "env_decision_interval_min": (-1, "-1 takes the preset of the agent"),
    "env_reward": ("auto", "auto is denoised, or log_return where stops, limits or a cap above 1 are set"),
}
"""Flat name -> the value for 'not set', which a parameters cell can hold, and its help."""


@dataclass(frozen=True)
class Parameter:
    """One flat parameter.

    Attributes
    ----------
    part, field : where its value lives: 'sac', 'env' or '' for the run itself, and the field's name there
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
        return None if self.field == "horizon" and flat == 0 else flat

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
