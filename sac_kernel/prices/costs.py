"""Trading costs and trading hours: spread by New York time, commission, slippage, swap.

All costs are positive when paid. Everything here depends on the clock and the tier alone, never on prices,
so it cannot look ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.prices.clocks import unix_seconds, utc_offsets

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    Moments = pd.DatetimeIndex | IntArray
    """UTC times; integers are Unix seconds."""

NEW_YORK = "America/New_York"
RENAMED_TIERS = {"spec": "retail"}
COST_TIERS = {"raw": 0.48, "base": 1.0, "retail": 14 / 3}
"""Factor on commission, slippage and the whole spread table. One-way cost of a trade in normal hours, half
spread included: raw 0.36 bps (an ECN account), base 0.75 (the headline), retail 3.5 (an expensive account)."""

NORMAL_SPREAD_BPS = 0.55
COMMISSION_BPS = 0.32
"""Per side, of notional: USD 3.50 a lot."""
SLIPPAGE_BPS = 0.155
"""Per side: just under 0.2 pip."""

# Spread over its normal value by New York half hour. Shape: medians of OANDA's EURUSD bid and ask, 2023
# (1.4-1.6 pips by day, 7.5 in the hour after 17:00, 3.5 in the next); the first half hour of each is wider.
_WIDENING = {34: 10.0, 35: 6.0, 36: 3.5, 37: 2.0, 38: 1.2}
SPREAD_PROFILE = np.array([_WIDENING.get(i, 1.0) for i in range(48)])
SPREAD_PROFILE.setflags(write=False)

FREEZE_START_MIN, FREEZE_END_MIN = 16 * 60 + 45, 19 * 60
"""No trading from 16:45 to 19:00 New York: bids fall as the spread widens at 17:00 and recover afterwards,
which looks like an edge on bid bars but is not one."""

ROLLOVER_MIN = 17 * 60
_NIGHTS_BY_WEEKDAY = np.array([1, 1, 3, 1, 1, 0, 0])  # Monday first; Wednesday settles over the weekend
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_DAY_S = 86_400


def spread_bps(moment: Moments, tier: str) -> FloatArray:
    """Return the full spread in bps of price at each UTC moment, shape (n,)."""
    half_hour = new_york_minute(moment) // 30
    return np.asarray(NORMAL_SPREAD_BPS * COST_TIERS[tier] * SPREAD_PROFILE[half_hour])


def one_way_bps(moment: Moments, tier: str) -> FloatArray:
    """Return half spread + commission + slippage in bps at each UTC moment, shape (n,)."""
    fees = (COMMISSION_BPS + SLIPPAGE_BPS) * COST_TIERS[tier]
    return spread_bps(moment, tier) / 2.0 + fees


def normal_one_way_bps(tier: str) -> float:
    """Return half spread + commission + slippage in bps outside the widened half hours."""
    normal = NORMAL_SPREAD_BPS * COST_TIERS[tier] * SPREAD_PROFILE.min()
    return float(normal / 2.0 + (COMMISSION_BPS + SLIPPAGE_BPS) * COST_TIERS[tier])


def is_tradable(moment: Moments) -> NDArray[np.bool_]:
    """Return whether trading is possible at each UTC moment: not from 16:45 to 19:00 New York."""
    minute = new_york_minute(moment)
    return (minute < FREEZE_START_MIN) | (minute >= FREEZE_END_MIN)


def hours_to_rollover(moment: Moments) -> FloatArray:
    """Return hours from each UTC moment to the next 17:00 New York, in (0, 24]."""
    return np.asarray((ROLLOVER_MIN - 1 - new_york_minute(moment)) % 1440 + 1) / 60.0


def trading_day(moment: Moments) -> IntArray:
    """Return the number of the trading day of each UTC moment; a day runs from 17:00 to 17:00 New York."""
    return (_local_seconds(moment) + (1440 - ROLLOVER_MIN) * 60) // _DAY_S


def swap_nights(after: Moments, until: Moments) -> IntArray:
    """Return the nights charged in each interval (after, until]: 17:00 New York, three on Wednesday."""
    return _nights_until(until) - _nights_until(after)


def new_york_minute(moment: Moments) -> IntArray:
    """Return the minute of the New York day, 0 to 1439, of each UTC moment."""
    return _local_seconds(moment) // 60 % 1440


def _local_seconds(moment: Moments) -> IntArray:
    if len(moment) == 0:
        return np.zeros(0, np.int64)
    utc = moment if isinstance(moment, np.ndarray) else unix_seconds(moment)
    first, last = int(utc.min()), int(utc.max())
    return utc + utc_offsets(np.array([first, last]), NEW_YORK)[utc // 3600 - first // 3600]


def _nights_until(moment: Moments) -> IntArray:
    day = (_local_seconds(moment) - ROLLOVER_MIN * 60) // _DAY_S  # the last day whose 17:00 has passed
    week, weekday = np.divmod(day + _EPOCH_WEEKDAY, 7)
    return week * _NIGHTS_BY_WEEKDAY.sum() + np.cumsum(_NIGHTS_BY_WEEKDAY)[weekday]
