"""Which learner an account admits: exact SAC, or Gaussian SAC where the position's own path matters."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sac_kernel.agent.config import EXACT, GAUSSIAN
from sac_kernel.core.config import require
from sac_kernel.core.errors import ConfigError

if TYPE_CHECKING:
    from sac_kernel.agent.config import SACConfig
    from sac_kernel.agent.exact_config import ExactConfig
    from sac_kernel.market.account import TradingEnvConfig

AUTO, BOTH = "auto", "both"
LEARNERS = (AUTO, EXACT, GAUSSIAN, BOTH)

_PATH_DEPENDENT = (
    "stop_loss_bps", "take_profit_bps", "daily_loss_limit", "drawdown_stop", "kill_loss", "impact", "no_trade_band",
    "volatility_target", "atr_risk",
)  # fmt: skip
"""Settings under which the next market state, or what a fill pays, depends on the position's own path."""
_EXACT_REWARDS = ("denoised", "log_return")


def path_dependent_settings(config: TradingEnvConfig) -> list[str]:
    """Return the account's settings that exact SAC cannot represent, by name; empty where it applies."""
    names = [name for name in _PATH_DEPENDENT if getattr(config, name) != 0.0]
    return [*names, "exposure_cap"] if config.exposure_cap > 1.0 else names


def choose(config: TradingEnvConfig, requested: str = AUTO) -> tuple[str, str]:
    """Return the learner of an account, 'exact' or 'gaussian' ('both' stays), and the reason in a few words.

    Parameters
    ----------
    config : the account
    requested : one of `LEARNERS`; 'auto' is exact SAC unless the account has a setting that it cannot represent

    Raises
    ------
    ConfigError
        If exact SAC is asked for and the account does not admit it, naming the settings.
    """
    require(requested in LEARNERS, "learner", f"learner must be one of {', '.join(LEARNERS)}", requested)
    if requested == GAUSSIAN:
        return GAUSSIAN, "asked for"
    found = [f"env_{name} = {getattr(config, name):g}" for name in path_dependent_settings(config)]
    if config.reward not in _EXACT_REWARDS:
        found.append(f"env_reward = {config.reward}")
    settings = ", ".join(found)
    if requested == AUTO:
        return (
            (GAUSSIAN, f"{settings} depends on the position's path")
            if found
            else (EXACT, "the account admits it")
        )
    if found:
        msg = (
            f"learner={requested} cannot represent {settings}: what a decision pays then depends on the position's own "
            "path. Remove it, or set learner=gaussian."
        )
        raise ConfigError(msg)
    return requested, "asked for"


def asked_for(learner: str, sac: SACConfig | None, exact: ExactConfig | None) -> str:
    """Return the learner that the arguments of KaggleTrainer ask for."""
    asked = {learner} - {"auto"} | ({GAUSSIAN} if sac else set()) | ({EXACT} if exact else set())
    fits = len(asked) <= 1 and learner != "both"
    required = "sac_config asks for gaussian, exact_config for exact, and learner must be 'auto' or the same"
    require(fits, "KaggleTrainer", required, learner)
    return asked.pop() if asked else "auto"


def account_of(config: TradingEnvConfig, learner: str) -> TradingEnvConfig:
    """Return the account as a learner observes it."""
    return dataclasses.replace(config, observes="target") if learner == EXACT else config
