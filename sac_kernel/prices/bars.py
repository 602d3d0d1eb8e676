"""Bars in one form: a table that says its side, length and instrument, and what makes it valid.

A bar exists because a price was seen in it. Nothing here fills, sorts, smooths or drops a bar for being large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.clocks import unix_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

PRICE_COLUMNS = ("open", "high", "low", "close")
PRICE_SIDES = ("bid", "ask", "mid")
INDEX_NAME = "open_time_utc"
MAX_ROWS = 20_000_000
"""Rows of one instrument: thirteen years of minutes are five million."""

_EARLIEST, _LATEST = pd.Timestamp("1971-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
DAY_S = 86_400
_SATURDAY_NOON_S = 216_000  # 1970-01-03 12:00 UTC


class Bars(pd.DataFrame):
    """Bars of one instrument: a DataFrame that says what its prices are.

    Slices and copies keep the three attributes. What pandas makes anew (`pd.concat`, `resample`, arithmetic with
    arrays) may have none of them and counts as bars that do not say it: join stretches with `concat_bars`.

    Parameters
    ----------
    data, *args, **kwargs : as of `pandas.DataFrame`: index `open_time_utc` (UTC), columns open, high, low, close
    side : 'bid', 'ask' or 'mid'; '' is not known. None takes what `data` says, as for the next two
    seconds : length of a bar; 0 is not known
    instrument : such as EURUSD; '' is not known

    Raises
    ------
    DataError
        For another side, or a length below 0.

    Examples
    --------
    >>> bars = Bars({"close": [1.1, 1.2]}, side="bid", seconds=300, instrument="EURUSD")
    >>> bars[bars["close"] > 1.1].side
    'bid'
    """

    _metadata: ClassVar[list[str]] = ["side", "seconds", "instrument"]

    side: str = ""
    seconds: int = 0
    instrument: str = ""

    def __init__(
        self,
        data: Any = None,  # noqa: ANN401  # whatever pandas takes
        *args: Any,  # noqa: ANN401
        side: str | None = None,
        seconds: int | None = None,
        instrument: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(data, *args, **kwargs)  # type: ignore[call-arg]  # the stubs know __new__ alone
        own = data if isinstance(data, Bars) else Bars
        self.side = own.side if side is None else side
        self.seconds = own.seconds if seconds is None else int(seconds)
        self.instrument = own.instrument if instrument is None else instrument
        if self.side not in ("", *PRICE_SIDES):
            msg = f"Bars: side must be bid, ask, mid or '', got {self.side!r}"
            raise DataError(msg)
        if self.seconds < 0:
            msg = f"Bars: seconds must be >= 0, got {self.seconds}"
            raise DataError(msg)

    @property
    def _constructor(self) -> type[Bars]:
        return Bars


BarsByInstrument = dict[str, pd.DataFrame]
"""Instrument -> its bars: `Bars`, or a DataFrame of the same columns where side and length do not matter."""


def side_of(bars: pd.DataFrame, where: str, stated: str | None = None) -> str:
    """Return the price side of bars: what they say, or what is stated of bars that say nothing.

    Raises
    ------
    DataError
        If neither tells it, or both do and differ.
    """
    own = bars.side if isinstance(bars, Bars) else ""
    if own and stated and own != stated:
        msg = (
            f"{where}: the bars say that their prices are {own}, but {stated} was stated; leave the statement out, "
            f"or correct the bars with Bars(bars, side={stated!r})"
        )
        raise DataError(msg)
    return known_side(own or stated, where)


def known_side(side: str | None, where: str) -> str:
    """Return a price side after checking that it is one; raise DataError if it is none."""
    if side in PRICE_SIDES:
        return str(side)
    msg = (
        f"{where}: the bars' price side (bid, ask or mid) is required, found {side or None!r}; set "
        "TradingEnvConfig(price_side=...), or give Bars(bars, side=...) as DataPipeline does"
    )
    raise DataError(msg)


def seconds_of(bars: pd.DataFrame, where: str) -> int:
    """Return the length of a bar in seconds: what the bars say, else their most frequent distance."""
    own = bars.seconds if isinstance(bars, Bars) else 0
    return own or infer_bar_seconds(bars, where)


def concat_bars(parts: Sequence[pd.DataFrame]) -> Bars:
    """Return stretches of one instrument's bars as one table, in the order given.

    Raises
    ------
    DataError
        If they differ in side, bar length or instrument.
    """
    told = [Bars(part) for part in parts]
    for name in ("side", "seconds", "instrument"):
        values = {getattr(part, name) for part in told}
        if len(values) > 1:
            msg = f"concat_bars: bars of one {name} are required, found {', '.join(sorted(map(str, values)))}"
            raise DataError(msg)
    first = told[0]
    return Bars(pd.concat(parts), side=first.side, seconds=first.seconds, instrument=first.instrument)


@dataclass(frozen=True)
class BarTable:
    """Bars of one instrument and where they came from.

    Attributes
    ----------
    bars : they say their side, bar length and, where it is known, instrument
    source, clock : where the bars came from and the clock of the file, in words
    notes : what a reader should know: what was recognised, left out or is missing
    """

    bars: Bars
    source: str
    clock: str
    notes: tuple[str, ...] = ()


def make_bars(
    times: pd.DatetimeIndex,
    prices: FloatArray,
    where: str,
    side: str = "",
    seconds: int = 0,
    instrument: str = "",
) -> Bars:
    """Return checked bars of UTC open times (n,) and prices (n, 4) in the order open, high, low, close."""
    index = pd.DatetimeIndex(times, name=INDEX_NAME).as_unit("ns")
    frame = pd.DataFrame(prices, index=index, columns=list(PRICE_COLUMNS), dtype=np.float64)
    bars = Bars(frame, side=side, seconds=seconds, instrument=instrument)
    check_bars(bars, where)
    return bars


def check_bars(bars: pd.DataFrame, where: str) -> None:
    """Raise DataError unless bars are usable: sorted, unique, finite, positive, low <= open, close <= high.

    Nothing is repaired; the message names the first offending bar and how many there are.
    """
    utc = isinstance(bars.index, pd.DatetimeIndex) and bars.index.tz is not None
    if not utc or not {*PRICE_COLUMNS} <= {*bars.columns}:
        found = f"{bars.index.dtype} and {', '.join(map(str, bars.columns[:8]))}"
        msg = f"{where}: an index of UTC open times and open, high, low, close are required, found {found}"
        raise DataError(msg)
    if len(bars) == 0:
        msg = f"{where}: bars are required, found an empty table"
        raise DataError(msg)
    times = open_seconds(bars)
    o, h, lo, c = (bars[name].to_numpy() for name in PRICE_COLUMNS)
    prices = bars.loc[:, list(PRICE_COLUMNS)].to_numpy()
    step = np.diff(times, prepend=times[0] - 1)
    faults = {
        "a time in every bar": np.asarray(bars.index.isna()),
        "finite prices": ~np.isfinite(prices).all(axis=1),
        "prices above 0": (prices <= 0).any(axis=1),
        "high >= low": h < lo,
        "high >= open and close": h < np.maximum(o, c),
        "low <= open and close": lo > np.minimum(o, c),
        "unique open times": step == 0,
        "increasing open times": step < 0,
        "open times of whole seconds": np.asarray(bars.index.as_unit("ns").asi8 % 1_000_000_000 != 0),  # type: ignore[attr-defined]  # a DatetimeIndex
        "open times from 1971 to 2100": (bars.index < _EARLIEST) | (bars.index > _LATEST),
    }
    for required, bad in faults.items():
        if bad.any():
            i = int(np.argmax(bad))
            values = ", ".join(f"{name} {prices[i, k]:g}" for k, name in enumerate(PRICE_COLUMNS))
            when = "no time" if bars.index[i] is pd.NaT else bars.index[i].isoformat()
            msg = (
                f"{where}: {required} required, found {int(bad.sum())} bad of {len(bars)} bars, first at bar "
                f"{i} ({when}: {values}); correct the source, nothing is repaired silently"
            )
            raise DataError(msg)


def infer_bar_seconds(bars: pd.DataFrame, where: Path | str) -> int:
    """Return the most frequent distance of open times; a shorter distance is an error."""
    steps, counts = np.unique(np.diff(open_seconds(bars)), return_counts=True)
    steps, counts = steps[steps > 0], counts[steps > 0]
    if steps.size == 0:
        msg = f"{where}: at least two bars with increasing times are required, found {len(bars)}"
        raise DataError(msg)
    usual = int(steps[np.argmax(counts)])
    # A day of a local clock may have 23 hours.
    if steps[0] < usual - (3600 if usual >= DAY_S else 0):
        msg = (
            f"{where}: bars of one length are required, found mostly {usual} s apart but also {steps[0]} s; "
            "resample the source to one bar size"
        )
        raise DataError(msg)
    return usual


def open_seconds(bars: pd.DataFrame) -> IntArray:
    """Return the open times in Unix seconds, shape (n,)."""
    return unix_seconds(pd.DatetimeIndex(bars.index))


def follows_gap(bars: pd.DataFrame, bar_seconds: int) -> NDArray[np.bool_]:
    """Return, shape (n,), where a bar does not open as the one before it closes; the first bar is not one."""
    seconds = open_seconds(bars)
    return np.diff(seconds, prepend=seconds[:1] - bar_seconds) > bar_seconds


def inspect_bars(bars: pd.DataFrame, bar_seconds: int) -> dict[str, Any]:
    """Return what a reader of the bars should know: gaps, flat bars, the largest move. Nothing is changed.

    `gaps` counts jumps of the open time beyond one bar; `weekend_gaps` those that contain a Saturday noon,
    `longest_gap_h` is the longest, `longest_weekday_gap_h` the longest of the others (0 if there is none).
    """
    seconds = open_seconds(bars)
    gap = follows_gap(bars, bar_seconds)[1:]
    jump_h = np.diff(seconds) / 3600
    weekend = gap & (np.diff((seconds - _SATURDAY_NOON_S) // (7 * DAY_S)) > 0)
    move = np.abs(np.diff(np.log(bars["close"].to_numpy())))
    largest = int(np.argmax(move)) + 1
    return {
        "bars": len(bars),
        "first_utc": bars.index[0].isoformat(),
        "last_utc": bars.index[-1].isoformat(),
        "gaps": int(gap.sum()),
        "weekend_gaps": int(weekend.sum()),
        "longest_gap_h": float(jump_h.max()),
        "longest_weekday_gap_h": float(jump_h[gap & ~weekend].max(initial=0.0)),
        "flat_bars": int((bars["high"] == bars["low"]).sum()),
        "largest_move_bps": float(move[largest - 1] * 1e4),
        "largest_move_utc": bars.index[largest].isoformat(),
    }


def drop_repeats(bars: Bars, where: str) -> tuple[Bars, list[str]]:
    """Return bars with repeated open times kept once, and a note with their count.

    Raises
    ------
    DataError
        If two bars of one open time differ.
    """
    repeated = bars.index.duplicated(keep="first")
    if not repeated.any():
        return bars, []
    alike = bars.assign(time=bars.index).duplicated(keep="first").to_numpy()
    contradictory = repeated & ~alike
    if contradictory.any():
        when = bars.index[int(np.argmax(contradictory))].isoformat()
        msg = (
            f"{where}: one bar for each open time is required, found {int(contradictory.sum())} that contradict "
            f"an earlier one, first {when}; correct the source, or give its clock with --clock"
        )
        raise DataError(msg)
    note = f"{where}: {int(repeated.sum())} repeated bars, identical to earlier ones, were left out"
    return bars[~repeated], [note]


def utc_index(seconds: IntArray) -> pd.DatetimeIndex:
    """Return Unix seconds as a UTC index of nanoseconds."""
    return pd.DatetimeIndex(seconds.astype("datetime64[s]"), tz="UTC", name=INDEX_NAME).as_unit("ns")
