"""Check by recomputation that features use only the past, for this package's pipeline or any other.

Random rows are recomputed without their future (prefix invariance), with a changed future (future edit), and
with a shorter past (warm-up). Before that, the check must catch a canary, the next bar's close: a check that
cannot fail proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sac_kernel.prices.bars import BarsByInstrument

    Compute = Callable[[Any], pd.DataFrame]

MAX_BARS = 20_000
TOLERANCE = 1e-6
"""Two unscaled values of a feature agree if they differ by less than this."""


@dataclass(frozen=True)
class CausalityReport:
    """What was checked.

    Attributes
    ----------
    rows : random rows recomputed, each without its future and with a changed one
    features : columns that were bit-identical in all of these rows
    memory_bars : bars of past that give the last rows to within `TOLERANCE`; None if all bars are too few
    """

    rows: int
    features: int
    memory_bars: int | None

    def __str__(self) -> str:
        """Return two sentences."""
        memory = f"{self.memory_bars:,}" if self.memory_bars else "more than the given"
        return (
            f"{self.rows} rows of {self.features} features are bit-identical without their future and with a changed "
            f"one, and the canary was caught. A row needs {memory} bars of past to be exact to {TOLERANCE:g}."
        )


def assert_causal(
    pipeline: Any,  # noqa: ANN401  # any object with compute
    bars: pd.DataFrame | BarsByInstrument,
    rows: int = 20,
    seed: int = 0,
) -> CausalityReport:
    """Check that features of row t are a function of bars <= t, bit for bit.

    Parameters
    ----------
    pipeline : any object with `compute(bars) -> DataFrame`, one row per bar of the traded instrument
    bars : a table of bars or a dict of tables, as `compute` takes it. The first 20,000 bars are used
    rows : number of random rows
    seed : of the choice of rows

    Raises
    ------
    DataError
        If a feature depends on the future (the message names it and the row), or if the check cannot fail on
        these bars.
    """
    bars = _until(bars, _times(bars)[min(len(_times(bars)), MAX_BARS) - 1])
    full = pipeline.compute(bars)
    first = max(min(2, len(full) - 2), len(full) - len(full.dropna()))
    picked = np.sort(
        np.random.default_rng(seed).integers(min(first, len(full) - 2), len(full) - 1, size=rows)
    )
    _check_canary(bars, int(picked[0]))
    for t in picked:
        for edit, leaking in _leaks(pipeline.compute, bars, full, int(t)).items():
            if leaking:
                msg = (
                    f"Row {t} ({full.index[t]}) depends on later bars: "
                    f"{', '.join(leaking[:3])} changed when the future was {edit}."
                )
                raise DataError(msg)
    return CausalityReport(rows, full.shape[1], _memory(pipeline.compute, bars, full))


def _leaks(compute: Compute, bars: Any, full: pd.DataFrame, t: int) -> dict[str, list[str]]:  # noqa: ANN401
    """Return the columns of row t that change when its future is shortened, and when it is edited."""
    moment = full.index[t]
    futures = {"shortened": _until(bars, moment), "edited": _edited_after(bars, moment)}
    return {edit: _changed(full.iloc[t], compute(table).loc[moment]) for edit, table in futures.items()}


def _changed(row: pd.Series, recomputed: pd.Series) -> list[str]:
    """Return the names whose values differ or that only one of the two rows has."""
    return [
        str(k)
        for k in dict.fromkeys((*row.index, *recomputed.index))
        if not (k in row and k in recomputed and np.array_equal(row[k], recomputed[k], equal_nan=True))
    ]


def _check_canary(bars: Any, t: int) -> None:  # noqa: ANN401
    def canary(given: Any) -> pd.DataFrame:  # noqa: ANN401
        close = next(iter(given.values()))["close"] if isinstance(given, dict) else given["close"]
        return pd.DataFrame({"canary": close.shift(-1).fillna(0.0)})

    full = canary(bars)
    missed = [edit for edit, leaking in _leaks(canary, bars, full, t).items() if not leaking]
    if missed:
        msg = (
            "The causality check cannot fail on these bars: it missed the canary (the next close) when the future "
            f"was {' and '.join(missed)}. Pass other bars."
        )
        raise DataError(msg)


def _memory(compute: Compute, bars: Any, full: pd.DataFrame) -> int | None:  # noqa: ANN401
    """Return the smallest power of two of bars that gives the same last rows as the whole past."""
    last = full.iloc[-5:]
    k = 16
    while k < len(full):
        short = compute(_since(bars, full.index[-k])).reindex(columns=full.columns).iloc[-5:]
        if np.allclose(short.to_numpy(), last.to_numpy(), rtol=0.0, atol=TOLERANCE, equal_nan=True):
            return k
        k *= 2
    return None


def _times(bars: Any) -> pd.DatetimeIndex:  # noqa: ANN401
    longest: Any = max(bars.values(), key=len).index if isinstance(bars, dict) else bars.index
    return longest


def _map_tables(bars: Any, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Any:  # noqa: ANN401
    return {name: change(table) for name, table in bars.items()} if isinstance(bars, dict) else change(bars)


def _until(bars: Any, moment: Any) -> Any:  # noqa: ANN401
    return _map_tables(bars, lambda table: table[table.index <= moment])


def _since(bars: Any, moment: Any) -> Any:  # noqa: ANN401
    return _map_tables(bars, lambda table: table[table.index >= moment])


def _edited_after(bars: Any, moment: Any) -> Any:  # noqa: ANN401
    def edit(table: pd.DataFrame) -> pd.DataFrame:
        factor = np.exp(np.random.default_rng(0).normal(0.0, 0.1, len(table)))
        return table.mul(np.where(table.index > moment, factor, 1.0), axis=0)

    return _map_tables(bars, edit)
