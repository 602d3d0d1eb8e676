"""Extra series, such as VIX, COT or sentiment: values with the time from which each of them was known.

A row of bars gets the last value known at or before its close, never one that was only published later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, DataError, InputNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

FILE_PREFIX = "series_"
"""Of a series' file in the data dataset."""
KNOWN_AT, KNOWN_AT_UTC = "known_at", "known_at_utc"
AGE = "age_days"
_LOADED: dict[str, Series] = {}


@dataclass(frozen=True, eq=False)
class Series:
    """Values by the time at which they became known.

    Attributes
    ----------
    name : of the file, without its ending
    columns : names of the values
    known : Unix seconds, rounded up, increasing, shape (n,)
    values : shape (n, n_columns), finite
    path : the file
    """

    name: str
    columns: tuple[str, ...]
    known: IntArray
    values: FloatArray
    path: Path = field(default=Path())

    @classmethod
    def load(cls, path: str | Path) -> Series:
        """Read a CSV or Parquet file with a column `known_at` or `known_at_utc`; the other columns are the values.

        Raises
        ------
        InputNotFoundError
            If there is no such file.
        DataError
            If it lacks the times, they are ambiguous or not increasing, or a value is no finite number.
        """
        path = Path(path)
        name = path.stem.removeprefix(FILE_PREFIX)
        if not path.is_file():
            msg = f"There is no series {path}. Pass --series FILE."
            raise InputNotFoundError(msg)
        if not name.isidentifier():
            msg = f"{path.name}: the name of a series begins its columns. Rename the file to letters, digits and _."
            raise DataError(msg)
        try:
            table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        except (ValueError, OSError) as err:
            msg = f"{path.name} is neither CSV nor Parquet: {str(err)[:200]}"
            raise DataError(msg) from err
        found = [column for column in (KNOWN_AT, KNOWN_AT_UTC) if column in table]
        if len(found) != 1:
            msg = (
                f"{path.name} has the columns {', '.join(map(str, table.columns))[:200]} and must have one called "
                f"{KNOWN_AT}: when each value was published, such as 2024-01-05T15:30:00-05:00, not the period that it "
                f"describes. Without it a backtest reads values before they existed. {KNOWN_AT_UTC} holds such times "
                "in UTC."
            )
            raise DataError(msg)
        known = _seconds(table.pop(found[0]), found[0], path.name)
        try:
            values = table.to_numpy(np.float64)
        except (TypeError, ValueError) as err:
            msg = f"{path.name}: only {found[0]} may hold anything but numbers: {err}. Remove other columns."
            raise DataError(msg) from err
        if len(known) < 2 or not table.shape[1] or AGE in table:
            msg = f"{path.name} needs two rows and a column of values beside {found[0]}, none called {AGE}."
            raise DataError(msg)
        wrong = np.append(False, np.diff(known) <= 0)
        if wrong.any():
            i = int(np.argmax(wrong))
            what = "known at the same time as" if known[i] == known[i - 1] else "known before"
            msg = (
                f"{path.name}, row {i + 1}: {pd.Timestamp(known[i], unit='s', tz='UTC')} is {what} the row above. "
                f"Sort the rows by {found[0]} and keep one for each time."
            )
            raise DataError(msg)
        if not (finite := np.isfinite(values)).all():
            i, j = np.argwhere(~finite)[0]
            msg = f"{path.name}, row {i + 1}: {table.columns[j]} is {values[i, j]}. Fill it or leave out the row."
            raise DataError(msg)
        _LOADED[name] = cls(name, tuple(map(str, table.columns)), known, values, path)
        return _LOADED[name]

    def __str__(self) -> str:
        """Return name, columns, number of values and their times."""
        first, last = (f"{pd.Timestamp(self.known[i], unit='s', tz='UTC'):%Y-%m-%d %H:%M}" for i in (0, -1))
        return (
            f"{self.name}: {', '.join(self.columns)}; {len(self.known):,} values, known {first} to {last} UTC"
        )

    def digest(self, rows: int | None = None) -> str:
        """Return the SHA-256 of names, times and values of the first rows, by default of all."""
        head = files.strict_json([self.name, *self.columns]).encode()
        parts = (self.known[:rows].astype("<i8"), self.values[:rows].astype("<f8"))
        return files.sha256(head + b"".join(part.tobytes() for part in parts))

    def joined(self, close: IntArray) -> pd.DataFrame:
        """Return the values known at each close [Unix s] and their age in days; NaN before the first."""
        row = np.searchsorted(self.known, close, side="right") - 1
        values = np.where((row < 0)[:, None], np.nan, self.values[row])
        age = np.where(row < 0, np.nan, (close - self.known[row]) / 86_400)
        return pd.DataFrame(np.column_stack((values, age)), columns=[*self.columns, AGE])

    def state(self) -> dict[str, Any]:
        """Return what a saved agent holds of the series: its layout and past, and how long a value usually stands."""
        usual = float(np.quantile(np.diff(self.known), 0.995, method="lower"))
        known = {"rows": len(self.known), "sha256": self.digest(), "usual_s": usual}
        return {"name": self.name, "columns": list(self.columns), **known}

    def check_continues(self, saved: Mapping[str, Any]) -> None:
        """Raise CheckpointError unless this is a later version of the series that an agent was trained with."""
        if (
            list(self.columns) != saved["columns"]
            or len(self.known) < saved["rows"]
            or self.digest(saved["rows"]) != saved["sha256"]
        ):
            msg = (
                f"{self.path.name}: its first {saved['rows']} rows must be those of the training, with the columns "
                f"{', '.join(saved['columns'])}. Add new rows at the end; what was known then does not change."
            )
            raise CheckpointError(msg)


def load_all(paths: Iterable[str | Path], expected: str = "") -> tuple[Series, ...]:
    """Read several series.

    Raises
    ------
    DataError
        If two have one name, or a file is no series.
    CheckpointError
        If their `combined` hash is not the expected one.
    """
    several = tuple(Series.load(path) for path in paths)
    names = [one.name for one in several]
    if len(set(names)) < len(names):
        msg = f"Two series have one name: {', '.join(names)}. Rename a file."
        raise DataError(msg)
    if expected not in ("", combined(several)):
        msg = f"The series {', '.join(names)} have other values than those of this run or notebook. Build it again."
        raise CheckpointError(msg)
    return several


def combined(several: Iterable[Series]) -> str:
    """Return the SHA-256 over several series."""
    return files.content_hash([one.digest() for one in several])


def loaded(saved: Iterable[Mapping[str, Any]]) -> tuple[Series, ...] | None:
    """Return the series of a saved agent that this process has loaded, checked; None if one is missing."""
    found = [(_LOADED.get(one["name"]), one) for one in saved]
    for series, one in found:
        if series is not None:
            series.check_continues(one)
    known = tuple(series for series, _ in found if series is not None)
    return known if len(known) == len(found) else None


def _seconds(times: pd.Series[Any], column: str, where: str) -> IntArray:
    """Return times as Unix seconds, rounded up."""
    text = times.astype(str)
    said = text.str.contains(":") & (
        text.str.contains(r"(?:Z|[+-]\d\d:?(?:\d\d)?)$") | (column == KNOWN_AT_UTC)
    )
    try:
        parsed = pd.to_datetime(text, utc=True, format="ISO8601")
        wrong = ~said | parsed.isna()
        i = int(np.argmax(wrong)) if wrong.any() else None
    except (ValueError, TypeError, OverflowError) as err:
        msg = f"{where}: {column} holds no times: {str(err)[:200]}"
        raise DataError(msg) from err
    if i is not None:
        msg = (
            f"{where}, row {i + 1}: {column} is {text.iloc[i]}. Write date, time and offset, such as "
            f"2024-01-05T15:30:00-05:00, or rename the column {KNOWN_AT_UTC} if its times are UTC."
        )
        raise DataError(msg)
    nanoseconds: IntArray = pd.DatetimeIndex(parsed).as_unit("ns").asi8
    return -(-nanoseconds // 10**9)
