"""Evidence for an edge while trading on paper, which may be looked at every day.

A bet against the null E[r_t | past] <= 0 multiplies its stake by 1 + lambda_t r_t a day (Waudby-Smith & Ramdas 2024).
Under the null the stake is a supermartingale, so it ever reaches 20 with probability 1 / 20 at most (Ville 1939).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core import home_strings
from sac_kernel.core.errors import DataError
from sac_kernel.stats import metrics
from sac_kernel.stats.metrics import TRADING_DAYS_PER_YEAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

ASKED_FOR = 20.0
"""Evidence at which the null is rejected at 5 %."""
LARGEST_DAY = 0.20
"""Largest move of a currency in a day that is allowed for; EURCHF fell 19 % on 2015-01-15."""
LARGEST_GAP = 0.05
"""Largest move between two bars, before a loss limit can act, as in the report's stress test."""
WEEK_DAYS = 5
SHARPES = (1.0, 2.0, 3.0)
_BETS = np.array([0.5, 1.0, 2.0, 3.0, 4.0])  # Sharpe ratios a year, one bet each; the stake is split equally
_DEVIATION = 0.005  # EURUSD at an exposure of one
_KNOWN_BEFORE = 10  # returns other than 0 that fix the first deviation


def largest_daily_loss(exposure_cap: float = 1.0, daily_loss_limit: float = 0.0) -> float:
    """Return the largest possible loss of a day, a fraction of equity in (0, 1].

    The cap times `LARGEST_DAY`; with a loss limit at most the limit and a gap through it.
    """
    largest = exposure_cap * LARGEST_DAY
    if daily_loss_limit > 0.0:
        largest = min(largest, daily_loss_limit + exposure_cap * LARGEST_GAP)
    return min(largest, 1.0)


def e_process(returns: FloatArray, largest_loss: float) -> FloatArray:
    """Return the evidence after each return, shape (n,), 1 at the start.

    It is the mean stake of five bets of Sharpe ratio / deviation, the deviation that of the returns before, each bet
    at most 1 / `largest_loss`. Gains above `largest_loss` count as that; losses count in full.

    Parameters
    ----------
    returns : simple net returns, shape (n,)
    largest_loss : fraction of equity. A larger loss breaks the assumption: evidence is 0 from then on

    Raises
    ------
    DataError
        If `largest_loss` is not in (0, 1].
    """
    if not 0.0 < largest_loss <= 1.0:
        msg = f"largest_loss must be in (0, 1], got {largest_loss}. Give a fraction of equity."
        raise DataError(msg)
    n = returns.size
    moved, square = np.cumsum(returns != 0.0), np.cumsum(returns**2)
    known = np.flatnonzero(moved >= _KNOWN_BEFORE)
    bets = np.zeros((n, _BETS.size))
    if known.size and known[0] + 1 < n:
        first = known[0] + 1  # a bet sees only the returns before its own
        deviation = np.sqrt(square[first - 1 : -1] / np.arange(first, n))
        bets[first:] = np.minimum(
            _BETS / math.sqrt(TRADING_DAYS_PER_YEAR) / deviation[:, None], 1.0 / largest_loss
        )
    stakes = np.cumprod(1.0 + bets * np.minimum(returns, largest_loss)[:, None], axis=0)
    evidence: FloatArray = np.where(
        np.logical_or.accumulate(returns < -largest_loss), 0.0, stakes.mean(axis=1)
    )
    return evidence


def expected_years(sharpe_ann: float, largest_loss: float = 0.0, deviation: float = _DEVIATION) -> float:
    """Return the years until `ASKED_FOR` at the mean rate of the best constant bet, infinity without an edge.

    At best log(20) x 2 / Sharpe^2; longer where the largest possible loss keeps the bet below the best one.

    Parameters
    ----------
    largest_loss : 0 sets no bound on the bet
    deviation : of a daily return, a fraction
    """
    if sharpe_ann <= 0.0:
        return math.inf
    daily = sharpe_ann / math.sqrt(TRADING_DAYS_PER_YEAR)
    risk = (
        min(daily, deviation / largest_loss) if largest_loss > 0.0 else daily
    )  # deviation of the stake in a day
    return math.log(ASKED_FOR) / (risk * daily - risk**2 / 2.0) / TRADING_DAYS_PER_YEAR


@dataclass(frozen=True)
class Evidence:
    """Evidence of an account so far.

    Attributes
    ----------
    now, highest : evidence after the last complete day, and the highest ever; at 20 an edge is shown for good
    weekly, weekly_highest : the same from blocks of five days, on which serial correlation of days hardly acts
    days : complete days
    largest_loss : of a day, a fraction of equity
    deviation : of a daily return so far, a fraction; half a percent before the account moves
    """

    now: float = 1.0
    highest: float = 1.0
    weekly: float = 1.0
    weekly_highest: float = 1.0
    days: int = 0
    largest_loss: float = LARGEST_DAY
    deviation: float = _DEVIATION

    def __str__(self) -> str:
        best, own = (
            "/".join(f"{expected_years(sharpe, *given):.1f}" for sharpe in SHARPES)
            for given in ((), (self.largest_loss, self.deviation))
        )
        return home_strings.EVIDENCE.format(**vars(self), asked=ASKED_FOR, best=best, own=own)


def of_returns(daily: FloatArray, largest_loss: float) -> Evidence:
    """Return the evidence of complete days; `largest_loss` is that of a day."""
    if daily.size == 0:
        return Evidence(largest_loss=largest_loss)
    weeks = daily[: daily.size // WEEK_DAYS * WEEK_DAYS].reshape(-1, WEEK_DAYS)
    by_week = e_process(np.prod(1.0 + weeks, axis=1) - 1.0, 1.0 - (1.0 - largest_loss) ** WEEK_DAYS)
    by_day = e_process(daily, largest_loss)
    return Evidence(
        now=float(by_day[-1]),
        highest=float(max(1.0, *by_day)),
        weekly=float(by_week[-1]) if by_week.size else 1.0,
        weekly_highest=float(max([1.0, *by_week])),
        days=int(daily.size),
        largest_loss=largest_loss,
        deviation=float(daily.std()) or _DEVIATION,
    )


def of_equity(equity: FloatArray, day: IntArray, start_equity: float, largest_loss: float) -> Evidence:
    """Return the evidence of an account whose last day is not complete.

    Parameters
    ----------
    equity, day : at each bar's close, shape (n,); see `metrics.daily_returns`
    """
    if equity.size == 0:
        return Evidence(largest_loss=largest_loss)
    return of_returns(metrics.daily_returns(equity, day, start_equity)[:-1], largest_loss)
