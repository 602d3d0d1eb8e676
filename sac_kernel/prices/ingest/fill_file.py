"""Fills of somebody's account in a text table: time, side, size, price, and what they cost.

Delimiter, decimal comma and encoding are read as those of bars are. A clock is proven by the file or stated, never
guessed, and so is the unit of the sizes: `size` is in units of the base currency, `lots` in lots of the instrument.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices import clocks
from sac_kernel.prices.ingest.decoding import to_utf8
from sac_kernel.prices.ingest.instrument_names import plain_symbol, same_instrument
from sac_kernel.prices.ingest.layouts import SEPARATORS, cells_of, normalised
from sac_kernel.prices.ingest.numbers import to_numbers
from sac_kernel.prices.ingest.times import clock_in_name, parse_times, time_column

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.prices.instruments import InstrumentSpec

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

TIMES = {"time_utc": "open_time_utc", "date/time": "time", "fill_time": "time", "fill time": "time"}
"""Names of a time column beside those of bars -> the name of bars that means the same."""
SIDES = ("side", "action", "buy/sell", "type")
SIZES = ("size", "size_units", "units", "quantity", "qty", "amount")
LOTS = ("lots", "lot")
PRICES = ("price", "fill_price", "fill price", "avg price", "average price")
COSTS = ("commission", "commissions", "fee", "fees", "cost", "costs")
SYMBOLS = ("symbol", "ticker", "instrument")
WORDS = dict.fromkeys(("buy", "b", "bot", "bought", "1", "+1"), 1.0) | dict.fromkeys(
    ("sell", "s", "sld", "sold", "-1"), -1.0
)
"""How files write a side -> its sign."""
_HEADER_LINES = 30


@dataclass(frozen=True)
class Fills:
    """Fills in time order; arrays of shape (n,).

    Attributes
    ----------
    line : of the file
    time : UTC
    side : 1 bought, -1 sold
    size : units of the base currency, as the file has it: any number
    price : paid, quote currency
    cost : paid on top of the price, quote currency; 0 where the file has none
    notes : what was recognised
    """

    line: IntArray
    time: pd.DatetimeIndex
    side: FloatArray
    size: FloatArray
    price: FloatArray
    cost: FloatArray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.line)

    def rows(self, kept: NDArray[np.bool_] | IntArray) -> Fills:
        """Return some of the fills."""
        return Fills(
            self.line[kept],
            self.time[kept],
            self.side[kept],
            self.size[kept],
            self.price[kept],
            self.cost[kept],
            self.notes,
        )


def read_fills(path: Path, spec: InstrumentSpec, clock: str = "", other_clock: str = "") -> Fills:
    """Return the fills of one instrument in a text table.

    Parameters
    ----------
    path : a table with a header; docs/judge.md lists the columns
    spec : the traded instrument; rows of others are left out if a column names them
    clock : of times without an offset: UTC, an IANA zone, histdata or mt-eet; refused if the file proves another
    other_clock : taken for such times if there is no `clock`: that of the bars

    Raises
    ------
    DataError
        If a column is missing or ambiguous, a line cannot be read, or the clock is not known.
    """
    where = str(path)
    content, notes = to_utf8(path.read_bytes(), where)
    table, lines = _table(content, where)
    table, lines = _of_instrument(table, lines, spec.symbol, where, notes)
    columns = [str(name) for name in table.columns]
    side_column = _column(columns, SIDES, where, first=True)  # `type` may be that of the order
    price_column = _column(columns, PRICES, where)
    size_column = _column(columns, (*SIZES, *LOTS), where)
    costs = [name for name in COSTS if name in columns]
    if len(costs) > 1:
        msg = f"{where} has several columns of costs: {', '.join(costs)}. Keep one, with the sum."
        raise DataError(msg)
    for name in (size_column, price_column):
        if (empty := table[name] == "").any():
            msg = f"{where}: line {lines[int(np.argmax(empty))]} has no {name}"
            raise DataError(msg)
    numbers = to_numbers(table[[size_column, price_column]], where, f"{size_column} and {price_column}")
    size = numbers[:, 0]
    if size_column in LOTS:
        size = size * spec.lot
        notes.append(f"{path.name}: one lot of {spec.symbol} is {spec.lot:,.0f} units")
    cost = np.zeros(len(table))
    if costs:
        cost = to_numbers(table[costs].replace("", "0"), where, costs[0])[:, 0]
        if (cost <= 0.0).all() and (cost < 0.0).any():
            cost = -cost
            notes.append(f"{path.name}: no {costs[0]} is above 0, so negative ones were taken as paid")
    times = _times(table, lines, where, clock, other_clock, notes)
    used = ", ".join(filter(None, ("time", side_column, size_column, price_column, *costs)))
    notes.insert(0, f"{path.name}: {len(table):,} fills, columns {used}")
    fills = Fills(
        lines,
        times,
        _sides(table[side_column], lines, where),
        size,
        numbers[:, 1],
        cost,
        tuple(note.replace(where, path.name) for note in notes),
    )
    order = np.argsort(times.asi8, kind="stable")
    return fills.rows(order)


def _table(content: bytes, where: str) -> tuple[pd.DataFrame, IntArray]:
    """Return the rows below the header as texts, and the line of each."""
    text = content.decode("utf-8", "replace")
    first = [(i, line) for i, line in enumerate(text.split("\n")) if line.strip()][:_HEADER_LINES]
    header = next((found for i, line in first if (found := _header(i, line)) is not None), None)
    if header is None:
        shown = first[0][1][:80].strip() if first else "nothing"
        msg = f"{where} must have a header with time, side, size and price, got: {shown}"
        raise DataError(msg)
    skipped, separator, names = header
    if len(set(names)) < len(names):
        msg = f"{where}: column names must be unique, got {', '.join(names)}"
        raise DataError(msg)
    rows, lines = [], []
    below = io.StringIO("\n".join(text.split("\n")[skipped:]))
    reader = csv.reader(below, delimiter=separator, skipinitialspace=True)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                msg = f"{where}: line {skipped + reader.line_num} has {len(cells)} cells, the header {len(names)}"
                raise DataError(msg)
            rows.append([cell.strip() for cell in cells])
            lines.append(skipped + reader.line_num)
    except csv.Error as err:
        msg = f"{where}: line {skipped + reader.line_num} cannot be read: {err}"
        raise DataError(msg) from err
    if not rows:
        msg = f"{where} has a header but no fills."
        raise DataError(msg)
    return pd.DataFrame(rows, columns=names, dtype=object), np.array(lines, np.int64)


def _header(i: int, line: str) -> tuple[int, str, list[str]] | None:
    """Return lines up to the header's end, separator and column names if line i is a header."""
    separator = max(SEPARATORS, key=line.count)
    names = [TIMES.get(name, name) for name in normalised(cells_of(line, separator))]
    is_header = time_column(names) is not None and any(name in names for name in PRICES)
    return (i + 1, separator, names) if is_header else None


def _of_instrument(
    table: pd.DataFrame, lines: IntArray, instrument: str, where: str, notes: list[str]
) -> tuple[pd.DataFrame, IntArray]:
    """Return the rows of the traded instrument, all of them if no column names instruments."""
    column = next((name for name in SYMBOLS if name in table.columns), None)
    if column is None:
        return table, lines
    symbols = {name: plain_symbol(str(name)) for name in table[column].unique()}
    own = [name for name, plain in symbols.items() if plain and same_instrument(instrument, plain)]
    kept = table[column].isin(own).to_numpy()
    if not kept.any():
        msg = f"{where} has no fills of {instrument}, only of {', '.join(map(str, list(symbols)[:5]))}."
        raise DataError(msg)
    if not kept.all():
        notes.append(f"{where}: {int((~kept).sum())} fills of other instruments were left out")
    return table[kept].reset_index(drop=True), lines[kept]


def _column(columns: list[str], names: tuple[str, ...], where: str, *, first: bool = False) -> str:
    found = [name for name in names if name in columns]
    if len(found) == 1 or (first and found):
        return found[0]
    if found:
        msg = f"{where}: {' and '.join(found)} say the same. Keep one of them."
        raise DataError(msg)
    more = " (units), or lots" if names[0] == SIZES[0] else ""
    msg = f"{where} has no column {names[0]}{more}; its columns are {', '.join(columns[:12])}. Rename the one meant."
    raise DataError(msg)


def _sides(texts: pd.Series, lines: IntArray, where: str) -> FloatArray:
    signs = texts.str.lower().map(WORDS)
    if signs.isna().any():
        row = int(np.argmax(signs.isna()))
        msg = (
            f"{where}: line {lines[row]}: the side must be buy or sell, got {texts.iloc[row]!r}. Remove lines that are "
            "no fills."
        )
        raise DataError(msg)
    return signs.to_numpy(np.float64)


def _times(
    table: pd.DataFrame, lines: IntArray, where: str, clock: str, other_clock: str, notes: list[str]
) -> pd.DatetimeIndex:
    """Return the times in UTC."""
    if {"date", "time"} <= {*table.columns}:
        column, labels = "date and time", table["date"].str.cat(table["time"], sep=" ")
    else:
        column = time_column([str(name) for name in table.columns]) or ""
        labels = table[column]
    times, style = parse_times(labels, column, where, int(lines[0]))
    proven = "UTC" if times.tz is not None or style == "unix" else clock_in_name(column)
    if proven and clock and clock != proven:
        msg = f"{where}: the times show their clock, {proven}, not {clock}. Leave --fills-clock out."
        raise DataError(msg)
    named = proven or clock or other_clock
    if not named:
        msg = (
            f"{where}: the times have no UTC offset (first {labels.iloc[0]!r}). Pass --fills-clock: UTC, an IANA zone "
            "such as Europe/London, or mt-eet for MetaTrader servers."
        )
        raise DataError(msg)
    notes.append(f"{where}: clock of the fills {named}" + ("" if proven or clock else ", that of the bars"))
    return times if times.tz is not None else clocks.to_utc(times, named, where)
