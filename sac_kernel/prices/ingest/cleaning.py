"""What may be put right in a file's rows without inventing a price; everything else is left or refused.

Rows newest first are turned round, identical repeats and rows of closed hours are dropped, and highs and lows that
miss the close by one rounding step are widened if the user says so. Each gives a note.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import INDEX_NAME, PRICE_COLUMNS, Bars, drop_repeats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.prices.ingest.text import Raw

    FloatArray = NDArray[np.float64]

NAMED_ROWS = 10
"""Rows that a message names before it counts the rest."""
_MAX_DIGITS = 6
_RELATIVE_STEP = 1e-6  # prices with more digits: noise of single precision


def keep(raw: Raw, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Raw:
    """Return some rows of a file, in the order given."""
    return replace(
        raw,
        times=raw.times[rows],
        sides={side: values[rows] for side, values in raw.sides.items()},
        volume=None if raw.volume is None else raw.volume[rows],
        spread_points=None if raw.spread_points is None else raw.spread_points[rows],
    )


def in_time_order(raw: Raw, where: str) -> Raw:
    """Return rows in time order if they are newest first; other orders stay as they are."""
    if len(raw.times) < 2 or raw.times[0] <= raw.times[-1] or not raw.times.is_monotonic_decreasing:
        return raw
    turned = keep(raw, slice(None, None, -1))
    return replace(turned, changes=(*raw.changes, f"{where}: rows were newest first and were turned round"))


def without_closed_hours(raw: Raw, where: str) -> Raw:
    """Return the rows without flat ones of volume 0, with which some programs fill hours without a price.

    Files whose volume is always 0, or that would lose every row, stay as they are.
    """
    if raw.volume is None or raw.ticks or not (raw.volume > 0).any():
        return raw
    flat = np.logical_and.reduce([(p == p[:, :1]).all(axis=1) for p in raw.sides.values()])
    closed = (raw.volume == 0) & flat
    if not closed.any() or closed.all():
        return raw
    note = f"{where}: {int(closed.sum()):,} flat rows of volume 0 (the market was closed) were left out"
    return replace(keep(raw, ~closed), changes=(*raw.changes, note))


def without_repeats(raw: Raw, side: str, where: str) -> Raw:
    """Return the rows without identical repeats of an earlier one.

    Raises
    ------
    DataError
        If two rows of one open time differ.
    """
    if raw.ticks or (raw.times.is_monotonic_increasing and raw.times.is_unique):
        return raw
    index = pd.DatetimeIndex(raw.times, name=INDEX_NAME)
    frame = Bars(raw.sides[side], index=index, columns=list(PRICE_COLUMNS))
    _, notes = drop_repeats(frame, where)
    if not notes:
        return raw
    return replace(keep(raw, ~index.duplicated(keep="first")), changes=(*raw.changes, *notes))


def repair_rounding(
    prices: FloatArray, times: pd.DatetimeIndex, where: str, *, repair: bool
) -> tuple[FloatArray, list[str]]:
    """Return prices whose high and low enclose open and close, and notes that list each bar that was changed.

    Only a miss of one price step is a matter of rounding; the step is read from the digits of the prices.

    Raises
    ------
    DataError
        If there are such bars, all bad bars are of this kind, and `repair` is not set.
    """
    o, h, lo, c = prices.T
    top, bottom = np.maximum(o, c), np.minimum(o, c)
    high_short, low_short = h < top, lo > bottom
    bad = high_short | low_short
    if not bad.any() or not np.isfinite(prices).all() or not (prices > 0).all() or len(times) != len(prices):
        return prices, []
    step = price_step(prices[~bad]) if not bad.all() else 0.0
    tolerance = max(step, float(np.median(c)) * _RELATIVE_STEP * (step == 0.0)) * (1 + 1e-6) + 1e-12
    if (np.maximum(top - h, lo - bottom)[bad] > tolerance).any():
        return prices, []  # `check_bars` names the worst kind
    rows = np.flatnonzero(bad)
    listed = [
        f"{times[i]:%Y-%m-%d %H:%M} "
        + ", ".join(f"{k} {v:.10g}" for k, v in zip(PRICE_COLUMNS, prices[i], strict=True))
        for i in rows[:NAMED_ROWS]
    ]
    more = f"; and {rows.size - NAMED_ROWS} more" if rows.size > NAMED_ROWS else ""
    if not repair:
        msg = (
            f"{where}: in {rows.size} of {len(prices)} bars high or low misses open or close by one price step, a "
            f"rounding fault: {'; '.join(listed)}{more}. Pass --repair-rounding to widen them, or correct the source."
        )
        raise DataError(msg)
    repaired = prices.copy()
    repaired[:, 1] = np.maximum(h, top)
    repaired[:, 2] = np.minimum(lo, bottom)
    return repaired, [
        f"{where}: high or low widened by one price step in {rows.size} bars: {'; '.join(listed)}{more}"
    ]


def price_step(prices: FloatArray) -> float:
    """Return the smallest price step that all prices are multiples of, 0 if they have more than six digits.

    >>> price_step(np.array([1.08510, 1.0852])), price_step(np.array([2081.35])), price_step(np.array([1 / 3]))
    (0.0001, 0.01, 0.0)
    """
    for digits in range(_MAX_DIGITS + 1):
        if np.allclose(prices, np.round(prices, digits), rtol=1e-12, atol=1e-10):
            return float(10.0**-digits)
    return 0.0
