"""Metrics of equity curves.

A Sharpe ratio here is annualised from daily simple returns with `TRADING_DAYS_PER_YEAR`; days of zero return count.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

TRADING_DAYS_PER_YEAR = 260
"""52 weeks of five FX trading days, each from 17:00 to 17:00 New York."""

MIN_DAYS_FOR_SHARPE = 20
"""With fewer days a Sharpe ratio is NaN: its standard error exceeds 3.6 a year."""


def max_drawdown(equity: FloatArray) -> float:
    """Return the largest peak-to-trough loss of an equity curve.

    Parameters
    ----------
    equity : float array, shape (n,), account currency
        Equity after each bar, with the start value; must be positive.

    Returns
    -------
    float
        Loss as a fraction of the running peak, in [0, 1]; 0.25 is a fall of 25 %.

    Raises
    ------
    DataError
        If `equity` is empty, not finite or not positive.
    """
    if equity.size == 0 or not np.all(np.isfinite(equity)) or np.min(equity) <= 0:
        msg = "max_drawdown: equity must be finite and above 0, and not empty"
        raise DataError(msg)
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def daily_returns(equity: FloatArray, day: IntArray, start_equity: float) -> FloatArray:
    """Return simple returns per trading day, shape (n_days,).

    Parameters
    ----------
    equity : float array, shape (n,)
        Equity at the close of each bar.
    day : int array, shape (n,)
        Trading-day number of each bar, non-decreasing (a day runs from 17:00 to 17:00 New York).
    start_equity : float
        Equity before the first bar.
    """
    last_of_day = np.flatnonzero(np.append(day[1:] != day[:-1], True))
    closes = np.concatenate(([start_equity], equity[last_of_day]))
    return closes[1:] / closes[:-1] - 1.0


def annual_return(returns: FloatArray, days_a_year: float = TRADING_DAYS_PER_YEAR) -> float:
    """Return the compound return of a year of such days, a fraction above -1; NaN without days.

    A few days of large gains can exceed any float in a year: the result is then infinite.
    """
    if returns.size == 0:
        return math.nan
    with np.errstate(over="ignore"):
        return float(np.expm1(days_a_year * np.mean(np.log1p(returns))))


def sharpe_ann(returns: FloatArray, days_a_year: float = TRADING_DAYS_PER_YEAR) -> float:
    """Return the annualised Sharpe ratio of daily returns, sqrt(days a year) mean / sd (ddof 1).

    NaN below `MIN_DAYS_FOR_SHARPE` days; 0 if all returns are 0; NaN if they are another constant.
    """
    if returns.size < MIN_DAYS_FOR_SHARPE:
        return math.nan
    sd = float(np.std(returns, ddof=1))
    mean = float(np.mean(returns))
    if sd <= 1e-15:  # rounding errors only
        return 0.0 if abs(mean) <= 1e-15 else math.nan
    return math.sqrt(days_a_year) * mean / sd
