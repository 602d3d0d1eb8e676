"""What a pass traded: its fills, and the figures of its trades that users of other back-testers expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.backtest import stress
from sac_kernel.core import strings
from sac_kernel.market import engine
from sac_kernel.market.fills import replay
from sac_kernel.market.records import Account, Fill, blank, new_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.market.market import Market
    from sac_kernel.market.records import Records

HELD = 0.01
"""Exposure, of equity, below which an account counts as flat: less is a remainder, not a position."""


def fills_of(market: Market, result: EpisodeResult) -> Records:
    """Return every fill of a pass over a market as `Fill` records, in time order."""
    account, first = blank(Account), market.first_bar
    left = len(market.bars) - 1 - first
    engine.reset(account, market.bars, market.terms, first, left, result.start_equity, 0.0)
    fills = new_table(Fill, result.trades)
    n = replay(account, blank(Account), market.bars, market.minutes, market.terms, result.action, fills)
    return fills[:n]


def fills_table(market: Market, fills: Records) -> pd.DataFrame:
    """Return fills as the table of fills.csv: docs/report-files.md describes its columns."""
    place, at = fills["place"].astype(int), fills["t"].astype(np.int64)
    opened = market.open_time[at]
    # What happens at a close happens when the next bar would open.
    time = opened + pd.to_timedelta(np.where(place == 2, market.bar_seconds, 0), unit="s")
    return pd.DataFrame(
        {
            "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "at": np.array(strings.FILL_PLACES)[place],
            "side": np.where(fills["units"] > 0, strings.BUY, strings.SELL),
            "size_units": np.abs(fills["units"]),
            "price": fills["price"],
            "cost_ccy": fills["cost"],
            "closed_units": fills["closed"],
            "profit_ccy": fills["profit"],
            "position_units": fills["position"],
        }
    )


def statistics(market: Market, result: EpisodeResult, fills: Records) -> dict[str, Any]:
    """Return the trade statistics of a pass as plain values, None where one is undefined.

    A trade is a fill that closes a position or a part of it; its profit is after all its costs.

    Returns
    -------
    dict
        closed_trades; win_rate_frac; profit_factor (gains over losses); mean_hold_h (hours with bars);
        exposure_time_frac, long_time_frac, short_time_frac (of decisions, above `HELD`); longest_drawdown_days
        (trading days from a peak of daily equity to the next one); best_day_frac, worst_day_frac; turnover_per_day;
        largest_order_ccy; break_even_spread_bps (full spread at which the net return is 0, other costs as they are)
    """
    profit, held = fills["profit"][fills["closed"] > 0.0], result.exposure
    gains, losses = float(profit[profit > 0.0].sum()), float(-profit[profit < 0.0].sum())
    hold = fills["bars_held"][fills["closed"] > 0.0]
    daily, notional = result.daily_returns, np.abs(fills["units"]) * fills["price"]
    bear = stress.break_even_multiple(market, result, stress.wider_spread) if fills.size else None
    spread_bps = 2e4 * result.costs["spread"] / float(notional.sum()) if fills.size else None
    return {
        "closed_trades": int(profit.size),
        "win_rate_frac": float(np.mean(profit > 0.0)) if profit.size else None,
        "profit_factor": gains / losses if losses else None,
        "mean_hold_h": float(hold.mean()) * market.bar_seconds / 3600.0 if profit.size else None,
        "exposure_time_frac": float(np.mean(np.abs(held) >= HELD)),
        "long_time_frac": float(np.mean(held >= HELD)),
        "short_time_frac": float(np.mean(held <= -HELD)),
        "longest_drawdown_days": longest_drawdown(daily),
        "best_day_frac": float(daily.max()),
        "worst_day_frac": float(daily.min()),
        "turnover_per_day": result.turnover / daily.size,
        "largest_order_ccy": float(notional.max()) if fills.size else None,
        "break_even_spread_bps": None if bear is None or spread_bps is None else bear * spread_bps,
    }


def longest_drawdown(daily: NDArray[np.float64]) -> int:
    """Return the most days in a row that ended below an earlier day's equity, the start included.

    Parameters
    ----------
    daily : simple returns, shape (n_days,)
    """
    equity = np.concatenate(([1.0], np.cumprod(1.0 + daily)))
    under = equity < np.maximum.accumulate(equity)
    longest = run = 0
    for below in under:
        run = run + 1 if below else 0
        longest = max(longest, run)
    return longest
