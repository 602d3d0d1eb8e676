"""Holes: spans without bars at times at which the instrument usually has some.

What is usual is read from the bars themselves, hour by hour of New York's week, so nights of an exchange, weekends of
currencies and daily breaks are no holes, for any instrument and bar length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.prices.bars import DAY_S, open_seconds
from sac_kernel.prices.clocks import utc_offsets

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    IntArray = NDArray[np.int64]

_HOUR_S, _WEEK_H = 3600, 168
_MONDAY_H = 96  # 1970-01-05 00:00
_USUAL = 0.5  # share of the weeks in which an hour has a bar
_SHORT_WEEKS = 0.3  # one day of five and a holiday's half day are none
LONG_WEEKS = 2.0
"""Weeks of trading time that make a hole one of the gravest things to say."""


@dataclass(frozen=True)
class Hole:
    """A span without bars.

    Attributes
    ----------
    last, next : open times of the bars around it, UTC
    weeks : trading time that is missing, in the instrument's own weeks
    """

    last: pd.Timestamp
    next: pd.Timestamp
    weeks: float


def find_holes(bars: pd.DataFrame, bar_seconds: int) -> list[Hole]:
    """Return the holes of more than a day and a half of trading time, the longest first."""
    seconds = open_seconds(bars)
    gaps = np.flatnonzero(np.diff(seconds) > bar_seconds)
    if gaps.size == 0:
        return []
    hours = seconds // _HOUR_S
    first, last = int(hours[0]), int(hours[-1])
    slots = _week_hours(first, last)
    there = np.zeros(last - first + 1, bool)
    there[hours - first] = True
    weeks_with = np.bincount(slots[there], minlength=_WEEK_H)
    # weeks that have any bars: a hole of years must not make every hour unusual
    usual = weeks_with > _USUAL * max(np.unique((np.flatnonzero(there) + first) // _WEEK_H).size, 1)
    if not usual.any():
        usual = weeks_with > 0
    per_week = int(usual.sum())
    missing = np.concatenate(([0], np.cumsum(usual[slots] & ~there)))
    begin, end = hours[gaps] - first + 1, hours[gaps + 1] - first
    weeks = (missing[np.maximum(end, begin)] - missing[begin]) / per_week
    wall = (seconds[gaps + 1] - seconds[gaps]) / (7 * DAY_S)
    long = np.flatnonzero((weeks > _SHORT_WEEKS) & (wall > _SHORT_WEEKS / 2))
    holes = [Hole(bars.index[gaps[k]], bars.index[gaps[k] + 1], float(weeks[k])) for k in long]
    return sorted(holes, key=lambda h: -h.weeks)


def hole_notes(name: str, holes: list[Hole]) -> list[str]:
    """Return notes about holes: one for each long one, one for all others."""
    long = [h for h in holes if h.weeks >= LONG_WEEKS]
    notes = [
        f"{name}: HOLE of {(h.next - h.last).days:,} days from {h.last:%Y-%m-%d} to {h.next:%Y-%m-%d}, not filled"
        for h in long[:3]
    ]
    if rest := holes[len(long[:3]) :]:
        notes.append(
            f"{name}: {len(rest)} holes of more than a day of trading time, the longest {rest[0].weeks:.1f} weeks "
            f"from {rest[0].last:%Y-%m-%d %H:%M}; nothing is filled"
        )
    return notes


def _week_hours(first: int, last: int) -> IntArray:
    """Return the hour of New York's week, 0 to 167, of each UTC hour from first to last."""
    moments = np.array([first, last], np.int64) * _HOUR_S
    local = np.arange(first, last + 1) + utc_offsets(moments, "America/New_York") // _HOUR_S
    return (local - _MONDAY_H) % _WEEK_H
