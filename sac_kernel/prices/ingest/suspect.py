"""Bars that cannot be right: prices far from their neighbours, and splits that nobody adjusted.

The rule looks at both sides of a bar, so a real move, which stays, is none. It is fixed: a price is suspect if it
lies more than fifty usual bar ranges and two per cent outside its neighbours' closes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.prices.bars import PRICE_COLUMNS, open_seconds

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

_SIDE = 5  # closes on each side of a bar
_TOLERATED = 2  # of them, on each end of their range, that may be wrong themselves
_RANGES = 50.0
_LEAST = np.log(1.02)
_WINDOW = 501  # bars whose median range is the usual one
_SPLIT = np.log(1.4)
_WEEK_S = 604_800
_RATIOS = tuple((n, m) for n in range(1, 51) for m in (1, 2) if n > m)


@dataclass(frozen=True)
class Suspect:
    """A bar that cannot be right.

    Attributes
    ----------
    when : its open time, UTC
    text : the prices and what is wrong, in words
    """

    when: pd.Timestamp
    text: str


def suspects(bars: pd.DataFrame) -> list[Suspect]:
    """Return the suspect bars in time order.

    Notes
    -----
    The neighbours are the five closes before and the five after; their third largest and third smallest bound the
    range, so up to two bad closes on a side hide nothing. Usual is the median of (high - low) / close over 501 bars
    around, at least a quarter of that of all bars. A jump from one close to the next open by more than 40 per cent
    that stays is a split or a change of units; after a hole longer than a week it is neither.
    """
    prices = np.log(bars.loc[:, list(PRICE_COLUMNS)].to_numpy(np.float64))
    close = prices[:, 3]
    jump = np.abs(np.diff(close, prepend=close[0]))
    reach = np.maximum(prices[:, 1] - close, close - prices[:, 2])
    ranges = prices[:, 1] - prices[:, 2]
    overall = float(np.median(ranges))
    candidates = np.maximum(jump, reach) > max(_LEAST, _RANGES * overall / 4) / 2
    rows = np.flatnonzero(candidates | np.append(candidates[1:], False))
    found = []
    for i in rows:
        neighbours = np.concatenate((close[max(0, i - _SIDE) : i], close[i + 1 : i + 1 + _SIDE]))
        if neighbours.size < 2 * _TOLERATED + 1:
            continue
        ordered = np.sort(neighbours)
        low, high = ordered[_TOLERATED], ordered[-1 - _TOLERATED]
        around = ranges[max(0, i - _WINDOW // 2) : i + _WINDOW // 2 + 1]
        usual = max(float(np.median(around)), overall / 4)
        above, below = prices[i].max() - high, low - prices[i].min()
        away = max(above, below)
        if away > max(_RANGES * usual, _LEAST):
            times = _exp(away)
            how = f"{times:.3g} times above" if above >= below else f"{times:.3g} times below"
            found.append(Suspect(bars.index[i], f"{_row(bars, i)}: {how} its neighbours"))
    return sorted([*found, *_splits(bars, prices)], key=lambda s: s.when)


def _splits(bars: pd.DataFrame, prices: FloatArray) -> list[Suspect]:
    """Return the bars at which the price level changes for good by a factor that no market moves."""
    jump = prices[1:, 0] - prices[:-1, 3]
    wait = np.diff(open_seconds(bars))
    found = []
    for i in np.flatnonzero((np.abs(jump) > _SPLIT) & (wait < _WEEK_S)) + 1:
        before, after = np.median(prices[max(0, i - _SIDE) : i, 3]), np.median(prices[i : i + _SIDE, 3])
        if abs(after - before) < _SPLIT:
            continue
        ratio = _exp(abs(after - before))
        n, m = min(_RATIOS, key=lambda r: abs(np.log(r[0] / r[1] / ratio)))
        fits = abs(n / m / ratio - 1) < 0.1
        name = f"an unadjusted {n}:{m} split" if after < before else f"an unadjusted {m}:{n} split"
        text = f"the level changes by x{_exp(after - before):.3g}" + (f", like {name}" if fits else "")
        found.append(Suspect(bars.index[i], f"{_row(bars, i)}: {text}"))
    return found


def _exp(log_ratio: float) -> float:
    """Return a ratio of prices; prices of a damaged file may lie further apart than a float can tell."""
    return float(np.exp(np.clip(log_ratio, -700.0, 700.0)))


def _row(bars: pd.DataFrame, i: int) -> str:
    values = ", ".join(f"{k} {bars[k].iloc[i]:.10g}" for k in PRICE_COLUMNS)
    return f"{bars.index[i]:%Y-%m-%d %H:%M} UTC {values}"
