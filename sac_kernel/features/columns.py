"""The columns of the features: of the traded instrument's path, the dollar, other instruments and the clock.

Horizons and names are in minutes, hours or days, never bars; a horizon shorter than the bar is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sac_kernel.features import indicators
from sac_kernel.features.indicators import LogPath, Memory, ewma_volatility, log_path
from sac_kernel.prices.bars import open_seconds
from sac_kernel.prices.clocks import unix_seconds, utc_offsets
from sac_kernel.prices.instruments import EURUSD, InstrumentSpec, minute_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    Columns: TypeAlias = Iterator[tuple[str, FloatArray]]
    Reader = Callable[[str], tuple[IntArray, FloatArray, FloatArray]]

LOG_FLOOR = 1e-9
RETURN_HORIZONS_MIN = {"5m": 5, "1h": 60, "4h": 240, "1d": 1440}
DOLLAR_WEIGHTS = {
    "EURUSD": -0.576, "USDJPY": 0.136, "GBPUSD": -0.119, "USDCAD": 0.091, "USDSEK": 0.042, "USDCHF": 0.036,
}  # fmt: skip
"""Exponents of the ICE US dollar index. The traded pair is left out: EURUSD is 57.6 % of the index, whose return
would nearly be minus EURUSD's. The other weights are renormalised to the members present."""

MIN_DOLLAR_MEMBERS = 3
CROSSES = ("EURGBP", "EURJPY", "USDJPY", "USDCHF", "USDCAD", "USDSEK")
RISKS = ("SPXUSD", "XAUUSD")
INSTRUMENTS = tuple(dict.fromkeys((*DOLLAR_WEIGHTS, *CROSSES, *RISKS)))
"""The ten instruments that give features."""

_MINUTES_PER_DAY = 1440
_PAUSE_SHARE = 0.02  # an instrument that lacks more of the train rows than this has an age
_HOUR_S = 3600
_HOUR, _WEEK = (
    (np.sin(angle), np.cos(angle))
    for angle in (
        2 * np.pi * np.arange(_MINUTES_PER_DAY) / _MINUTES_PER_DAY,
        2 * np.pi * np.minimum(np.arange(7), 4) / 5,
    )
)
_SEVEN_DAYS = np.sin(2 * np.pi * np.arange(7) / 7), np.cos(2 * np.pi * np.arange(7) / 7)
_SESSIONS = {  # local trading hours, in minutes of the local day
    "tokyo_open": ("Asia/Tokyo", 9 * 60, 18 * 60),
    "london_open": ("Europe/London", 8 * 60, 16 * 60 + 30),
    "new_york_open": ("America/New_York", 8 * 60, 17 * 60),
}


@dataclass(frozen=True)
class Panel:
    """Which other instruments give features.

    Attributes
    ----------
    instruments : used beside the traded one
    dollar_members : pairs of the dollar index: none, or at least `MIN_DOLLAR_MEMBERS`
    with_age : those that pause while the traded one trades; each has an age feature
    """

    instruments: tuple[str, ...] = ()
    dollar_members: tuple[str, ...] = ()
    with_age: tuple[str, ...] = ()

    @classmethod
    def choose(cls, coverage: Mapping[str, float], traded: str) -> Panel:
        """Return the panel, given each instrument's share of the traded one's train rows."""
        others = [name for name in INSTRUMENTS if name in coverage and name != traded]
        members = tuple(name for name in DOLLAR_WEIGHTS if name in others)
        members = members if len(members) >= MIN_DOLLAR_MEMBERS else ()
        used = tuple(name for name in others if name in (*members, *CROSSES, *RISKS))
        paused = tuple(name for name in used if coverage[name] < 1.0 - _PAUSE_SHARE)
        return cls(used, members, paused)

    def dollar_weights(self) -> dict[str, float]:
        """Return the weight of each member; their absolute values add up to one."""
        total = sum(abs(DOLLAR_WEIGHTS[name]) for name in self.dollar_members)
        return {name: DOLLAR_WEIGHTS[name] / total for name in self.dollar_members}


def columns(  # noqa: PLR0913
    bars: pd.DataFrame,
    bar_seconds: int,
    instrument: str,
    panel: Panel,
    read: Reader,
    memory: Memory,
    spec: InstrumentSpec,
) -> Columns:
    """Yield name and values of each feature in order, one at a time to bound memory."""
    path = log_path(bars, bar_seconds, memory)
    for name, values in direct_features(path, bar_seconds, memory):
        yield f"{instrument.lower()}_{name}", values
    close = path.close
    del path
    at = open_seconds(bars)
    paths: dict[str, FloatArray] = {}
    ages: dict[str, IntArray] = {}
    for name in panel.instruments:
        paths[name], age = indicators.carried_path(*read(name), bar_seconds, at, memory)
        if name in panel.with_age:
            ages[name] = age
    if panel.dollar_members:
        index = sum(weight * paths[name] for name, weight in panel.dollar_weights().items())
        yield from dollar_features(index, close, bar_seconds, memory)  # type: ignore[arg-type]  # an array
    hour, hours4, day = (_bars_in(minutes, bar_seconds) for minutes in (60, 240, 1440))
    for name in CROSSES:
        if name in paths:
            residual = indicators.scaled_residual(close, paths[name], hour, day, memory)
            yield f"{name.lower()}_residual_1h", residual
    for name in RISKS:
        if name in paths:
            sigma = ewma_volatility(indicators.steps(paths[name], memory), day, memory)
            yield f"{name.lower()}_return_4h", indicators.scaled_change(paths[name], sigma, hours4, memory)
    yield from time_features(bars.index, bar_seconds, spec).items()  # type: ignore[arg-type]  # a DatetimeIndex
    for name, age in ages.items():
        yield f"{name.lower()}_age", np.log1p(age / _HOUR_S)


def direct_features(path: LogPath, bar_seconds: int, memory: Memory | None = None) -> Columns:
    """Yield up to ten dimensionless features of the traded instrument's log path, shape (n,) each.

    sigma is the EWMA volatility of one-bar returns with a half-life of one day.
    """
    hour, hours4, day = (_bars_in(minutes, bar_seconds) for minutes in (60, 240, 1440))
    sigma = ewma_volatility(path.bar_return, day, memory)
    for name, minutes in RETURN_HORIZONS_MIN.items():
        if minutes * 60 >= bar_seconds:
            n = _bars_in(minutes, bar_seconds)
            yield f"return_{name}", indicators.scaled_change(path.close, sigma, n, memory)
    yield "rsi_4h", indicators.rsi(path.close, hours4, memory) / 50.0 - 1.0
    yield "macd_4h", indicators.macd_histogram(path.close, hours4, memory) / (sigma * np.sqrt(hours4))
    short, long = (indicators.atr(path, n, memory) for n in (hours4, day))
    yield "atr_ratio_4h_1d", np.log((short + LOG_FLOOR) / (long + LOG_FLOOR))
    parkinson = indicators.parkinson_volatility(path, hour, memory)
    yield "parkinson_1h", np.log((parkinson + LOG_FLOOR) / (sigma + LOG_FLOOR))
    yield "bollinger_4h", indicators.bollinger_position(path.close, hours4, memory)
    yield "adx_4h", indicators.adx(path, hours4, memory) / 50.0 - 1.0


def dollar_features(
    index: FloatArray, close: FloatArray, bar_seconds: int, memory: Memory | None = None
) -> Columns:
    """Yield five features of the log dollar index without the traded pair, whose log path is `close`.

    `dollar_residual_1h` is the dollar's move beyond its usual share in the traded pair's move: a lead.
    """
    hour, hours4, day = (_bars_in(minutes, bar_seconds) for minutes in (60, 240, 1440))
    step = indicators.steps(index, memory)
    short, sigma = (ewma_volatility(step, n, memory) for n in (hours4, day))
    yield "dollar_return_1h", indicators.scaled_change(index, sigma, hour, memory)
    yield "dollar_return_1d", indicators.scaled_change(index, sigma, day, memory)
    yield "dollar_rsi_4h", indicators.rsi(index, hours4, memory) / 50.0 - 1.0
    yield "dollar_volatility_ratio_4h_1d", np.log(short / sigma)
    yield "dollar_residual_1h", indicators.scaled_residual(close, index, hour, day, memory)


def time_features(
    open_time: pd.DatetimeIndex, bar_seconds: int, spec: InstrumentSpec = EURUSD
) -> dict[str, FloatArray]:
    """Return features of the time of decision (the bar's close), on local clocks with DST.

    Hour and weekday are of the instrument's zone and trading days: New York's for FX, whose week runs from Sunday
    17:00 to Friday 17:00; seven days where it is always open. Sessions are 1 while open, else 0, and 0 at weekends;
    an exchange has the share of its own session that has passed instead.
    """
    closed = unix_seconds(open_time) + bar_seconds
    # For FX seven hours make 17:00 midnight; one second less keeps Friday 17:00 on Friday.
    later = -spec.day_start_min % _MINUTES_PER_DAY * 60 - 1
    minute, trading_day = indicators.clock_of(closed, utc_offsets(closed, spec.zone), later)
    week = _SEVEN_DAYS if spec.calendar == "always" else _WEEK
    features = {
        "hour_sin": _HOUR[0][minute],
        "hour_cos": _HOUR[1][minute],
        "weekday_sin": week[0][trading_day],
        "weekday_cos": week[1][trading_day],
    }
    if spec.session:
        opens, closes = (minute_of(text, spec.symbol) for text in spec.session)
        passed = (minute.astype(np.float64) - opens) / (closes - opens)
        return {**features, "session_passed": np.clip(passed, 0.0, 1.0)}
    for name, (zone, start, end) in _SESSIONS.items():
        minute, weekday = indicators.clock_of(closed, utc_offsets(closed, zone), 0)
        is_open = (minute >= start) & (minute < end) & (weekday < 5)
        features[name] = is_open.astype(np.float64)
    return features


def _bars_in(minutes: int, bar_seconds: int) -> int:
    return max(1, round(minutes * 60 / bar_seconds))
