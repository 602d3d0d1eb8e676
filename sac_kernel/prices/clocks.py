"""The clocks of price files and their conversion to UTC.

The clock that HistData states for its files is wrong. Measured at releases and weekend opens (docs/data.md),
their labels are New York civil time until 2018-12-16, then London time minus five hours.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HISTDATA, MT_EET = "histdata", "mt-eet"
HISTDATA_CHANGE = pd.Timestamp("2018-12-16")
"""From here on the labels follow London time."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NEW_YORK, _LONDON = "America/New_York", "Europe/London"
_FIRST, _LAST = pd.Timestamp("1971-01-02"), pd.Timestamp("2099-12-30")


def unix_seconds(index: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Return an index of any unit in whole Unix seconds, shape (n,); 20 times faster than `as_unit`."""
    return np.asarray(index.asi8) // _PER_SECOND[index.unit]


def check_clock(clock: str, where: str) -> None:
    """Raise DataError unless `clock` is 'UTC', an IANA zone, 'histdata' or 'mt-eet'."""
    if clock in ("UTC", HISTDATA, MT_EET):
        return
    try:
        ZoneInfo(clock)
    except (KeyError, ValueError, OSError) as err:
        msg = (
            f"{where}: the clock must be UTC, an IANA zone such as Europe/London, {HISTDATA} or "
            f"{MT_EET} (MetaTrader servers: New York + 7 h), got {clock!r}"
        )
        raise DataError(msg) from err


def to_utc(labels: pd.DatetimeIndex, clock: str, where: str) -> pd.DatetimeIndex:
    """Return the UTC times of a file's naive labels.

    Raises
    ------
    DataError
        If a clock change skips or repeats a label, or a label is not from 1971 to 2099.
    """
    check_clock(clock, where)
    outside = np.asarray(labels.isna() | (labels < _FIRST) | (labels > _LAST))
    if outside.any():
        i = int(np.argmax(outside))
        msg = f"{where}: times must be from 1971 to 2099, got {labels[i]} in row {i + 1}"
        raise DataError(msg)
    if clock == HISTDATA:
        early = np.asarray(labels < HISTDATA_CHANGE)
        values = np.empty(len(labels), dtype=np.int64)
        values[early] = _localised(labels[early], _NEW_YORK, clock, where)
        values[~early] = _localised(labels[~early] + pd.Timedelta(hours=5), _LONDON, clock, where)
    elif clock == MT_EET:
        values = _localised(labels - pd.Timedelta(hours=7), _NEW_YORK, clock, where)
    else:
        values = _localised(labels, clock, clock, where)
    return pd.DatetimeIndex(values.view("datetime64[ns]"), tz="UTC")


def utc_offsets(utc_s: np.ndarray[Any, np.dtype[np.int64]], zone: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the zone's offset from UTC [s] for each hour from the first to the last of sorted moments.

    Zones of this package change on the hour. Results are cached and read-only.
    """
    return _hour_offsets(int(utc_s[0]) // 3600, int(utc_s[-1]) // 3600, zone)


@functools.lru_cache(maxsize=32)
def _hour_offsets(first: int, last: int, zone: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    hours = np.arange(first, last + 1) * 3600
    local: Any = pd.DatetimeIndex(hours.astype("datetime64[s]"), tz="UTC").tz_convert(zone)
    offsets = np.asarray(local.tz_localize(None).as_unit("s").asi8) - hours
    offsets.setflags(write=False)
    return offsets


def _localised(
    labels: pd.DatetimeIndex, zone: str, clock: str, where: str
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    times = labels.as_unit("ns").tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    unclear = np.asarray(times.isna())
    if unclear.any():
        label = labels[int(np.argmax(unclear))]
        msg = (
            f"{where}: {int(unclear.sum())} times are skipped or repeated when the clock {clock} changes, first "
            f"{label} ({zone}). The file uses another clock."
        )
        raise DataError(msg)
    return np.asarray(times.tz_convert("UTC").asi8)
