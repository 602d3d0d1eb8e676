"""Readers of bars in text files: columns, dates, clock and price side as the lines prove them.

`read_text` returns a file's rows on the file's own clock; `formats` decides clock and side. Layouts with a
header are recognised by their column names, others by their first line.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.exceptions import ComplexWarning

from sac_kernel.core.errors import DataError
from sac_kernel.prices import clocks
from sac_kernel.prices.bars import MAX_ROWS, PRICE_COLUMNS, PRICE_SIDES
from sac_kernel.prices.ingest.instrument_names import guess_instrument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

TIME_COLUMN_NAMES = (
    "open_time_utc", "time", "timestamp", "datetime", "date", "gmt time", "local time", "open time", "open_time",
    "date_time", "index", "",
)  # fmt: skip
"""Column names of a bar's open time, lower case; the first that exists is used; '' is an unnamed column."""

_UTC_NAMES = ("open_time_utc", "gmt time")
_ISO = re.compile(r"\d{4}[-./]?\d\d[-./]?\d\d")
_DAY_MONTH = re.compile(r"(\d{1,2})([-./])(\d{1,2})\2\d{4}(?:[ T](\d{1,2}:\d\d(?::\d\d(\.\d+)?)?))?")
_HISTDATA_ASCII = re.compile(r"\d{8} \d{6};")
_HISTDATA_TICKS = re.compile(r"\d{8} \d{9},[^,]+,[^,]+,[^,]+$")
_METATRADER = re.compile(r"\d{4}\.\d\d\.\d\d,\d\d:\d\d(:\d\d)?,")
_LEAN_BARS = re.compile(r"(\d{8} \d\d:\d\d|\d{1,8})(,[^,]*){10}$")
_TABLE_WARNINGS = (pd.errors.ParserWarning, pd.errors.DtypeWarning)
"""Rows longer than the header, columns of mixed types: pandas warns, but the file is rejected."""

_EPOCH_UNITS = ("s", "ms", "us", "ns")
_EPOCH_RANGE_S = (31_536_000, 4_102_444_800)  # 1971 to 2100; the ranges of the four units do not meet


@dataclass(frozen=True)
class Raw:
    """Rows of a file as they are.

    Attributes
    ----------
    times : open times, UTC if aware, else on the file's own clock; shape (n,)
    sides : price side ('' if unknown) -> prices, shape (n, 4), or (n,) if `ticks`
    layout : the format, in words
    clock : the clock that the file proves, '' if none; unused for UTC times
    instrument, bar_seconds : as the file states them, '' and 0 if it does not
    notes : what was recognised or left out
    """

    times: pd.DatetimeIndex
    sides: dict[str, FloatArray]
    layout: str
    clock: str = ""
    instrument: str = ""
    bar_seconds: int = 0
    ticks: bool = False
    notes: tuple[str, ...] = field(default=())


def read_text(content: bytes, name: str, where: str) -> Raw:
    """Return the rows of a text file of bars or ticks.

    Parameters
    ----------
    content : the file's bytes: UTF-8, or UTF-16 with a byte order mark
    name : the file's name; in some layouts it gives the date or the provider
    where : the path, for messages
    """
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as err:
        msg = f"{where} is not a text table in UTF-8 or UTF-16: {str(err)[:200]}"
        raise DataError(msg) from err
    # pandas' C parser hangs on a lone carriage return before a blank
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = next((line.strip() for line in StringIO(text) if line.strip()), "")
    if _HISTDATA_ASCII.match(first):
        return _histdata_ascii(text, name, where)
    if _HISTDATA_TICKS.match(first):
        return _histdata_ticks(text, where)
    if _METATRADER.match(first):
        return _metatrader(text, name, where)
    if _LEAN_BARS.match(first):
        return _lean(text, first, name, where)
    return from_table(_table(text, first, where), where)


def read_oanda(content: bytes, where: str) -> Raw:
    """Return the complete candles of an OANDA v20 answer: RFC 3339 or Unix times in UTC, bid, mid, ask."""
    try:
        answer = json.loads(content)
        candles = answer["candles"]
        complete = [c for c in candles if c.get("complete", True)]
        sides = {
            side: np.array([[float(c[side][k]) for k in "ohlc"] for c in complete], dtype=np.float64).reshape(
                -1, 4
            )
            for side in PRICE_SIDES
            if complete and side in complete[0]
        }
        labels = pd.Series([str(c["time"]) for c in complete], dtype=object)
        instrument = guess_instrument(str(answer.get("instrument", "")))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as err:
        msg = f"{where} is not an OANDA v20 answer with candles: {type(err).__name__} {str(err)[:150]}"
        raise DataError(msg) from err
    if not sides:
        msg = f"{where}: none of {len(candles)} candles is complete with bid, mid or ask prices"
        raise DataError(msg)
    times, _ = parse_times(labels, "time", where)
    left_out = len(candles) - len(complete)
    notes = (f"{where}: {left_out} incomplete candles were left out",) if left_out else ()
    return Raw(times, sides, "OANDA v20", "UTC", instrument, notes=notes)


def exact_numbers() -> dict[str, Any]:
    """Return options that make `pandas.read_csv` read numbers exactly as Python's `float` does.

    Without them pandas below 3.1 is off by one unit in the last place for three doubles in ten. From 3.1 its
    only parser is exact, and the option is deprecated.
    """
    major, minor = (int(part) for part in pd.__version__.split(".")[:2])
    return {"float_precision": "round_trip"} if (major, minor) < (3, 1) else {}


def from_table(table: pd.DataFrame, where: str) -> Raw:
    """Return the rows of a table with named columns (text or Parquet): a time column and four prices.

    Columns are found by name, in any case and order; `layout` names those used.
    """
    columns = [str(c).strip().strip("<>").strip().lower() for c in table.columns]
    table = table.set_axis(columns, axis=1)
    repeated = sorted({c for c in columns if columns.count(c) > 1})
    if repeated:
        msg = f"{where}: column names must be unique, got {', '.join(repeated)} more than once"
        raise DataError(msg)
    if "symbol" in columns and len(set(table["symbol"])) > 1:
        symbols = ", ".join(map(str, table["symbol"].unique()[:8]))
        msg = f"{where} may hold one instrument, got {symbols} in column symbol. Split the file."
        raise DataError(msg)
    if {"date", "time"} <= {*columns}:
        time_column, labels = "date and time", table["date"].astype(str) + " " + table["time"].astype(str)
    else:
        named = [c for c in TIME_COLUMN_NAMES if c in columns]
        if not named:
            listed = ", ".join(c for c in TIME_COLUMN_NAMES if c)
            msg = f"{where} has no time column ({listed}); its columns are {', '.join(columns[:8])}"
            raise DataError(msg)
        time_column, labels = named[0], table[named[0]]
    sides, price_names = _price_columns(table, where)
    times, style = parse_times(labels, time_column, where)
    notes: list[str] = []
    metatrader = {"tick_volume", "spread", "real_volume"} <= {*columns} or {"tickvol", "vol", "spread"} <= {
        *columns
    }
    if metatrader and "" in sides:
        sides = {"bid": sides[""]}  # MetaTrader's charts show the bid
    clock = "UTC" if time_column in _UTC_NAMES else ""
    if style == "day first" and "volume" in columns and len(sides) == 1:
        times, sides, notes = _without_closed_hours(times, sides, table["volume"], notes, where)
    layout = "MetaTrader 5" if metatrader else "table"
    layout += f", times from {time_column or 'the first column'}, prices from {price_names}"
    return Raw(times, sides, layout, clock, notes=tuple(notes))


def parse_times(labels: pd.Series, column: str, where: str) -> tuple[pd.DatetimeIndex, str]:
    """Return times (UTC if the labels carry offsets, else naive) and their style.

    Accepted are ISO 8601, also with dots, Unix time in s, ms, us or ns, and day/month/year in an order that a
    number above 12 in the file proves.
    """
    if isinstance(labels.dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(labels).tz_convert("UTC"), "typed"
    if labels.dtype.kind == "M":
        return pd.DatetimeIndex(labels), "typed"
    if labels.dtype.kind in "iuf":
        return _epoch_times(labels.to_numpy(), column, where), "unix"
    text = labels.astype(str).str.strip()
    empty = labels.isna() | (text == "") | text.isin(("nan", "None", "NaN", "NaT"))
    if empty.any() or len(text) == 0:
        line = int(np.argmax(empty)) + 2
        msg = f"{where}: line {line} has no time"
        raise DataError(msg)
    first = str(text.iloc[0])
    if re.fullmatch(r"\d{9,19}(\.\d+)?", first):
        numbers = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
        return _epoch_times(numbers, column, where), "unix"
    if _DAY_MONTH.match(first):
        return _day_month_times(text, first, column, where), "day first"
    return _iso_times(text, column, where), "iso"


def _iso_times(text: pd.Series, column: str, where: str) -> pd.DatetimeIndex:
    if re.match(r"\d{4}[./]", str(text.iloc[0])):
        text = text.str.replace(r"^(\d{4})[./](\d\d)[./](\d\d)", r"\1-\2-\3", regex=True)
    if not _ISO.match(str(text.iloc[0])):
        msg = f"{where}: times in column {column!r} must be ISO 8601 (2017-01-02T10:00:00Z), got {text.iloc[0]!r}"
        raise DataError(msg)
    try:
        with warnings.catch_warnings():  # pandas below 3 warns of several offsets; they are refused below
            warnings.filterwarnings("ignore", ".*mixed time zones", FutureWarning)
            times = pd.to_datetime(text, format="ISO8601")
    except (ValueError, TypeError, OverflowError) as err:
        msg = (
            f"{where}: times in column {column!r} must be ISO 8601 (2017-01-02T10:00:00Z): {_first_line(err)}"
        )
        raise DataError(msg) from err
    if isinstance(times.dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(times).tz_convert("UTC")
    if times.dtype.kind != "M":
        msg = f"{where}: times in column {column!r} must have one UTC offset, got several"
        raise DataError(msg)
    return pd.DatetimeIndex(times)


def _day_month_times(text: pd.Series, first: str, column: str, where: str) -> pd.DatetimeIndex:
    """Parse day/month/year or month/day/year; a number above 12 must show which."""
    parts = text.str.extract(r"^(\d{1,2})[-./](\d{1,2})[-./]\d{4}")
    numbers = parts.apply(pd.to_numeric, errors="coerce").max()
    day_first, month_first = numbers[0] > 12, numbers[1] > 12
    if day_first == month_first:
        reason = "both of them exceed 12" if day_first else "neither ever exceeds 12"
        msg = (
            f"{where}: the order of day and month in column {column!r} is unclear, because {reason} (first date "
            f"{first!r}). Write dates as 2017-01-31."
        )
        raise DataError(msg)
    match = _DAY_MONTH.match(first)
    assert match is not None
    sep, clock, fraction = match.group(2), match.group(4), match.group(5)
    form = sep.join(("%d", "%m", "%Y") if day_first else ("%m", "%d", "%Y"))
    if clock:
        form += (
            first[match.start(4) - 1]
            + "%H:%M"
            + (":%S" if clock.count(":") > 1 else "")
            + (".%f" if fraction else "")
        )
    if "GMT" in first:
        text, form = text.str.replace(" GMT", "", regex=False), form + "%z"
    try:
        times = pd.to_datetime(text, format=form, utc="GMT" in first)
    except (ValueError, TypeError, OverflowError) as err:
        msg = f"{where}: times in column {column!r} must all be like {first!r}: {_first_line(err)}"
        raise DataError(msg) from err
    return pd.DatetimeIndex(times)


def _epoch_times(values: NDArray[Any], column: str, where: str) -> pd.DatetimeIndex:
    """Return naive times from Unix times, in the unit that puts them from 1971 to 2100."""
    numbers = values.astype(np.float64)
    low, high = _EPOCH_RANGE_S
    for power, unit in enumerate(_EPOCH_UNITS):
        scale = 1000.0**power
        if numbers.size and (numbers >= low * scale).all() and (numbers <= high * scale).all():
            exact = (
                values.astype(np.int64) if values.dtype.kind in "iu" else np.round(numbers).astype(np.int64)
            )
            return pd.DatetimeIndex(exact.astype(f"datetime64[{unit}]")).as_unit("ns")
    span = f"{values[0]}..{values[-1]}" if values.size else "none"
    msg = (
        f"{where}: times in column {column!r} must be ISO 8601, or Unix times of one unit from 1971 to 2100, got "
        f"{span}"
    )
    raise DataError(msg)


def _price_columns(table: pd.DataFrame, where: str) -> tuple[dict[str, FloatArray], str]:
    """Return side -> prices, and the columns used: open, high, low, close, or those with a side before them."""
    columns: dict[str, list[str]] = {}
    for side in ("", *PRICE_SIDES):
        for joint in ("", "_", ".", " "):
            names = [f"{side}{joint}{k}" if side else k for k in PRICE_COLUMNS]
            if {*names} <= {*table.columns}:
                columns[side] = names
    if "" in columns:
        columns = {"": columns[""]}
    if not columns:
        missing = [k for k in PRICE_COLUMNS if k not in table.columns]
        msg = (
            f"{where} needs columns open, high, low, close, with {', '.join(missing)} missing; its columns are "
            f"{', '.join(map(str, table.columns[:8]))}"
        )
        raise DataError(msg)
    sides = {side: _numbers(table[names], where) for side, names in columns.items()}
    return sides, "; ".join(", ".join(names) for names in columns.values())


def _numbers(frame: pd.DataFrame, where: str) -> FloatArray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ComplexWarning)  # complex numbers would lose a part
            return frame.astype(np.float64).to_numpy()
    except (ValueError, TypeError, OverflowError, ComplexWarning) as err:
        msg = f"{where}: open, high, low, close must be numbers: {_first_line(err)}"
        raise DataError(msg) from err


def _without_closed_hours(
    times: pd.DatetimeIndex, sides: dict[str, FloatArray], volume: pd.Series, notes: list[str], where: str
) -> tuple[pd.DatetimeIndex, dict[str, FloatArray], list[str]]:
    """Remove the flat rows of volume 0 with which Dukascopy fills closed hours."""
    ((side, prices),) = sides.items()
    closed = (volume.to_numpy() == 0) & (prices == prices[:, :1]).all(axis=1)
    if not closed.any() or closed.all():
        return times, sides, notes
    note = f"{where}: {int(closed.sum())} flat rows of volume 0 (the market was closed) were left out"
    return times[~closed], {side: prices[~closed]}, [*notes, note]


def _histdata_ascii(text: str, name: str, where: str) -> Raw:
    """Read the Generic ASCII layout; HistData's volume is always 0, that of others is not."""
    table = _rows(text, ";", ["time", *PRICE_COLUMNS, "volume"], where)
    times = _formatted(table["time"], "%Y%m%d %H%M%S", where)
    prices = _numbers(table[list(PRICE_COLUMNS)], where)
    if _is_histdata(name) or (table["volume"] == 0).all():
        return Raw(times, {"bid": prices}, "HistData ASCII", clocks.HISTDATA, bar_seconds=60)
    return Raw(times, {"": prices}, "Generic ASCII")


def _histdata_ticks(text: str, where: str) -> Raw:
    table = _rows(text, ",", ["time", "bid", "ask", "volume"], where)
    times = _formatted(table["time"] + "000", "%Y%m%d %H%M%S%f", where)
    prices = _numbers(table[["bid", "ask"]], where)
    sides = {"bid": prices[:, 0], "ask": prices[:, 1]}
    return Raw(times, sides, "HistData ticks", clocks.HISTDATA, ticks=True)


def _metatrader(text: str, name: str, where: str) -> Raw:
    """Read MetaTrader's history CSV; only its name distinguishes HistData's minute bars from a broker's."""
    table = _rows(text, ",", ["date", "clock", *PRICE_COLUMNS, "volume"], where)
    labels = table["date"] + " " + table["clock"].str.slice(0, 5)
    times = _formatted(labels, "%Y.%m.%d %H:%M", where)
    prices = _numbers(table[list(PRICE_COLUMNS)], where)
    histdata = _is_histdata(name)
    layout, clock = ("HistData MetaTrader", clocks.HISTDATA) if histdata else ("MetaTrader 4 CSV", "")
    return Raw(times, {"bid": prices}, layout, clock, bar_seconds=60 if histdata else 0)


def _is_histdata(name: str) -> bool:
    return name.upper().startswith(("DAT_ASCII_", "DAT_MT_", "HISTDATA_COM_"))


def _lean(text: str, first: str, name: str, where: str) -> Raw:
    """Read QuantConnect Lean's quote bars: bid OHLC and size, ask OHLC and size, UTC."""
    names = [f"{side}_{k}" for side in ("bid", "ask") for k in (*PRICE_COLUMNS, "size")]
    table = _rows(text, ",", ["time", *names], where)
    if " " in first.split(",")[0]:
        times = _formatted(table["time"], "%Y%m%d %H:%M", where)
    else:
        date = re.match(r"(\d{8})_", name)
        if date is None:
            msg = f"{where}: the file name must start with its date (20180403_eurusd_...), got {name}"
            raise DataError(msg)
        ms = pd.to_numeric(table["time"], errors="coerce").to_numpy(np.float64)
        if not ((ms >= 0) & (ms < 86_400_000)).all():
            msg = f"{where}: every time must be milliseconds since midnight, from 0 to 86,400,000"
            raise DataError(msg)
        midnight = _formatted(pd.Series([date.group(1)]), "%Y%m%d", where)[0]
        times = midnight + pd.to_timedelta(ms, unit="ms")
    sides = {side: _numbers(table[[f"{side}_{k}" for k in PRICE_COLUMNS]], where) for side in ("bid", "ask")}
    return Raw(times, sides, "Lean", "UTC", instrument=guess_instrument(name))


def _formatted(labels: pd.Series, form: str, where: str) -> pd.DatetimeIndex:
    try:
        return pd.DatetimeIndex(pd.to_datetime(labels, format=form))
    except (ValueError, TypeError, OverflowError) as err:
        msg = f"{where}: every time must have the form {form}: {_first_line(err)}"
        raise DataError(msg) from err


def _table(text: str, first: str, where: str) -> pd.DataFrame:
    """Return the columns of a table with a header, its times as text."""
    separator = max(",;\t", key=first.count)
    header = [c.strip().strip('"') for c in first.split(separator)]
    if len(header) < 2 or not re.search("[A-Za-z]", first):
        msg = f"{where} must be a comma-separated table with a header, got: {first[:80] or 'no columns'}"
        raise DataError(msg)
    lowered = [c.strip("<>").strip().lower() for c in header]
    if len({*lowered}) < len(lowered):
        msg = f"{where}: column names must be unique, got {first[:80]}"
        raise DataError(msg)
    table = _rows(text, separator, header, where, skip=1)
    return table.dropna(how="all")


def _rows(text: str, separator: str, names: list[str], where: str, skip: int = 0) -> pd.DataFrame:
    """Parse lines of `names` fields; price columns become numbers, all others stay text."""
    numeric = re.compile(
        rf"<?(bid|ask|mid)?[_. ]?({'|'.join(PRICE_COLUMNS)}|volume|bid|ask)>?", re.IGNORECASE
    )
    kinds = {n: (object if numeric.fullmatch(n.strip()) is None else None) for n in names}
    try:
        with warnings.catch_warnings():
            for kind in _TABLE_WARNINGS:
                warnings.simplefilter("error", kind)
            table = pd.read_csv(
                StringIO(text),
                sep=separator,
                header=None,
                names=names,
                index_col=False,
                skiprows=skip if not skip else _lines_before(text) + skip,
                skipinitialspace=True,
                nrows=MAX_ROWS + 1,
                dtype={n: k for n, k in kinds.items() if k is not None},
                **exact_numbers(),
                low_memory=False,
            )
    # pandas' own errors are ValueErrors; deprecations are not caused by the file
    except (ValueError, TypeError, OverflowError, *_TABLE_WARNINGS) as err:
        msg = f"{where} is not a comma-separated table with a header: {_first_line(err)}"
        raise DataError(msg) from err
    if not 0 < len(table) <= MAX_ROWS:
        msg = f"{where} must have 1 to {MAX_ROWS:,} bars, got {'none' if table.empty else 'more'}"
        raise DataError(msg)
    return table


def _lines_before(text: str) -> int:
    """Return the number of blank lines before the header."""
    return next((i for i, line in enumerate(StringIO(text)) if line.strip()), 0)


def _first_line(err: BaseException) -> str:
    return str(err).splitlines()[0][:200] if str(err) else type(err).__name__
