"""All parameters of a run, flat: what the notebook's parameters cell and the build's --set speak."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel.agent.config import SACConfig
from sac_kernel.core import paths
from sac_kernel.core.config import from_flat, require
from sac_kernel.core.errors import ConfigError
from sac_kernel.core.renamed import current_value, renamed_arguments
from sac_kernel.experiment import output_layout
from sac_kernel.market.account import RENAMED_REWARDS, TradingEnvConfig
from sac_kernel.prices import costs

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NUM_ENVS = 60
UTD_RATIO = 0.25
"""Of the trainer: 75,000 updates in 100 episodes of 3,000 steps."""
NO_TRADE_BAND = 0.1
"""Of the account: a tenth of a full position (docs/learning.md)."""


@dataclass(frozen=True)
class Preset:
    """What makes an agent short-term, medium or swing; `regimes` and `forecast` add a feature each."""

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


@renamed_arguments(env_min_order="env_no_trade_band")
@dataclass(frozen=True)
class RunConfig:
    """All parameters of a run, flat: the notebook's parameters cell has these names, types and defaults.

    `h5_path` and `output_dir` empty are found by `core.paths`; `sac_gamma` 0 and `env_decision_interval_min` -1
    take the agent's preset; `env_horizon` 0 is the episode length; `env_reward` 'auto' is 'denoised', or 'log_return'
    where stops, limits or leverage make the path matter (`with_denoised_reward`). `warm_start` is the SHA-256
    of a saved agent, mounted as `paths.WARM_START`, whose weights a new run starts from. `expect_data_hash` and
    `expect_env_steps` (one a job, or empty) are filled in by the build: what must be mounted, so that a dataset's
    old version or a missing state stops the run at once instead of training on, or from, something else.
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
    sac_hidden_dims: tuple[int, ...] = (64, 64)
    sac_batch_size: int = 256
    sac_buffer_capacity: int = 300_000
    sac_warmup_steps: int = 5_000
    sac_utd_ratio: float = UTD_RATIO
    sac_learning_rate: float = 3e-4
    sac_gamma: float = 0.0
    env_episode_length: int = 3_000
    env_horizon: int = 0
    env_decision_interval_min: int = -1
    env_cost_tier: str = "base"
    env_exposure_cap: float = 1.0
    env_no_trade_band: float = NO_TRADE_BAND
    env_swap_long_bps: float = 0.6
    env_swap_short_bps: float = 0.3
    env_stop_loss_bps: float = 0.0
    env_take_profit_bps: float = 0.0
    env_volatility_target: float = 0.0
    env_daily_loss_limit: float = 0.0
    env_drawdown_stop: float = 0.0
    env_kill_loss: float = 0.0
    env_impact: float = 0.0
    env_reward: str = "auto"

    def __post_init__(self) -> None:
        for name in ("agent_ids", "seeds", "sac_hidden_dims", "expect_env_steps"):
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
        check_divides(self.num_envs, self.env_episode_length)
        output_layout.check_file_count(len(pairs), self.num_episodes, self.checkpoint_frequency)

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
        fields = self._section("sac_")
        return SACConfig(**{**fields, "gamma": self.sac_gamma or preset_of(agent_id).gamma})

    def env_config(self, agent_id: int) -> TradingEnvConfig:
        """Return the account and episode of one agent."""
        fields = self._section("env_")
        fields["horizon"] = self.env_horizon or None
        fields["episode_lengths"] = (fields.pop("episode_length"),)
        if self.env_decision_interval_min < 0:
            fields["decision_interval_min"] = preset_of(agent_id).decision_interval_min
        fields["reward"] = current_value("--set env_reward", fields["reward"], RENAMED_REWARDS)
        if fields["reward"] != "auto":
            return TradingEnvConfig(**fields)
        return TradingEnvConfig(**{**fields, "reward": "log_return"}).with_denoised_reward()

    def _section(self, prefix: str) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        return {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}


def from_parameters(namespace: Mapping[str, Any]) -> RunConfig:
    """Return the run of a notebook's parameters cell, strict on types."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    return from_flat(RunConfig, {name: namespace[name] for name in names}, "parameters cell")


def preset_of(agent_id: int) -> Preset:
    """Return the preset of agent 1, 2 or 3."""
    if agent_id not in AGENT_PRESETS:
        known = ", ".join(f"{k} {v.label}" for k, v in AGENT_PRESETS.items())
        msg = f"KaggleTrainer: agent_id must be one of {known}; got {agent_id!r}"
        raise ConfigError(msg)
    return AGENT_PRESETS[agent_id]


def horizons(bar_minutes: int = 5) -> list[str]:
    """Return a Markdown table: what each preset must know to earn its costs back (`market_costs.break_even_ic`).

    A bet is held for the discount's horizon, 1 / (1 - gamma) decisions; the last columns are the least
    information coefficient that pays for it at each cost tier.
    """
    tiers = list(costs.COST_TIERS)
    head = [
        "agent",
        "decides every [min]",
        "gamma",
        "looks ahead [h]",
        *(f"IC at {tier} costs" for tier in tiers),
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for agent_id, preset in AGENT_PRESETS.items():
        interval = preset.decision_interval_min or bar_minutes
        ahead = interval / (1.0 - preset.gamma)
        needed = (f"{costs.break_even_ic(ahead, tier):.3f}" for tier in tiers)
        cells = [
            f"{agent_id} {preset.label}",
            str(interval),
            f"{preset.gamma:g}",
            f"{ahead / 60:.1f}",
            *needed,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def check_divides(num_envs: int, episode_length: int) -> None:
    """Raise ConfigError with the nearest divisors unless `num_envs` divides the episode length."""
    if episode_length % num_envs:
        # Up to more accounts than anyone runs: a length of billions must not take minutes to refuse.
        divisors = [d for d in range(1, min(episode_length, 100_000) + 1) if episode_length % d == 0]
        below = max(d for d in divisors if d < num_envs) if num_envs > 1 else 1
        above = min((d for d in divisors if d > num_envs), default=episode_length)
        msg = (
            f"KaggleTrainer: num_envs must divide the episode length {episode_length}, got {num_envs}; "
            f"the nearest divisors are {below} and {above}"
        )
        raise ConfigError(msg)
