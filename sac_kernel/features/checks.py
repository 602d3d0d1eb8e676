"""What is checked of a user's features and series before a run.

The notebook reads a series again, but only this module says what is wrong with one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError, InputNotFoundError
from sac_kernel.features.series import AGE, FILE_PREFIX, STATED, Series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sac_kernel.features.own import OwnFeatures
    from sac_kernel.prices.bars import BarsByInstrument

_EXAMPLE = "2024-01-05T15:30:00-05:00"


@dataclass(frozen=True)
class OwnPipeline:
    """Own features alone, with the `compute` that `assert_causal` asks for."""

    own: OwnFeatures
    instrument: str
    bar_seconds: int = 0

    def compute(self, bars: BarsByInstrument | pd.DataFrame) -> pd.DataFrame:
        """Return the own features of bars."""
        given = {self.instrument: bars} if isinstance(bars, pd.DataFrame) else bars
        return self.own.table(given, self.instrument, self.bar_seconds)


def read_series(paths: Iterable[str | Path]) -> tuple[Series, ...]:
    """Read the series of a command line.

    Raises
    ------
    InputNotFoundError
        If there is no such file.
    DataError
        If one lacks the times, they are ambiguous or do not increase, a value is no finite number, or two series
        have one name.
    """
    several = tuple(map(_read, paths))
    names = [one.name for one in several]
    if len(set(names)) < len(names):
        msg = f"Two series have one name: {', '.join(names)}. Rename a file."
        raise DataError(msg)
    return several


def described(one: Series) -> str:
    """Return name, columns, number of values and their times."""
    first, last = (f"{_moment(one.known[i]):%Y-%m-%d %H:%M}" for i in (0, -1))
    return f"{one.name}: {', '.join(one.columns)}; {len(one.known):,} values, known {first} to {last} UTC"


def _read(given: str | Path) -> Series:
    path = Path(given)
    if not path.is_file():
        msg = f"There is no series {path}. Pass --series FILE."
        raise InputNotFoundError(msg)
    if not path.stem.removeprefix(FILE_PREFIX).isidentifier():
        msg = f"{path.name}: the name of a series begins its columns. Use letters, digits and _ in the file's name."
        raise DataError(msg)
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as err:
        msg = f"{path.name} is no CSV file: {str(err)[:200]}"
        raise DataError(msg) from err
    columns = ", ".join(map(str, table.columns))[:200]
    named = [column for column in STATED if column in table]
    if len(named) != 1:
        msg = (
            f"{path.name} has the columns {columns}. Add one called known_at that says when each value was "
            f"published, such as {_EXAMPLE}, not the period that it describes: without it a backtest reads values "
            f"before they existed. Call it known_at_utc if the times are in UTC and have no offset."
        )
        raise DataError(msg)
    known = _times(table.pop(named[0]).astype(str), named[0], path.name)
    if len(known) < 2 or not table.shape[1] or AGE in table:
        msg = f"{path.name} has {len(known)} rows and the columns {columns}. It needs two rows and a column of values"
        msg += f", none called {AGE}."
        raise DataError(msg)
    _check_order(known, named[0], path.name)
    for column in table:
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
        if not (finite := np.isfinite(values)).all():
            i = int(np.argmin(finite))
            msg = (
                f"{path.name}, row {i + 1}: {column} is {table[column].iloc[i]}. Only numbers fit a feature: fill it, "
                "or leave out the row or the column."
            )
            raise DataError(msg)
    return Series.load(path)


def _times(texts: pd.Series[Any], column: str, where: str) -> pd.DatetimeIndex:
    said = texts.str.contains(STATED[column])
    if not said.all():
        i = int(np.argmin(said))
        msg = (
            f"{where}, row {i + 1}: {column} is {texts.iloc[i]}. Write date, time and offset, such as {_EXAMPLE}, or "
            f"call the column known_at_utc if its times are in UTC. A date alone does not say when it was known."
        )
        raise DataError(msg)
    try:
        return pd.DatetimeIndex(pd.to_datetime(texts, utc=True, format="ISO8601"))
    except ValueError as err:
        msg = f"{where}: {column} holds no times: {str(err)[:200]}"
        raise DataError(msg) from err


def _check_order(known: pd.DatetimeIndex, column: str, where: str) -> None:
    wrong = np.append(False, known[1:].ceil("s") <= known[:-1].ceil("s"))
    if wrong.any():
        i = int(np.argmax(wrong))
        msg = (
            f"{where}, row {i + 1}: {known[i]} does not follow {known[i - 1]} of the row above by a second or more. "
            f"Sort the rows by {column} and keep one for each time. Leave out revisions of older periods."
        )
        raise DataError(msg)


def _moment(seconds: Any) -> pd.Timestamp:  # noqa: ANN401
    return pd.Timestamp(int(seconds), unit="s", tz="UTC")
