"""Bars in one form: a table with its price side, bar length and instrument, and the checks it must pass.

The optional column `spread` is the full spread as a fraction of price. `InstrumentSpec` says whether it is charged.

A bar exists only where there was a price. Nothing here fills, sorts or smooths bars, or drops large ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.clocks import unix_seconds
from sac_kernel.prices.instruments import EURUSD, InstrumentSpec, spec_or_default

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

PRICE_COLUMNS = ("open", "high", "low", "close")
SPREAD = "spread"
SPREAD_POINTS = "spread_points"
"""Columns: full spread as a fraction of price; as files have it, in price steps (`with_spread` converts it)."""
PRICE_SIDES = ("bid", "ask", "mid")
INDEX_NAME = "open_time_utc"
MAX_ROWS = 20_000_000
"""Most rows of one instrument; thirteen years of minutes are five million."""

_EARLIEST, _LATEST = pd.Timestamp("1971-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
DAY_S = 86_400
_SPLIT_RATIOS = (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 50, 1.5)
_SPLIT_TOLERANCE = 0.06  # in log price: the night's own move
_SATURDAY_NOON_S = 216_000  # 1970-01-03 12:00 UTC


class Bars(pd.DataFrame):
    """Bars of one instrument: a DataFrame that knows its price side, bar length, instrument and costs.

    Slices and copies keep the four attributes. New tables made by pandas (`pd.concat`, `resample`, arithmetic
    with arrays) may lose them: join parts with `concat_bars`.

    Parameters
    ----------
    data, *args, **kwargs : as of `pandas.DataFrame`: index `open_time_utc` (UTC), columns open, high, low, close
    side : 'bid', 'ask' or 'mid'; '' if unknown. None takes that of `data`, as for the next three
    seconds : length of a bar; 0 if unknown
    instrument : such as EURUSD; '' if unknown
    spec : costs and hours; None takes those of the instrument (`spec_for`)

    Raises
    ------
    DataError
        If the side is none of these, or the length is below 0.

    Examples
    --------
    >>> bars = Bars({"close": [1.1, 1.2]}, side="bid", seconds=300, instrument="EURUSD")
    >>> bars[bars["close"] > 1.1].side
    'bid'
    """

    _metadata: ClassVar[list[str]] = ["side", "seconds", "instrument", "spec"]

    side: str = ""
    seconds: int = 0
    instrument: str = ""
    spec: InstrumentSpec | None = None

    def __init__(
        self,
        data: Any = None,  # noqa: ANN401  # whatever pandas takes
        *args: Any,  # noqa: ANN401
        side: str | None = None,
        seconds: int | None = None,
        instrument: str | None = None,
        spec: InstrumentSpec | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(data, *args, **kwargs)  # type: ignore[call-arg]  # the stubs know __new__ alone
        own = data if isinstance(data, Bars) else Bars
        self.side = own.side if side is None else side
        self.seconds = own.seconds if seconds is None else int(seconds)
        self.instrument = own.instrument if instrument is None else instrument
        self.spec = own.spec if spec is None else spec
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


def spec_for(bars: pd.DataFrame) -> InstrumentSpec:
    """Return the costs and hours of bars: their own, else those of their instrument, else EURUSD's."""
    if not isinstance(bars, Bars):
        return EURUSD
    return bars.spec or (spec_or_default(bars.instrument) if bars.instrument else EURUSD)


def with_spread(bars: Bars, spec: InstrumentSpec) -> Bars:
    """Return bars whose column `spread_points`, in price steps, has become `spread`; others as they are."""
    if SPREAD_POINTS not in bars:
        return bars
    spread = bars[SPREAD_POINTS].to_numpy(np.float64) * spec.price_step / bars["close"].to_numpy(np.float64)
    return Bars(bars.drop(columns=SPREAD_POINTS).assign(**{SPREAD: spread}))


def check_plausible(bars: pd.DataFrame, spec: InstrumentSpec, where: str) -> None:
    """Raise DataError if the median price is outside the instrument's plausible range."""
    median, (low, high) = float(bars["close"].median()), spec.price_range
    if not low <= median <= high:
        msg = (
            f"{where}: a typical price is {median:g}, but {spec.symbol} ({spec.kind}) lies between {low:g} and "
            f"{high:g}. Pass the right name with --instrument, or --instrument-spec FILE.toml with a price_range."
        )
        raise DataError(msg)


def split_notes(bars: pd.DataFrame, spec: InstrumentSpec) -> list[str]:
    """Return a note for each bar of an equity that opens as after an unadjusted split, 4:1 or 1:4 for instance."""
    if spec.kind != "equity" or len(bars) < 2:
        return []
    jump = np.log(bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1])
    notes = []
    for i in np.flatnonzero(np.abs(jump) > math.log(1.5) - _SPLIT_TOLERANCE):
        ratio = min(_SPLIT_RATIOS, key=lambda r: abs(abs(jump[i]) - math.log(r)))
        if abs(abs(jump[i]) - math.log(ratio)) <= _SPLIT_TOLERANCE:
            named = f"{ratio:g}:1" if jump[i] < 0 else f"1:{ratio:g}"
            notes.append(
                f"{spec.symbol}: the open of {bars.index[i + 1]:%Y-%m-%d} is {math.exp(jump[i]):.3g} times the close "
                f"before, which looks like a {named} split that is not adjusted. Use adjusted prices."
            )
    return notes


def side_of(bars: pd.DataFrame, where: str, stated: str | None = None) -> str:
    """Return the price side of bars: their own, or `stated` if they have none.

    Raises
    ------
    DataError
        If there is neither, or the two differ.
    """
    own = bars.side if isinstance(bars, Bars) else ""
    if own and stated and own != stated:
        msg = (
            f"{where}: these are {own} bars, but price_side is {stated!r}. Leave price_side out, or correct the "
            f"bars with Bars(bars, side={stated!r})."
        )
        raise DataError(msg)
    return known_side(own or stated, where)


def known_side(side: str | None, where: str) -> str:
    """Return `side` if it is a price side; raise DataError otherwise."""
    if side in PRICE_SIDES:
        return str(side)
    msg = (
        f"{where}: the bars' price side must be bid, ask or mid, got {side or None!r}. Set "
        "TradingEnvConfig(price_side=...), or pass Bars(bars, side=...)."
    )
    raise DataError(msg)


def seconds_of(bars: pd.DataFrame, where: str) -> int:
    """Return the length of a bar in seconds: as the bars state it, else their most frequent spacing."""
    own = bars.seconds if isinstance(bars, Bars) else 0
    return own or infer_bar_seconds(bars, where)


def concat_bars(parts: Sequence[pd.DataFrame]) -> Bars:
    """Return parts of one instrument's bars as one table, in the order given.

    Raises
    ------
    DataError
        If they differ in side, bar length or instrument.
    """
    tables = [Bars(part) for part in parts]
    for name in ("side", "seconds", "instrument"):
        values = {getattr(table, name) for table in tables}
        if len(values) > 1:
            msg = f"concat_bars: {name} must be the same in all parts, got {', '.join(sorted(map(str, values)))}"
            raise DataError(msg)
    first = tables[0]
    specs = {table.spec for table in tables} - {
        None
    }  # new bars of a file have none: those before lend theirs
    if len(specs) > 1:
        msg = f"concat_bars: the parts of {first.instrument} have different costs or hours (`Bars.spec`)."
        raise DataError(msg)
    facts = {name: getattr(first, name) for name in ("side", "seconds", "instrument")}
    return Bars(pd.concat(parts), **facts, spec=next(iter(specs), None))


def make_bars(  # noqa: PLR0913
    times: pd.DatetimeIndex,
    prices: FloatArray,
    where: str,
    side: str = "",
    seconds: int = 0,
    instrument: str = "",
    spread: FloatArray | None = None,
) -> Bars:
    """Return checked bars of UTC open times (n,) and prices (n, 4) in the order open, high, low, close."""
    index = pd.DatetimeIndex(times, name=INDEX_NAME).as_unit("ns")
    frame = pd.DataFrame(prices, index=index, columns=list(PRICE_COLUMNS), dtype=np.float64)
    if spread is not None:
        frame[SPREAD] = np.asarray(spread, np.float64)
    bars = Bars(frame, side=side, seconds=seconds, instrument=instrument)
    check_bars(bars, where)
    return bars


def check_bars(bars: pd.DataFrame, where: str) -> None:
    """Raise DataError unless bars are sorted, unique, finite and positive, with low <= open, close <= high.

    Nothing is repaired. The message gives the number of bad bars and the first of them.
    """
    utc = isinstance(bars.index, pd.DatetimeIndex) and bars.index.tz is not None
    if not utc or not {*PRICE_COLUMNS} <= {*bars.columns}:
        columns = ", ".join(map(str, bars.columns[:8]))
        msg = (
            f"{where}: bars need an index of UTC open times and columns open, high, low, close, got "
            f"{bars.index.dtype} and {columns}"
        )
        raise DataError(msg)
    if len(bars) == 0:
        msg = f"{where}: the table of bars is empty"
        raise DataError(msg)
    times = open_seconds(bars)
    o, h, lo, c = (bars[name].to_numpy() for name in PRICE_COLUMNS)
    prices = bars.loc[:, list(PRICE_COLUMNS)].to_numpy()
    step = np.diff(times, prepend=times[0] - 1)
    faults = {
        "every bar must have an open time": np.asarray(bars.index.isna()),
        "prices must be finite": ~np.isfinite(prices).all(axis=1),
        "prices must be above 0": (prices <= 0).any(axis=1),
        "high must be >= low": h < lo,
        "high must be >= open and close": h < np.maximum(o, c),
        "low must be <= open and close": lo > np.minimum(o, c),
        "open times must be unique": step == 0,
        "open times must be increasing": step < 0,
        "open times must be whole seconds": np.asarray(bars.index.as_unit("ns").asi8 % 1_000_000_000 != 0),  # type: ignore[attr-defined]  # a DatetimeIndex
        "open times must be from 1971 to 2100": (bars.index < _EARLIEST) | (bars.index > _LATEST),
    }
    if SPREAD in bars:
        spread = bars[SPREAD].to_numpy(np.float64)
        faults["spread must be in [0, 1) of price"] = ~((spread >= 0) & (spread < 1))
    for rule, bad in faults.items():
        if bad.any():
            i = int(np.argmax(bad))
            values = ", ".join(f"{name} {prices[i, k]:g}" for k, name in enumerate(PRICE_COLUMNS))
            when = "no time" if bars.index[i] is pd.NaT else bars.index[i].isoformat()
            msg = (
                f"{where}: {rule}. {int(bad.sum())} of {len(bars)} bars are bad, first bar {i} ({when}: {values}). "
                "Correct the source."
            )
            raise DataError(msg)


def infer_bar_seconds(bars: pd.DataFrame, where: Path | str) -> int:
    """Return the most frequent spacing of open times [s]; raise DataError if there is a shorter one."""
    steps, counts = np.unique(np.diff(open_seconds(bars)), return_counts=True)
    steps, counts = steps[steps > 0], counts[steps > 0]
    if steps.size == 0:
        msg = f"{where}: at least two bars with increasing times are needed, got {len(bars)}"
        raise DataError(msg)
    usual = int(steps[np.argmax(counts)])
    # A day of a local clock may have 23 hours.
    if steps[0] < usual - (3600 if usual >= DAY_S else 0):
        msg = (
            f"{where}: the bars have several lengths. Most are {usual} s apart, some only {steps[0]} s. "
            "Resample the source to one bar length."
        )
        raise DataError(msg)
    return usual


def open_seconds(bars: pd.DataFrame) -> IntArray:
    """Return the open times in Unix seconds, shape (n,)."""
    return unix_seconds(pd.DatetimeIndex(bars.index))


def follows_gap(bars: pd.DataFrame, bar_seconds: int) -> NDArray[np.bool_]:
    """Return, shape (n,), which bars do not open when the one before them closes; False for the first bar."""
    seconds = open_seconds(bars)
    return np.diff(seconds, prepend=seconds[:1] - bar_seconds) > bar_seconds


def inspect_bars(bars: pd.DataFrame, bar_seconds: int) -> dict[str, Any]:
    """Return facts about the bars: gaps, flat bars, the largest move.

    `gaps` counts jumps of the open time beyond one bar, `weekend_gaps` those that contain a Saturday noon.
    `longest_gap_h` is the longest of all, `longest_weekday_gap_h` the longest without a Saturday noon (0 if none).
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
    """Return bars without repeats of the same bar, and a note with their count.

    Raises
    ------
    DataError
        If two bars of one open time differ.
    """
    repeated = bars.index.duplicated(keep="first")
    if not repeated.any():
        return bars, []
    identical = bars.assign(time=bars.index).duplicated(keep="first").to_numpy()
    contradictory = repeated & ~identical
    if contradictory.any():
        when = bars.index[int(np.argmax(contradictory))].isoformat()
        msg = (
            f"{where}: {int(contradictory.sum())} bars differ from an earlier bar with the same open time, first "
            f"{when}. Correct the source, or pass its clock with --clock."
        )
        raise DataError(msg)
    note = f"{where}: {int(repeated.sum())} repeated bars, identical to earlier ones, were left out"
    return bars[~repeated], [note]


def utc_index(seconds: IntArray) -> pd.DatetimeIndex:
    """Return Unix seconds as a UTC index of nanoseconds."""
    return pd.DatetimeIndex(seconds.astype("datetime64[s]"), tz="UTC", name=INDEX_NAME).as_unit("ns")
