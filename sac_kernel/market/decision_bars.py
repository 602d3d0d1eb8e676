"""The bars of a decision: at which open its order fills, and what prices do before the fill and after it.

A decision at close t covers the next K bars. Its order fills at the first of their opens, f, at which exposure may
change. Until then the account earns with its old position, afterwards with the new one. Where no open of the decision
can be traded, the whole of it belongs to the old position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.market.market import Market

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    BoolArray = NDArray[np.bool_]

NEVER = np.iinfo(np.int64).max
"""The fill bar of an order that cannot fill within its decision."""


class UnitMoves(NamedTuple):
    """Of each decision, (n - K,): simple returns of mid and swap nights, before the fill and after it."""

    before: FloatArray
    after: FloatArray
    nights_before: FloatArray
    nights_after: FloatArray


def fill_bar(market: Market) -> IntArray:
    """Return the bar at whose open the order of each close fills, (n,); `NEVER` where nothing can fill."""
    n, k = len(market.bars), market.interval_bars
    place = np.where(market.bars["tradable"] > 0.0, np.arange(n), NEVER)
    following = np.append(np.minimum.accumulate(place[::-1])[::-1], NEVER)[1:]
    return np.where(following <= np.arange(n) + k, following, NEVER)


def unit_moves(market: Market) -> UnitMoves:
    """Return what a unit of position is moved by in each decision, before its fill and after it."""
    bars, k = market.bars, market.interval_bars
    n, side = len(market.bars), market.terms.price_side
    close = bars["close"] * (1.0 + side * bars["spread_close"] / 2.0)
    opened = bars["open"] * (1.0 + side * bars["spread_open"] / 2.0)
    rows = np.arange(n - k)
    fill = fill_bar(market)[: n - k]
    fills, end = fill < NEVER, rows + k
    at = np.where(fills, fill, end)
    turn = np.where(
        fills, opened[at], close[end]
    )  # the price at which the old position gives way to the new one
    # Nights up to each bar's open and close: an interval's are a difference of two.
    to_close = np.cumsum(bars["nights_gap"] + bars["nights_bar"])
    to_turn = to_close[at] - np.where(fills, bars["nights_bar"][at], 0.0)
    return UnitMoves(
        turn / close[rows] - 1.0, close[end] / turn - 1.0, to_turn - to_close[rows], to_close[end] - to_turn
    )


def complete_decisions(market: Market) -> BoolArray:
    """Return whether all K bars of each close's decision exist, with no hole before or between them, (n,)."""
    n, k = len(market.bars), market.interval_bars
    time = market.open_time.to_numpy("datetime64[ns]")
    holes = np.append(0, np.cumsum(np.diff(time) > market.hole))  # up to each bar
    complete = np.zeros(n, bool)
    complete[: n - k] = holes[k:] == holes[: n - k]
    return complete


def forecast_target(market: Market, gamma: float) -> FloatArray:
    """Return what a forecast of the returns is fitted to, (n,): y_t + gamma x the gap before the next fill.

    The target chosen at t is held until the next decision's fill, so that gap is earned by it, and never the one
    before its own fill. NaN in rows that cannot be filled (in the evening freeze a quoted move is mostly the
    spread's), and in rows that are no start of `experiment.exact_problem`.
    """
    n, k = len(market.bars), market.interval_bars
    moves, complete, rows = unit_moves(market), complete_decisions(market), len(market.bars) - k
    target = np.full(n, np.nan)
    last = max(rows - k, 0)
    usable = complete[:last] & complete[k:rows] & (np.arange(last) >= market.first_bar)
    usable &= fill_bar(market)[:last] < NEVER
    value = moves.after[:last] + gamma * moves.before[k:rows]
    target[:last] = np.where(usable, value, np.nan)
    return target
