"""The one bar engine: an account that follows a target exposure through bars, compiled, one scalar at a time.

The single env, the vector env, the backtest and the baselines all call `step`. Clock: the action a_t is
filled at open_{t+1}; equity is marked at close_{t+1}, at the price that would close the position. Rows of
`bars` are read only up to t + 1 in a step and only up to t in an observation.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TYPE_CHECKING

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from sac_kernel.market import risk_limits
from sac_kernel.stats.metrics import MIN_DAYS_FOR_SHARPE, TRADING_DAYS_PER_YEAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]


class Bar(IntEnum):
    """Columns of the bar table, shape (n_bars, len(Bar) + 3 x minutes), float64.

    With 1-minute bars the columns after these hold open, high, low of each minute, NaN where a minute has no
    bar, all NaN where the minutes do not make up the bar.
    """

    OPEN, HIGH, LOW, CLOSE = 0, 1, 2, 3
    SPREAD_OPEN, SPREAD_CLOSE = 4, 5  # full spread at open and close, fraction of price
    NIGHTS_GAP, NIGHTS_BAR = 6, 7  # swap nights between the last close and this open; inside this bar
    TRADABLE = 8  # 1 if exposure may change at this open
    DAY = 9  # trading-day number of the close
    SIGMA = 10  # EWMA volatility of one-bar returns at the close
    SIZE = 11  # exposure at |action| = 1 as a share of the cap, in (0, 1], from what is known at the close
    FORECAST = 12  # of the log return of mid a bar, of a decision made at this close, given what is known


class Par(IntEnum):
    """Slots of the parameter vector, float64; fractions of notional or price unless said."""

    SIDE = 0  # +1 bid bars, -1 ask bars, 0 mid bars
    CAP = 1  # exposure at |action| = 1 and size 1, notional over equity
    COMMISSION, SLIPPAGE = 2, 3  # per side
    SWAP_LONG, SWAP_SHORT = 4, 5  # paid a night
    STOP_LOSS, TAKE_PROFIT = 6, 7  # distance from the entry price; 0 is off
    CLOSE_OUT_MARGIN = 8  # forced flat when equity < this x notional
    INTERVAL = 9  # bars per decision
    CLOSE_AT_END = 10  # 1: flat at cost on the last bar
    PNL_BARS = 11  # bars of a day: of the sigma that profit and impact are measured in
    IMPACT = 12  # slippage on top, in daily sigmas, per root of the units traded; 0 is off
    DAILY_LOSS, DRAWDOWN_STOP, KILL_LOSS = 13, 14, 15  # fractions of equity, `risk_manager`; 0 is off
    PAUSE_DAYS = 16  # calendar days flat after a drawdown stop
    REWARD = 17  # a Reward
    RISK_AVERSION = 18  # lambda of the mean-variance reward
    SHARPE_RATE = 19  # eta of the differential Sharpe ratio
    NO_TRADE_BAND = 20  # a target nearer than this to the last one filled is no order


class Reward(IntEnum):
    """What `step` returns; R is the change of log equity over the decision.

    LOG_RETURN: R. MEAN_VARIANCE: R - lambda / 2 R^2. DIFFERENTIAL_SHARPE: see `differential_sharpe`.
    DENOISED: R with each bar's market profit replaced by its forecast, see `step`.
    """

    LOG_RETURN, MEAN_VARIANCE, DIFFERENTIAL_SHARPE, DENOISED = 0, 1, 2, 3


class Acc(IntEnum):
    """Slots of one account's state, float64."""

    T = 0  # index of the last closed bar
    LEFT = 1  # bars until truncation
    CASH, UNITS, ENTRY = 2, 3, 4
    EQUITY, START, PEAK, DRAWDOWN = 5, 6, 7, 8
    HELD = 9  # bars since the position was opened or turned
    SPREAD, COMMISSION, SLIPPAGE, SWAP = 10, 11, 12, 13  # paid so far, account currency; impact is slippage
    TURNOVER, TRADES = 14, 15  # sum of |exposure change|; number of fills
    DAY_EQUITY, DAYS, DAY_MEAN, DAY_M2 = 16, 17, 18, 19  # Welford over finished trading days
    TERMINATED, TRUNCATED, CLOSE_OUTS = 20, 21, 22
    TARGET = 23  # last target filled, in [-1, 1]; an unchanged target is held, not rebalanced
    HALTED_UNTIL, LIMIT_PEAK = 24, 25  # trading day; the peak that the drawdown stop measures from
    SHARPE_A, SHARPE_B = 26, 27  # running first and second moment of R


class Info(IntEnum):
    """Slots of what `report` writes, float64."""

    T, EQUITY, POSITION, COSTS = 0, 1, 2, 3  # what a history keeps
    TOTAL_RETURN, SHARPE, DRAWDOWN = 4, 5, 6
    SPREAD, COMMISSION, SLIPPAGE, SWAP = 7, 8, 9, 10
    TURNOVER, TRADES, CLOSE_OUTS = 11, 12, 13
    HALTED, TERMINATED, TRUNCATED, REWARD = 14, 15, 16, 17


ACCOUNT_FEATURES = ("position", "unrealised_pnl", "holding_time")
"""position: held exposure over the cap. unrealised_pnl: over equity, in sigmas of a day.
holding_time: log(1 + bars held) / 5. Each clipped to [-5, 5]."""

LIMIT_FEATURES = ("halted",)
"""With a limit on: 1 while the account must be flat."""

SHARPE_FEATURES = ("sharpe_mean", "sharpe_rms")
"""With the differential Sharpe reward: its state, A / (sd sqrt(eta / 2)) and sqrt(B) / sd, where sd is that of
a full position over one decision at today's volatility; clipped to [-5, 5]."""

RUIN_FRACTION = 0.01
"""The episode terminates when equity is below this share of its start."""
_FLOOR_FRACTION = 0.001  # negative-balance protection, and what keeps log equity finite
_OBS_CLIP = 5.0
_SHARPE_FLOOR = 0.01  # of the variance of a full position: a long flat stretch must not divide by zero

# Plain ints: numba folds them into the code.
_OPEN, _HIGH, _LOW, _CLOSE = 0, 1, 2, 3
_SO, _SC, _NG, _NB, _TRADABLE, _DAY, _SIGMA, _SIZE, _FORECAST = 4, 5, 6, 7, 8, 9, 10, 11, 12
(_SIDE, _CAP, _COMM, _SLIP, _SWL, _SWS, _SL, _TP, _MARGIN, _K, _CAE, _PNLB, _IMPACT, _DAILY, _DDSTOP, _KILL,
 _PAUSE, _REWARD, _LAMBDA, _ETA, _MINO) = range(21)  # fmt: skip
(_T, _LEFT, _CASH, _U, _ENTRY, _E, _E0, _PEAK, _DD, _HELD, _CSPR, _CCOM, _CSLIP, _CSWAP, _TURN, _TRADES,
 _DE, _DN, _DM, _DM2, _TERM, _TRUNC, _OUTS, _TARGET, _HALT, _LPEAK, _SA, _SB) = range(28)  # fmt: skip
_MEAN_VARIANCE, _SHARPE, _DENOISED = 1, 2, 3
_NO_TARGET, _COLUMNS = 9.0, 13
_HOLDING_TIME = np.minimum(np.log1p(np.arange(4096)) / 5.0, _OBS_CLIP).astype(np.float32)

_jit = numba.njit(cache=True, fastmath=False, error_model="numpy")


@_jit
def _mid_close(bars: FloatArray, t: int, side: float) -> float:
    return float(bars[t, _CLOSE] * (1.0 + side * bars[t, _SC] / 2.0))


@_jit
def _mark(s: FloatArray, mid: float, half: float) -> float:
    """Equity at the price that would close the position."""
    return float(s[_CASH] + s[_U] * mid - abs(s[_U]) * half)


@_jit
def _impact(bars: FloatArray, t: int, par: FloatArray) -> float:
    """Slippage per root of the units traded in bar t: the square-root law, at the volatility known before."""
    if par[_IMPACT] == 0.0:
        return 0.0
    return float(par[_IMPACT] * bars[t - 1, _SIGMA] * math.sqrt(par[_PNLB]))


@_jit
def _fill(  # noqa: PLR0913  # scalars, because numba takes no config object
    s: FloatArray, units: float, mid: float, half: float, slip: float, impact: float, commission: float
) -> None:
    """Trade to `units` at mid +- half spread +- slippage, and pay commission; prices in account currency."""
    held = s[_U]
    change = units - held
    if change == 0.0:
        return
    size = abs(change)
    if impact > 0.0:
        slip += impact * math.sqrt(size)
    price = mid + (half + slip * mid) * (1.0 if change > 0.0 else -1.0)
    s[_CASH] -= change * price + commission * size * mid
    s[_CSPR] += size * half
    s[_CSLIP] += size * slip * mid
    s[_CCOM] += commission * size * mid
    s[_TRADES] += 1.0
    if units * held <= 0.0:
        s[_ENTRY] = price
        s[_HELD] = 0.0
    elif abs(units) > abs(held):
        s[_ENTRY] = (s[_ENTRY] * abs(held) + price * size) / abs(units)
    s[_U] = units


@_jit
def _leave(s: FloatArray, mid: float, half: float, slip: float, impact: float, commission: float) -> None:
    """Close the position against the agent's will: the next decision may ask for any target."""
    s[_TURN] += abs(s[_U]) * mid / max(s[_E], _FLOOR_FRACTION * s[_E0])
    s[_TARGET] = _NO_TARGET
    _fill(s, 0.0, mid, half, slip, impact, commission)


@_jit
def _swap(s: FloatArray, nights: float, mid: float, par: FloatArray) -> None:
    """Pay the nights on the notional held."""
    if nights > 0.0 and s[_U] != 0.0:
        rate = par[_SWL] if s[_U] > 0.0 else par[_SWS]
        paid = nights * rate * abs(s[_U]) * mid
        s[_CASH] -= paid
        s[_CSWAP] += paid


@_jit
def _exits(s: FloatArray, bars: FloatArray, t: int, par: FloatArray) -> bool:
    """Stop loss, margin close-out and take profit inside one bar, minute by minute where its minutes are known."""
    if s[_U] == 0.0:
        return False
    if bars.shape[1] == _COLUMNS or math.isnan(bars[t, _COLUMNS]):
        return _exit(s, bars, t, par, _OPEN)
    for column in range(_COLUMNS, bars.shape[1], 3):
        if not math.isnan(bars[t, column]) and _exit(s, bars, t, par, column):
            return True
    return False


@_jit
def _exit(s: FloatArray, bars: FloatArray, t: int, par: FloatArray, column: int) -> bool:
    """Exit within the open, high and low that begin at `column`; the stop first when both levels are touched.

    `sign` mirrors a short onto a long: prices are those that close the position, times its sign. A level
    already passed at the open fills at the open.
    """
    opened, high, low = bars[t, column], bars[t, column + 1], bars[t, column + 2]
    units = s[_U]
    long = units > 0.0
    sign = 1.0 if long else -1.0
    # On one side's bars the closing price is bar + shift x spread: long closes at bid, short at ask.
    factor = sign * (1.0 + (par[_SIDE] - sign) / 2.0 * bars[t, _SO])
    worst = factor * (low if long else high)
    # Equity = cash + units x price falls to margin x |units| x price where price x need = -cash.
    need = abs(units) * (1.0 - sign * par[_MARGIN])
    margin_hit = worst * need <= -s[_CASH]
    stop = -math.inf
    if par[_SL] > 0.0:
        stop = sign * s[_ENTRY] * (1.0 - sign * par[_SL])
    if margin_hit or worst <= stop:
        margin_level = -s[_CASH] / need
        s[_OUTS] += 1.0 if margin_level >= stop else 0.0
        price, slip, impact = (
            min(factor * opened, max(stop, margin_level)), par[_SLIP], _impact(bars, t, par)
        )  # fmt: skip
    elif par[_TP] > 0.0:
        level = sign * s[_ENTRY] * (1.0 + sign * par[_TP])
        if factor * (high if long else low) < level:
            return False
        price, slip, impact = max(factor * opened, level), 0.0, 0.0  # a limit order slips no way
    else:
        return False
    half = abs(bars[t, _SO] * bars[t, _OPEN]) / 2.0
    # The closing price is half a spread from mid, on the losing side.
    _leave(s, sign * price + sign * half, half, slip, impact, par[_COMM])
    return True


@_jit
def _finish_bar(s: FloatArray, bars: FloatArray, t: int, par: FloatArray, last: bool) -> None:
    """Swap, mark at the close of bar t, ruin, drawdown, limits and the statistics of finished days."""
    mid = _mid_close(bars, t, par[_SIDE])
    half = bars[t, _CLOSE] * bars[t, _SC] / 2.0
    _swap(s, bars[t, _NB], mid, par)
    if last and par[_CAE] > 0.0 and s[_U] != 0.0:
        s[_TURN] += abs(s[_U]) * mid / max(s[_E], _FLOOR_FRACTION * s[_E0])
        _fill(s, 0.0, mid, half, par[_SLIP], _impact(bars, t, par), par[_COMM])
    if s[_DE] == 0.0:  # the first bar: its day begins at the start, none ended before it
        s[_DE] = s[_E0]
    elif bars[t, _DAY] != bars[t - 1, _DAY]:
        _finish_day(s)
    equity = _mark(s, mid, half)
    if equity < RUIN_FRACTION * s[_E0]:
        equity = max(equity, _FLOOR_FRACTION * s[_E0])
        s[_CASH], s[_U], s[_TERM] = equity, 0.0, 1.0
    s[_E] = equity
    if equity >= s[_PEAK]:
        s[_PEAK] = equity
    else:
        s[_DD] = max(s[_DD], 1.0 - equity / s[_PEAK])
    s[_HELD] = s[_HELD] + 1.0 if s[_U] != 0.0 else 0.0
    if _has_limits(par):
        _check_limits(s, bars[t, _DAY], par)
    if par[_CAE] > 0.0 and (last or s[_TERM] > 0.0):
        _finish_day(s)


@_jit
def _has_limits(par: FloatArray) -> bool:
    return bool(par[_DAILY] > 0.0 or par[_DDSTOP] > 0.0 or par[_KILL] > 0.0)


@_jit
def _check_limits(s: FloatArray, day: float, par: FloatArray) -> None:
    """Halt the account if a limit is hit at this close; the drawdown stop then starts from a new peak."""
    equity = s[_E]
    drawdown = risk_limits.drawdown_hit(equity, s[_LPEAK], par[_DDSTOP])
    s[_LPEAK] = equity if drawdown else max(s[_LPEAK], equity)
    s[_HALT] = risk_limits.halted_until(
        s[_HALT],
        day,
        risk_limits.daily_loss_hit(equity, s[_DE], par[_DAILY]),
        drawdown,
        par[_PAUSE],
        risk_limits.kill_hit(equity, s[_E0], par[_KILL]),
    )


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
def _full_variance(bars: FloatArray, t: int, par: FloatArray) -> float:
    """Variance of R of a full position over one decision, at the volatility known at close t."""
    return float((par[_CAP] * bars[t, _SIZE] * bars[t, _SIGMA]) ** 2 * par[_K])


@_jit
def reset(  # noqa: PLR0913
    s: FloatArray, bars: FloatArray, par: FloatArray, t: int, left: int, start: float, action: float
) -> None:
    """Start an account at the close of bar t with `start` equity and exposure `action` x full, costs paid."""
    s[:] = 0.0
    mid = _mid_close(bars, t, par[_SIDE])
    s[_T], s[_LEFT], s[_TARGET] = t, left, action
    s[_U] = action * par[_CAP] * bars[t, _SIZE] * start / mid
    s[_CASH] = start - s[_U] * mid + abs(s[_U]) * bars[t, _CLOSE] * bars[t, _SC] / 2.0
    s[_ENTRY] = mid
    s[_E] = s[_E0] = s[_PEAK] = s[_LPEAK] = start
    if par[_REWARD] == _SHARPE:
        s[_SB] = _full_variance(bars, t, par)


@_jit
def target_of(s: FloatArray, par: FloatArray, action: float) -> float:
    """Return the target that an action is: within [-1, 1], and the last one filled if inside its no-trade band."""
    target = min(1.0, max(-1.0, action))
    return float(s[_TARGET]) if abs(target - s[_TARGET]) < par[_MINO] else target


@_jit
def step(s: FloatArray, bars: FloatArray, par: FloatArray, action: float) -> float:
    """Advance one decision and return its reward.

    The order fills at the first open of the INTERVAL bars at which exposure may change: an order given in the
    evening freeze, or while a limit halts the account, waits for the end of it and lapses with its interval.
    A target equal to the last one filled is no order (`target_of`): the units are held. Limits flatten at the next
    open, frozen or not, as stops do. The decision ends early at ruin, at the end of the bars or when LEFT runs out.

    Reward DENOISED: with M = U_old (mid_open - mid_close_t) + U_new (mid_close - mid_open) the bar's realised
    market profit, U_old the units held at close t and U_new those after the open, and
    M' = U_new mid_open (exp(FORECAST) - 1), the bar pays log((E - M + M') / E_t): the gap is expected to be zero,
    costs and the account stay realised. FORECAST, for every bar of a decision, is that of the close it was made at.
    A bar with an exit or ruin pays its realised change.
    """
    before, first, last_bar = s[_E], int(s[_T]), bars.shape[0] - 1
    target = target_of(s, par, action)
    waiting = target != s[_TARGET]
    t, expected, forecast = first, 0.0, bars[first, _FORECAST]
    for _ in range(int(par[_K])):
        if t >= last_bar:
            break
        t += 1
        start, units = s[_E], s[_U]
        waiting = _open_bar(s, bars, t, par, target, waiting)
        held = s[_U]
        cut = _exits(s, bars, t, par)
        s[_LEFT] -= 1.0
        last = t == last_bar or s[_LEFT] <= 0.0
        _finish_bar(s, bars, t, par, last)
        s[_T] = t
        if par[_REWARD] == _DENOISED:
            surprise = 0.0 if cut or s[_TERM] > 0.0 else _surprise(bars, t, par, units, held, forecast)
            expected += math.log(max(s[_E] - surprise, _FLOOR_FRACTION * s[_E0]) / start)
        if s[_TERM] > 0.0:
            break
        if last:
            s[_TRUNC] = 1.0
            break
    if par[_REWARD] == _DENOISED:
        return expected
    return _reward(s, bars, first, par, math.log(s[_E] / before))


@_jit
def _open_bar(s: FloatArray, bars: FloatArray, t: int, par: FloatArray, target: float, waiting: bool) -> bool:
    """Pay the gap's nights, then flatten if halted, else fill a waiting order; return if it still waits."""
    mid = bars[t, _OPEN] * (1.0 + par[_SIDE] * bars[t, _SO] / 2.0)
    half = bars[t, _OPEN] * bars[t, _SO] / 2.0
    _swap(s, bars[t, _NG], mid, par)
    if risk_limits.is_halted(s[_HALT], bars[t, _DAY]):
        if s[_U] != 0.0:
            _leave(s, mid, half, par[_SLIP], _impact(bars, t, par), par[_COMM])
        return waiting
    equity = _mark(s, mid, half)
    if not waiting or bars[t, _TRADABLE] == 0.0 or equity <= 0.0:
        return waiting
    units = target * par[_CAP] * bars[t - 1, _SIZE] * equity / mid
    s[_TARGET] = target
    s[_TURN] += abs(units - s[_U]) * mid / equity
    _fill(s, units, mid, half, par[_SLIP], _impact(bars, t, par), par[_COMM])
    return False


@_jit
def _surprise(bars: FloatArray, t: int, par: FloatArray, units: float, held: float, forecast: float) -> float:
    """Return M - M' of bar t: realised market profit less that of the expected log return, account currency."""
    side = par[_SIDE]
    mid = bars[t, _OPEN] * (1.0 + side * bars[t, _SO] / 2.0)
    realised = units * (mid - _mid_close(bars, t - 1, side)) + held * (_mid_close(bars, t, side) - mid)
    return float(realised - held * mid * math.expm1(forecast))


@_jit
def _reward(s: FloatArray, bars: FloatArray, t: int, par: FloatArray, change: float) -> float:
    """Return the reward of a realised change of log equity, decided on at the close of bar t."""
    if par[_REWARD] == _MEAN_VARIANCE:
        return float(change - par[_LAMBDA] / 2.0 * change * change)
    if par[_REWARD] == _SHARPE:
        floor = _SHARPE_FLOOR * _full_variance(bars, t, par)
        change, s[_SA], s[_SB] = differential_sharpe(s[_SA], s[_SB], change, par[_ETA], floor)
    return change


@_jit
def differential_sharpe(
    a: float, b: float, change: float, eta: float, floor: float
) -> tuple[float, float, float]:
    """Return the differential Sharpe ratio D of one return and the moved moments A, B.

    D = (B dA - A dB / 2) / (B - A^2)^(3/2) with dA = R - A, dB = R^2 - B and A, B as they were before R; then
    A += eta dA, B += eta dB. Moody and Saffell 2001, IEEE Trans. Neural Networks 12(4), eq. 7-9. Own addition:
    B - A^2 is not taken below `floor`. R is a log return; D is in units of 1 / sd(R) x R, order one.
    """
    da, db = change - a, change * change - b
    variance = max(b - a * a, floor)
    value = (b * da - 0.5 * a * db) / (variance * math.sqrt(variance))
    return value, a + eta * da, b + eta * db


@_jit
def observe(
    s: FloatArray, bars: FloatArray, par: FloatArray, market: FeatureArray, out: FeatureArray
) -> None:
    """Write the observation at the close of bar T: the market's row, then the account's numbers."""
    t = int(s[_T])
    n = market.shape[1]
    for j in range(n):
        out[j] = market[t, j]
    mid = _mid_close(bars, t, par[_SIDE])
    units, equity = s[_U], s[_E]
    if units == 0.0:
        out[n] = out[n + 1] = out[n + 2] = 0.0
    else:
        out[n] = _clip(units * mid / (equity * par[_CAP]))
        day = bars[t, _SIGMA] * math.sqrt(par[_PNLB])
        out[n + 1] = _clip(units * (mid - s[_ENTRY]) / (equity * day))
        held = int(s[_HELD])
        out[n + 2] = (
            _HOLDING_TIME[held] if held < _HOLDING_TIME.size else min(math.log1p(held) / 5.0, _OBS_CLIP)
        )
    n += 3
    if _has_limits(par):
        out[n] = 1.0 if risk_limits.is_halted(s[_HALT], bars[t, _DAY]) else 0.0
        n += 1
    if par[_REWARD] == _SHARPE:
        variance = _full_variance(bars, t, par)
        out[n] = _clip(s[_SA] / math.sqrt(variance * par[_ETA] / 2.0))
        out[n + 1] = _clip(math.sqrt(s[_SB] / variance))


@_jit
def _clip(value: float) -> float:
    return min(_OBS_CLIP, max(-_OBS_CLIP, value))


@intrinsic
def _prefetch(_typing, table, row):  # type: ignore[no-untyped-def]  # pragma: no cover  # noqa: ANN001, ANN202
    """Ask the processor for the two cache lines at the start of a table's row: a hint, no result, no effect."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        array = context.make_array(signature.args[0])(context, builder, values[0])
        start = builder.ptrtoint(array.data, ir.IntType(64))
        stride = cgutils.unpack_tuple(builder, array.strides)[0]
        address = builder.add(start, builder.mul(values[1], stride))
        pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        for line in (0, 64, 128, 192):
            at = builder.inttoptr(builder.add(address, ir.Constant(ir.IntType(64), line)), pointer)
            builder.call(function, [at, flag(0), flag(3), flag(1)])  # read, keep, data
        return context.get_dummy_value()

    return types.void(table, row), generate


_AHEAD = 8  # accounts


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
    """Step every account of `states`, shape (n, len(Acc)), writing rewards (n,) and obs (n, width).

    Accounts stand at random bars, so their rows are asked for some accounts ahead.
    """
    n = states.shape[0]
    for i in range(n):
        if i + _AHEAD < n:
            t = int(states[i + _AHEAD, _T])
            _prefetch(bars, t)
            _prefetch(market, t + 1)
        rewards[i] = step(states[i], bars, par, actions[i])
        observe(states[i], bars, par, market, obs[i])


@_jit
def step_one(  # noqa: PLR0913
    s: FloatArray,
    bars: FloatArray,
    par: FloatArray,
    market: FeatureArray,
    action: float,
    obs: FeatureArray,
    info: FloatArray,
) -> None:
    """Step one account, observe and report: what a Gymnasium step needs, in one call."""
    reward = step(s, bars, par, action)
    observe(s, bars, par, market, obs)
    report(s, bars, par, info)
    info[17] = reward


@_jit
def report(s: FloatArray, bars: FloatArray, par: FloatArray, info: FloatArray) -> None:
    """Write what `info` says of an account, shape (len(Info),); the Sharpe ratio is NaN below 20 days."""
    t, equity = int(s[_T]), s[_E]
    info[0], info[1] = s[_T], equity
    info[2] = s[_U] * _mid_close(bars, t, par[_SIDE]) / equity
    info[3] = s[_CSPR] + s[_CCOM] + s[_CSLIP] + s[_CSWAP]
    info[4] = equity / s[_E0] - 1.0
    info[5] = _sharpe_ann(s[_DN], s[_DM], s[_DM2])
    info[6] = s[_DD]
    info[7], info[8], info[9], info[10] = s[_CSPR], s[_CCOM], s[_CSLIP], s[_CSWAP]
    info[11], info[12], info[13] = s[_TURN], s[_TRADES], s[_OUTS]
    info[14] = 1.0 if risk_limits.is_halted(s[_HALT], bars[t, _DAY]) else 0.0
    info[15] = s[_TERM]
    info[16] = s[_TRUNC] if s[_TERM] == 0.0 else 0.0
    info[17] = 0.0


@_jit
def _sharpe_ann(days: float, mean: float, m2: float) -> float:
    if days < MIN_DAYS_FOR_SHARPE:
        return math.nan
    sd = math.sqrt(m2 / (days - 1.0))
    if sd <= 1e-15:  # only rounding is left
        return 0.0 if abs(mean) <= 1e-15 else math.nan
    return math.sqrt(TRADING_DAYS_PER_YEAR) * mean / sd


@_jit
def run_targets(
    s: FloatArray, bars: FloatArray, par: FloatArray, targets: FloatArray, out: FloatArray
) -> int:
    """Follow targets to their end and `record` each decision in `out`, shape (n, 4); return the number made."""
    n = 0
    while n < targets.size and s[_TERM] == 0.0 and s[_TRUNC] == 0.0:
        step(s, bars, par, targets[n])
        record(s, bars, par, out[n])
        n += 1
    return n


@_jit
def decide(  # noqa: PLR0913  # all that a pass reads and writes
    s: FloatArray, bars: FloatArray, par: FloatArray, market: FeatureArray, action: float, out: FloatArray,
    n: int, obs: FeatureArray,
) -> bool:  # fmt: skip
    """Make decision `n`: `record` it and its target in `out`, shape (n, 5), and `observe`; return if more follow."""
    out[n, 4] = target_of(s, par, action)
    step(s, bars, par, out[n, 4])
    record(s, bars, par, out[n])
    observe(s, bars, par, market, obs)
    return s[_TERM] == 0.0 and s[_TRUNC] == 0.0


@_jit
def record(s: FloatArray, bars: FloatArray, par: FloatArray, out: FloatArray) -> None:
    """Write [index of the last closed bar, equity, exposure over equity, costs paid] into `out`."""
    out[0], out[1] = s[_T], s[_E]
    out[2] = s[_U] * _mid_close(bars, int(s[_T]), par[_SIDE]) / s[_E]
    out[3] = s[_CSPR] + s[_CCOM] + s[_CSLIP] + s[_CSWAP]
