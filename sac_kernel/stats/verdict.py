"""The rule that decides between edge, not shown and none: fixed before any result, with measured error rates.

Its only inputs are daily net returns at base cost, the agent's rank among random policies with its turnover,
and the number of trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from sac_kernel.core import strings
from sac_kernel.stats import significance
from sac_kernel.stats.metrics import MIN_DAYS_FOR_SHARPE, TRADING_DAYS_PER_YEAR

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


class Word(StrEnum):
    """The verdict in a word."""

    EDGE = "edge"
    NOT_SHOWN = "not shown"
    NONE = "none"


EDGE, NOT_SHOWN, NONE = Word

LEVEL = 0.95
MIN_DAYS = 60
"""On fewer days, less than a quarter of a year, even a Sharpe ratio of 3 is mostly luck."""
POWER = 0.8
_NORMAL = NormalDist()


@dataclass(frozen=True)
class TrialCount:
    """The number of configurations scored before this one was chosen.

    Attributes
    ----------
    listed : rows of the ledger, each a configuration at a checkpoint; at least 1
    effective : effective number of independent ones, in [1, listed]
    spread : variance of the trials' Sharpe ratios over that of luck alone (1 / days); at least 1
    known : False if the ledger is missing, so that there may have been more
    """

    listed: int = 1
    effective: float = 1.0
    spread: float = 1.0
    known: bool = True

    def __str__(self) -> str:
        template = strings.TRIALS if self.known else strings.TRIALS_UNKNOWN
        return template.format(**vars(self))


@dataclass(frozen=True)
class Mark:
    """One condition for an edge.

    Attributes
    ----------
    key : 'days', 'interval', 'dsr', 'random', 'trials' or 'holm'
    value, threshold : of days, lower end of the interval, deflated Sharpe ratio, share of random policies,
        trials listed or corrected p value
    passed : None if not evaluated
    name, found : the condition and the figures, in words
    """

    key: str
    value: float
    threshold: float | None
    passed: bool | None
    name: str
    found: str


def _mark(key: str, value: float, threshold: float | None, *, passed: bool, **more: object) -> Mark:
    given = {"value": value, "threshold": threshold, **more}
    texts = (texts[key].format(**given) for texts in (strings.MARKS, strings.MARKS_FOUND))
    return Mark(key, value, threshold, passed, *texts)


@dataclass(frozen=True)
class ErrorRate:
    """False edges of the rule on one kind of null market, counted by `python -m benchmarks.calibrate`."""

    market: str
    days: int
    false_edges: int
    sets: int

    @property
    def upper(self) -> float:
        """Return the upper end of the one-sided 95 % interval of the rate (Clopper & Pearson 1934)."""
        return upper_bound(self.false_edges, self.sets)


CALIBRATION = (
    ErrorRate("random walk", 260, 64, 2000),
    ErrorRate("random walk", 1300, 42, 2000),
    ErrorRate("GARCH", 260, 58, 2000),
    ErrorRate("GARCH", 1300, 53, 2000),
    ErrorRate("serial correlation", 260, 82, 2000),
    ErrorRate("serial correlation", 1300, 68, 2000),
    ErrorRate("real days", 260, 69, 2000),
    ErrorRate("real days", 1300, 61, 2000),
    ErrorRate("best of 20 random walks", 1300, 10, 2000),
)
"""Measured by `python -m benchmarks.calibrate`, seed 0; see docs/verdict.md."""

PIPELINE = ErrorRate("driftless random walks of hourly bars", 0, 1, 120)
"""Measured by `python -m benchmarks.null_markets --episodes 2`, seed 0: an agent trained on each market.

SAC of width 64 x 64, 6,000 steps at 0.25 updates a step.
"""


def decide(
    daily: FloatArray,
    percentile: float | None = None,
    trials: TrialCount | None = None,
    turnover: float = 1.0,
    days_a_year: float = TRADING_DAYS_PER_YEAR,
) -> dict[str, Any]:
    """Return the verdict on daily net returns at base cost, as plain values.

    'edge': every mark is passed. 'none': the interval of the annual return is below 0, or the agent never
    trades. 'not shown': otherwise.

    Parameters
    ----------
    daily : shape (n_days,), simple net returns; folds joined in date order
    percentile : share of random policies with the same turnover that the agent beats, in [0, 1]
    trials : count of the ledger; None if it is missing
    turnover : 0 if the agent never traded
    days_a_year : trading days of the instrument

    Returns
    -------
    dict
        word, sentence, finding (the sentence without the marks missed), marks (each a `Mark`), notes;
        days, low_frac, high_frac (95 % interval of the annual return),
        sharpe_ann, psr, dsr, p_value (1 - dsr), min_days (minimum track record), detectable_sharpe_ann,
        trials, random_percentile, error_rates
    """
    trials = trials or TrialCount(known=False)
    n = int(daily.size)
    low, high = significance.bootstrap_interval(daily, days_a_year=days_a_year)
    figures: dict[str, Any] = {"days": n, "low_frac": low, "high_frac": high, "random_percentile": percentile}
    marks = [_mark("days", n, MIN_DAYS, passed=n >= MIN_DAYS)]
    if n >= MIN_DAYS_FOR_SHARPE:
        m = significance.moments(daily)
        deflated = significance.dsr(m, trials.effective, trials.spread / n)
        figures |= {
            "sharpe_ann": math.sqrt(days_a_year) * m.sharpe,
            "psr": significance.psr(m),
            "dsr": deflated,
            "p_value": 1.0 - deflated,
            "min_days": significance.min_track_record(m),
        }
        marks += [
            _mark("interval", low, 0.0, passed=low > 0, high=high),
            _mark("dsr", deflated, LEVEL, passed=deflated > LEVEL, trials=trials),
        ]
    if percentile is not None:
        marks.append(_mark("random", percentile, LEVEL, passed=percentile > LEVEL))
    marks.append(_mark("trials", trials.listed, None, passed=trials.known, trials=trials))
    word, finding = _word(marks, low, high, n, flat=turnover == 0.0)
    missed = "; ".join(mark.name for mark in marks if not mark.passed)
    lists_marks = word is NOT_SHOWN and not math.isnan(low)
    detectable = detectable_sharpe(n, trials, days_a_year)
    return {
        "word": word.value,
        "sentence": f"{finding} {strings.NOT_PASSED.format(marks=missed)}" if lists_marks else finding,
        "finding": finding,
        "marks": [vars(mark) for mark in marks],
        "notes": _notes(n, detectable, trials),
        **figures,
        "detectable_sharpe_ann": detectable,
        "trials": vars(trials),
        "error_rates": [{**vars(rate), "upper": rate.upper} for rate in CALIBRATION],
    }


def _word(marks: Sequence[Mark], low: float, high: float, days: int, *, flat: bool) -> tuple[Word, str]:
    interval = strings.INTERVAL.format(low=low, high=high, days=days)
    if flat:
        return NONE, strings.STAYS_FLAT
    if math.isnan(low):
        return NOT_SHOWN, strings.TOO_FEW_DAYS.format(days=days)
    if all(mark.passed for mark in marks):
        return EDGE, strings.EDGE.format(interval=interval)
    if high < 0:
        return NONE, strings.LOSES.format(interval=interval)
    return NOT_SHOWN, strings.NOT_SHOWN.format(interval=interval)


def _notes(days: int, detectable: float, trials: TrialCount) -> list[str]:
    notes = []
    if math.isfinite(detectable):
        notes.append(strings.POWER.format(days=days, sharpe=detectable, power=POWER))
    worst = max(CALIBRATION, key=lambda rate: rate.upper)
    for text, rate in ((strings.FALSE_ALARMS, worst), (strings.FALSE_ALARMS_TRAINED, PIPELINE)):
        notes.append(text.format(**vars(rate), upper=rate.upper))
    if not trials.known:
        notes.append(strings.NO_LEDGER.format(trials=trials))
    return [*notes, strings.ONE_MARKET]


def over_agents(verdicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdicts of several agents judged on the same bars, Holm-corrected for their number.

    An edge whose corrected p value is not below 0.05 becomes 'not shown'.
    """
    p = [1.0 if v.get("p_value") is None else float(v["p_value"]) for v in verdicts]
    corrected = []
    for verdict, adjusted in zip(verdicts, significance.holm(p), strict=True):
        passed = adjusted < 1.0 - LEVEL
        mark = _mark("holm", adjusted, round(1.0 - LEVEL, 9), passed=passed, agents=len(p))
        changed = {**verdict, "p_holm": adjusted, "marks": [*verdict["marks"], vars(mark)]}
        if verdict["word"] == EDGE and not passed:
            finding = strings.NOT_AMONG_AGENTS.format(agents=len(p), found=mark.found)
            changed |= {"word": NOT_SHOWN.value, "sentence": finding, "finding": finding}
        corrected.append(changed)
    return corrected


def detectable_sharpe(days: int, trials: TrialCount, days_a_year: float = TRADING_DAYS_PER_YEAR) -> float:
    """Return the smallest true annual Sharpe ratio detected with probability `POWER`, NaN below `MIN_DAYS`.

    It is the normal approximation of the two marks on returns. A policy this good also passes the mark on random
    policies.
    """
    if days < MIN_DAYS:
        return math.nan
    interval = _NORMAL.inv_cdf((1.0 + LEVEL) / 2.0)
    hurdle = significance.expected_max_sharpe(trials.effective, trials.spread)  # in standard errors
    z = max(interval, hurdle + _NORMAL.inv_cdf(LEVEL)) + _NORMAL.inv_cdf(POWER)
    return z * math.sqrt(days_a_year / days)


def upper_bound(count: int, total: int, level: float = 0.95) -> float:
    """Return the upper end of the exact one-sided interval of a rate (Clopper & Pearson 1934).

    It is a quantile of the beta distribution; scipy.special loads faster than scipy.stats.
    """
    from scipy.special import betaincinv  # slow to import

    return 1.0 if count >= total else float(betaincinv(count + 1, total - count, level))
