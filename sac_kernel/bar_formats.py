"""Bars as people have them, read into one form: open_time_utc -> open, high, low, close.

Each reader returns a `BarTable`. The price side and the clock are stated by the caller or proven by the
file; nothing is guessed, filled, sorted or dropped.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sac_kernel.errors import DataError, InputNotFoundError

PRICE_COLUMNS = ("open", "high", "low", "close")
PRICE_SIDES = ("bid", "ask", "mid")
TIME_COLUMN_NAMES = ("open_time_utc", "time", "timestamp", "datetime", "date")
INDEX_NAME = "open_time_utc"

_SAMPLE_PACKAGE, _SAMPLE_FILE = "gym-anytrading", "FOREX_EURUSD_1H_ASK.csv"
_EARLIEST, _LATEST = pd.Timestamp("1971-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")


@dataclass(frozen=True)
class BarTable:
    """Bars of one instrument.

    Attributes
    ----------
    bars : DataFrame, index `open_time_utc` (UTC), columns open, high, low, close (float64)
    bar_seconds : length of a bar
    price_side : 'bid', 'ask' or 'mid'
    source, clock : where the bars came from and the clock of the file, in words
    """

    bars: pd.DataFrame
    bar_seconds: int
    price_side: str
    source: str
    clock: str


def read_sample() -> BarTable:
    """Read the real sample that the installed package gym-anytrading ships.

    6,225 EURUSD bars of one hour in 2017: ask prices (the file's name), UTC, dates dd.mm.yyyy.
    """
    try:
        files = importlib.metadata.files(_SAMPLE_PACKAGE) or []
        (entry,) = (f for f in files if f.name == _SAMPLE_FILE)
        path = Path(str(entry.locate()))
        raw = pd.read_csv(path)
    except (importlib.metadata.PackageNotFoundError, ValueError, OSError) as err:
        msg = (
            f"bar_formats.read_sample: {_SAMPLE_FILE} of the package {_SAMPLE_PACKAGE} is required, found: "
            f"{err}; run `pip install gym-anytrading`, or give your own bars with --data"
        )
        raise InputNotFoundError(msg) from err
    # The order day.month is proven by the first rows: 01.01. to 31.01. are consecutive days.
    times = pd.to_datetime(raw["Time"], format="%d.%m.%Y %H:%M:%S.%f", utc=True)
    bars = _frame(times, raw.rename(columns=str.lower), path)
    return BarTable(bars, infer_bar_seconds(bars, path), "ask", f"sample of {_SAMPLE_PACKAGE}", "UTC")


def read_csv(path: Path, price_side: str | None, clock: str | None = None) -> BarTable:
    """Read a CSV with a header: a time column and open, high, low, close (any case, any order).

    Parameters
    ----------
    path : file whose time column is named open_time_utc, time, timestamp, datetime or date and holds the
        bar's OPEN in ISO 8601 (`2017-01-02T10:00:00Z`, `2017-01-02 10:00:00+00:00`)
    price_side : 'bid', 'ask' or 'mid'; a file cannot prove it
    clock : 'UTC' for times without an offset; a column named open_time_utc, or offsets, prove it themselves

    Raises
    ------
    InputNotFoundError, DataError
        With the file, the line, what was required and what was found.
    """
    where = f"{path}"
    if price_side not in PRICE_SIDES:
        msg = f"{where}: the price side (bid, ask or mid) is required, got {price_side!r}; pass --price-side"
        raise DataError(msg)
    raw = _read_table(path)
    time_column = _time_column(raw, path)
    try:
        times = pd.to_datetime(raw[time_column], format="ISO8601")
    except (ValueError, TypeError, OverflowError) as err:
        msg = (
            f"{where}: ISO 8601 times are required in column {time_column!r} "
            f"(2017-01-02T10:00:00Z), found: {_first_line(err)}"
        )
        raise DataError(msg) from err
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        if times.dtype.kind != "M":
            msg = f"{where}: one UTC offset in column {time_column!r} is required, found several"
            raise DataError(msg)
        if clock != "UTC" and time_column != "open_time_utc":
            msg = (
                f"{where}: times without an offset need their clock, got clock {clock!r}; "
                "pass --clock UTC if they are UTC"
            )
            raise DataError(msg)
        times = times.dt.tz_localize("UTC")
    bars = _frame(times.dt.tz_convert("UTC"), raw, path)
    return BarTable(bars, infer_bar_seconds(bars, path), price_side, path.name, "UTC")


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
    times = bars.index.as_unit("s").asi8  # type: ignore[attr-defined]  # a DatetimeIndex
    o, h, lo, c = (bars[name].to_numpy() for name in PRICE_COLUMNS)
    prices = bars.loc[:, list(PRICE_COLUMNS)].to_numpy()
    step = np.diff(times, prepend=times[0] - 1)
    faults = {
        "finite prices": ~np.isfinite(prices).all(axis=1),
        "prices above 0": (prices <= 0).any(axis=1),
        "high >= low": h < lo,
        "high >= open and close": h < np.maximum(o, c),
        "low <= open and close": lo > np.minimum(o, c),
        "unique open times": step == 0,
        "increasing open times": step < 0,
        "open times from 1971 to 2100": (bars.index < _EARLIEST) | (bars.index > _LATEST),
    }
    for required, bad in faults.items():
        if bad.any():
            i = int(np.argmax(bad))
            values = ", ".join(f"{name} {prices[i, k]:g}" for k, name in enumerate(PRICE_COLUMNS))
            msg = (
                f"{where}: {required} required, found {int(bad.sum())} bad of {len(bars)} bars, first at bar "
                f"{i} ({bars.index[i].isoformat()}: {values}); correct the source, nothing is repaired silently"
            )
            raise DataError(msg)


def infer_bar_seconds(bars: pd.DataFrame, where: Path | str) -> int:
    """Return the most frequent distance of open times; a shorter distance is an error."""
    times = bars.index.as_unit("s").asi8  # type: ignore[attr-defined]  # a DatetimeIndex
    steps, counts = np.unique(np.diff(times), return_counts=True)
    steps, counts = steps[steps > 0], counts[steps > 0]
    if steps.size == 0:
        msg = f"{where}: at least two bars with increasing times are required, found {len(bars)}"
        raise DataError(msg)
    usual = int(steps[np.argmax(counts)])
    if steps[0] < usual:
        msg = (
            f"{where}: bars of one length are required, found mostly {usual} s apart but also {steps[0]} s; "
            "resample the source to one bar size"
        )
        raise DataError(msg)
    return usual


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        msg = f"{path}: a CSV file is required, found no file; check the path given with --data"
        raise InputNotFoundError(msg)
    try:
        raw = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as err:
        msg = f"{path}: a comma-separated table with a header is required, found: {_first_line(err)}"
        raise DataError(msg) from err
    raw.columns = [str(c).strip().lower() for c in raw.columns]
    return raw


def _time_column(raw: pd.DataFrame, path: Path) -> str:
    for name in TIME_COLUMN_NAMES:
        if name in raw.columns:
            return name
    msg = (
        f"{path}: a time column is required ({', '.join(TIME_COLUMN_NAMES)}), "
        f"found columns {', '.join(map(str, raw.columns[:8]))}"
    )
    raise DataError(msg)


def _frame(times: pd.Series, raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    missing = [name for name in PRICE_COLUMNS if name not in raw.columns]
    if missing:
        msg = (
            f"{path}: columns open, high, low, close are required, {', '.join(missing)} missing; "
            f"found {', '.join(map(str, raw.columns[:8]))}"
        )
        raise DataError(msg)
    try:
        prices = raw.loc[:, list(PRICE_COLUMNS)].astype(np.float64)
    except (ValueError, TypeError) as err:
        msg = f"{path}: numbers are required in open, high, low, close, found: {_first_line(err)}"
        raise DataError(msg) from err
    prices.index = pd.DatetimeIndex(times, name=INDEX_NAME).as_unit("ns")
    if prices.index.hasnans:
        line = int(np.argmax(prices.index.isna())) + 2
        msg = f"{path}: a time is required in every row, found none in line {line}"
        raise DataError(msg)
    check_bars(prices, str(path))
    return prices


def _first_line(err: BaseException) -> str:
    return str(err).splitlines()[0][:200] if str(err) else type(err).__name__
