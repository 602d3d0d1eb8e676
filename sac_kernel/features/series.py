"""Extra series, such as VIX or COT: values with the time from which each was known.

A row of bars gets the last value known at or before its close, never one that was only published later. The file is
checked at home (`features.checks`), which says what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

FILE_PREFIX = "series_"  # in the data dataset
STATED = {"known_at": r":.*(?:Z|[+-]\d\d:?\d*)$", "known_at_utc": ":"}
"""Column of times -> a pattern of what each must have."""
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
    path: Path

    @classmethod
    def load(cls, path: str | Path) -> Series:
        """Read a CSV file; DataError if it is no series."""
        path = Path(path)
        try:
            table = pd.read_csv(path)
            column = next(name for name in (*STATED, "no known_at") if name in table)
            texts = table.pop(column).astype(str)
            times = pd.DatetimeIndex(pd.to_datetime(texts, utc=True, format="ISO8601"))
            known, values = -(-times.as_unit("ns").asi8 // 10**9), table.to_numpy(np.float64)
            whole = texts.str.contains(STATED[column]).all() and (np.diff(known) > 0).all()
            if not whole or len(known) < 2 or not np.isfinite(values).all():
                raise ValueError(column)
        except (OSError, StopIteration, ValueError, TypeError) as err:
            msg = f"{path} is no series ({err!r:.99}). build_kernel.py --series says why."
            raise DataError(msg) from err
        name = path.stem.removeprefix(FILE_PREFIX)
        _LOADED[name] = cls(name, tuple(map(str, table.columns)), known, values, path)
        return _LOADED[name]

    def digest(self, rows: int | None = None) -> str:
        """Return the SHA-256 of the first rows, by default of all."""
        head = files.strict_json([self.name, *self.columns]).encode()
        return files.sha256(head + self.known[:rows].tobytes() + self.values[:rows].tobytes())

    def joined(self, close: IntArray) -> pd.DataFrame:
        """Return the values known at each close [Unix s] and their age; NaN before the first."""
        row = np.searchsorted(self.known, close, side="right") - 1
        table = np.column_stack((self.values[row], (close - self.known[row]) / 86_400))
        return pd.DataFrame(np.where(row[:, None] < 0, np.nan, table), columns=[*self.columns, AGE])

    def state(self) -> dict[str, Any]:
        """Return what a saved agent holds: layout and hash."""
        return {
            "name": self.name, "columns": list(self.columns), "rows": len(self.known), "sha256": self.digest(),
        }  # fmt: skip

    def check_continues(self, saved: Mapping[str, Any]) -> None:
        """Raise CheckpointError unless this begins with the series of a `state`."""
        if self.digest(saved["rows"]) != saved["sha256"]:
            msg = (
                f"{self.path.name} must begin with the {saved['rows']} rows that the agent knows, columns "
                f"{', '.join(saved['columns'])}. Add new rows at the end and change none."
            )
            raise CheckpointError(msg)


def loaded(saved: Sequence[Mapping[str, Any]]) -> tuple[Series, ...] | None:
    """Return a saved agent's series if this process has loaded them all."""
    several = tuple(_LOADED[one["name"]] for one in saved if one["name"] in _LOADED)
    for series, one in zip(several, saved, strict=False):
        series.check_continues(one)
    return several if len(several) == len(saved) else None
