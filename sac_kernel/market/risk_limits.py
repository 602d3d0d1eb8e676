"""How large a position may be and when it must be none: pure functions, compiled, of plain numbers.

The bar engine calls them bar by bar, a live loop calls the very same ones on its own account: no state lives
here. All rules are off by default. Fractions are shares (0.02 = 2 %); equity is in account currency, marked at
the price that would close the position.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = math.inf
"""`halted_until` after the kill switch: nobody but a person ends it."""

_jit: Callable = numba.njit(cache=True, fastmath=False, error_model="numpy")  # type: ignore[type-arg]  # numba ships no types


@_jit
def volatility_target_exposure(volatility_ann: float, target_ann: float) -> float:
    """Return the exposure (notional over equity, > 0) whose volatility is `target_ann`, both annualised.

    Moreira and Muir 2017, Volatility-Managed Portfolios, J. Finance 72(4), with volatility for variance.
    """
    return target_ann / volatility_ann


@_jit
def atr_exposure(atr_frac: float, risk_frac: float, atr_multiple: float) -> float:
    """Return the exposure that loses `risk_frac` of equity when price moves `atr_multiple` ATRs against it.

    `atr_frac` is Wilder's average true range as a fraction of price, > 0. On 5-minute bars of 4 bps, 2 % at two
    ATRs is an exposure of 25: the cap rules then, not this.
    """
    return risk_frac / (atr_multiple * atr_frac)


@_jit
def daily_loss_hit(equity: float, day_start_equity: float, limit_frac: float) -> bool:
    """Return whether the trading day (17:00 to 17:00 New York) has lost `limit_frac`; 0 is off."""
    return bool(limit_frac > 0.0 and equity <= day_start_equity * (1.0 - limit_frac))


@_jit
def drawdown_hit(equity: float, peak: float, limit_frac: float) -> bool:
    """Return whether equity is `limit_frac` below its peak; 0 is off."""
    return bool(limit_frac > 0.0 and equity <= peak * (1.0 - limit_frac))


@_jit
def kill_hit(equity: float, start_equity: float, limit_frac: float) -> bool:
    """Return whether `limit_frac` of the start is lost for good; 0 is off."""
    return bool(limit_frac > 0.0 and equity <= start_equity * (1.0 - limit_frac))


@_jit
def halted_until(
    previous: float, day: float, daily: bool, drawdown: bool, pause_days: float, kill: bool
) -> float:
    """Return the first trading day on which exposure is allowed again; the account must be flat before it.

    Parameters
    ----------
    previous : what this function returned last, 0 at the start
    day : number of the trading day that the equity belongs to (`prices.costs.trading_day`)
    daily : the daily loss limit is hit: flat for the rest of this day
    drawdown : the drawdown stop is hit: flat for the rest of this day and `pause_days` calendar days more
    kill : the kill switch is hit, by a loss or by hand: flat until a person says otherwise
    """
    until = previous
    if daily:
        until = max(until, day + 1.0)
    if drawdown:
        until = max(until, day + 1.0 + pause_days)
    return NEVER if kill else until


@_jit
def is_halted(until: float, day: float) -> bool:
    """Return whether `day` comes before the trading day on which exposure is allowed again."""
    return bool(until > day)
