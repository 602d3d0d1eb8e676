"""Indicators on a gap-free log path, each compiled, one pass, a function of the past alone.

Every function returns shape (n,) and uses rows <= t for row t. Early rows use what there is. A sum over a
window is carried from row to row and taken afresh once every window, so that rounding never piles up and
the cost does not grow with the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

SIGMA_FLOOR = 1e-7
_TINY = 1e-14
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_jit = numba.njit(cache=True, fastmath=False)


@dataclass(frozen=True)
class LogPath:
    """High, low and close as log prices of a path without gaps, and its one-bar returns; shape (n,)."""

    high: FloatArray
    low: FloatArray
    close: FloatArray
    bar_return: FloatArray


def log_path(bars: pd.DataFrame, bar_seconds: int) -> LogPath:
    """Return the gap-free log path: after a hole it goes on from the next bar's open."""
    prices = (bars[name].to_numpy(np.float64) for name in ("open", "high", "low", "close"))
    return LogPath(*_log_path(open_seconds(bars), *prices, bar_seconds))


def open_seconds(bars: pd.DataFrame) -> IntArray:
    """Return the open times in Unix seconds."""
    return seconds_of(bars.index)  # type: ignore[arg-type]  # a DatetimeIndex


def seconds_of(index: pd.DatetimeIndex) -> IntArray:
    """Return an index in Unix seconds; whatever its unit, and 20 times faster than `as_unit`."""
    return np.asarray(index.asi8) // _PER_SECOND[index.unit]


@_jit
def _log_path(  # pragma: no cover  # compiled
    seconds: IntArray, o: FloatArray, h: FloatArray, lo: FloatArray, c: FloatArray, bar_seconds: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    n = seconds.size
    high, low, close, bar_return = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    level = last = 0.0
    for i in range(n):
        log_close = math.log(c[i])
        follows = i > 0 and seconds[i] - seconds[i - 1] <= bar_seconds
        bar_return[i] = log_close - (last if follows else math.log(o[i]))
        level += bar_return[i]
        close[i] = level
        high[i] = level + (math.log(h[i]) - log_close)
        low[i] = level + (math.log(lo[i]) - log_close)
        last = log_close
    return high, low, close, bar_return


@_jit
def carried_path(  # pragma: no cover  # compiled
    seconds: IntArray, o: FloatArray, c: FloatArray, bar_seconds: int, at: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return another instrument's gap-free log close at the times `at`, and how old it is in seconds.

    Where it has no new bar the last one before is carried. Its age counts the bars of `at` since then, so
    that hours in which nobody trades do not age it; it is 0 at a new bar.
    """
    n, own = at.size, 0
    path, age = np.empty(n), np.empty(n, np.int64)
    level, old = 0.0, 0
    for t in range(n):
        old += bar_seconds
        while own < seconds.size and seconds[own] <= at[t]:
            follows = own > 0 and seconds[own] - seconds[own - 1] <= bar_seconds
            level += math.log(c[own] / (c[own - 1] if follows else o[own]))
            own += 1
            old = 0
        path[t] = level
        age[t] = old
    return path, age


@_jit
def ewma_volatility(bar_return: FloatArray, half_life: int) -> FloatArray:  # pragma: no cover
    """Return the root of the exponentially weighted mean square return, floored; weights sum to one."""
    out = np.empty(bar_return.size)
    decay, weight, square = 0.5 ** (1.0 / half_life), 0.0, 0.0
    for i in range(bar_return.size):
        weight = weight * decay + 1.0
        square = square * decay + bar_return[i] * bar_return[i]
        out[i] = max(math.sqrt(square / weight), SIGMA_FLOOR)
    return out


@_jit
def scaled_change(path: FloatArray, sigma: FloatArray, n: int) -> FloatArray:  # pragma: no cover
    """Return the change over n rows in standard deviations: (p_t - p_{t-n}) / (sigma_t sqrt(n))."""
    out = np.empty(path.size)
    root = math.sqrt(n)
    for t in range(path.size):
        out[t] = (path[t] - path[max(t - n, 0)]) / (sigma[t] * root)
    return out


@_jit
def scaled_residual(x: FloatArray, y: FloatArray, n: int, half_life: int) -> FloatArray:  # pragma: no cover
    """Return what y moved over n rows beyond its share in x's move, in y's standard deviations.

    (dy - beta dx) / (sigma_y sqrt(n)); beta and sigma_y from one-row changes, exponentially weighted.
    """
    out = np.zeros(x.size)
    decay, weight, xx, xy, yy = 0.5 ** (1.0 / half_life), 0.0, 0.0, 0.0, 0.0
    root = math.sqrt(n)
    for t in range(1, x.size):
        dx, dy = x[t] - x[t - 1], y[t] - y[t - 1]
        weight = weight * decay + 1.0
        xx, xy, yy = xx * decay + dx * dx, xy * decay + dx * dy, yy * decay + dy * dy
        sigma = max(math.sqrt(yy / weight), SIGMA_FLOOR)
        beta = xy / xx if xx > _TINY * _TINY else 0.0
        start = max(t - n, 0)
        out[t] = (y[t] - y[start] - beta * (x[t] - x[start])) / (sigma * root)
    return out


@_jit
def rsi(close: FloatArray, n: int) -> FloatArray:  # pragma: no cover  # compiled
    """Return Wilder's (1978) relative strength index over n bars, in [0, 100]; 50 at first or when flat."""
    out = np.empty(close.size)
    up = down = 0.0
    out[0] = 50.0
    for i in range(1, close.size):
        change, weight = close[i] - close[i - 1], min(i, n)
        up += (max(change, 0.0) - up) / weight
        down += (max(-change, 0.0) - down) / weight
        out[i] = 100.0 * up / (up + down) if up + down > _TINY else 50.0
    return out


@_jit
def macd_histogram(close: FloatArray, n_fast: int) -> FloatArray:  # pragma: no cover  # compiled
    """Return MACD minus its signal with spans in the classic proportion 12 : 26 : 9 of `n_fast`."""
    a_fast = 2.0 / (n_fast + 1.0)
    a_slow = 2.0 / (max(2, round(n_fast * 26 / 12)) + 1.0)
    a_signal = 2.0 / (max(2, round(n_fast * 9 / 12)) + 1.0)
    out = np.empty(close.size)
    fast = slow = close[0]
    signal = 0.0
    for i in range(close.size):
        fast += a_fast * (close[i] - fast)
        slow += a_slow * (close[i] - slow)
        line = fast - slow
        signal += a_signal * (line - signal)
        out[i] = line - signal
    return out


def atr(path: LogPath, n: int) -> FloatArray:
    """Return Wilder's average true range over n bars, in log price; the mean so far before n bars."""
    return np.asarray(_atr(path.high, path.low, path.close, n))


@_jit
def _atr(  # pragma: no cover  # compiled
    high: FloatArray, low: FloatArray, close: FloatArray, n: int
) -> FloatArray:
    out = np.empty(close.size)
    average = 0.0
    out[0] = high[0] - low[0]
    for i in range(1, close.size):
        true_range = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        average += (true_range - average) / min(i, n)
        out[i] = average
    return out


@_jit
def rolling_mean(values: FloatArray, n: int) -> FloatArray:  # pragma: no cover  # compiled
    """Return the mean of the last n values; before the first value its own is repeated."""
    out = np.empty(values.size)
    total = 0.0
    for i in range(values.size):
        if i % n == 0:
            total = 0.0
            for k in range(i - n + 1, i + 1):
                total += values[max(k, 0)]
        else:
            total += values[i] - values[max(i - n, 0)]
        out[i] = total / n
    return out


def parkinson_volatility(path: LogPath, n: int) -> FloatArray:
    """Return Parkinson's (1980) volatility per bar from the ranges of the last n bars."""
    square = rolling_mean((path.high - path.low) ** 2 / (4.0 * math.log(2.0)), n)
    return np.sqrt(np.maximum(square, 0.0))


@_jit
def bollinger_position(close: FloatArray, n: int) -> FloatArray:  # pragma: no cover  # compiled
    """Return (close - mean) / (2 sd) over the last n bars; 0 where the window is flat."""
    out = np.empty(close.size)
    origin = total = square = 0.0
    for i in range(close.size):
        if i % n == 0:  # sums are of distances from a near origin: no cancellation
            origin, total, square = close[i], 0.0, 0.0
            for k in range(i - n + 1, i):
                distance = close[max(k, 0)] - origin
                total += distance
                square += distance * distance
        else:
            new, old = close[i] - origin, close[max(i - n, 0)] - origin
            total += new - old
            square += new * new - old * old
        mean = total / n
        variance = square / n - mean * mean
        flat = variance <= max(1e-24, 1e-12 * square / n)  # below this only rounding is left
        out[i] = 0.0 if flat else (close[i] - origin - mean) / (2.0 * math.sqrt(variance))
    return out


def adx(path: LogPath, n: int) -> FloatArray:
    """Return Wilder's (1978) average directional index over n bars, in [0, 100]; 0 before it exists.

    Smoothed +DM, -DM and true range -> DX -> its Wilder average, first over n values.
    """
    return np.asarray(_adx(path.high, path.low, path.close, n))


@_jit
def _adx(  # pragma: no cover  # compiled
    high: FloatArray, low: FloatArray, close: FloatArray, n: int
) -> FloatArray:
    out = np.zeros(close.size)
    plus = minus = span = average = 0.0
    count = 0
    for i in range(1, close.size):
        up, down = high[i] - high[i - 1], low[i - 1] - low[i]
        plus_move = up if up > down and up > 0 else 0.0
        minus_move = down if down > up and down > 0 else 0.0
        true_range = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        if i < n:
            plus, minus, span = plus + plus_move, minus + minus_move, span + true_range
            continue
        plus += plus_move - plus / n
        minus += minus_move - minus / n
        span += true_range - span / n
        total = plus + minus
        if span > _TINY and total > _TINY:
            dx = 100.0 * abs(plus - minus) / total
            count += 1
            average += (dx - average) / min(count, n)
        out[i] = average if count >= n else 0.0
    return out


@_jit
def clock_of(  # pragma: no cover  # compiled
    seconds: IntArray, offset: IntArray, later: int
) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Return the local minute of the day and the weekday (Monday 0) `later` seconds on.

    `offset` is the zone's, in seconds, for each hour from the first of `seconds` on: zones change on the hour.
    """
    minute, weekday = np.empty(seconds.size, np.int16), np.empty(seconds.size, np.int8)
    first = seconds[0] // 3600
    for i in range(seconds.size):
        local = seconds[i] + offset[seconds[i] // 3600 - first]
        minute[i] = local // 60 % 1440
        weekday[i] = ((local + later) // 86_400 + 3) % 7  # 1970-01-01 was a Thursday
    return minute, weekday


@_jit
def scale_into(  # pragma: no cover  # compiled
    values: FloatArray, mean: float, std: float, limit: float, out: NDArray[np.float32]
) -> None:
    """Write (values - mean) / std, clipped at +-limit, into `out`."""
    factor = 1.0 / std
    for i in range(values.size):
        value = (values[i] - mean) * factor
        out[i] = limit if value > limit else (-limit if value < -limit else value)


@_jit
def bars_are_sound(  # pragma: no cover  # compiled
    seconds: IntArray, o: FloatArray, h: FloatArray, lo: FloatArray, c: FloatArray
) -> bool:
    """Return whether times increase and 0 < low <= open, close <= high < inf in every bar."""
    for i in range(seconds.size):
        inside = 0.0 < lo[i] <= o[i] <= h[i] < math.inf and lo[i] <= c[i] <= h[i]  # a NaN fails each
        if not inside or (i > 0 and seconds[i] <= seconds[i - 1]):
            return False
    return True
