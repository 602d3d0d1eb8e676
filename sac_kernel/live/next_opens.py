"""When the next bars open, by the calendar of the instrument: a weekend or a night is known before it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.prices import costs
from sac_kernel.prices.instruments import minute_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.prices.instruments import InstrumentSpec

    IntArray = NDArray[np.int64]

_STEP_S = 900  # a bar is open if a quarter of an hour of it is
_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_WORKDAYS = 5


def next_opens(after: int, n: int, bar_seconds: int, spec: InstrumentSpec) -> IntArray:
    """Return the opens of the next `n` bars from a moment on, Unix seconds, shape (n,).

    Bars lie on a grid from `after`; those without a moment at which the market is open are left out. Holidays are not
    known, and bars of more than a day follow each other without a gap.
    """
    in_a_row = after + bar_seconds * np.arange(n, dtype=np.int64)
    if spec.calendar == "always" or bar_seconds > _DAY_S or is_open(in_a_row, spec).all():
        return in_a_row
    weeks = 1 + n * bar_seconds // spec.day_seconds  # each has more than one session
    grid = after + bar_seconds * np.arange(n + weeks * _WEEK_S // bar_seconds, dtype=np.int64)
    moments = grid[:, None] + np.arange(0, bar_seconds, _STEP_S, dtype=np.int64)
    open_ = is_open(moments.ravel(), spec).reshape(moments.shape).any(axis=1)
    return grid[open_][:n]


def is_open(moment: IntArray, spec: InstrumentSpec) -> NDArray[np.bool_]:
    """Return whether the market is open at each moment, Unix seconds, by the week and the session; shape (n,)."""
    if spec.calendar == "always":
        return np.ones(len(moment), bool)
    workday = (costs.trading_day(moment, spec) + _EPOCH_WEEKDAY) % 7 < _WORKDAYS
    if not spec.session:
        return np.asarray(workday)
    opens, closes = (minute_of(text, spec.symbol) for text in spec.session)
    minute = costs.local_minute(moment, spec.zone)
    return np.asarray(workday & (minute >= opens) & (minute < closes))
