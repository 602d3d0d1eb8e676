"""The bar engine: compiled code in which an account follows a target exposure through bars.

The single env, the vector env, the backtest and the baselines all call `step`. Clock: the action a_t is
filled at open_{t+1}; equity is marked at close_{t+1}, at the price that would close the position. A step reads
rows of `bars` up to t + 1, an observation up to t.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import literal_unroll

from sac_kernel.market import records, risk_limits
from sac_kernel.market.records import Account, AccountReport, Reward
from sac_kernel.stats.metrics import MIN_DAYS_FOR_SHARPE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.market.records import Bar, Minute, Records, Terms, Trace

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]

TARGET_FEATURES = ("held_target",)
"""All that is observed of an account whose config `observes` the target: the last one filled, in [-1, 1]."""

ACCOUNT_FEATURES = ("position", "unrealised_pnl", "holding_time")
"""position: held exposure over the cap. unrealised_pnl: over equity, in sigmas of a day.
holding_time: log(1 + bars held) / 5. Each clipped to [-5, 5]."""

LIMIT_FEATURES = ("halted",)
"""With a limit on: 1 while the account must be flat."""

SHARPE_FEATURES = ("sharpe_mean", "sharpe_rms")
"""With the differential Sharpe reward: its state, A / (sd sqrt(eta / 2)) and sqrt(B) / sd; sd is that of a full
position over one decision at present volatility; clipped to [-5, 5]."""

RUIN_FRACTION = 0.01
"""The episode terminates when equity is below this share of its start."""
_FLOOR_FRACTION = 0.001  # negative-balance protection; keeps log equity finite
_OBS_CLIP = 5.0
_SHARPE_FLOOR = 0.01  # of the variance of a full position: no division by zero after a long flat period

# Plain numbers, because compiled code cannot compare an enum with a float.
_MEAN_VARIANCE, _SHARPE, _DENOISED = map(
    float, (Reward.MEAN_VARIANCE, Reward.DIFFERENTIAL_SHARPE, Reward.DENOISED)
)
_NO_TARGET = 9.0  # outside [-1, 1]: no action is near it
_ACCOUNT_FIELDS = tuple(Account.__annotations__)
_HOLDING_TIME = np.minimum(np.log1p(np.arange(4096)) / 5.0, _OBS_CLIP).astype(np.float32)

_jit = numba.njit(cache=True, fastmath=False, error_model="numpy")


@_jit
def _mid_open(bar: Bar, side: float) -> float:
    return bar.open * (1.0 + side * bar.spread_open / 2.0)


@_jit
def _mid_close(bar: Bar, side: float) -> float:
    return bar.close * (1.0 + side * bar.spread_close / 2.0)


@_jit
def _mark(account: Account, mid: float, half: float) -> float:
    """Equity at the price that would close the position."""
    return account.cash + account.units * mid - abs(account.units) * half


@_jit
def _commission(terms: Terms, mid: float) -> float:
    """Commission of a side, of notional; that a unit weighs by the price."""
    return terms.commission + terms.commission_per_unit / mid


@_jit
def _impact(before: Bar, terms: Terms) -> float:
    """Slippage per root of the units traded in the bar after `before`, by the square-root law."""
    if terms.impact == 0.0:
        return 0.0
    return terms.impact * before.volatility * math.sqrt(terms.bars_per_day)


@_jit
def _fill(  # noqa: PLR0913  # scalars: numba takes no config object
    account: Account, units: float, mid: float, half: float, slip: float, impact: float, commission: float
) -> None:
    """Trade to `units` at mid +- half spread +- slippage, and pay commission; prices in account currency."""
    held = account.units
    change = units - held
    if change == 0.0:
        return
    size = abs(change)
    if impact > 0.0:
        slip += impact * math.sqrt(size)
    price = mid + (half + slip * mid) * (1.0 if change > 0.0 else -1.0)
    account.cash -= change * price + commission * size * mid
    account.spread_paid += size * half
    account.slippage_paid += size * slip * mid
    account.commission_paid += commission * size * mid
    account.trades += 1.0
    if units * held <= 0.0:
        account.entry_price = price
        account.bars_held = 0.0
    elif abs(units) > abs(held):
        account.entry_price = (account.entry_price * abs(held) + price * size) / abs(units)
    account.units = units


@_jit
def _leave(account: Account, mid: float, half: float, slip: float, impact: float, commission: float) -> None:
    """Close the position without a decision; the next decision may set any target."""
    account.turnover += abs(account.units) * mid / max(account.equity, _FLOOR_FRACTION * account.start_equity)
    account.target = _NO_TARGET
    _fill(account, 0.0, mid, half, slip, impact, commission)


@_jit
def _swap(account: Account, nights: float, mid: float, terms: Terms) -> None:
    """Pay the nights on the notional held."""
    if nights > 0.0 and account.units != 0.0:
        rate = terms.swap_long if account.units > 0.0 else terms.swap_short
        paid = nights * rate * abs(account.units) * mid
        account.cash -= paid
        account.swap_paid += paid


@_jit
def exits(account: Account, bars: Records, minutes: Records, t: int, terms: Terms) -> bool:
    """Apply stop loss, margin close-out and take profit inside one bar, minute by minute if its minutes are known."""
    if account.units == 0.0:
        return False
    bar: Bar = bars[t]
    if minutes.shape[1] == 0 or math.isnan(minutes[t, 0].open):
        return _exit(account, bars, t, terms, bar.open, bar.high, bar.low)
    for i in range(minutes.shape[1]):
        minute: Minute = minutes[t, i]
        if not math.isnan(minute.open) and _exit(
            account, bars, t, terms, minute.open, minute.high, minute.low
        ):
            return True
    return False


@_jit
def _exit(  # noqa: PLR0913
    account: Account, bars: Records, t: int, terms: Terms, opened: float, high: float, low: float
) -> bool:
    """Exit within one open, high and low of bar t; the stop comes first if both levels are touched.

    `sign` mirrors a short onto a long: prices are those that close the position, times its sign. A level
    already passed at the open is filled at the open.
    """
    bar: Bar = bars[t]
    units = account.units
    long = units > 0.0
    sign = 1.0 if long else -1.0
    # A long closes at the bid, a short at the ask; bars of the other side are shifted by the spread.
    factor = sign * (1.0 + (terms.price_side - sign) / 2.0 * bar.spread_open)
    worst = factor * (low if long else high)
    # Equity = cash + units x price falls to margin x |units| x price where price x need = -cash.
    need = abs(units) * (1.0 - sign * terms.close_out_margin)
    margin_hit = worst * need <= -account.cash
    stop = -math.inf
    if terms.stop_loss > 0.0:
        stop = sign * account.entry_price * (1.0 - sign * terms.stop_loss)
    if margin_hit or worst <= stop:
        margin_level = -account.cash / need
        account.close_outs += 1.0 if margin_level >= stop else 0.0
        price = min(factor * opened, max(stop, margin_level))
        slip, impact = terms.slippage, _impact(bars[t - 1], terms)
    elif terms.take_profit > 0.0:
        level = sign * account.entry_price * (1.0 + sign * terms.take_profit)
        if factor * (high if long else low) < level:
            return False
        price = max(factor * opened, level)
        slip, impact = 0.0, 0.0  # a limit order does not slip
    else:
        return False
    half = abs(bar.spread_open * bar.open) / 2.0
    mid = sign * price + sign * half  # the closing price is half a spread from mid, on the losing side
    _leave(account, mid, half, slip, impact, _commission(terms, mid))
    return True


@_jit
def finish_bar(account: Account, bars: Records, t: int, terms: Terms, last: bool) -> None:
    """Apply swap, the mark at the close of bar t, ruin, drawdown, limits and the statistics of finished days."""
    bar: Bar = bars[t]
    mid = _mid_close(bar, terms.price_side)
    half = bar.close * bar.spread_close / 2.0
    _swap(account, bar.nights_bar, mid, terms)
    if last and terms.close_at_end > 0.0 and account.units != 0.0:
        account.turnover += (
            abs(account.units) * mid / max(account.equity, _FLOOR_FRACTION * account.start_equity)
        )
        _fill(account, 0.0, mid, half, terms.slippage, _impact(bars[t - 1], terms), _commission(terms, mid))
    if account.day_equity == 0.0:  # the first bar: no day ended before it
        account.day_equity = account.start_equity
    elif bar.trading_day != bars[t - 1].trading_day:
        _finish_day(account)
    equity = _mark(account, mid, half)
    if equity < RUIN_FRACTION * account.start_equity:
        equity = max(equity, _FLOOR_FRACTION * account.start_equity)
        account.cash, account.units, account.terminated = equity, 0.0, 1.0
    account.equity = equity
    if equity >= account.peak_equity:
        account.peak_equity = equity
    else:
        account.max_drawdown = max(account.max_drawdown, 1.0 - equity / account.peak_equity)
    account.bars_held = account.bars_held + 1.0 if account.units != 0.0 else 0.0
    if _has_limits(terms):
        _check_limits(account, bar.trading_day, terms)
    if terms.close_at_end > 0.0 and (last or account.terminated > 0.0):
        _finish_day(account)


@_jit
def _has_limits(terms: Terms) -> bool:
    return terms.daily_loss_limit > 0.0 or terms.drawdown_stop > 0.0 or terms.kill_loss > 0.0


@_jit
def _check_limits(account: Account, day: float, terms: Terms) -> None:
    """Halt the account if a limit is hit at this close; the drawdown stop then starts from a new peak."""
    equity = account.equity
    drawdown = risk_limits.drawdown_hit(equity, account.limit_peak, terms.drawdown_stop)
    account.limit_peak = equity if drawdown else max(account.limit_peak, equity)
    account.halted_until = risk_limits.halted_until(
        account.halted_until,
        day,
        risk_limits.daily_loss_hit(equity, account.day_equity, terms.daily_loss_limit),
        drawdown,
        terms.drawdown_pause_days,
        risk_limits.kill_hit(equity, account.start_equity, terms.kill_loss),
    )


@_jit
def _finish_day(account: Account) -> None:
    """Add the day that ended at the current equity to the running mean and variance of daily returns."""
    value = account.equity / account.day_equity - 1.0
    account.days += 1.0
    delta = value - account.daily_return_mean
    account.daily_return_mean += delta / account.days
    account.daily_return_m2 += delta * (value - account.daily_return_mean)
    account.day_equity = account.equity


@_jit
def _full_variance(bar: Bar, terms: Terms) -> float:
    """Variance of a full position's R over one decision, at the volatility known at the bar's close."""
    return (terms.exposure_cap * bar.cap_share * bar.volatility) ** 2 * terms.interval_bars


@_jit
def reset(  # noqa: PLR0913
    account: Account, bars: Records, terms: Terms, t: int, left: int, start: float, action: float
) -> None:
    """Start an account at the close of bar t with `start` equity and exposure `action` x full, costs paid."""
    for name in literal_unroll(_ACCOUNT_FIELDS):
        account[name] = 0.0  # records are indexed by a field's name
    bar: Bar = bars[t]
    mid = _mid_close(bar, terms.price_side)
    account.t, account.bars_left, account.target = t, left, action
    account.units = action * terms.exposure_cap * bar.cap_share * start / mid
    account.cash = start - account.units * mid + abs(account.units) * bar.close * bar.spread_close / 2.0
    account.entry_price = mid
    account.equity = account.start_equity = account.peak_equity = account.limit_peak = start
    if terms.reward == _SHARPE:
        account.reward_square = _full_variance(bar, terms)


@_jit
def target_of(account: Account, terms: Terms, action: float) -> float:
    """Return an action clipped to [-1, 1], or the last target filled if it is inside its no-trade band."""
    target = min(1.0, max(-1.0, action))
    return account.target if abs(target - account.target) < terms.no_trade_band else target


@_jit
def step(account: Account, bars: Records, minutes: Records, terms: Terms, action: float) -> float:
    """Advance one decision and return its reward.

    `minutes`, shape (n_bars, minutes a bar), are `Minute` records; (n_bars, 0) or (0, 0) where none are known.

    The order fills at the first open of the interval at which exposure may change: during the evening freeze, or
    while a limit halts the account, it waits, and it lapses with its interval. A target equal to the last one filled
    is no order (`target_of`): the units are held. Limits flatten at the next open, even in the freeze, as stops do.
    The decision ends early at ruin, at the end of the bars or when `bars_left` is 0.

    Reward DENOISED: with M = U_old (mid_open - mid_close_t) + U_new (mid_close - mid_open) the bar's realised
    market profit, U_old the units held at close t and U_new those after the open, and
    M' = U_new mid_open (exp(return_forecast) - 1), the bar pays log((E - M + M') / E_t): the gap is expected to be
    zero, while costs and the account stay realised. Every bar of a decision uses the forecast at the close at which
    it was made. A bar with an exit or ruin pays its realised change.
    """
    before, first, last_bar = account.equity, int(account.t), bars.shape[0] - 1
    decided_at: Bar = bars[first]
    target = target_of(account, terms, action)
    waiting = target != account.target
    t, expected = first, 0.0
    for _ in range(int(terms.interval_bars)):
        if t >= last_bar:
            break
        t += 1
        start, units = account.equity, account.units
        waiting = open_bar(account, bars, t, terms, target, waiting)
        held = account.units
        cut = exits(account, bars, minutes, t, terms)
        account.bars_left -= 1.0
        last = t == last_bar or account.bars_left <= 0.0
        finish_bar(account, bars, t, terms, last)
        account.t = t
        if terms.reward == _DENOISED:
            surprise = 0.0
            if not cut and account.terminated == 0.0:
                surprise = _surprise(bars, t, terms, units, held, decided_at.return_forecast)
            expected += math.log(
                max(account.equity - surprise, _FLOOR_FRACTION * account.start_equity) / start
            )
        if account.terminated > 0.0:
            break
        if last:
            account.truncated = 1.0
            break
    if terms.reward == _DENOISED:
        return expected
    return _reward(account, decided_at, terms, math.log(account.equity / before))


@_jit
def open_bar(account: Account, bars: Records, t: int, terms: Terms, target: float, waiting: bool) -> bool:
    """Pay the gap's nights, flatten if halted, else fill a waiting order; return whether it still waits."""
    bar: Bar = bars[t]
    mid = _mid_open(bar, terms.price_side)
    half = bar.open * bar.spread_open / 2.0
    _swap(account, bar.nights_gap, mid, terms)
    if risk_limits.is_halted(account.halted_until, bar.trading_day):
        if account.units != 0.0:
            _leave(account, mid, half, terms.slippage, _impact(bars[t - 1], terms), _commission(terms, mid))
        return waiting
    equity = _mark(account, mid, half)
    if not waiting or bar.tradable == 0.0 or equity <= 0.0:
        return waiting
    units = target * terms.exposure_cap * bars[t - 1].cap_share * equity / mid
    account.target = target
    account.turnover += abs(units - account.units) * mid / equity
    _fill(account, units, mid, half, terms.slippage, _impact(bars[t - 1], terms), _commission(terms, mid))
    return False


@_jit
def _surprise(bars: Records, t: int, terms: Terms, units: float, held: float, forecast: float) -> float:
    """Return M - M' of bar t: realised market profit less its forecast, account currency."""
    side, bar = terms.price_side, bars[t]
    mid = _mid_open(bar, side)
    realised = units * (mid - _mid_close(bars[t - 1], side)) + held * (_mid_close(bar, side) - mid)
    return realised - held * mid * math.expm1(forecast)


@_jit
def _reward(account: Account, bar: Bar, terms: Terms, change: float) -> float:
    """Return the reward of a realised change of log equity, decided on at the close of `bar`."""
    if terms.reward == _MEAN_VARIANCE:
        return change - terms.risk_aversion / 2.0 * change * change
    if terms.reward == _SHARPE:
        floor = _SHARPE_FLOOR * _full_variance(bar, terms)
        change, account.reward_mean, account.reward_square = differential_sharpe(
            account.reward_mean, account.reward_square, change, terms.sharpe_rate, floor
        )
    return change


@_jit
def differential_sharpe(
    a: float, b: float, change: float, eta: float, floor: float
) -> tuple[float, float, float]:
    """Return the differential Sharpe ratio D of one return and the updated moments A, B.

    D = (B dA - A dB / 2) / (B - A^2)^(3/2) with dA = R - A, dB = R^2 - B and A, B as they were before R; then
    A += eta dA, B += eta dB. Moody and Saffell 2001, IEEE Trans. Neural Networks 12(4), eq. 7-9. Added here:
    B - A^2 is at least `floor`. R is a log return; D is in units of R / sd(R), order one.
    """
    da, db = change - a, change * change - b
    variance = max(b - a * a, floor)
    value = (b * da - 0.5 * a * db) / (variance * math.sqrt(variance))
    return value, a + eta * da, b + eta * db


@_jit
def observe(account: Account, bars: Records, terms: Terms, market: FeatureArray, out: FeatureArray) -> None:
    """Write the observation at the close of the account's last bar: the market's row, then the account's numbers."""
    t = int(account.t)
    n = market.shape[1]
    for j in range(n):
        out[j] = market[t, j]
    bar: Bar = bars[t]
    mid = _mid_close(bar, terms.price_side)
    units, equity = account.units, account.equity
    if terms.observes_target > 0.0:
        # Without a filled target the position is what the episode began with.
        held = account.target if abs(account.target) <= 1.0 else units * mid / (equity * terms.exposure_cap)
        out[n] = min(1.0, max(-1.0, held))
        return
    if units == 0.0:
        out[n] = out[n + 1] = out[n + 2] = 0.0
    else:
        out[n] = _clip(units * mid / (equity * terms.exposure_cap))
        day = bar.volatility * math.sqrt(terms.bars_per_day)
        out[n + 1] = _clip(units * (mid - account.entry_price) / (equity * day))
        bars_held = int(account.bars_held)
        out[n + 2] = (
            _HOLDING_TIME[bars_held]
            if bars_held < _HOLDING_TIME.size
            else min(math.log1p(bars_held) / 5.0, _OBS_CLIP)
        )
    n += 3
    if _has_limits(terms):
        out[n] = 1.0 if risk_limits.is_halted(account.halted_until, bar.trading_day) else 0.0
        n += 1
    if terms.reward == _SHARPE:
        variance = _full_variance(bar, terms)
        out[n] = _clip(account.reward_mean / math.sqrt(variance * terms.sharpe_rate / 2.0))
        out[n + 1] = _clip(math.sqrt(account.reward_square / variance))


@_jit
def _clip(value: float) -> float:
    return min(_OBS_CLIP, max(-_OBS_CLIP, value))


_BLOCK = 16  # accounts
_LINE = 16  # features in a cache line


@_jit
def _touch(accounts: Records, bars: Records, market: FeatureArray, first: int, end: int) -> float:
    """Read the rows that accounts `first` to `end` need next; the number returned keeps the reads alive.

    Accounts are at random bars; reads that do not depend on each other wait for memory together.
    """
    width, last, total = market.shape[1], bars.shape[0] - 1, 0.0
    for i in range(first, end):
        t = int(accounts[i].t)
        after = min(t + 1, last)
        total += bars[t].open + bars[after].low + bars[after].return_forecast
        for j in range(0, width, _LINE):
            total += market[after, j]
    return total


@_jit
def step_many(  # noqa: PLR0913
    accounts: Records,
    bars: Records,
    minutes: Records,
    terms: Terms,
    market: FeatureArray,
    actions: FloatArray,
    rewards: FloatArray,
    obs: FeatureArray,
) -> None:
    """Step every account, shape (n,), writing rewards (n,) and obs (n, width)."""
    n = accounts.shape[0]
    for first in range(0, n, _BLOCK):
        end = min(first + _BLOCK, n)
        rewards[first] = _touch(accounts, bars, market, first, end)
        for i in range(first, end):
            rewards[i] = step(accounts[i], bars, minutes, terms, actions[i])
            observe(accounts[i], bars, terms, market, obs[i])


@_jit
def step_one(  # noqa: PLR0913
    accounts: FloatArray, bars: FloatArray, minutes: FloatArray, terms: FloatArray, market: FeatureArray,
    action: float, obs: FeatureArray, reports: FloatArray,
) -> None:  # fmt: skip
    """Step one account, observe and report: what a Gymnasium step needs, in one call.

    The tables come as `records.flat`; `accounts`, `terms` and `reports` are of one row.
    """
    account, own_terms = accounts.view(records.ACCOUNT_DTYPE)[0], terms.view(records.TERMS_DTYPE)[0]
    rows = bars.view(records.BAR_DTYPE)
    reward = step(account, rows, minutes.view(records.MINUTE_DTYPE), own_terms, action)
    observe(account, rows, own_terms, market, obs)
    report_row = reports.view(records.REPORT_DTYPE)[0]
    _report(account, rows, own_terms, report_row)
    report_row.reward = reward


@_jit
def start_one(  # noqa: PLR0913
    accounts: FloatArray, i: int, bars: FloatArray, terms: FloatArray, market: FeatureArray, t: int, left: int,
    start: float, action: float, obs: FeatureArray,
) -> None:  # fmt: skip
    """`reset` account `i` and `observe`, in one call; the tables come as `records.flat`."""
    account, own_terms = accounts.view(records.ACCOUNT_DTYPE)[i], terms.view(records.TERMS_DTYPE)[0]
    rows = bars.view(records.BAR_DTYPE)
    reset(account, rows, own_terms, t, left, start, action)
    observe(account, rows, own_terms, market, obs)


def report(account: Account, bars: Records, terms: Terms) -> AccountReport:
    """Return the report of an account; the Sharpe ratio is NaN below 20 days."""
    row = np.zeros(1, records.REPORT_DTYPE)
    _report(account, bars, terms, row[0])
    return AccountReport._make(row[0].item())


@_jit
def _report(account: Account, bars: Records, terms: Terms, out: Any) -> None:  # noqa: ANN401  # a row of reports
    bar: Bar = bars[int(account.t)]
    out.t = account.t
    out.equity = account.equity
    out.position = _exposure(account, bar, terms)
    out.costs = _costs_paid(account)
    out.total_return = account.equity / account.start_equity - 1.0
    out.sharpe_ann = _sharpe_ann(account, terms.days_a_year)
    out.max_drawdown = account.max_drawdown
    out.spread_paid = account.spread_paid
    out.commission_paid = account.commission_paid
    out.slippage_paid = account.slippage_paid
    out.swap_paid = account.swap_paid
    out.turnover = account.turnover
    out.trades = account.trades
    out.close_outs = account.close_outs
    out.halted = 1.0 if risk_limits.is_halted(account.halted_until, bar.trading_day) else 0.0
    out.terminated = account.terminated
    out.truncated = account.truncated if account.terminated == 0.0 else 0.0
    out.reward = 0.0


@_jit
def _exposure(account: Account, bar: Bar, terms: Terms) -> float:
    return account.units * _mid_close(bar, terms.price_side) / account.equity


@_jit
def _costs_paid(account: Account) -> float:
    return account.spread_paid + account.commission_paid + account.slippage_paid + account.swap_paid


@_jit
def _sharpe_ann(account: Account, days_a_year: float) -> float:
    days, mean, m2 = account.days, account.daily_return_mean, account.daily_return_m2
    if days < MIN_DAYS_FOR_SHARPE:
        return math.nan
    sd = math.sqrt(m2 / (days - 1.0))
    if sd <= 1e-15:  # only rounding is left
        return 0.0 if abs(mean) <= 1e-15 else math.nan
    return math.sqrt(days_a_year) * mean / sd


@_jit
def run_targets(
    account: Account, bars: Records, minutes: Records, terms: Terms, targets: FloatArray, trace: Records
) -> int:
    """Follow targets to the end, write each decision to `trace`, shape (n,); return how many were made."""
    n = 0
    while n < targets.size and account.terminated == 0.0 and account.truncated == 0.0:
        step(account, bars, minutes, terms, targets[n])
        record(account, bars, terms, targets[n], trace[n])
        n += 1
    return n


@_jit
def step_traced(  # noqa: PLR0913  # all that a run reads and writes
    accounts: FloatArray, bars: FloatArray, minutes: FloatArray, terms: FloatArray, market: FeatureArray,
    action: float, trace: FloatArray, n: int, obs: FeatureArray,
) -> bool:  # fmt: skip
    """Make decision `n`, write it to row n of `trace`, and `observe`; return whether more follow.

    The tables come as `records.flat`; `accounts` and `terms` are of one row.
    """
    account, own_terms = accounts.view(records.ACCOUNT_DTYPE)[0], terms.view(records.TERMS_DTYPE)[0]
    rows = bars.view(records.BAR_DTYPE)
    target = target_of(account, own_terms, action)
    step(account, rows, minutes.view(records.MINUTE_DTYPE), own_terms, target)
    record(account, rows, own_terms, target, trace.view(records.TRACE_DTYPE)[n])
    observe(account, rows, own_terms, market, obs)
    return account.terminated == 0.0 and account.truncated == 0.0


@_jit
def record(account: Account, bars: Records, terms: Terms, target: float, out: Trace) -> None:
    """Write the state of the account after a decision to `out`."""
    out.t = account.t
    out.equity = account.equity
    out.exposure = _exposure(account, bars[int(account.t)], terms)
    out.costs = _costs_paid(account)
    out.target = target
