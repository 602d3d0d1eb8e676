"""Proof by recomputation that features know only the past, for this package's pipeline or anybody's.

Three things are tried on random rows: the past alone (prefix invariance), another future (future edit), and
a short past (warm-up). First a canary, the next bar's close, has to be caught: a check that cannot fail
proves nothing.
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
"""Two values of an unscaled feature closer than this agree: a long memory has faded."""

_WHERE = "causality.assert_causal"


@dataclass(frozen=True)
class CausalityReport:
    """What was checked.

    Attributes
    ----------
    rows : random rows recomputed, each without its future and with another one
    features : columns that were the same bit for bit in all of them
    memory_bars : bars from which the last rows come out the same to `TOLERANCE`; None if that takes more
        than there were
    """

    rows: int
    features: int
    memory_bars: int | None

    def __str__(self) -> str:
        """Return one sentence."""
        memory = f"{self.memory_bars:,} bars" if self.memory_bars else "more bars than were given"
        return (
            f"{self.rows} rows of {self.features} features recomputed without their future and with another "
            f"one: all bit-identical; the canary was caught; a row needs {memory} of past to be exact to {TOLERANCE:g}"
        )


def assert_causal(
    pipeline: Any,  # noqa: ANN401  # anybody's
    bars: pd.DataFrame | BarsByInstrument,
    rows: int = 20,
    seed: int = 0,
) -> CausalityReport:
    """Check that features of row t are a function of bars <= t, bit for bit.

    Parameters
    ----------
    pipeline : anything with `compute(bars) -> DataFrame`, one row a bar of the traded instrument
    bars : a table of bars, or a dict of tables; whatever `compute` takes. The first 20,000 bars are used
    rows, seed : how many random rows, and which

    Raises
    ------
    DataError
        Naming the feature and the row that changed; or saying that the check itself could not fail here.
    """
    bars = _until(bars, _times(bars)[min(len(_times(bars)), MAX_BARS) - 1])
    full = pipeline.compute(bars)
    picked = np.random.default_rng(seed).integers(min(2, len(full) - 2), len(full) - 1, size=rows)
    _check_canary(bars, int(picked[0]))
    for t in picked:
        for what, leaking in _leaks(pipeline.compute, bars, full, int(t)).items():
            if leaking:
                msg = (
                    f"{_WHERE}: row {t} ({full.index[t]}) must not depend on later bars, found that "
                    f"{', '.join(leaking[:3])} changed when the future was {what}"
                )
                raise DataError(msg)
    return CausalityReport(rows, full.shape[1], _memory(pipeline.compute, bars, full))


def _leaks(compute: Compute, bars: Any, full: pd.DataFrame, t: int) -> dict[str, list[str]]:  # noqa: ANN401
    """Return the columns of row t that change when its future is shortened, and when it is edited."""
    moment = full.index[t]
    futures = {"shortened": _until(bars, moment), "edited": _edited_after(bars, moment)}
    return {what: _changed(full.iloc[t], compute(other).loc[moment]) for what, other in futures.items()}


def _changed(here: pd.Series, there: pd.Series) -> list[str]:
    names = dict.fromkeys((*here.index, *there.index))
    both = [k in here and k in there for k in names]
    return [
        str(k)
        for k, known in zip(names, both, strict=True)
        if not (known and np.array_equal(here[k], there[k], equal_nan=True))
    ]


def _check_canary(bars: Any, t: int) -> None:  # noqa: ANN401
    def canary(given: Any) -> pd.DataFrame:  # noqa: ANN401
        close = next(iter(given.values()))["close"] if isinstance(given, dict) else given["close"]
        return pd.DataFrame({"canary": close.shift(-1).fillna(0.0)})

    full = canary(bars)
    missed = [what for what, found in _leaks(canary, bars, full, t).items() if not found]
    if missed:
        msg = (
            f"{_WHERE}: bars in which the canary (the next close) is caught are required, found that it was "
            f"not when the future was {' and '.join(missed)}: the check cannot fail here; give other bars"
        )
        raise DataError(msg)


def _memory(compute: Compute, bars: Any, full: pd.DataFrame) -> int | None:  # noqa: ANN401
    """Return the smallest power of two of bars that gives the last rows as the whole past does."""
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


def _each(bars: Any, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Any:  # noqa: ANN401
    return {name: change(table) for name, table in bars.items()} if isinstance(bars, dict) else change(bars)


def _until(bars: Any, moment: Any) -> Any:  # noqa: ANN401
    return _each(bars, lambda table: table[table.index <= moment])


def _since(bars: Any, moment: Any) -> Any:  # noqa: ANN401
    return _each(bars, lambda table: table[table.index >= moment])


def _edited_after(bars: Any, moment: Any) -> Any:  # noqa: ANN401
    def edit(table: pd.DataFrame) -> pd.DataFrame:
        factor = np.exp(np.random.default_rng(0).normal(0.0, 0.1, len(table)))
        return table.mul(np.where(table.index > moment, factor, 1.0), axis=0)

    return _each(bars, edit)
