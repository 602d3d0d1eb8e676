"""Open times as files write them: ISO 8601, Unix time, day/month/year in an order that the file proves.

Labels are read in slices, so that millions of them take no more memory than they have.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices import clocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TIME_COLUMN_NAMES = (
    "open_time_utc", "unix", "unix timestamp", "time", "timestamp", "datetime", "date", "gmt time", "local time",
    "open time", "open_time", "date_time", "date time", "index", "t", "",
)  # fmt: skip
"""Column names of a bar's open time, lower case; the first that exists is used; '' is an unnamed column."""

_UTC_NAMES = ("open_time_utc", "gmt time", "unix", "unix timestamp")
_CLOCK_IN_NAME = re.compile(
    r"(?:open |local |server )?(?:time|date|datetime|timestamp)\s*[(\[]\s*([^)\]]+?)\s*[)\]]"
)
_FIXED = re.compile(r"(?:UTC|GMT)\s*([+-])\s*(\d{1,2})(?::?00)?")
_ISO = re.compile(r"\d{4}[-./]?\d\d[-./]?\d\d")
_OFFSET = re.compile(r"(?:Z|[+-]\d\d(?::?\d\d)?)$")
_DAY_MONTH = re.compile(
    r"(\d{1,2})([-./])(\d{1,2})\2\d{4}(?:[ T](\d{1,2}:\d\d(?::\d\d(\.\d+)?)?(?: [AP]M)?))?"
)
_SLICE = 200_000
_EPOCH_UNITS = ("s", "ms", "us", "ns")
_EPOCH_RANGE_S = (31_536_000, 4_102_444_800)  # 1971 to 2100; the ranges of the four units do not meet


def time_column(columns: list[str]) -> str | None:
    """Return the time column among lower-case names; None if there is none."""
    named = next((name for name in TIME_COLUMN_NAMES if name in columns), None)
    if named:
        return named
    return next((name for name in columns if _CLOCK_IN_NAME.fullmatch(name)), named)


def clock_in_name(column: str) -> str:
    """Return the clock that a time column's name states, '' if none.

    >>> clock_in_name("time (eet)"), clock_in_name("gmt time"), clock_in_name("date (utc+2)"), clock_in_name("time")
    ('EET', 'UTC', 'Etc/GMT-2', '')
    """
    if column in _UTC_NAMES:
        return "UTC"
    match = _CLOCK_IN_NAME.fullmatch(column)
    if match is None:
        return ""
    name = match.group(1).upper()
    if fixed := _FIXED.fullmatch(name):
        hours = int(fixed.group(2))
        # the sign of these zones is reversed: Etc/GMT-2 is two hours ahead
        name = "UTC" if hours == 0 else f"ETC/GMT{'-' if fixed.group(1) == '+' else '+'}{hours}"
    # EST may mean New York's time all year or the fixed UTC-5: it proves nothing
    plain = {"UTC": "UTC", "GMT": "UTC", "Z": "UTC", "EET": "EET", "CET": "CET"}
    region, _, city = name.partition("/")
    zone = f"{region.title()}/{city if region == 'ETC' else city.title()}" if city else plain.get(name, "")
    try:
        clocks.check_clock(zone or "UTC", column)
    except DataError:
        return ""
    return zone


def parse_times(
    labels: pd.Series, column: str, where: str, first_line: int = 2
) -> tuple[pd.DatetimeIndex, str]:
    """Return times (UTC if the labels carry offsets, else naive) and their style.

    Accepted are ISO 8601, also with dots and with offsets that change, Unix time in s, ms, us or ns, and
    day/month/year in an order that a number above 12 in the file proves.
    """
    if labels.dtype.kind == "M":
        index = pd.DatetimeIndex(labels)
        return (index if index.tz is None else index.tz_convert("UTC")), "typed"
    if labels.dtype.kind in "iuf":
        return epoch_times(labels.to_numpy(), column, where), "unix"
    first = ""
    if len(labels) == 0:
        msg = f"{where} has no rows"
        raise DataError(msg)
    for start, text in _slices(labels):
        empty = text.isna() | text.isin(("", "nan", "None", "NaN", "NaT"))
        if empty.any():
            msg = f"{where}: line {start + int(np.argmax(empty)) + first_line} has no time"
            raise DataError(msg)
        first = first or str(text.iloc[0])
    if re.fullmatch(r"\d{9,19}(\.\d+)?", first):
        numbers = [pd.to_numeric(text, errors="coerce").to_numpy() for _, text in _slices(labels)]
        return epoch_times(np.concatenate(numbers), column, where), "unix"
    day_first = _DAY_MONTH.match(first) is not None
    read = _day_month_times if day_first else _iso_times
    return read(labels, first, column, where, first_line), "day first" if day_first else "iso"


def formatted(labels: pd.Series, form: str, where: str) -> pd.DatetimeIndex:
    """Return the naive times of labels that all have the form of `strptime`."""
    try:
        parts = [pd.DatetimeIndex(pd.to_datetime(text, format=form)) for _, text in _slices(labels)]
    except (ValueError, TypeError, OverflowError) as err:
        msg = f"{where}: every time must have the form {form}: {_first_line(err)}"
        raise DataError(msg) from err
    return _joined(parts)


def epoch_times(values: NDArray[Any], column: str, where: str) -> pd.DatetimeIndex:
    """Return naive times from Unix times, in the unit that puts them from 1971 to 2100."""
    numbers = values.astype(np.float64)
    low, high = _EPOCH_RANGE_S
    for power, unit in enumerate(_EPOCH_UNITS):
        scale = 1000.0**power
        if numbers.size and (numbers >= low * scale).all() and (numbers <= high * scale).all():
            exact = (
                values.astype(np.int64) if values.dtype.kind in "iu" else np.round(numbers).astype(np.int64)
            )
            return _nanoseconds(pd.DatetimeIndex(exact.astype(f"datetime64[{unit}]")), where)
    span = f"{values[0]}..{values[-1]}" if values.size else "none"
    msg = (
        f"{where}: times in column {column!r} must be ISO 8601, or Unix times of one unit from 1971 to 2100, got "
        f"{span}"
    )
    raise DataError(msg)


def _slices(labels: pd.Series) -> Iterator[tuple[int, pd.Series]]:
    for start in range(0, len(labels), _SLICE):
        yield start, labels.iloc[start : start + _SLICE].astype(str).str.strip()


def _joined(parts: list[pd.DatetimeIndex]) -> pd.DatetimeIndex:
    return (
        parts[0]
        if len(parts) == 1
        else pd.DatetimeIndex(np.concatenate([p.to_numpy() for p in parts]), tz=None)
    )


def _iso_times(labels: pd.Series, first: str, column: str, where: str, first_line: int) -> pd.DatetimeIndex:
    if not _ISO.match(first):
        msg = f"{where}: times in column {column!r} must be ISO 8601 (2017-01-02T10:00:00Z), got {first!r}"
        raise DataError(msg)
    aware = _OFFSET.search(first[10:]) is not None
    dotted = re.match(r"\d{4}[./]", first) is not None
    parts = []
    for start, text in _slices(labels):
        if dotted:
            text = text.str.replace(r"^(\d{4})[./](\d\d)[./](\d\d)", r"\1-\2-\3", regex=True)  # noqa: PLW2901
        parts.append(_iso_slice(text, aware, column, where, start + first_line))
    times = _joined(parts)
    return times.tz_localize("UTC") if aware else times


def _iso_slice(text: pd.Series, aware: bool, column: str, where: str, line: int) -> pd.DatetimeIndex:
    """Return the times of a slice: in UTC without a zone if `aware`, else on the file's clock."""
    try:
        with warnings.catch_warnings():  # pandas below 3 warns of several offsets; they are read below
            warnings.filterwarnings("ignore", ".*mixed time zones", FutureWarning)
            try:
                times = pd.to_datetime(text, format="ISO8601")
            except ValueError:
                if not aware:
                    raise
                times = pd.Series([None], dtype=object)
        # each must have an offset: pandas gives a time without one that of the others
        bare = ~text.str.endswith("Z") if aware else None
        if bare is not None and bare.any() and (bare := ~text.str.slice(10).str.contains(_OFFSET)).any():
            row = int(np.argmax(bare))
            found = f"{where}: line {line + row}: {text.iloc[row]!r}"
            msg = f"{found} is not ISO 8601 with a UTC offset, as the first time is"
            raise DataError(msg)
        if aware and not isinstance(times.dtype, pd.DatetimeTZDtype):  # offsets that change at a switch
            times = pd.to_datetime(text, format="ISO8601", utc=True)
    except DataError:
        raise
    except (ValueError, TypeError, OverflowError) as err:
        msg = (
            f"{where}: times in column {column!r} must be ISO 8601 (2017-01-02T10:00:00Z): {_first_line(err)}"
        )
        raise DataError(msg) from err
    if isinstance(times.dtype, pd.DatetimeTZDtype) != aware or times.dtype.kind != "M":
        msg = f"{where}: times in column {column!r} must all have a UTC offset, or none of them"
        raise DataError(msg)
    index = pd.DatetimeIndex(times)
    return _nanoseconds(index.tz_convert("UTC").tz_localize(None) if aware else index, where)


def _day_month_times(
    labels: pd.Series, first: str, column: str, where: str, _first_line_number: int
) -> pd.DatetimeIndex:
    """Parse day/month/year or month/day/year; a number above 12 must show which."""
    largest = np.zeros(2)
    for _, text in _slices(labels):
        parts = text.str.extract(r"^(\d{1,2})[-./](\d{1,2})[-./]\d{4}")
        largest = np.fmax(largest, parts.apply(pd.to_numeric, errors="coerce").max().to_numpy(np.float64))
    day_first, month_first = largest > 12
    if day_first == month_first:
        reason = "both of them exceed 12" if day_first else "neither ever exceeds 12"
        msg = (
            f"{where}: the order of day and month in column {column!r} is unclear, because {reason} (first date "
            f"{first!r}). Write dates as 2017-01-31."
        )
        raise DataError(msg)
    match = _DAY_MONTH.match(first)
    assert match is not None
    form = _day_month_form(match, first, day_first=bool(day_first))
    aware = "GMT" in first
    try:
        times = [
            pd.DatetimeIndex(
                pd.to_datetime(
                    text.str.replace(" GMT", "", regex=False) if aware else text,
                    format=form + "%z" * aware,
                    utc=aware,
                )
            ).tz_localize(None)
            for _, text in _slices(labels)
        ]
    except (ValueError, TypeError, OverflowError) as err:
        msg = f"{where}: times in column {column!r} must all be like {first!r}: {_first_line(err)}"
        raise DataError(msg) from err
    joined = _joined(times)
    return joined.tz_localize("UTC") if aware else joined


def _day_month_form(match: re.Match[str], first: str, *, day_first: bool) -> str:
    sep, clock, fraction = match.group(2), match.group(4), match.group(5)
    form = sep.join(("%d", "%m", "%Y") if day_first else ("%m", "%d", "%Y"))
    if not clock:
        return form
    half_day = clock.endswith("M")
    return (
        form
        + first[match.start(4) - 1]
        + ("%I:%M" if half_day else "%H:%M")
        + (":%S" if clock.count(":") > 1 else "")
        + (".%f" if fraction else "")
        + (" %p" if half_day else "")
    )


def _first_line(err: BaseException) -> str:
    return str(err).splitlines()[0][:200] if str(err) else type(err).__name__


def _nanoseconds(index: pd.DatetimeIndex, where: str) -> pd.DatetimeIndex:
    try:
        return index.as_unit("ns")
    except pd.errors.OutOfBoundsDatetime as err:
        msg = f"{where}: a time lies outside the years 1678 to 2261: {err}. Correct that row."
        raise DataError(msg) from err
