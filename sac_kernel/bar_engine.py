"""The one bar engine: an account that follows a target exposure through bars, compiled, one scalar at a time.

The single env, the vector env, the backtest and the baselines all call `step`. Clock: the action a_t is
filled at open_{t+1}; equity is marked at close_{t+1}, at the price that would close the position. Rows of
`bars` are read only up to t + 1 in a step and only up to t in an observation.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]


class Bar(IntEnum):
    """Columns of the bar table, shape (n_bars, len(Bar)), float64."""

    OPEN, HIGH, LOW, CLOSE = 0, 1, 2, 3
    SPREAD_OPEN, SPREAD_CLOSE = 4, 5  # full spread at open and close, fraction of price
    NIGHTS_GAP, NIGHTS_BAR = 6, 7  # swap nights between the last close and this open; inside this bar
    TRADABLE = 8  # 1 if exposure may change at this open
    DAY = 9  # trading-day number of the close
    SIGMA = 10  # EWMA volatility of one-bar returns at the close


class Par(IntEnum):
    """Slots of the parameter vector, float64; fractions of notional or price unless said."""

    SIDE = 0  # +1 bid bars, -1 ask bars, 0 mid bars
    CAP = 1  # exposure at |action| = 1, notional over equity
    COMMISSION, SLIPPAGE = 2, 3  # per side
    SWAP_LONG, SWAP_SHORT = 4, 5  # paid a night
    STOP_LOSS, TAKE_PROFIT = 6, 7  # distance from the entry price; 0 is off
    CLOSE_OUT_MARGIN = 8  # forced flat when equity < this x notional
    INTERVAL = 9  # bars per decision
    CLOSE_AT_END = 10  # 1: flat at cost on the last bar
    PNL_BARS = 11  # bars of the sigma that unrealised profit is measured in


class Acc(IntEnum):
    """Slots of one account's state, float64."""

    T = 0  # index of the last closed bar
    LEFT = 1  # bars until truncation
    CASH, UNITS, ENTRY = 2, 3, 4
    EQUITY, START, PEAK, DRAWDOWN = 5, 6, 7, 8
    HELD = 9  # bars since the position was opened or turned
    SPREAD, COMMISSION, SLIPPAGE, SWAP = 10, 11, 12, 13  # paid so far, account currency
    TURNOVER, TRADES = 14, 15  # sum of |exposure change|; number of fills
    DAY_EQUITY, DAYS, DAY_MEAN, DAY_M2 = 16, 17, 18, 19  # Welford over finished trading days
    TERMINATED, TRUNCATED, CLOSE_OUTS = 20, 21, 22
    TARGET = 23  # last target filled, in [-1, 1]; an unchanged target is held, not rebalanced


ACCOUNT_FEATURES = ("position", "unrealised_pnl", "holding_time")
"""position: held exposure over the cap. unrealised_pnl: over equity, in sigmas of a day.
holding_time: log(1 + bars held) / 5. Each clipped to [-5, 5]."""

RUIN_FRACTION = 0.01
"""The episode terminates when equity is below this share of its start."""
_FLOOR_FRACTION = 0.001  # negative-balance protection, and what keeps log equity finite
_OBS_CLIP = 5.0

# Plain ints: numba folds them into the code.
_OPEN, _HIGH, _LOW, _CLOSE = 0, 1, 2, 3
_SO, _SC, _NG, _NB, _TRADABLE, _DAY, _SIGMA = 4, 5, 6, 7, 8, 9, 10
_SIDE, _CAP, _COMM, _SLIP, _SWL, _SWS, _SL, _TP, _MARGIN, _K, _CAE, _PNLB = range(12)
(_T, _LEFT, _CASH, _U, _ENTRY, _E, _E0, _PEAK, _DD, _HELD, _CSPR, _CCOM, _CSLIP, _CSWAP, _TURN, _TRADES,
 _DE, _DN, _DM, _DM2, _TERM, _TRUNC, _OUTS, _TARGET) = range(24)  # fmt: skip
_NO_TARGET = 9.0

_jit = numba.njit(cache=True, fastmath=False)


@_jit
def _mark(s: FloatArray, mid: float, half: float) -> float:
    """Equity at the price that would close the position."""
    return float(s[_CASH] + s[_U] * mid - abs(s[_U]) * half)


@_jit
def _fill(s: FloatArray, units: float, mid: float, half: float, slip: float, commission: float) -> None:
    """Trade to `units` at mid +- half spread +- slippage, and pay commission; prices in account currency."""
    change = units - s[_U]
    if change == 0.0:
        return
    size = abs(change)
    price = mid + (half + slip * mid) * (1.0 if change > 0.0 else -1.0)
    s[_CASH] -= change * price + commission * size * mid
    s[_CSPR] += size * half
    s[_CSLIP] += size * slip * mid
    s[_CCOM] += commission * size * mid
    s[_TRADES] += 1.0
    if units * s[_U] <= 0.0:
        s[_ENTRY] = price
        s[_HELD] = 0.0
    elif abs(units) > abs(s[_U]):
        s[_ENTRY] = (s[_ENTRY] * abs(s[_U]) + price * size) / abs(units)
    s[_U] = units


@_jit
def _swap(s: FloatArray, nights: float, mid: float, par: FloatArray) -> None:
    """Pay the nights on the notional held."""
    if nights > 0.0 and s[_U] != 0.0:
        rate = par[_SWL] if s[_U] > 0.0 else par[_SWS]
        paid = nights * rate * abs(s[_U]) * mid
        s[_CASH] -= paid
        s[_CSWAP] += paid


@_jit
def _exits(s: FloatArray, bar: FloatArray, par: FloatArray) -> None:
    """Stop loss, margin close-out and take profit inside one bar; the stop first when both are touched.

    `sign` mirrors a short onto a long: prices are those that close the position, times its sign. A level
    already passed at the open fills at the open.
    """
    if s[_U] == 0.0:
        return
    sign = 1.0 if s[_U] > 0.0 else -1.0
    # On one side's bars the closing price is bar + shift x spread: long closes at bid, short at ask.
    shift = (par[_SIDE] - sign) / 2.0 * bar[_SO]
    opened = sign * bar[_OPEN] * (1.0 + shift)
    worst = sign * (bar[_LOW] if sign > 0.0 else bar[_HIGH]) * (1.0 + shift)
    best = sign * (bar[_HIGH] if sign > 0.0 else bar[_LOW]) * (1.0 + shift)
    # Equity = cash + units x price falls to margin x |units| x price at this price.
    margin_level = -s[_CASH] / (abs(s[_U]) * (1.0 - sign * par[_MARGIN]))
    stop = margin_level
    if par[_SL] > 0.0:
        stop = max(stop, sign * s[_ENTRY] * (1.0 - sign * par[_SL]))
    price, slip = 0.0, par[_SLIP]
    if worst <= stop:
        price = min(opened, stop)
        s[_OUTS] += 1.0 if stop == margin_level else 0.0
    elif par[_TP] > 0.0 and best >= sign * s[_ENTRY] * (1.0 + sign * par[_TP]):
        price, slip = max(opened, sign * s[_ENTRY] * (1.0 + sign * par[_TP])), 0.0
    else:
        return
    half = abs(bar[_SO] * bar[_OPEN]) / 2.0
    mid = sign * price + sign * half  # the closing price is half a spread from mid, on the losing side
    s[_TURN] += abs(s[_U]) * mid / max(s[_E], _FLOOR_FRACTION * s[_E0])
    s[_TARGET] = _NO_TARGET
    _fill(s, 0.0, mid, half, slip, par[_COMM])


@_jit
def _finish_bar(s: FloatArray, bar: FloatArray, previous_day: float, par: FloatArray, last: bool) -> None:
    """Swap, mark at the close, ruin, drawdown and the statistics of finished days."""
    mid = bar[_CLOSE] * (1.0 + par[_SIDE] * bar[_SC] / 2.0)
    half = bar[_CLOSE] * bar[_SC] / 2.0
    _swap(s, bar[_NB], mid, par)
    if last and par[_CAE] > 0.0 and s[_U] != 0.0:
        s[_TURN] += abs(s[_U]) * mid / max(s[_E], _FLOOR_FRACTION * s[_E0])
        _fill(s, 0.0, mid, half, par[_SLIP], par[_COMM])
    if s[_DE] == 0.0:  # the first bar: its day begins at the start, none ended before it
        s[_DE] = s[_E0]
    elif bar[_DAY] != previous_day:
        _finish_day(s)
    equity = _mark(s, mid, half)
    if equity < RUIN_FRACTION * s[_E0]:
        equity = max(equity, _FLOOR_FRACTION * s[_E0])
        s[_CASH], s[_U], s[_TERM] = equity, 0.0, 1.0
    s[_E] = equity
    s[_PEAK] = max(s[_PEAK], equity)
    s[_DD] = max(s[_DD], 1.0 - equity / s[_PEAK])
    s[_HELD] = s[_HELD] + 1.0 if s[_U] != 0.0 else 0.0
    if par[_CAE] > 0.0 and (last or s[_TERM] > 0.0):
        _finish_day(s)


@_jit
def _finish_day(s: FloatArray) -> None:
    """Add the day that ended at the current equity to the running mean and variance of daily returns."""
    value = s[_E] / s[_DE] - 1.0
    s[_DN] += 1.0
    delta = value - s[_DM]
    s[_DM] += delta / s[_DN]
    s[_DM2] += delta * (value - s[_DM])
    s[_DE] = s[_E]


@_jit
def reset(  # noqa: PLR0913  # scalars, because numba takes no config object
    s: FloatArray, bars: FloatArray, par: FloatArray, t: int, left: int, start: float, action: float
) -> None:
    """Start an account at the close of bar t with `start` equity and exposure `action` x cap, costs paid."""
    s[:] = 0.0
    bar = bars[t]
    mid = bar[_CLOSE] * (1.0 + par[_SIDE] * bar[_SC] / 2.0)
    s[_T], s[_LEFT], s[_TARGET] = t, left, action
    s[_U] = action * par[_CAP] * start / mid
    s[_CASH] = start - s[_U] * mid + abs(s[_U]) * bar[_CLOSE] * bar[_SC] / 2.0
    s[_ENTRY] = mid
    s[_E] = s[_E0] = s[_PEAK] = start


@_jit
def step(s: FloatArray, bars: FloatArray, par: FloatArray, action: float) -> float:
    """Advance one decision and return the change of log equity.

    Fills at the first bar's open if it is tradable, holds for INTERVAL bars, stops early at ruin, at the
    end of the bars or when LEFT runs out.
    """
    before = s[_E]
    last_bar = bars.shape[0] - 1
    for k in range(int(par[_K])):
        t = int(s[_T])
        if t >= last_bar:
            break
        bar = bars[t + 1]
        mid = bar[_OPEN] * (1.0 + par[_SIDE] * bar[_SO] / 2.0)
        half = bar[_OPEN] * bar[_SO] / 2.0
        _swap(s, bar[_NG], mid, par)
        if k == 0 and bar[_TRADABLE] > 0.0:
            equity, target = _mark(s, mid, half), min(1.0, max(-1.0, action))
            if equity > 0.0 and target != s[_TARGET]:
                units = target * par[_CAP] * equity / mid
                s[_TARGET] = target
                s[_TURN] += abs(units - s[_U]) * mid / equity
                _fill(s, units, mid, half, par[_SLIP], par[_COMM])
        _exits(s, bar, par)
        s[_LEFT] -= 1.0
        last = t + 1 == last_bar or s[_LEFT] <= 0.0
        _finish_bar(s, bar, bars[t, _DAY], par, last)
        s[_T] = t + 1
        if s[_TERM] > 0.0:
            break
        if last:
            s[_TRUNC] = 1.0
            break
    return float(np.log(s[_E] / before))


@_jit
def observe(
    s: FloatArray, bars: FloatArray, par: FloatArray, market: FeatureArray, out: FeatureArray
) -> None:
    """Write the observation at the close of bar T: the market's row, then the account's three numbers."""
    t = int(s[_T])
    n = market.shape[1]
    out[:n] = market[t]
    bar = bars[t]
    mid = bar[_CLOSE] * (1.0 + par[_SIDE] * bar[_SC] / 2.0)
    out[n] = _clip(s[_U] * mid / s[_E] / par[_CAP])
    profit = s[_U] * (mid - s[_ENTRY]) / s[_E] if s[_U] != 0.0 else 0.0
    out[n + 1] = _clip(profit / (bar[_SIGMA] * np.sqrt(par[_PNLB])))
    out[n + 2] = _clip(np.log1p(s[_HELD]) / 5.0)


@_jit
def _clip(value: float) -> float:
    return min(_OBS_CLIP, max(-_OBS_CLIP, value))


@_jit
def step_many(  # noqa: PLR0913
    states: FloatArray,
    bars: FloatArray,
    par: FloatArray,
    market: FeatureArray,
    actions: FloatArray,
    rewards: FloatArray,
    obs: FeatureArray,
) -> None:
    """Step every account of `states`, shape (n, len(Acc)), writing rewards (n,) and obs (n, width)."""
    for i in range(states.shape[0]):
        rewards[i] = step(states[i], bars, par, actions[i])
        observe(states[i], bars, par, market, obs[i])


@_jit
def run_targets(
    s: FloatArray, bars: FloatArray, par: FloatArray, targets: FloatArray, out: FloatArray
) -> int:
    """Follow a fixed sequence of targets to its end; return the number of decisions made.

    `out` has shape (n, 4): after each decision the index of its last bar, equity, exposure, costs paid.
    """
    n = 0
    while n < targets.size and s[_TERM] == 0.0 and s[_TRUNC] == 0.0:
        step(s, bars, par, targets[n])
        record(s, bars, par, out[n])
        n += 1
    return n


@_jit
def record(s: FloatArray, bars: FloatArray, par: FloatArray, out: FloatArray) -> None:
    """Write [index of the last closed bar, equity, exposure over equity, costs paid] into `out`."""
    bar = bars[int(s[_T])]
    mid = bar[_CLOSE] * (1.0 + par[_SIDE] * bar[_SC] / 2.0)
    out[0], out[1] = s[_T], s[_E]
    out[2] = s[_U] * mid / s[_E]
    out[3] = s[_CSPR] + s[_CCOM] + s[_CSLIP] + s[_CSWAP]
