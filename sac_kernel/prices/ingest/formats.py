"""Files of bars in many formats, read into one form: open_time_utc -> open, high, low, close.

`read_bars` reads one file of any format, `read_instrument` several files of one instrument, and `find_files`
lists a folder. The caller states the price side and the clock, or the file proves them. Every guess gives a
note; nothing is filled or sorted, and large bars stay.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.errors import DataError, InputNotFoundError
from sac_kernel.prices import clocks
from sac_kernel.prices.bars import (
    INDEX_NAME,
    PRICE_COLUMNS,
    PRICE_SIDES,
    Bars,
    check_bars,
    infer_bar_seconds,
    make_bars,
    open_seconds,
)
from sac_kernel.prices.ingest import binary, cleaning, text
from sac_kernel.prices.ingest.instrument_names import (
    guess_instrument,
    instrument_of_file,
    kind_of_symbol,
    points_scale,
    same_instrument,
)
from sac_kernel.prices.ingest.tables import BarTable, aggregate, bars_of_ticks, group_means, join

if TYPE_CHECKING:
    import pandas as pd

    from sac_kernel.prices.ingest.text import Raw

__all__ = [
    "INDEX_NAME",
    "PRICE_COLUMNS",
    "PRICE_SIDES",
    "BarTable",
    "check_bars",
    "find_files",
    "infer_bar_seconds",
    "read_bars",
    "read_instrument",
    "read_sample",
]

SUFFIXES = (".csv", ".txt", ".json", ".zip", ".parquet", ".feather", ".arrow", ".hst", ".bi5")
"""Endings of files of bars."""

UNREADABLE = (".xlsx", ".xlsm", ".xls", ".ods")
"""Endings of spreadsheets: refused with what to do."""
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # an old .xls
_TEXT = (".csv", ".txt")
_HEAD_BYTES = 1 << 22

_SAMPLE_PACKAGE, _SAMPLE_FILE = "gym-anytrading", "FOREX_EURUSD_1H_ASK.csv"
_TICK_BAR_SECONDS = 60
_SIDE_IN_NAME = re.compile(r"(?<![A-Z])(BID|ASK|MID)(?![A-Z])")


def read_sample(price_side: str | None = None, clock: str | None = None, instrument: str = "") -> BarTable:
    """Read the real sample that the installed package gym-anytrading ships.

    6,225 EURUSD bars of one hour in 2017: ask prices (the file's name), UTC, dates dd.mm.yyyy.

    Raises
    ------
    InputNotFoundError
        If the package is not installed.
    DataError
        If another instrument, price side or clock is given.
    """
    options = {"--instrument": instrument, "--price-side": price_side, "--clock": clock}
    for (option, value), own in zip(options.items(), ("EURUSD", "ask", "UTC"), strict=True):
        if value and value != own:
            msg = (
                f"{option} {value} does not fit the embedded sample, which holds EURUSD ask prices on UTC. "
                "Leave the option out, or pass your own bars with --data PATH."
            )
            raise DataError(msg)
    table = read_bars(_sample_path(), clock="UTC")
    return BarTable(Bars(table.bars, instrument="EURUSD"), f"sample of {_SAMPLE_PACKAGE}", "UTC")


@dataclass(frozen=True)
class Facts:
    """What a file says of itself; '' where it does not say it.

    Attributes
    ----------
    instrument, side, clock : as of `read_bars`
    kind : 'equity' or 'crypto' if the format proves it
    """

    instrument: str
    side: str
    clock: str
    kind: str


def peek(path: Path) -> Facts:
    """Return what a file says of itself, from its beginning if it is a large text."""
    where, head = str(path), None
    if path.suffix.lower() in _TEXT and path.is_file() and path.stat().st_size > _HEAD_BYTES:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        head = head[: head.rfind(b"\n") + 1]
    try:
        raw = _read_raw(path, where, head)
    except DataError:
        if head is None:
            raise
        raw = _read_raw(path, where, None)  # its beginning may not prove the order of day and month
    clock = "UTC" if raw.times.tz is not None else raw.clock
    sides = [side for side in raw.sides if side]
    instrument = raw.instrument or instrument_of_file(path.name)
    return Facts(
        instrument,
        sides[0] if sides else side_in_name(path) or "mid" * raw.trades,
        clock,
        raw.kind or kind_of_symbol(instrument),
    )


def read_bars(
    path: Path,
    price_side: str | None = None,
    clock: str | None = None,
    instrument: str = "",
    content: bytes | None = None,
    *,
    repair_rounding: bool = False,
) -> BarTable:
    """Read one file of bars or ticks; ticks become one-minute bars.

    Parameters
    ----------
    path : a file of one of the formats in docs/data.md
    price_side : 'bid', 'ask' or 'mid'; needed unless the format or the file's name states it. It also selects
        the side of a file with bid and ask (default bid)
    clock : 'UTC', an IANA zone, 'histdata' or 'mt-eet' (New York + 7 h); needed unless the file proves it
    instrument : the instrument that the file must hold; '' takes that of the file or its name ('' if unknown)
    content : complete lines of the file, with its first, to read instead of all of it
    repair_rounding : widen highs and lows that miss open or close by one price step; without it they are refused

    Raises
    ------
    InputNotFoundError, DataError
        With the file, the place in it and the value found.
    """
    where = str(path)
    if price_side is not None and price_side not in PRICE_SIDES:
        msg = f"{where}: the price side must be bid, ask or mid, got {price_side!r}. Correct --price-side."
        raise DataError(msg)
    if clock is not None:
        clocks.check_clock(clock, where)
    raw = _read_raw(path, where, content)
    own = raw.instrument or instrument_of_file(path.name)
    if instrument and own and not same_instrument(instrument, own):
        if raw.instrument or guess_instrument(path.name):
            msg = f"{where} holds bars of {own}, not {instrument}. Pass --instrument {own}."
            raise DataError(msg)
        own = instrument  # a word of the name that is like a ticker proves nothing
    _refuse_open_questions(raw, price_side, clock, path)
    side, side_notes = _side(raw, price_side, path)
    times, clock_name = _utc(raw, clock, where)
    raw = cleaning.in_time_order(replace(raw, times=times), where)
    if raw.ticks:
        bars, spread = _tick_bars(raw, side, where)
        notes = [f"{where}: {len(raw.times):,} ticks made {len(bars):,} one-minute bars"]
        seconds, unit = _TICK_BAR_SECONDS, "fraction"
    else:
        raw = cleaning.without_closed_hours(raw, where)
        raw = cleaning.without_repeats(raw, side, where)
        values, notes = _without_points(raw.sides[side], instrument or own, where)
        values, repaired = cleaning.repair_rounding(values, raw.times, where, repair=repair_rounding)
        raw = replace(raw, changes=(*repaired, *raw.changes))
        bars = make_bars(raw.times, values, where)
        seconds = _bar_seconds(raw, bars, where)
        spread, unit = _spread(raw)
    side = side or price_side or side_in_name(path) or "mid"
    notes = [f"{where}: {raw.layout}, clock {clock_name}, {side}", *raw.notes, *side_notes, *notes]
    bars = Bars(bars, side=side, seconds=seconds, instrument=instrument or own)
    notes, changes = ([n.replace(where, path.name) for n in texts] for texts in (notes, raw.changes))
    return BarTable(
        bars,
        path.name,
        clock_name,
        tuple(notes),
        tuple(changes),
        raw.kind or kind_of_symbol(own),
        spread,
        unit,
    )


def read_instrument(
    paths: list[Path],
    price_side: str | None,
    clock: str | None,
    instrument: str,
    bar_seconds: int = 0,
    *,
    repair_rounding: bool = False,
) -> BarTable:
    """Read files of one instrument, each made into bars of `bar_seconds` (0: as they are), and join them.

    With `instrument` '' the file or its name must state it.
    """
    tables = []
    for path in paths:
        if path.suffix == ".bi5" and path.stat().st_size == 0:
            continue  # an hour or day without prices
        table = read_bars(path, price_side, clock, instrument, repair_rounding=repair_rounding)
        tables.append(aggregate(table, bar_seconds) if 0 < bar_seconds <= 3600 else table)
    if not tables:
        msg = f"{paths[0].parent if paths else 'The source'} has no files with bars of {instrument}"
        raise DataError(msg)
    table = join(tables, instrument or str(paths[0]))
    if not table.bars.instrument:
        msg = f"{paths[0]}: neither the file nor its name states the instrument. Pass --instrument NAME."
        raise DataError(msg)
    return aggregate(table, bar_seconds) if bar_seconds else table


def find_files(folder: Path, *, nameless: bool = False) -> dict[str, list[Path]]:
    """Return instrument -> its files in a folder and below, by the names of files and folders.

    Parameters
    ----------
    folder : searched with all folders below it
    nameless : list files whose name tells no instrument under '' instead of refusing them

    Raises
    ------
    DataError
        If there are no files of bars, or the name of one does not give a single instrument.
    """
    files: dict[str, list[Path]] = {}
    wanted = (*SUFFIXES, *UNREADABLE)
    inner = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in wanted and p.is_file())
    for path in inner:
        parts = path.relative_to(folder).parts
        if path.suffix.lower() == ".txt" or any(part.startswith(".") for part in parts):
            continue  # HistData's gap reports, hidden files
        names = (guess_instrument(part) for part in reversed((folder / path.relative_to(folder)).parts))
        instrument = next(filter(None, names), "") or instrument_of_file(path.name)
        if not instrument and not nameless:
            msg = f"{path}: the file name must contain one instrument, as in EURUSD_M5.csv. Rename the file."
            raise DataError(msg)
        files.setdefault(instrument, []).append(path)
    if not files:
        msg = f"{folder} has no files of bars ({', '.join(SUFFIXES)})"
        raise DataError(msg)
    return dict(sorted(files.items()))


def side_in_name(path: Path) -> str:
    """Return the price side that a file's name states, '' if none or several.

    >>> side_in_name(Path("EURUSD_Hourly_Bid.csv")), side_in_name(Path("EURUSD.csv"))
    ('bid', '')
    """
    named = {word.lower() for word in _SIDE_IN_NAME.findall(path.name.upper())}
    return named.pop() if len(named) == 1 else ""


def _sample_path() -> Path:
    """Return the path of the sample; its content is not checked here."""
    try:
        listed = importlib.metadata.files(_SAMPLE_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        listed, fault = [], "is not installed"
    else:
        fault = f"has no {_SAMPLE_FILE}"
    paths = (Path(str(entry.locate())) for entry in listed if entry.name == _SAMPLE_FILE)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        msg = (
            f"The embedded sample needs the package {_SAMPLE_PACKAGE}, which {fault}. "
            "Run `pip install gym-anytrading`, or pass your own bars with --data."
        )
        raise InputNotFoundError(msg)
    return path


def _read_raw(path: Path, where: str, content: bytes | None) -> Raw:
    if not path.is_file():
        msg = f"There is no file {where}. Check the path."
        raise InputNotFoundError(msg)
    if path.stat().st_size > binary.MAX_BYTES:
        msg = f"{where} may have at most {binary.MAX_BYTES:,} bytes, got {path.stat().st_size:,}. Split it."
        raise DataError(msg)
    content, name = path.read_bytes() if content is None else content, path.name
    packed = content[:4] == b"PK\x03\x04" and path.suffix.lower() not in UNREADABLE
    if packed or path.suffix.lower() == ".zip":
        name, content = binary.unzip(content, where)
        where = f"{where}:{name}"
    suffix = Path(name).suffix.lower()
    if suffix in UNREADABLE or content[:8] == _OLE:
        msg = f"{where} is a spreadsheet, which is not read. Save its sheet as CSV and pass that file."
        raise DataError(msg)
    if suffix in (".feather", ".arrow") or content[:6] == b"ARROW1":
        return binary.read_feather(content, where)
    if suffix == ".bi5":
        return binary.read_bi5(content, path, where)
    if suffix == ".hst":
        return binary.read_hst(content, where)
    if suffix == ".parquet":
        return binary.read_parquet(content, where)
    if suffix == ".json":
        return text.read_oanda(content, where)
    return text.read_text(content, name, where)


def _refuse_open_questions(raw: Raw, price_side: str | None, clock: str | None, path: Path) -> None:
    """Raise one DataError that names both side and clock if the file and the caller leave them open."""
    asked = []
    if "" in raw.sides and not (price_side or side_in_name(path) or raw.trades):
        asked.append("its price side: pass --price-side with bid, ask or mid")
    if not (clock or raw.clock or raw.times.tz is not None):
        asked.append(
            "the clock of its times: pass --clock with UTC, an IANA zone, histdata or mt-eet (MetaTrader servers)"
        )
    if asked:
        msg = f"{path} does not state {'; nor '.join(asked)}."
        raise DataError(msg)


def _side(raw: Raw, price_side: str | None, path: Path) -> tuple[str, list[str]]:
    """Return the side whose prices are used, '' if the columns name none, and notes."""
    sides, where = raw.sides, str(path)
    if "" not in sides:
        if raw.ticks and price_side == "mid":
            return "mid", []
        if price_side is not None and price_side not in sides:
            msg = f"{where} holds {', '.join(sides)} prices ({raw.layout}), not {price_side}. Correct --price-side."
            raise DataError(msg)
        side = price_side or ("bid" if "bid" in sides else next(iter(sides)))
        return side, [f"{where}: {side} used, of {', '.join(sides)}"] if len(sides) > 1 else []
    named = side_in_name(path)
    if named and price_side not in (None, named):
        msg = f"{where} holds {named} prices by its name, not {price_side}. Correct --price-side."
        raise DataError(msg)
    if price_side:
        return "", []
    return "", [
        f"{where}: the name says {named} prices" if named else f"{where}: prices of trades count as mid"
    ]


def _utc(raw: Raw, clock: str | None, where: str) -> tuple[pd.DatetimeIndex, str]:
    """Return the rows' times in UTC and the clock they were on."""
    proven = "UTC" if raw.times.tz is not None else raw.clock
    if proven and clock not in (None, proven):
        msg = f"{where} ({raw.layout}) uses the clock {proven}, not {clock}. Leave --clock out."
        raise DataError(msg)
    named = proven or clock
    assert named
    return (raw.times if raw.times.tz is not None else clocks.to_utc(raw.times, named, where)), named


def _tick_bars(raw: Raw, side: str, where: str) -> tuple[Bars, text.FloatArray | None]:
    """Return one-minute bars of a side's ticks, and the mean spread of each as a fraction of price."""
    bid, ask = raw.sides["bid"], raw.sides["ask"]
    values = (bid + ask) / 2 if side == "mid" else raw.sides[side]
    seconds = raw.times.as_unit("s").asi8
    bars = bars_of_ticks(seconds, values, _TICK_BAR_SECONDS, where)
    minutes = seconds // _TICK_BAR_SECONDS
    starts = np.flatnonzero(np.diff(minutes, prepend=minutes[0] - 1))
    return bars, _sound(group_means((ask - bid) / values, starts))


def _spread(raw: Raw) -> tuple[text.FloatArray | None, str]:
    """Return the file's own spread of each bar and its unit; of bid and ask it is that at the open."""
    if (
        raw.spread_points is not None
        and np.isfinite(raw.spread_points).all()
        and (raw.spread_points >= 0).all()
    ):
        return raw.spread_points, "points"
    if {"bid", "ask"} <= {*raw.sides}:
        bid, ask = raw.sides["bid"][:, 0], raw.sides["ask"][:, 0]
        return (spread := _sound((ask - bid) / bid)), "fraction" if spread is not None else ""
    return None, ""


def _sound(spread: text.FloatArray) -> text.FloatArray | None:
    """Return spreads, or None if one of them cannot be charged."""
    return spread if ((spread >= 0) & (spread < 1)).all() else None


def _without_points(
    prices: text.FloatArray, instrument: str, where: str
) -> tuple[text.FloatArray, list[str]]:
    """Return prices in the quote currency, also if the file counts them in whole points; and notes."""
    if prices.size == 0 or not np.isfinite(prices).all():
        return prices, []
    whole = np.round(prices)
    if not np.allclose(prices, whole, rtol=0, atol=1e-6):
        return prices, []
    scale = points_scale(instrument, float(np.median(prices)))
    if scale == 1.0:
        return prices, []
    return whole / scale, [f"{where}: prices in points, divided by {scale:,.0f} ({instrument})"]


def _bar_seconds(raw: Raw, bars: pd.DataFrame, where: str) -> int:
    if not raw.bar_seconds:
        return infer_bar_seconds(bars, where)
    shortest = int(np.diff(open_seconds(bars)).min(initial=raw.bar_seconds))
    if shortest < raw.bar_seconds:
        msg = f"{where}: bars must be at least {raw.bar_seconds} s apart, got {shortest} s"
        raise DataError(msg)
    return raw.bar_seconds
