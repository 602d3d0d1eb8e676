"""Tables of bars with their origin, and those made from others: larger bars, one table from several files."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import (
    DAY_S,
    PRICE_COLUMNS,
    SPREAD,
    SPREAD_POINTS,
    Bars,
    check_bars,
    concat_bars,
    drop_repeats,
    make_bars,
    open_seconds,
    utc_index,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class BarTable:
    """Bars of one instrument and where they came from.

    Attributes
    ----------
    bars : with side, bar length and, if known, instrument
    source, clock : where the bars came from and the clock of the file, in words
    notes : for the reader: what was recognised, left out or is missing
    changes : for the reader first: what was changed or dropped
    kind : 'equity' or 'crypto' if the format proves it, else ''
    spread, spread_unit : the file's own full spread of each bar, shape (n,), in 'points' (price steps) or as
        'fraction' of price; None and '' without one
    """

    bars: Bars
    source: str
    clock: str
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    kind: str = ""
    spread: FloatArray | None = None
    spread_unit: str = ""

    def with_spread_column(self) -> Bars:
        """Return the bars with the column that `prices.bars.with_spread` takes, if there is a spread."""
        if self.spread is None:
            return self.bars
        name = SPREAD_POINTS if self.spread_unit == "points" else SPREAD
        return Bars(self.bars.assign(**{name: self.spread}))


def aggregate(table: BarTable, bar_seconds: int) -> BarTable:
    """Return larger bars: first open, largest high, smallest low, last close of the bars that exist.

    Bars start at multiples of `bar_seconds` since midnight UTC. A bar without source bars is left out.

    Raises
    ------
    DataError
        If `bar_seconds` is not a multiple of the source's bars, does not divide a day, or a source bar would
        lie in two larger bars.
    """
    own = table.bars.seconds
    if bar_seconds == own:
        return table
    where = f"{table.source}: bars of {bar_seconds / 60:g} minutes"
    if bar_seconds <= 0 or bar_seconds % own or DAY_S % bar_seconds:
        msg = (
            f"{where}: the length must divide one day and be a multiple of the source's {own / 60:g} minutes. "
            "Choose another --bar-minutes."
        )
        raise DataError(msg)
    seconds = open_seconds(table.bars)
    straddling = seconds % bar_seconds + own > bar_seconds
    if straddling.any():
        when = table.bars.index[int(np.argmax(straddling))].isoformat()
        msg = (
            f"{where}: {int(straddling.sum())} source bars lie across two of them, first {when}. "
            "Choose another --bar-minutes."
        )
        raise DataError(msg)
    starts, times = _groups(seconds, bar_seconds)
    o, h, lo, c = table.bars.loc[:, list(PRICE_COLUMNS)].to_numpy().T
    prices = _reduced(o, h, lo, c, starts)
    bars = make_bars(times, prices, where, table.bars.side, bar_seconds, table.bars.instrument)
    spread = None if table.spread is None else group_means(table.spread, starts)
    note = f"{table.source}: {len(seconds):,} bars of {own / 60:g} minutes made {len(bars):,}"
    return replace(table, bars=bars, notes=(*table.notes, note), spread=spread)


def group_means(values: FloatArray, starts: NDArray[np.intp]) -> FloatArray:
    """Return the mean of each group of consecutive values that begin at `starts`."""
    return np.asarray(np.add.reduceat(values, starts) / np.diff(np.append(starts, values.size)))


def bars_of_ticks(time_s: IntArray, price: FloatArray, bar_seconds: int, where: str) -> Bars:
    """Return bars of one side's ticks: first, highest, lowest and last price of each bar.

    Parameters
    ----------
    time_s : int array, shape (n,), Unix seconds UTC of the ticks, not decreasing
    price : float array, shape (n,), finite and above 0
    bar_seconds : length of a bar; bars without ticks are left out
    """
    bad = ~np.isfinite(price) | (price <= 0) | (np.diff(time_s, prepend=time_s[:1]) < 0)
    if bad.any() or price.size == 0:
        first = f", first at tick {int(np.argmax(bad))}" if bad.any() else ""
        msg = (
            f"{where}: ticks must be in time order with finite prices above 0. {int(bad.sum())} of {price.size} "
            f"are bad{first}."
        )
        raise DataError(msg)
    starts, times = _groups(time_s, bar_seconds)
    return make_bars(times, _reduced(price, price, price, price, starts), where)


def join(tables: list[BarTable], where: str) -> BarTable:
    """Return one table of several files of one instrument, in time order.

    A bar that several files share is kept once and counted in a note.

    Raises
    ------
    DataError
        If two bars of one open time differ, or the files differ in bar length, price side or instrument.
    """
    tables = sorted(tables, key=lambda t: t.bars.index[0])
    remedies = {
        "seconds": ("bar seconds", "set --bar-minutes"),
        "side": ("price side", "set --price-side"),
        "instrument": ("instrument", "pass the others separately"),
    }
    for name, (what, remedy) in remedies.items():
        values = sorted({getattr(t.bars, name) for t in tables})
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            msg = f"{where}: the files differ in {what}: {listed}. Keep one of them, or {remedy}."
            raise DataError(msg)
    first = tables[0]
    if len(tables) == 1:
        return first
    bars = concat_bars([t.bars for t in tables])
    order = np.argsort(open_seconds(bars), kind="stable")
    bars = bars.iloc[order]
    first_of = ~bars.index.duplicated(keep="first")
    bars, notes = drop_repeats(bars, where)
    check_bars(bars, where)
    spreads = [t.spread for t in tables if t.spread is not None]
    same = len(spreads) == len(tables) and len({t.spread_unit for t in tables}) == 1
    spread = np.concatenate(spreads)[order][first_of] if same else None
    clocks = ", ".join(sorted({t.clock for t in tables}))
    source = f"{first.source} and {len(tables) - 1} more"
    own = _grouped([note for t in tables for note in t.notes])
    return replace(
        first,
        bars=bars,
        source=source,
        clock=clocks,
        notes=(*own, *notes),
        changes=tuple(_grouped([note for t in tables for note in t.changes])),
        spread=spread,
    )


def _grouped(notes: list[str]) -> list[str]:
    """Return the first of each group of notes that differ only in file name and numbers, with their count."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        kinds.setdefault(re.sub(r"^[^ ]+: |[\d,]+", "", note), []).append(note)
    return [
        group[0] + (f" (and {len(group) - 1} more like this)" if group[1:] else "")
        for group in kinds.values()
    ]


def _groups(seconds: IntArray, bar_seconds: int) -> tuple[NDArray[np.intp], pd.DatetimeIndex]:
    """Return where each larger bar starts in the source, and its open time."""
    opened = seconds // bar_seconds * bar_seconds
    starts = np.flatnonzero(np.diff(opened, prepend=opened[0] - 1))
    return starts, utc_index(opened[starts])


def _reduced(
    o: FloatArray, h: FloatArray, lo: FloatArray, c: FloatArray, starts: NDArray[np.intp]
) -> FloatArray:
    ends = np.append(starts[1:], o.size) - 1
    return np.stack(
        [o[starts], np.maximum.reduceat(h, starts), np.minimum.reduceat(lo, starts), c[ends]], axis=1
    )
