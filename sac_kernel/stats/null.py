"""Arithmetic of the pipeline's own null: p values over refitted copies, their offsets in time, and power.

A copy gives row t the features of an earlier week, so what the features say is cut off from what follows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.core import strings
from sac_kernel.stats import significance
from sac_kernel.stats.verdict import NULL_LEVEL, POWER, upper_bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

WEEK_S = 7 * 86_400
MARGIN_DAYS = 20
"""Days between the end of what a shifted feature saw, with the horizon of the forecast, and the row it is given to."""


def p_value(real: float, copies: Sequence[float], stop_at: int = 0) -> float:
    """Return the chance of a statistic as high as the real one under the null; NaN if there is no real one.

    (1 + copies at or above the real one) / (copies + 1). Ties, and copies without a value, count against us.

    Parameters
    ----------
    copies : in the order in which they were made
    stop_at : 0, or the number of copies at or above the real one at which to stop (Besag & Clifford 1991): p is then
        that number / the copies made up to there. Later copies are not looked at
    """
    if math.isnan(real):
        return math.nan
    above = np.cumsum(~(np.asarray(copies, np.float64) < real))
    if stop_at and above.size and above[-1] >= stop_at:
        return float(stop_at / (1 + np.argmax(above >= stop_at)))
    return float((1 + (above[-1] if above.size else 0)) / (above.size + 1))


def is_decided(real: Mapping[str, float], copies: Mapping[str, Sequence[float]], stop_at: int) -> bool:
    """Return whether every statistic has `stop_at` copies at or above it, so that no further copy is needed."""
    return all(
        math.isnan(value) or np.sum(~(np.asarray(copies[name], np.float64) < value)) >= stop_at
        for name, value in real.items()
    )


def result(
    real: Mapping[str, float], copies: Mapping[str, Sequence[float]], stop_at: int = 0
) -> dict[str, Any]:
    """Return the null's result as `verdict.decide` and summary.json take it.

    Parameters
    ----------
    real : statistic -> its value, NaN where the agent never traded; the statistics are fixed beforehand
    copies : statistic -> its values on the copies, all of one length

    Returns
    -------
    dict
        p_value (Holm's over all statistics, None if none has a value), p_values (None: no trade), copies, least_p
        (the smallest p_value that so many copies allow), statistic, values, sentence
    """
    each = {name: p_value(value, copies[name], stop_at) for name, value in real.items()}
    made, total = max(map(len, copies.values()), default=0), len(real)
    adjusted = significance.holm([1.0 if math.isnan(p) else p for p in each.values()])
    least = min(1.0, total / (made + 1))
    p = None if all(map(math.isnan, each.values())) else min(adjusted)
    template = strings.NULL_NO_TRADE if p is None else strings.NULL_P
    too_few = strings.NULL_TOO_FEW if least > NULL_LEVEL else ""
    return {
        "p_value": p,
        "p_values": {name: None if math.isnan(value) else value for name, value in each.items()},
        "copies": made,
        "least_p": least,
        "statistic": dict(real),
        "values": {name: list(values) for name, values in copies.items()},
        "sentence": (template + too_few).format(p=p, copies=made, least=least),
    }


# -- surrogates by a shift in time --------------------------------------------------------------------


def week_offsets(
    spare_days: float, memory_days: float, horizon_days: float, copies: int, seed: int = 0
) -> IntArray:
    """Return distinct offsets in whole weeks, in random order; fewer than `copies` if no more fit.

    Parameters
    ----------
    spare_days : days of bars before the first row that is used. A copy takes its features from there, without a
        wrap-around
    memory_days, horizon_days : longest memory of a feature; how far the outcome of a row reaches
    """
    first = math.ceil((memory_days + horizon_days + MARGIN_DAYS) / 7.0)
    fitting = np.arange(first, math.floor(spare_days / 7.0) + 1)
    return np.random.default_rng(seed).permutation(fitting)[:copies]


def rows_before(local_s: IntArray, weeks: int) -> IntArray:
    """Return for each row the latest one at or before the same local time `weeks` weeks earlier, -1 before the first.

    Parameters
    ----------
    local_s : local wall time of each row [s], in the order of the rows; where clocks go back an hour repeats
    """
    rising = np.maximum.accumulate(local_s)
    return np.searchsorted(rising, local_s - weeks * WEEK_S, side="right") - 1


# -- power by planting --------------------------------------------------------------------------------


def power(sharpes: Sequence[float], found: Sequence[int], copies: int) -> dict[str, Any]:
    """Return how often planted edges were called an edge, and the strength found with probability `POWER`.

    Parameters
    ----------
    sharpes : net Sharpe ratio a year of the best policy on each planted strength, increasing
    found : copies of that strength called an edge, of `copies`

    Returns
    -------
    dict
        rows (sharpe_ann, found, copies, share, low, high: 95 % interval of Clopper & Pearson 1934), sharpe_ann (None
        if no strength is found so often), sentence
    """
    level = 0.975
    rows = [
        {
            "sharpe_ann": sharpe,
            "found": count,
            "copies": copies,
            "share": count / copies,
            "low": 1.0 - upper_bound(copies - count, copies, level),
            "high": upper_bound(count, copies, level),
        }
        for sharpe, count in zip(sharpes, found, strict=True)
    ]
    reached = _strength(np.asarray(sharpes, np.float64), np.asarray(found) / copies)
    if reached is None:
        told = strings.PIPELINE_POWER_LACKING.format(sharpe=sharpes[-1], found=found[-1], copies=copies)
    else:
        told = strings.PIPELINE_POWER.format(sharpe=reached)
    return {"rows": rows, "sharpe_ann": reached, "sentence": told}


def _strength(sharpes: FloatArray, share: FloatArray) -> float | None:
    """Return where the non-decreasing fit of the shares first reaches `POWER`, on straight lines between strengths."""
    from scipy.optimize import isotonic_regression  # slow to import

    fit = isotonic_regression(share).x
    at = int(np.argmax(fit >= POWER))
    if fit[at] < POWER:
        return None
    if at == 0:
        return float(sharpes[0])
    return float(np.interp(POWER, fit[at - 1 : at + 1], sharpes[at - 1 : at + 1]))
