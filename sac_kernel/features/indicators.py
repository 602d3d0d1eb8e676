"""Compiled one-pass indicators on a gap-free log path, functions of the past alone.

Every function returns shape (n,) and uses rows <= t for row t. Early rows use the rows that exist. A sum over a
window is carried from row to row and recomputed once per window, so rounding errors do not accumulate and
the cost does not grow with the window. With a `Memory` rows may come in several calls, down to one bar each:
the values are bit for bit those of one call on all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

from sac_kernel.prices.bars import PRICE_COLUMNS, open_seconds

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

SIGMA_FLOOR = 1e-7
_TINY = 1e-14
_jit = numba.njit(cache=True, fastmath=False)


class Memory:
    """The state of recursions between calls on successive rows, in the order of the calls.

    Call `rewind` before each new stretch of rows, then the same functions in the same order.
    """

    def __init__(self) -> None:
        self._cells: list[Cell] = []
        self._next = 0
        self.tables: dict[str, pd.DataFrame] = {}  # all bars so far, for functions that know no recursion

    def rewind(self) -> None:
        """Begin a stretch."""
        self._next = 0

    def cell(self, first: FloatArray) -> Cell:
        """Return the next cell; in the first stretch it holds `first`."""
        if self._next == len(self._cells):
            self._cells.append(Cell(first))
        self._next += 1
        return self._cells[self._next - 1]

    def state(self, size: int) -> FloatArray:
        """Return the state of the next recursion, shape (size,), to be changed in place; zeros at first."""
        return self.cell(np.zeros(size)).rows

    def window(self, rows: FloatArray, n: int) -> FloatArray:
        """Return up to n rows of earlier stretches followed by `rows`, and keep the last n of them."""
        cell = self.cell(rows[:0])
        known = np.concatenate((cell.rows, rows)) if cell.rows.size else rows
        cell.rows = known[-n:].copy()
        return known


@dataclass
class Cell:
    """The memory of one function."""

    rows: FloatArray


@dataclass(frozen=True)
class LogPath:
    """High, low and close as log prices of a path without gaps, and its one-bar returns; shape (n,)."""

    high: FloatArray
    low: FloatArray
    close: FloatArray
    bar_return: FloatArray


def log_path(bars: pd.DataFrame, bar_seconds: int, memory: Memory | None = None) -> LogPath:
    """Return the gap-free log path: after a hole it continues from the next bar's open."""
    columns = price_columns(bars)
    return LogPath(*_log_path(open_seconds(bars), *columns, bar_seconds, _state(memory, 4)))


def price_columns(bars: pd.DataFrame) -> list[FloatArray]:
    """Return open, high, low and close, shape (n,) each; 20 times faster for a plain bar table."""
    plain = bars if tuple(bars.columns) == PRICE_COLUMNS else bars[list(PRICE_COLUMNS)]
    return [np.ascontiguousarray(column) for column in plain.to_numpy(np.float64).T]


def _state(memory: Memory | None, size: int) -> FloatArray:
    return (memory or Memory()).state(size)


@_jit
def _log_path(  # pragma: no cover  # noqa: PLR0913  # compiled
    seconds: IntArray,
    o: FloatArray,
    h: FloatArray,
    lo: FloatArray,
    c: FloatArray,
    bar_seconds: int,
    state: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    n = seconds.size
    high, low, close, bar_return = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    rows, before, last, level = state
    for i in range(n):
        log_close = math.log(c[i])
        follows = rows > 0 and seconds[i] - before <= bar_seconds
        bar_return[i] = log_close - (last if follows else math.log(o[i]))
        level += bar_return[i]
        close[i] = level
        high[i] = level + (math.log(h[i]) - log_close)
        low[i] = level + (math.log(lo[i]) - log_close)
        last, before = log_close, float(seconds[i])
        rows += 1
    state[:] = rows, before, last, level
    return high, low, close, bar_return


def carried_path(
    seconds: IntArray,
    o: FloatArray,
    c: FloatArray,
    bar_seconds: int,
    at: IntArray,
    memory: Memory | None = None,
) -> tuple[FloatArray, IntArray]:
    """Return another instrument's gap-free log close at the times `at`, and its age in seconds.

    Where it has no new bar its last bar is carried. The age counts the bars of `at` since then, so hours
    without trading do not count; it is 0 at a new bar. Bars after the last of `at` wait for the next call.
    """
    memory = memory or Memory()
    state, waiting = memory.state(5), memory.cell(np.zeros((0, 3)))
    if waiting.rows.size:
        first = waiting.rows
        seconds = np.concatenate((first[:, 0].astype(np.int64), seconds))
        o, c = np.concatenate((first[:, 1], o)), np.concatenate((first[:, 2], c))
    path, age, used = _carried_path(seconds, o, c, bar_seconds, at, state)
    if used < seconds.size or waiting.rows.size:
        waiting.rows = np.stack((seconds[used:].astype(np.float64), o[used:], c[used:]), axis=1)
    return path, age


@_jit
def _carried_path(  # pragma: no cover  # compiled
    seconds: IntArray, o: FloatArray, c: FloatArray, bar_seconds: int, at: IntArray, state: FloatArray
) -> tuple[FloatArray, IntArray, int]:
    n, own = at.size, 0
    path, age = np.empty(n), np.empty(n, np.int64)
    rows, before, last, level, old = state
    for t in range(n):
        old += bar_seconds
        while own < seconds.size and seconds[own] <= at[t]:
            follows = rows > 0 and seconds[own] - before <= bar_seconds
            level += math.log(c[own] / (last if follows else o[own]))
            last, before = c[own], float(seconds[own])
            rows += 1
            own += 1
            old = 0.0
        path[t] = level
        age[t] = old
    state[:] = rows, before, last, level, old
    return path, age, own


def steps(path: FloatArray, memory: Memory | None = None) -> FloatArray:
    """Return the change from row to row; the first row's is its own value."""
    state = _state(memory, 1)
    out: FloatArray = np.diff(path, prepend=state)
    state[:] = path[-1]
    return out


def ewma_volatility(bar_return: FloatArray, half_life: int, memory: Memory | None = None) -> FloatArray:
    """Return the root of the exponentially weighted mean square return, floored; weights sum to one."""
    return np.asarray(_ewma_volatility(bar_return, half_life, _state(memory, 2)))


@_jit
def _ewma_volatility(  # pragma: no cover  # compiled
    bar_return: FloatArray, half_life: int, state: FloatArray
) -> FloatArray:
    out = np.empty(bar_return.size)
    weight, square = state
    decay = 0.5 ** (1.0 / half_life)
    for i in range(bar_return.size):
        weight = weight * decay + 1.0
        square = square * decay + bar_return[i] * bar_return[i]
        out[i] = max(math.sqrt(square / weight), SIGMA_FLOOR)
    state[:] = weight, square
    return out


def change(path: FloatArray, n: int, memory: Memory | None = None) -> FloatArray:
    """Return the change over n rows, p_t - p_{t-n}; for the first n rows, since the first row."""
    known = (memory or Memory()).window(path, n)
    start = np.maximum(np.arange(known.size - path.size, known.size) - n, 0)
    out: FloatArray = path - known[start]
    return out


def scaled_change(path: FloatArray, sigma: FloatArray, n: int, memory: Memory | None = None) -> FloatArray:
    """Return the change over n rows in standard deviations: (p_t - p_{t-n}) / (sigma_t sqrt(n))."""
    return np.asarray(_scaled_change((memory or Memory()).window(path, n), sigma, n))


@_jit
def _scaled_change(  # pragma: no cover  # compiled
    path: FloatArray, sigma: FloatArray, n: int
) -> FloatArray:
    out = np.empty(sigma.size)
    root, earlier = math.sqrt(n), path.size - sigma.size
    for i in range(sigma.size):
        t = i + earlier
        out[i] = (path[t] - path[max(t - n, 0)]) / (sigma[i] * root)
    return out


def scaled_residual(
    x: FloatArray, y: FloatArray, n: int, half_life: int, memory: Memory | None = None
) -> FloatArray:
    """Return y's move over n rows beyond its share in x's move, in y's standard deviations.

    (dy - beta dx) / (sigma_y sqrt(n)); beta and sigma_y from one-row changes, exponentially weighted.
    """
    memory = memory or Memory()
    known = memory.window(x, n), memory.window(y, n)
    return np.asarray(_scaled_residual(*known, x.size, n, half_life, memory.state(4)))


@_jit
def _scaled_residual(  # pragma: no cover  # compiled
    x: FloatArray, y: FloatArray, rows: int, n: int, half_life: int, state: FloatArray
) -> FloatArray:
    out = np.zeros(rows)
    weight, xx, xy, yy = state
    decay, earlier = 0.5 ** (1.0 / half_life), x.size - rows
    root = math.sqrt(n)
    for t in range(max(earlier, 1), x.size):
        dx, dy = x[t] - x[t - 1], y[t] - y[t - 1]
        weight = weight * decay + 1.0
        xx, xy, yy = xx * decay + dx * dx, xy * decay + dx * dy, yy * decay + dy * dy
        sigma = max(math.sqrt(yy / weight), SIGMA_FLOOR)
        beta = xy / xx if xx > _TINY * _TINY else 0.0
        start = max(t - n, 0)
        out[t - earlier] = (y[t] - y[start] - beta * (x[t] - x[start])) / (sigma * root)
    state[:] = weight, xx, xy, yy
    return out


def rsi(close: FloatArray, n: int, memory: Memory | None = None) -> FloatArray:
    """Return Wilder's (1978) relative strength index over n bars, in [0, 100]; 50 in the first row or when flat."""
    return np.asarray(_rsi(close, n, _state(memory, 4)))


@_jit
def _rsi(close: FloatArray, n: int, state: FloatArray) -> FloatArray:  # pragma: no cover  # compiled
    out = np.empty(close.size)
    rows, last, up, down = state
    for i in range(close.size):
        if rows > 0:
            move, weight = close[i] - last, min(rows, float(n))
            up += (max(move, 0.0) - up) / weight
            down += (max(-move, 0.0) - down) / weight
        out[i] = 100.0 * up / (up + down) if up + down > _TINY else 50.0
        last = close[i]
        rows += 1
    state[:] = rows, last, up, down
    return out


def macd_histogram(close: FloatArray, n_fast: int, memory: Memory | None = None) -> FloatArray:
    """Return MACD minus its signal, spans in the usual proportion 12 : 26 : 9 with `n_fast` for 12."""
    return np.asarray(_macd_histogram(close, n_fast, _state(memory, 4)))


@_jit
def _macd_histogram(  # pragma: no cover  # compiled
    close: FloatArray, n_fast: int, state: FloatArray
) -> FloatArray:
    a_fast = 2.0 / (n_fast + 1.0)
    a_slow = 2.0 / (max(2, round(n_fast * 26 / 12)) + 1.0)
    a_signal = 2.0 / (max(2, round(n_fast * 9 / 12)) + 1.0)
    out = np.empty(close.size)
    rows, fast, slow, signal = state
    if rows == 0 and close.size > 0:
        fast = slow = close[0]
    for i in range(close.size):
        fast += a_fast * (close[i] - fast)
        slow += a_slow * (close[i] - slow)
        line = fast - slow
        signal += a_signal * (line - signal)
        out[i] = line - signal
    state[:] = rows + close.size, fast, slow, signal
    return out


def atr(path: LogPath, n: int, memory: Memory | None = None) -> FloatArray:
    """Return Wilder's average true range over n bars, in log price; over fewer than n bars, their mean."""
    return np.asarray(_atr(path.high, path.low, path.close, n, _state(memory, 3)))


@_jit
def _atr(  # pragma: no cover  # compiled
    high: FloatArray, low: FloatArray, close: FloatArray, n: int, state: FloatArray
) -> FloatArray:
    out = np.empty(close.size)
    rows, last, average = state
    for i in range(close.size):
        if rows == 0:
            out[i] = high[i] - low[i]
        else:
            true_range = max(high[i], last) - min(low[i], last)
            average += (true_range - average) / min(rows, float(n))
            out[i] = average
        last = close[i]
        rows += 1
    state[:] = rows, last, average
    return out


def rolling_mean(values: FloatArray, n: int, memory: Memory | None = None) -> FloatArray:
    """Return the mean of the last n values; the first value stands for those before it."""
    memory = memory or Memory()
    return np.asarray(_rolling_mean(memory.window(values, n), values.size, n, memory.state(2)))


@_jit
def _rolling_mean(  # pragma: no cover  # compiled
    values: FloatArray, rows: int, n: int, state: FloatArray
) -> FloatArray:
    out = np.empty(rows)
    earlier = values.size - rows
    done, total = int(state[0]), state[1]
    for i in range(earlier, values.size):
        if done % n == 0:
            total = 0.0
            for k in range(i - n + 1, i + 1):
                total += values[max(k, 0)]
        else:
            total += values[i] - values[max(i - n, 0)]
        out[i - earlier] = total / n
        done += 1
    state[:] = float(done), total
    return out


def parkinson_volatility(path: LogPath, n: int, memory: Memory | None = None) -> FloatArray:
    """Return Parkinson's (1980) volatility per bar from the ranges of the last n bars."""
    square = rolling_mean((path.high - path.low) ** 2 / (4.0 * math.log(2.0)), n, memory)
    return np.sqrt(np.maximum(square, 0.0))


def bollinger_position(close: FloatArray, n: int, memory: Memory | None = None) -> FloatArray:
    """Return (close - mean) / (2 sd) over the last n bars; 0 where the window is flat."""
    memory = memory or Memory()
    return np.asarray(_bollinger_position(memory.window(close, n), close.size, n, memory.state(4)))


@_jit
def _bollinger_position(  # pragma: no cover  # compiled
    close: FloatArray, rows: int, n: int, state: FloatArray
) -> FloatArray:
    out = np.empty(rows)
    earlier = close.size - rows
    done, origin, total, square = int(state[0]), state[1], state[2], state[3]
    for i in range(earlier, close.size):
        if done % n == 0:  # sums of distances from a near origin: no cancellation
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
        out[i - earlier] = 0.0 if flat else (close[i] - origin - mean) / (2.0 * math.sqrt(variance))
        done += 1
    state[:] = float(done), origin, total, square
    return out


def adx(path: LogPath, n: int, memory: Memory | None = None) -> FloatArray:
    """Return Wilder's (1978) average directional index over n bars, in [0, 100]; 0 until it is defined.

    Smoothed +DM, -DM and true range -> DX -> its Wilder average, first over n values.
    """
    return np.asarray(_adx(path.high, path.low, path.close, n, _state(memory, 9)))


@_jit
def _adx(  # pragma: no cover  # compiled
    high: FloatArray, low: FloatArray, close: FloatArray, n: int, state: FloatArray
) -> FloatArray:
    out = np.zeros(close.size)
    rows, last_high, last_low, last_close, plus, minus, span, count, average = state
    for i in range(close.size):
        if rows > 0:
            up, down = high[i] - last_high, last_low - low[i]
            plus_move = up if up > down and up > 0 else 0.0
            minus_move = down if down > up and down > 0 else 0.0
            true_range = max(high[i], last_close) - min(low[i], last_close)
            if rows < n:
                plus, minus, span = plus + plus_move, minus + minus_move, span + true_range
            else:
                plus += plus_move - plus / n
                minus += minus_move - minus / n
                span += true_range - span / n
                total = plus + minus
                if span > _TINY and total > _TINY:
                    dx = 100.0 * abs(plus - minus) / total
                    count += 1
                    average += (dx - average) / min(count, float(n))
                out[i] = average if count >= n else 0.0
        last_high, last_low, last_close = high[i], low[i], close[i]
        rows += 1
    state[:] = rows, last_high, last_low, last_close, plus, minus, span, count, average
    return out


@_jit
def clock_of(  # pragma: no cover  # compiled
    seconds: IntArray, offset: IntArray, later: int
) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Return the local minute of the day, and the weekday (Monday 0) `later` seconds later.

    `offset` is the zone's UTC offset in seconds for each hour from the first of `seconds` on: zones change on the hour.
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
