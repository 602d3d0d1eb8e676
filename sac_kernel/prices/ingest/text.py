"""Readers of bars in text files: columns, dates, clock and price side as the lines prove them.

`read_text` returns a file's rows on the file's own clock; `formats` decides clock and side. Layouts with a
header are recognised by their column names (`layouts`), others by their first line.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices import clocks
from sac_kernel.prices.bars import MAX_ROWS, PRICE_COLUMNS, PRICE_SIDES
from sac_kernel.prices.ingest import layouts
from sac_kernel.prices.ingest.decoding import to_utf8
from sac_kernel.prices.ingest.instrument_names import guess_instrument, plain_symbol
from sac_kernel.prices.ingest.numbers import exact_numbers, to_numbers
from sac_kernel.prices.ingest.times import clock_in_name, formatted, parse_times, time_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

_HISTDATA_ASCII = re.compile(r"\d{8} \d{6};")
_HISTDATA_TICKS = re.compile(r"\d{8} \d{9},[^,]+,[^,]+,[^,]+$")
_METATRADER = re.compile(r"\d{4}\.\d\d\.\d\d,\d\d:\d\d(:\d\d)?,")
_LEAN_BARS = re.compile(r"(\d{8} \d\d:\d\d|\d{1,8})(,[^,]*){10}$")
_TABLE_WARNINGS = (pd.errors.ParserWarning, pd.errors.DtypeWarning)
"""Rows longer than the header, columns of mixed types: pandas warns, but the file is rejected."""

_SYMBOLS = ("symbol", "ticker", "instrument")
_VOLUMES = ("volume", "tickvol", "tick_volume", "vol", "vol.")
_NUMERIC = re.compile(rf"(bid|ask|mid)?[_. ]?({'|'.join(PRICE_COLUMNS)}|volume|bid|ask)")
_CHUNK_ROWS = 200_000


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
    ticks : whether the rows are ticks
    notes : what was recognised or left out
    changes : what was changed or dropped, for the reader to know first
    kind : 'equity' or 'crypto' if the format proves it, else ''
    trades : whether the prices are an exchange's trades, which count as mid unless a side is given
    volume : shape (n,), None if the file has none
    spread_points : MetaTrader's spread of each bar in points, shape (n,), None if the file has none
    """

    times: pd.DatetimeIndex
    sides: dict[str, FloatArray]
    layout: str
    clock: str = ""
    instrument: str = ""
    bar_seconds: int = 0
    ticks: bool = False
    notes: tuple[str, ...] = field(default=())
    changes: tuple[str, ...] = field(default=())
    kind: str = ""
    trades: bool = False
    volume: FloatArray | None = None
    spread_points: FloatArray | None = None


def read_text(content: bytes, name: str, where: str) -> Raw:
    """Return the rows of a text file of bars or ticks.

    Parameters
    ----------
    content : the file's bytes, in an encoding that `decoding.to_utf8` knows
    name : the file's name; in some layouts it gives the date or the provider
    where : the path, for messages
    """
    content, notes = to_utf8(content, where)
    head = content[:4096].decode("utf-8", "replace").split("\n")
    first = next((line.strip() for line in head if line.strip()), "")
    if _HISTDATA_ASCII.match(first):
        raw = _histdata_ascii(content, name, where)
    elif _HISTDATA_TICKS.match(first):
        raw = _histdata_ticks(content, where)
    elif _METATRADER.match(first):
        raw = _metatrader(content, name, where)
    elif _LEAN_BARS.match(first):
        raw = _lean(content, first, name, where)
    else:
        layout = layouts.find_layout(content, where)
        table = _rows(content, layout.separator, layout.names, where, layout.skip)
        raw = from_table(table, where, layout.skip + 1, layout.title)
        raw = replace(
            raw,
            instrument=plain_symbol(layout.instrument) or raw.instrument,
            notes=(*layout.notes, *raw.notes),
        )
    return replace(raw, notes=(*notes, *raw.notes))


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


def from_table(table: pd.DataFrame, where: str, first_line: int = 2, title: str = "table") -> Raw:
    """Return the rows of a table with named columns (text, Parquet, Feather): times, and bars or ticks.

    Columns are found by name, in any case and order; `layout` names those used.

    Parameters
    ----------
    table : at least one row
    where : the path, for messages
    first_line : line of the first row in the file, for messages
    title : the layout in words, as `layouts` names it
    """
    columns = layouts.normalised([str(c) for c in table.columns])
    table = table.set_axis(columns, axis=1)
    repeated = sorted({c for c in columns if columns.count(c) > 1})
    if repeated:
        msg = f"{where}: column names must be unique, got {', '.join(repeated)} more than once"
        raise DataError(msg)
    symbol = _symbol(table, where)
    layouts.check_columns(columns, where)
    column, labels = _labels(table)
    sides, price_names, ticks = _prices(table, where)
    times, _ = parse_times(labels, column, where, first_line)
    metatrader = {"tick_volume", "spread"} <= {*columns} or {"tickvol", "vol", "spread"} <= {*columns}
    if metatrader and "" in sides:
        sides = {"bid": sides[""]}  # MetaTrader's charts show the bid
    title, kind, clock = _exchange(table, column, title)
    layout = "MetaTrader 5" if metatrader else title
    return Raw(
        times,
        sides,
        f"{layout}, times from {column or 'the first column'}, prices from {price_names}",
        clock or clock_in_name(column),
        symbol,
        ticks=ticks,
        kind=kind,
        trades=bool(kind),
        volume=_optional(table, _VOLUMES),
        spread_points=_optional(table, ("spread",)) if metatrader else None,
    )


def _labels(table: pd.DataFrame) -> tuple[str, pd.Series]:
    """Return the name of the time column, and the times as the file writes them."""
    columns = [str(c) for c in table.columns]
    if {"date", "time"} <= {*columns}:
        return "date and time", table["date"].astype(str) + " " + table["time"].astype(str)
    name = time_column(columns)
    assert name is not None
    return name, table[name]


def _symbol(table: pd.DataFrame, where: str) -> str:
    """Return the instrument that a column names, '' if there is none."""
    name = next((name for name in _SYMBOLS if name in table.columns), None)
    if name is None:
        return ""
    symbols = [str(s) for s in table[name].unique()]
    if len(symbols) > 1:
        msg = (
            f"{where} may hold one instrument, got {', '.join(symbols[:8])} in column {name}. Split the file."
        )
        raise DataError(msg)
    return plain_symbol(symbols[0]) if symbols else ""


def _exchange(table: pd.DataFrame, column: str, title: str) -> tuple[str, str, str]:
    """Return format, kind and clock as the columns of an exchange's or a stock provider's file prove them."""
    columns = {*table.columns}
    if {"dividends", "stock splits"} <= columns:
        return "yfinance", "equity", ""
    if title == layouts.ALPHA_VANTAGE and "volume" in columns:
        return title, "equity", "America/New_York"
    if {"close time", "tradecount"} <= columns or {"close time", "number of trades"} <= columns:
        return title if title != "table" else "exchange klines", "crypto", "UTC"
    if column in ("unix", "unix timestamp") and ("tradecount" in columns or "symbol" in columns):
        return "CryptoDataDownload", "crypto", "UTC"
    return title, "", ""


def _optional(table: pd.DataFrame, names: tuple[str, ...]) -> FloatArray | None:
    """Return the first of some columns as numbers, NaN where it has none; None without such a column."""
    name = next((n for n in names if n in table.columns), None)
    return None if name is None else pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)


def _prices(table: pd.DataFrame, where: str) -> tuple[dict[str, FloatArray], str, bool]:
    """Return side -> prices, the columns used, and whether they are ticks."""
    columns = [str(c) for c in table.columns]
    by_side = layouts.price_columns(columns)
    if not by_side and {"bid", "ask"} <= {*columns}:
        numbers = _quotes(table, where)
        return {"bid": numbers[:, 0], "ask": numbers[:, 1]}, "bid, ask", True
    sides = {side: to_numbers(table[names], where) for side, names in by_side.items()}
    return sides, "; ".join(", ".join(names) for names in by_side.values()), False


def _quotes(table: pd.DataFrame, where: str) -> FloatArray:
    """Return bid and ask of every tick, (n, 2): MetaTrader leaves a side that did not change empty."""
    quotes = table[["bid", "ask"]]
    if all(quotes[name].dtype.kind == "f" for name in quotes):
        quotes = quotes.ffill()
    numbers = to_numbers(quotes, where, "bid and ask")
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers).all(axis=1)))
        got = f"{numbers[row, 0]:g}, {numbers[row, 1]:g}"
        msg = f"{where}: every tick needs a bid and an ask, also the first, got {got} in row {row + 1}"
        raise DataError(msg)
    return numbers


def _histdata_ascii(content: bytes, name: str, where: str) -> Raw:
    """Read the Generic ASCII layout; HistData's volume is always 0, that of others is not."""
    table = _rows(content, ";", ["time", *PRICE_COLUMNS, "volume"], where)
    times = formatted(table["time"], "%Y%m%d %H%M%S", where)
    prices = to_numbers(table[list(PRICE_COLUMNS)], where)
    if _is_histdata(name) or (table["volume"] == 0).all():
        return Raw(times, {"bid": prices}, "HistData ASCII", clocks.HISTDATA, bar_seconds=60)
    return Raw(times, {"": prices}, "Generic ASCII", volume=_optional(table, ("volume",)))


def _histdata_ticks(content: bytes, where: str) -> Raw:
    table = _rows(content, ",", ["time", "bid", "ask", "volume"], where)
    times = formatted(table["time"] + "000", "%Y%m%d %H%M%S%f", where)
    prices = to_numbers(table[["bid", "ask"]], where)
    sides = {"bid": prices[:, 0], "ask": prices[:, 1]}
    return Raw(times, sides, "HistData ticks", clocks.HISTDATA, ticks=True)


def _metatrader(content: bytes, name: str, where: str) -> Raw:
    """Read MetaTrader's history CSV; only its name distinguishes HistData's minute bars from a broker's."""
    table = _rows(content, ",", ["date", "clock", *PRICE_COLUMNS, "volume"], where)
    labels = table["date"] + " " + table["clock"].str.slice(0, 5)
    times = formatted(labels, "%Y.%m.%d %H:%M", where)
    prices = to_numbers(table[list(PRICE_COLUMNS)], where)
    histdata = _is_histdata(name)
    layout, clock = ("HistData MetaTrader", clocks.HISTDATA) if histdata else ("MetaTrader 4 CSV", "")
    return Raw(times, {"bid": prices}, layout, clock, bar_seconds=60 if histdata else 0)


def _is_histdata(name: str) -> bool:
    return name.upper().startswith(("DAT_ASCII_", "DAT_MT_", "HISTDATA_COM_"))


def _lean(content: bytes, first: str, name: str, where: str) -> Raw:
    """Read QuantConnect Lean's quote bars: bid OHLC and size, ask OHLC and size, UTC."""
    names = [f"{side}_{k}" for side in ("bid", "ask") for k in (*PRICE_COLUMNS, "size")]
    table = _rows(content, ",", ["time", *names], where)
    if " " in first.split(",")[0]:
        times = formatted(table["time"], "%Y%m%d %H:%M", where)
    else:
        date = re.match(r"(\d{8})_", name)
        if date is None:
            msg = f"{where}: the file name must start with its date (20180403_eurusd_...), got {name}"
            raise DataError(msg)
        ms = pd.to_numeric(table["time"], errors="coerce").to_numpy(np.float64)
        if not ((ms >= 0) & (ms < 86_400_000)).all():
            msg = f"{where}: every time must be milliseconds since midnight, from 0 to 86,400,000"
            raise DataError(msg)
        midnight = formatted(pd.Series([date.group(1)]), "%Y%m%d", where)[0]
        times = midnight + pd.to_timedelta(ms, unit="ms")
    sides = {
        side: to_numbers(table[[f"{side}_{k}" for k in PRICE_COLUMNS]], where) for side in ("bid", "ask")
    }
    return Raw(times, sides, "Lean", "UTC", instrument=guess_instrument(name))


def _rows(content: bytes, separator: str, names: list[str], where: str, skip: int = 0) -> pd.DataFrame:
    """Parse lines of `names` fields; price columns become numbers, all others stay text.

    If a price is no plain number, all prices stay text: 1.102 may be a thousand where another is 1.101,5.
    """
    table = _parsed(content, separator, names, where, skip)
    prices = [n for n in table.columns if n != "volume" and _NUMERIC.fullmatch(n)]
    if any(table[n].dtype == object for n in prices):
        table = _parsed(content, separator, names, where, skip, as_text=True)
    return table


def _parsed(
    content: bytes, separator: str, names: list[str], where: str, skip: int, *, as_text: bool = False
) -> pd.DataFrame:
    """Parse lines chunk by chunk, without the columns that no reader uses."""
    kinds = {n: object for n in names if as_text or _NUMERIC.fullmatch(n) is None}
    needed = [n for n in names if _is_needed(n, names)]
    chunks, count = [], 0
    try:
        with warnings.catch_warnings():
            for kind in _TABLE_WARNINGS:
                warnings.simplefilter("error", kind)
            with pd.read_csv(
                BytesIO(content),
                sep=separator,
                header=None,
                names=names,
                index_col=False,
                skiprows=skip,
                skipinitialspace=True,
                chunksize=_CHUNK_ROWS,
                dtype=kinds,
                encoding="utf-8",
                encoding_errors="replace",
                **exact_numbers(),
                low_memory=False,
            ) as reader:
                for chunk in reader:
                    count += len(chunk)
                    if count > MAX_ROWS:
                        break
                    chunks.append(chunk[needed].dropna(how="all"))
    # pandas' own errors are ValueErrors; deprecations are not caused by the file
    except (ValueError, TypeError, OverflowError, *_TABLE_WARNINGS) as err:
        reason = str(err).splitlines()[0][:200] if str(err) else type(err).__name__
        msg = f"{where} is not a comma-separated table with a header: {reason}"
        raise DataError(msg) from err
    if not 0 < count <= MAX_ROWS:
        msg = f"{where} must have 1 to {MAX_ROWS:,} bars, got {'more' if count else 'none'}"
        raise DataError(msg)
    return chunks[0] if len(chunks) == 1 else pd.concat(chunks, ignore_index=True)


def _is_needed(name: str, names: list[str]) -> bool:
    known = {
        "date",
        "time",
        "clock",
        "spread",
        "vol",
        "close time",
        "tradecount",
        "number of trades",
        "dividends",
    }
    known |= {"stock splits", *_SYMBOLS, *_VOLUMES, time_column(names) or ""}
    return name in known or _NUMERIC.fullmatch(name) is not None or name.endswith("_size")
