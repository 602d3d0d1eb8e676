"""The market that an agent learns on: the train rows, with denoised rewards if the config sets them."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.core.errors import DataError
from sac_kernel.features import forecast_input
from sac_kernel.features.forecast import fit_forecast, mean_ahead, reward_spread
from sac_kernel.features.pipeline import MEMORY_S
from sac_kernel.market.decision_bars import NEVER, fill_bar, forecast_target
from sac_kernel.market.market import Market, prepare_market

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.market.account import TradingEnvConfig

logger = logging.getLogger(__name__)


def build_training_market(
    bars: pd.DataFrame, features: pd.DataFrame, config: TradingEnvConfig
) -> tuple[Market, dict[str, Any]]:
    """Return the market of the train rows, and the figures of its return forecast, empty without one.

    With reward 'denoised' the returns of a decision's bars are replaced by their forecast at the time of the
    decision, cross-fitted on these rows alone (`features.forecast`). Rows whose order cannot fill within the decision
    teach nothing, and their own forecast is 0.

    Raises
    ------
    DataError
        If bars and features are unusable, or no reward on them can differ from 0.
    """
    plain = config if config.reward != "denoised" else dataclasses.replace(config, reward="log_return")
    market = prepare_market(bars, features, plain, close_at_end=False)
    _check_moves(market)
    if config.reward != "denoised":
        return market, {}
    target = mean_ahead(market.mid_return, market.interval_bars)
    fillable = fill_bar(market) < NEVER
    estimate, facts = _fitted(market, features, np.where(fillable, target, np.nan))
    return prepare_market(
        bars, features, config, close_at_end=False, return_forecast=estimate * fillable
    ), facts


def forecast_of_decisions(
    market: Market, features: pd.DataFrame, gamma: float
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Return the denoised returns that exact SAC learns from, (n_bars,), and the figures of the forecast.

    Row t is the return of a unit expected of a decision at close t, out of fold: the forecast of
    `decision_bars.forecast_target`. It is 0 without a signal and where the order cannot fill.

    Parameters
    ----------
    market : the train rows
    features : of the same rows
    gamma : discount per decision
    """
    estimate, facts = _fitted(market, features, forecast_target(market, gamma))
    return estimate * (fill_bar(market) < NEVER), facts


def _fitted(
    market: Market, features: pd.DataFrame, target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Return the out-of-fold forecast of a target per decision, and its figures, which are logged."""
    # Without the forecast's column, which is already a fit to these returns.
    inputs = features.drop(columns=forecast_input.FEATURE, errors="ignore")
    stride = market.interval_bars
    # Where the next decision cannot fill, its bars belong to this one's target too.
    purge = MEMORY_S // market.bar_seconds + stride
    fit = fit_forecast(inputs, target, purge=purge, stride=stride)
    facts = {**fit.summary(), "decision_bars": stride}
    texts = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items())
    logger.info("Return forecast of the train rows: %s", ", ".join(texts))
    return fit.train, facts


def reward_scale(market: Market) -> float:
    """Return 1 / (size of a full position's reward over one decision), to six digits."""
    size = market.reward_sd
    if market.return_forecast is not None:
        part = market.bars[market.first_bar : -1]
        cost = float(np.mean(part["spread_open"])) / 2 + float(np.mean(market.fees))
        size = reward_spread(market.interval_bars * part["return_forecast"], cost) * market.terms.exposure_cap
    return float(f"{1.0 / size:.6g}")


def _check_moves(market: Market) -> None:
    """Raise DataError if every reward would be zero, naming the cause."""
    closes, msg = market.bars["close"][market.first_bar :], ""
    if np.ptp(closes) == 0:
        msg = f"The training prices never move: all {len(closes)} closes are {closes[0]:g}."
    elif not market.bars["tradable"][market.first_bar + 1 :].any():
        msg = "No train bar can be traded: all open between 16:45 and 19:00 New York. Check the clock of the bars."
    if msg:
        raise DataError(msg)
