"""The rule that decides between edge, not shown and none: fixed before any result, with measured error rates.

Its inputs are daily net returns at base cost, the agent's rank among random policies with its turnover, the number of
trials and, where it was run, the pipeline's own null (`stats.null`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.core import strings
from sac_kernel.stats import exposure, significance
from sac_kernel.stats.metrics import MIN_DAYS_FOR_SHARPE, TRADING_DAYS_PER_YEAR, annual_return

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


class Word(StrEnum):
    """The verdict in a word."""

    EDGE = "edge"
    EDGE_WITHOUT_NULL = "edge (null not run)"
    NOT_SHOWN = "not shown"
    NONE = "none"

    @property
    def is_edge(self) -> bool:
        """Return whether every mark is passed, with the pipeline's null or without."""
        return self in {Word.EDGE, Word.EDGE_WITHOUT_NULL}

    @property
    def tone(self) -> str:
        """Return the CSS class of its colour."""
        return Word.EDGE.value if self.is_edge else self.value.replace(" ", "-")


EDGE, EDGE_WITHOUT_NULL, NOT_SHOWN, NONE = Word

LEVEL = 0.95
NULL_LEVEL = 0.05
"""Largest p value of the pipeline's null for an edge."""
MIN_DAYS = 60
"""On fewer days, less than a quarter of a year, even a Sharpe ratio of 3 is mostly luck."""
POWER = 0.8
_NAN = math.nan
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
    elsewhere : of `listed`, those of other runs, in whatever folder
    """

    listed: int = 1
    effective: float = 1.0
    spread: float = 1.0
    known: bool = True
    elsewhere: int = 0

    def __str__(self) -> str:
        template = strings.TRIALS if self.known else strings.TRIALS_UNKNOWN
        return (template + strings.TRIALS_ELSEWHERE * bool(self.elsewhere)).format(**vars(self))


@dataclass(frozen=True)
class Mark:
    """One condition for an edge.

    Attributes
    ----------
    key : 'days', 'interval', 'dsr', 'random', 'trials', 'null' or 'holm'
    value, threshold : of days, lower end of the interval, deflated Sharpe ratio, share of random policies,
        trials listed, p value of the pipeline's null or corrected p value
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
    name, found = (texts[key].format(**given) for texts in (strings.MARKS, strings.MARKS_FOUND))
    return Mark(
        key, value, threshold, passed, name, strings.NO_VALUE if key == "dsr" and math.isnan(value) else found
    )


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
    ErrorRate("random walk", 260, 55, 2000),
    ErrorRate("random walk", 1300, 36, 2000),
    ErrorRate("GARCH", 260, 51, 2000),
    ErrorRate("GARCH", 1300, 40, 2000),
    ErrorRate("GARCH with leverage", 260, 63, 2000),
    ErrorRate("GARCH with leverage", 1300, 52, 2000),
    ErrorRate("serial correlation 0.1", 260, 67, 2000),
    ErrorRate("serial correlation 0.1", 1300, 49, 2000),
    ErrorRate("serial correlation 0.2", 260, 72, 2000),
    ErrorRate("serial correlation 0.2", 1300, 52, 2000),
    ErrorRate("serial correlation 0.3", 260, 76, 2000),
    ErrorRate("serial correlation 0.3", 1300, 56, 2000),
    ErrorRate("overlapping holds of 5 days", 260, 47, 2000),
    ErrorRate("overlapping holds of 5 days", 1300, 32, 2000),
    ErrorRate("rare large losses", 260, 71, 2000),
    ErrorRate("rare large losses", 1300, 41, 2000),
    ErrorRate("real days", 260, 65, 2000),
    ErrorRate("real days", 1300, 52, 2000),
    ErrorRate("best of 20 random walks", 1300, 10, 2000),
)
"""Measured by `python -m benchmarks.calibrate`, seed 0; see docs/verdict.md."""

PIPELINE = ErrorRate("driftless random walks of hourly bars", 0, 1, 120)
"""Measured by `python -m benchmarks.null_markets --episodes 2`, seed 0: an agent trained on each market.

SAC of width 64 x 64, 6,000 steps at 0.25 updates a step.
"""


def decide(  # noqa: PLR0913  # what a verdict may know
    daily: FloatArray,
    percentile: float | None = None,
    trials: TrialCount | None = None,
    turnover: float = 1.0,
    *,
    null: Mapping[str, Any] | None = None,
    power: Mapping[str, Any] | None = None,
    instrument: FloatArray | None = None,
    days_a_year: float = TRADING_DAYS_PER_YEAR,
) -> dict[str, Any]:
    """Return the verdict on daily net returns at base cost, as plain values.

    'edge': every mark is passed; 'edge (null not run)': every mark but the pipeline's null, which was not run. 'none':
    the interval of the annual return is below 0, or the agent never trades. 'not shown': otherwise.

    Parameters
    ----------
    daily : shape (n_days,), simple net returns; folds joined in date order
    percentile : share of random policies with the same turnover that the agent beats, in [0, 1]
    trials : count of the ledger; None if it is missing
    turnover : 0 if the agent never traded
    null : of `stats.null.result`; None if the pipeline's null was not run
    power : of `stats.null.power`; None takes the power of the rule alone
    instrument : simple returns of the traded instrument on the same days, to tell timing from static exposure
    days_a_year : trading days of the instrument

    Returns
    -------
    dict
        word, sentence, finding (the sentence without the marks missed), marks (each a `Mark`), notes, questions
        (key, question, answer); days, annual_frac, low_frac, high_frac (compound annual return with its 95 %
        interval), rho (AR(1) coefficient), sharpe_ann (sqrt(days a year) x daily), sharpe_lo_ann (annualised
        with serial correlation, Lo 2002), psr, dsr, p_value (1 - dsr), min_days (minimum track record),
        detectable_sharpe_ann, timing (`timing`; None without `instrument`), null, power, trials,
        random_percentile, error_rates. A statistic that does not exist, such as the Sharpe ratio of constant
        returns, is NaN
    """
    trials = trials or TrialCount(known=False)
    n, year = int(daily.size), round(days_a_year)
    low, high = significance.bootstrap_interval(daily, days_a_year=days_a_year)
    figures: dict[str, Any] = {
        "days": n,
        "annual_frac": annual_return(daily, days_a_year),
        "low_frac": low,
        "high_frac": high,
    }
    figures |= {"random_percentile": percentile, "null": null, "power": power}
    marks = [_mark("days", n, MIN_DAYS, passed=n >= MIN_DAYS)]
    deflated = _NAN
    if n >= MIN_DAYS_FOR_SHARPE:
        m = significance.moments(daily)
        deflated = significance.dsr(m, trials.effective, trials.spread / n)
        figures |= {
            "rho": m.rho,
            "sharpe_ann": math.sqrt(days_a_year) * m.sharpe,
            "sharpe_lo_ann": m.sharpe * significance.lo_factor(m.rho ** np.arange(1, year), year),
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
    if null is not None:
        p = _NAN if null["p_value"] is None else float(null["p_value"])
        marks.append(_mark("null", p, NULL_LEVEL, passed=p <= NULL_LEVEL, copies=null["copies"]))
    word, finding = _word(marks, low, high, n, flat=turnover == 0.0)
    missed = "; ".join(mark.name for mark in marks if not mark.passed)
    lists_marks = word is NOT_SHOWN and not math.isnan(low)
    detectable = detectable_sharpe(n, trials, days_a_year)
    split = None if instrument is None or turnover == 0.0 else timing(daily, instrument, trials, days_a_year)
    seen = _power_sentence(n, detectable, power)
    return {
        "word": word.value,
        "sentence": f"{finding} {strings.NOT_PASSED.format(marks=missed)}" if lists_marks else finding,
        "finding": finding,
        "marks": [vars(mark) for mark in marks],
        "notes": _notes(seen, split, trials),
        "questions": _questions(figures, deflated, trials, seen, split),
        **figures,
        "timing": split,
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
        word = EDGE if marks[-1].key == "null" else EDGE_WITHOUT_NULL
        return word, strings.EDGE.format(interval=interval)
    if high < 0:
        return NONE, strings.LOSES.format(interval=interval)
    return NOT_SHOWN, strings.NOT_SHOWN.format(interval=interval)


def timing(
    daily: FloatArray,
    instrument: FloatArray,
    trials: TrialCount,
    days_a_year: float = TRADING_DAYS_PER_YEAR,
) -> dict[str, Any]:
    """Return the verdict on what is left of daily returns without a static position in the instrument.

    Returns
    -------
    dict
        word (the marks on days, interval and deflated Sharpe ratio alone), beta, static_frac, timing_frac (compound
        annual return of either part), low_frac, high_frac (of timing), dsr (of timing), sentence
    """
    split, n = exposure.parts(daily, instrument), int(daily.size)
    low, high = significance.bootstrap_interval(split.timing, days_a_year=days_a_year)
    deflated = significance.dsr(significance.moments(split.timing), trials.effective, trials.spread / n)
    passed = n >= MIN_DAYS and low > 0.0 and deflated > LEVEL
    figures = {
        "beta": split.beta,
        "static_frac": annual_return(split.static, days_a_year),
        "timing_frac": annual_return(split.timing, days_a_year),
        "low_frac": low,
        "high_frac": high,
    }
    word = EDGE if passed else NONE if high < 0.0 else NOT_SHOWN
    sentence = strings.TIMING.format(**figures, shown=strings.TIMING_WORDS[word.value])
    return {"word": word.value, "dsr": deflated, **figures, "sentence": sentence}


def _power_sentence(days: int, detectable: float, power: Mapping[str, Any] | None) -> str:
    if power is not None:
        return str(power["sentence"])
    return (
        strings.POWER.format(days=days, sharpe=detectable, power=POWER) if math.isfinite(detectable) else ""
    )


def _questions(
    figures: Mapping[str, Any],
    deflated: float,
    trials: TrialCount,
    seen: str,
    split: Mapping[str, Any] | None,
) -> list[dict[str, str]]:
    """Return the four questions of the report with their answers, in order."""
    null = figures["null"]
    luck = strings.NO_DSR if math.isnan(deflated) else strings.DSR.format(value=deflated, trials=trials)
    earns = strings.TOO_FEW_DAYS if math.isnan(figures["low_frac"]) else strings.EARNS
    answers = {
        "earns": earns.format(**figures),
        "luck": f"{null['sentence'] if null else strings.NULL_NOT_RUN} {luck}",
        "seen": seen or strings.NO_POWER.format(days=MIN_DAYS),
        "skill": split["sentence"] if split else strings.NO_TIMING,
    }
    return [{"key": k, "question": strings.QUESTIONS[k], "answer": answer} for k, answer in answers.items()]


def _notes(seen: str, split: Mapping[str, Any] | None, trials: TrialCount) -> list[str]:
    notes = [seen] if seen else []
    worst = max(CALIBRATION, key=lambda rate: rate.upper)
    for text, rate in ((strings.FALSE_ALARMS, worst), (strings.FALSE_ALARMS_TRAINED, PIPELINE)):
        notes.append(text.format(**vars(rate), upper=rate.upper))
    if not trials.known:
        notes.append(strings.NO_LEDGER.format(trials=trials))
    return [*notes, *([split["sentence"]] if split else []), strings.ONE_MARKET]


def over_agents(verdicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdicts of several agents judged on the same bars, Holm-corrected for their number.

    An edge whose corrected p value is not below 0.05 becomes 'not shown'.
    """
    raw = [v.get("p_value") for v in verdicts]
    p = [1.0 if x is None or math.isnan(x) else float(x) for x in raw]
    corrected = []
    for verdict, adjusted in zip(verdicts, significance.holm(p), strict=True):
        passed = adjusted < 1.0 - LEVEL
        mark = _mark("holm", adjusted, round(1.0 - LEVEL, 9), passed=passed, agents=len(p))
        changed = {**verdict, "p_holm": adjusted, "marks": [*verdict["marks"], vars(mark)]}
        if Word(verdict["word"]).is_edge and not passed:
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
