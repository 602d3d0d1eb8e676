"""The user's own features: a function `features(bars)` in one Python file, known by the file's hash.

The file is code of its user, run where she names it. A saved agent holds its hash, never its text.
"""

from __future__ import annotations

import dataclasses
import inspect
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, DataError, InputNotFoundError
from sac_kernel.features.series import AGE
from sac_kernel.prices.bars import open_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sac_kernel.features.series import Series
    from sac_kernel.prices.bars import BarsByInstrument

OWN_FILE = "own_features.py"
"""The file beside the package that a notebook's cell writes."""

MAX_OWN = 64
_LOADED: dict[str, OwnFeatures] = {}


class _Recorded(dict[str, pd.DataFrame]):
    """Bars by instrument, and which is `traded`; remembers which instruments were read."""

    def __init__(self, tables: BarsByInstrument, traded: str) -> None:
        super().__init__(tables)
        self.traded = traded
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> pd.DataFrame:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        self.read.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        self.read |= {*self.keys()}
        return super().__iter__()

    def items(self) -> Any:  # noqa: ANN401
        self.read |= {*self.keys()}
        return super().items()

    def values(self) -> Any:  # noqa: ANN401
        self.read |= {*self.keys()}
        return super().values()


@dataclass(frozen=True)
class OwnFeatures:
    """A user's function, her extra series, or both.

    `function(bars)` takes a dict of instrument -> bars (index open_time_utc; open, high, low, close) and returns a
    DataFrame on the traded instrument's index, one column a feature, numbers. Row t may use bars up to t alone
    (`features.causality.assert_causal`). Rows at the start may be NaN. `function(bars, series)` takes a second dict:
    series -> values known at each close and their age in days, on the same index. Series that no function takes are
    features as they are.

    Attributes
    ----------
    name : of the file
    sha256 : of its text with LF line ends; '' without a function
    read : instruments that the function read in the last call
    series : the extra series
    """

    name: str
    sha256: str
    function: Callable[..., Any] | None = field(compare=False)
    read: set[str] = field(default_factory=set, compare=False)
    series: tuple[Series, ...] = field(default=(), compare=False)

    @classmethod
    def load(cls, path: str | Path, expected: str = "") -> OwnFeatures:
        """Run the file and return its function.

        Raises
        ------
        InputNotFoundError
            If there is no such file.
        CheckpointError
            If its hash is not the expected one.
        DataError
            If it does not run or defines no function `features`.
        """
        digest, function = load_function(path, "features(bars)", expected)
        return _LOADED.setdefault(digest, cls(Path(path).name, digest, function))

    @classmethod
    def of(cls, function: OwnFeatures | None, series: tuple[Series, ...]) -> OwnFeatures | None:
        """Return a file's features together with series; None if there are neither."""
        if not series:
            return function
        return dataclasses.replace(function or cls("series", "", None), series=series)

    @property
    def identity(self) -> dict[str, Any]:
        """Return the hashes that tell one version from another."""
        hashes = {one.name: one.digest() for one in self.series}
        return {"own_features": self.sha256, **({"series": hashes} if hashes else {})}

    def table(self, bars: BarsByInstrument, instrument: str, bar_seconds: int = 0) -> pd.DataFrame:
        """Return the features on the traded instrument's index, float64, after a strict check.

        Raises
        ------
        DataError
            If the function raises, or what it returns is no such table; the message names the column and the row.
        """
        index = bars[instrument].index
        given = _Recorded({name: pd.DataFrame(table).copy() for name, table in bars.items()}, instrument)
        close = open_seconds(bars[instrument]) + bar_seconds
        joined = {one.name: one.joined(close).set_axis(index) for one in self.series}
        function: Any = self.function or (lambda _: pd.DataFrame(index=index))
        takes_both = len(inspect.signature(function).parameters) > 1
        try:
            table = function(given, joined) if takes_both else function(given)
        except (Exception, SystemExit) as err:
            raise DataError(said(self.name, "fails in features(bars)", err)) from err
        self.read.update(given.read)
        if not isinstance(table, pd.DataFrame) or not table.index.equals(index):
            kind = f"{len(table)} rows" if isinstance(table, pd.DataFrame) else type(table).__name__
            msg = (
                f"{self.name}: features(bars) returned {kind}. It must return a DataFrame on the index of "
                f"bars[{instrument!r}], {len(index)} rows."
            )
            raise DataError(msg)
        if not takes_both:
            parts = [part.drop(columns=AGE).add_prefix(f"{name}_") for name, part in joined.items()]
            table = pd.concat([table, *parts], axis=1)
        names = [str(name) for name in table.columns]
        if not 0 < len(names) <= MAX_OWN or len(set(names)) < len(names):
            msg = f"{self.name}: features(bars) must return 1 to {MAX_OWN} columns of distinct names, got {names[:5]}."
            raise DataError(msg)
        try:
            values = table.to_numpy(np.float64, copy=True)
        except (TypeError, ValueError) as err:
            msg = f"{self.name}: the columns must hold numbers: {err}"
            raise DataError(msg) from err
        finite = np.isfinite(values)
        start = leading(finite.all(axis=1))
        if not finite[start:].all():
            row = start + int(np.argmin(finite[start:].all(axis=1)))
            column = names[int(np.argmin(finite[row]))]
            msg = (
                f"{self.name}: {column} is {values[row, names.index(column)]} at {index[row]}. Only rows before the "
                "first complete one may be NaN. Fill it inside features(bars)."
            )
            raise DataError(msg)
        return pd.DataFrame(values, index=index, columns=names)


def load_function(path: str | Path, signature: str, expected: str = "") -> tuple[str, Callable[..., Any]]:
    """Run a user's file; return the SHA-256 of its text with LF line ends, and its function of that signature.

    Raises as `OwnFeatures.load`.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"There is no file {path}. Pass a Python file with a function {signature}."
        raise InputNotFoundError(msg)
    content = path.read_bytes().replace(b"\r\n", b"\n")
    digest = files.sha256(content)
    if expected not in ("", digest):
        msg = (
            f"{path} is not the feature file that this agent or notebook was made with: its SHA-256 begins with "
            f"{digest[:12]}, not {expected[:12]}. Pass that version with --features."
        )
        raise CheckpointError(msg)
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(content, path.name, "exec"), namespace)  # noqa: S102  # the user's own file, by her command
    except (Exception, SystemExit) as err:
        raise DataError(said(path.name, "does not run", err)) from err
    function = namespace.get(signature.partition("(")[0])
    if not callable(function):
        msg = f"{path} defines no function {signature}. Add one."
        raise DataError(msg)
    return digest, function


def loaded(sha256: str) -> OwnFeatures | None:
    """Return the features of a file that this process has loaded, by hash: what a saved agent names."""
    return _LOADED.get(sha256)


def leading(complete: Any) -> int:  # noqa: ANN401
    """Return the number of rows before the first complete one."""
    return int(np.argmax(complete)) if np.any(complete) else len(complete)


def said(name: str, what: str, err: BaseException) -> str:
    """Return what went wrong in a user's file, with the line."""
    lines = [frame.lineno for frame in traceback.extract_tb(err.__traceback__) if frame.filename == name]
    where = f", line {lines[-1]}" if lines else ""
    return f"{name}{where} {what}: {type(err).__name__}: {str(err)[:200]}"
