"""Has the market changed since training? KS and CUSUM of features and returns, ending in retrain or keep.

Both tests are put to daily means, and both allow for serial correlation: a feature that moves slowly has
few independent days, and a test that counts bars calls every month a new world.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sac_kernel.core import strings
from sac_kernel.core.errors import DataError
from sac_kernel.stats import significance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

RETRAIN, KEEP = "retrain", "keep"
LEVEL = 0.01
"""Of a false alarm over all series of a check together (Holm)."""
MIN_DAYS = 20


class Series(NamedTuple):
    """One thing watched, a value a day: in training, and now."""

    train: FloatArray
    now: FloatArray


def daily_means(values: FloatArray, day: IntArray) -> FloatArray:
    """Return the mean of each column over each day, shape (n_days, n_columns), NaN rows left out.

    Parameters
    ----------
    values : shape (n_bars, n_columns)
    day : trading-day number of each bar, non-decreasing
    """
    known = np.isfinite(values).all(axis=1)
    values, day = values[known], day[known]
    if not len(values):
        return np.zeros((0, values.shape[1]))
    first = np.flatnonzero(np.diff(day, prepend=day[0] - 1))
    count = np.diff(np.append(first, len(day)))
    out: FloatArray = np.add.reduceat(values, first, axis=0) / count[:, None]
    return out


def independent_days(x: FloatArray) -> float:
    """Return how many independent days the mean of `x` is worth, at most its own number.

    n (1 - rho) / (1 + rho), rho the correlation of neighbours: exact for an AR(1) series.
    """
    rho = float(significance.autocorrelations(x, 1)[0])
    return x.size * min(1.0, (1.0 - rho) / (1.0 + rho)) if rho < 1.0 else 1.0


def ks_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Return the largest difference of two empirical distribution functions, in [0, 1]."""
    a, b = np.sort(np.asarray(a, np.float64)), np.sort(np.asarray(b, np.float64))
    at = np.concatenate((a, b))
    below = np.searchsorted(a, at, side="right") / a.size - np.searchsorted(b, at, side="right") / b.size
    return float(np.abs(below).max())


def ks_p_value(distance: float, n: float, m: float) -> float:
    """Return the asymptotic p value of a two-sample KS distance (Kolmogorov 1933, Stephens 1970).

    n and m are independent observations, not counts of bars.
    """
    root = math.sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.2:
        return 1.0  # the series below needs more terms, and is 1 to eight digits
    terms = (2.0 * (-1.0) ** (k - 1) * math.exp(-2.0 * (k * x) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def cusum(series: Series) -> FloatArray:
    """Return the cumulated deviations of now from the train mean, in standard errors of all of now's days.

    Page 1954 in the form of a Brownian path: under no change it is one on [0, 1]. Shape (n_days_now,). The
    uncertainty of the train mean is in the standard error.
    """
    train, now = series
    variance = float(train.var(ddof=1)) * train.size / independent_days(train)
    variance *= 1.0 + now.size / train.size
    path = np.cumsum(now - train.mean())
    return path / math.sqrt(variance * now.size) if variance > 0 else np.zeros(now.size)


def brownian_p_value(reach: float) -> float:
    """Return the chance that |Brownian motion| on [0, 1] ever exceeds `reach` (Feller 1971, X.5)."""
    if reach < 0.3:
        return 1.0
    inside = sum(
        (-1.0) ** k / (2 * k + 1) * math.exp(-((2 * k + 1) ** 2) * math.pi**2 / (8.0 * reach**2))
        for k in range(60)
    )
    return min(1.0, max(0.0, 1.0 - 4.0 / math.pi * inside))


def check(watched: Mapping[str, Series]) -> dict[str, Any]:
    """Return retrain or keep, and a row a series and test.

    Parameters
    ----------
    watched : name -> daily values in training and now, both of at least `MIN_DAYS` days

    Returns
    -------
    dict
        word ('retrain' or 'keep'), sentence, rows (name, test, statistic, p_holm, alarm), most suspicious first
    """
    rows: list[dict[str, Any]] = []
    for name, series in watched.items():
        if min(series.train.size, series.now.size) < MIN_DAYS:
            msg = (
                f"drift.check: {MIN_DAYS} days of {name} in training and now are required, found "
                f"{series.train.size} and {series.now.size}; wait for more bars"
            )
            raise DataError(msg)
        distance = ks_distance(series.train, series.now)
        worth = (independent_days(series.train), independent_days(series.now))
        reach = float(np.abs(cusum(series)).max())
        rows.append({"name": name, "test": "KS", "statistic": distance, "p": ks_p_value(distance, *worth)})
        rows.append({"name": name, "test": "CUSUM", "statistic": reach, "p": brownian_p_value(reach)})
    for row, p in zip(rows, significance.holm([row.pop("p") for row in rows]), strict=True):
        row |= {"p_holm": p, "alarm": p < LEVEL}
    rows.sort(key=lambda row: row["p_holm"])
    alarms = list(dict.fromkeys(str(row["name"]) for row in rows if row["alarm"]))
    named = ", ".join(alarms[:3])
    if len(alarms) > 3:
        named = strings.AND_MORE.format(series=named, more=len(alarms) - 3)
    sentence = strings.KEEP.format(count=len(watched))
    if alarms:
        sentence = strings.RETRAIN.format(series=named, level=LEVEL)
    return {"word": RETRAIN if alarms else KEEP, "sentence": sentence, "rows": rows}
