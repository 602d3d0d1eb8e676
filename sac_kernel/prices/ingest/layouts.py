"""Where the table of a text file begins, and what its columns are called.

A header is the first line that names a time and prices; lines above it are a banner. Tables without a header are
exchange klines, or a time and four prices whose order the rows prove.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import PRICE_COLUMNS, PRICE_SIDES
from sac_kernel.prices.ingest.times import TIME_COLUMN_NAMES, time_column

HEADERLESS = "a table without a header"
KLINES = "exchange klines without a header"
ALPHA_VANTAGE = "Alpha Vantage"
_KLINE_COLUMNS = (
    "open time", *PRICE_COLUMNS, "volume", "close time", "quote volume", "tradecount", "taker volume",
    "taker quote volume", "ignore",
)  # fmt: skip
SEPARATORS = (",", ";", "\t", "|")
_HEAD_BYTES, _BANNER_LINES = 1 << 16, 30
_SHORT = dict(zip("tohlcv", ("time", *PRICE_COLUMNS, "volume"), strict=True))
_AS_CLOSE = ("price", "last", "close/last", "last price")
_EPOCH = re.compile(r"\d{10}|\d{13}|\d{16}|\d{19}")
_TIME = re.compile(r"\d{4}[-./]?\d\d[-./]?\d\d([ T]?\d\d:?\d\d)?|\d{1,2}[-./]\d{1,2}[-./]\d{4}")
_NUMBER = re.compile(r"\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How the rows of a text table are written.

    Attributes
    ----------
    names : column names as `normalised` gives them
    separator : one character
    skip : lines before the first row
    title : the format in words
    instrument : as the header states it, '' if it does not
    notes : what was recognised
    """

    names: list[str]
    separator: str
    skip: int
    title: str = "table"
    instrument: str = ""
    notes: tuple[str, ...] = ()


def find_layout(content: bytes, where: str) -> Layout:
    """Return the layout of a text table from its first lines.

    Raises
    ------
    DataError
        If there is no header and the rows do not prove what the columns are, or two columns have one name.
    """
    lines = content[:_HEAD_BYTES].decode("utf-8", "replace").split("\n")[: 2 * _BANNER_LINES]
    filled = [(i, line) for i, line in enumerate(lines) if line.strip()][:_BANNER_LINES]
    for place, (i, line) in enumerate(filled):
        separator = max(SEPARATORS, key=line.count)
        names = normalised(cells_of(line, separator))
        if stacked := _stacked_header(filled[place : place + 3], separator):
            return stacked
        if _is_header(names):
            _refuse_repeats(names, line, where)
            above = [text.strip()[:40] for _, text in filled[:place]]
            notes = (
                (f"{where}: {len(above)} lines above the header were skipped ({above[0]})",) if above else ()
            )
            numbered = re.search(rf"(^|{re.escape(separator)})\"?1\. open", line) is not None
            return Layout(names, separator, i + 1, ALPHA_VANTAGE if numbered else "table", notes=notes)
    first = filled[0][1] if filled else ""
    separator = max(SEPARATORS, key=first.count)
    cells = cells_of(first, separator)
    if filled and (
        layout := _headerless(cells, [line for _, line in filled], separator, filled[0][0], where)
    ):
        return layout
    names = normalised(cells)
    if len(names) < 2 or not re.search("[A-Za-z]", first):
        msg = f"{where} must be a table with a header, got: {first[:80].strip() or 'no columns'}"
        raise DataError(msg)
    _refuse_repeats(names, first, where)
    check_columns(names, where)
    return Layout(names, separator, filled[0][0] + 1)


def normalised(names: list[str]) -> list[str]:
    """Return column names in lower case without quotes, brackets and numbers; short ones are spelt out.

    >>> normalised(["<DATE>", " 1. open", "o", "h", "l"]), normalised(["Date", "Price", "Open", "High", "Low"])
    (['date', 'open', 'o', 'h', 'l'], ['date', 'close', 'open', 'high', 'low'])
    """
    names = [
        re.sub(r"^\d+[a-z]?\. *", "", name.strip().strip("\"'").strip("<>").strip().lower()) for name in names
    ]
    if {*"ohlc"} <= {*names}:
        return [_SHORT.get(name, name) for name in names]
    if {"open", "high", "low"} <= {*names} and "close" not in names:
        close = next((name for name in _AS_CLOSE if name in names), None)
        return ["close" if name == close else name for name in names]
    return names


def price_columns(columns: list[str]) -> dict[str, list[str]]:
    """Return side -> its four price columns; '' is the side of columns that name none."""
    found: dict[str, list[str]] = {}
    for side in ("", *PRICE_SIDES):
        for joint in ("", "_", ".", " "):
            names = [f"{side}{joint}{k}" if side else k for k in PRICE_COLUMNS]
            if {*names} <= {*columns}:
                found[side] = names
    return {"": found[""]} if "" in found else found


def check_columns(columns: list[str], where: str) -> None:
    """Raise DataError, naming what is missing, unless there are a time column and prices, or bid and ask."""
    listed = ", ".join(columns[:8])
    if time_column(columns) is None:
        usual = ", ".join(name for name in TIME_COLUMN_NAMES if len(name) > 1)
        msg = f"{where} has no time column ({usual}); its columns are {listed}"
        raise DataError(msg)
    if not price_columns(columns) and not {"bid", "ask"} <= {*columns}:
        missing = ", ".join(k for k in PRICE_COLUMNS if k not in columns)
        msg = (
            f"{where} needs columns open, high, low, close, with {missing} missing; its columns are {listed}"
        )
        raise DataError(msg)


def _is_header(names: list[str]) -> bool:
    ticks = {"bid", "ask"} <= {*names}
    return time_column(names) is not None and (ticks or bool(price_columns(names)))


def cells_of(line: str, separator: str) -> list[str]:
    """Return the cells of one line."""
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return line.split(separator)


def _refuse_repeats(names: list[str], line: str, where: str) -> None:
    if len({*names}) < len(names):
        msg = f"{where}: column names must be unique, got {line[:80].strip()}"
        raise DataError(msg)


def _stacked_header(lines: list[tuple[int, str]], separator: str) -> Layout | None:
    """Return the layout of yfinance's three header lines: Price,Close,... / Ticker,XYZ,... / Date,,..."""
    if len(lines) < 3:
        return None
    tops, tickers, times = ([c.strip() for c in cells_of(line, separator)] for _, line in lines)
    if not (tops and tickers and times) or (tops[0], tickers[0]) != ("Price", "Ticker"):
        return None
    names = normalised([times[0], *tops[1:]])
    if not _is_header(names) or len({*tickers[1:]}) != 1 or len({*names}) < len(names):
        return None
    return Layout(names, separator, lines[2][0] + 1, "yfinance", tickers[1])


def _headerless(cells: list[str], lines: list[str], separator: str, skip: int, where: str) -> Layout | None:
    """Return the layout of a table without a header, None if the first lines do not prove one."""
    cells = [cell.strip() for cell in cells]
    if len(cells) in (11, 12) and all(_EPOCH.fullmatch(cells[i]) for i in (0, 6)):
        return Layout(list(_KLINE_COLUMNS[: len(cells)]), separator, skip, KLINES)
    clock = int(len(cells) > 5 and re.fullmatch(r"\d\d:\d\d(:\d\d(\.\d+)?)?", cells[1]) is not None)
    if len(cells) < 5 + clock or not (_TIME.match(cells[0]) or _EPOCH.fullmatch(cells[0])):
        return None
    rows = [cells_of(line, separator)[1 + clock : 5 + clock] for line in lines]
    prices = [
        [float(c) for c in row] for row in rows if len(row) == 4 and all(_NUMBER.fullmatch(c) for c in row)
    ]
    in_order = prices and all(h == max(o, h, lo, c) and lo == min(o, h, lo, c) for o, h, lo, c in prices)
    if not in_order or len(prices) < len(lines):
        return None
    rest = [f"column {i + 1}" for i in range(5 + clock, len(cells))]
    names = [*("date", "time")[: 1 + clock], *PRICE_COLUMNS, *rest]
    note = f"{where}: no header; the columns after the time were taken as {', '.join(PRICE_COLUMNS)}"
    return Layout(names, separator, skip, HEADERLESS, notes=(note,))
