"""The rule that says edge, not shown or none: fixed in code before any result, with its own error rate.

It sees daily net returns at base cost, how the agent ranks among random policies of its turnover, and how
many trials there were; nothing else can move it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from sac_kernel.stats import significance
from sac_kernel.stats.metrics import MIN_DAYS_FOR_SHARPE, TRADING_DAYS_PER_YEAR

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

EDGE, NOT_SHOWN, NONE = "edge", "not shown", "none"

LEVEL = 0.95
MIN_DAYS = 60
"""Fewer days say nothing: below a quarter of a year even a Sharpe ratio of 3 is mostly luck."""
POWER = 0.8
_ROOT_YEAR = math.sqrt(TRADING_DAYS_PER_YEAR)
_NORMAL = NormalDist()


@dataclass(frozen=True)
class TrialCount:
    """How many configurations were looked at before this one was chosen.

    Attributes
    ----------
    listed : rows of the ledger, each a configuration at a checkpoint; at least 1
    effective : how many independent ones they amount to, in [1, listed]
    spread : variance of the trials' Sharpe ratios over what luck alone gives (1 / days); at least 1
    known : False where the ledger is missing: there may have been more
    """

    listed: int = 1
    effective: float = 1.0
    spread: float = 1.0
    known: bool = True

    def __str__(self) -> str:
        if not self.known:
            return f"trial count unknown: at least {self.listed}"
        return f"{self.listed} trials, worth {self.effective:.1f} independent ones"


@dataclass(frozen=True)
class Mark:
    """One condition for an edge: its name, whether it is passed (None: not looked at), and the figures."""

    name: str
    passed: bool | None
    found: str


@dataclass(frozen=True)
class ErrorRate:
    """False edges of the rule on one kind of null market, as counted by `python -m benchmarks.calibrate`."""

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
LEARNER = "SAC of width 64 x 64 trained for 6,000 steps at 0.25 updates a step"
"""Measured by `python -m benchmarks.null_markets --episodes 2`, seed 0: an agent trained on each market."""


def decide(
    daily: FloatArray,
    percentile: float | None = None,
    trials: TrialCount | None = None,
    turnover: float = 1.0,
) -> dict[str, Any]:
    """Return the verdict on daily net returns at base cost, as plain values.

    edge: every mark is passed. none: the interval of the annual return lies below 0, or the agent never
    trades. Else: not shown.

    Parameters
    ----------
    daily : shape (n_days,), simple net returns; folds joined in date order
    percentile : share of random policies with the same turnover that the agent beats, in [0, 1]
    trials : what the ledger says; None: it is missing
    turnover : 0 if the agent never traded

    Returns
    -------
    dict
        word, sentence, marks, notes; days, low_frac, high_frac (95 % interval of the annual return),
        sharpe_ann, psr, dsr, p_value (1 - dsr), min_days (minimum track record), detectable_sharpe_ann,
        trials, random_percentile, error_rates
    """
    trials = trials or TrialCount(known=False)
    n = int(daily.size)
    low, high = significance.bootstrap_interval(daily)
    figures: dict[str, Any] = {"days": n, "low_frac": low, "high_frac": high, "random_percentile": percentile}
    marks = [Mark(f"at least {MIN_DAYS} days", n >= MIN_DAYS, f"{n} days")]
    if n >= MIN_DAYS_FOR_SHARPE:
        m = significance.moments(daily)
        deflated = significance.dsr(m, trials.effective, trials.spread / n)
        figures |= {
            "sharpe_ann": _ROOT_YEAR * m.sharpe,
            "psr": significance.psr(m),
            "dsr": deflated,
            "p_value": 1.0 - deflated,
            "min_days": significance.min_track_record(m),
        }
        marks += [
            Mark("95 % interval of the annual return above 0", low > 0, f"{low:+.1%} to {high:+.1%}"),
            Mark("deflated Sharpe ratio above 0.95", deflated > LEVEL, f"{deflated:.3f} ({trials})"),
        ]
    if percentile is not None:
        found = f"above {percentile:.1%} of them"
        marks.append(Mark("beats 95 % of random policies of its turnover", percentile > LEVEL, found))
    marks.append(Mark("number of trials known", trials.known, str(trials)))
    word, sentence = _word(marks, low, high, n, flat=turnover == 0.0)
    shown = detectable_sharpe(n, trials)
    return {
        "word": word,
        "sentence": sentence,
        "marks": [vars(mark) for mark in marks],
        "notes": _notes(n, shown, trials),
        **figures,
        "detectable_sharpe_ann": shown,
        "trials": vars(trials),
        "error_rates": [{**vars(rate), "upper": rate.upper} for rate in CALIBRATION],
    }


def _word(marks: Sequence[Mark], low: float, high: float, days: int, *, flat: bool) -> tuple[str, str]:
    interval = f"95 % interval {low:+.1%} to {high:+.1%} a year over {days} days"
    if flat:
        return NONE, "The agent stays flat: it found nothing worth its costs."
    if math.isnan(low):
        return NOT_SHOWN, f"Too few days ({days}) to say anything after costs."
    if all(mark.passed for mark in marks):
        return EDGE, f"An edge after base costs is shown on these bars: {interval}."
    if high < 0:
        return NONE, f"No edge: the agent loses after base costs; {interval}."
    failed = "; ".join(mark.name for mark in marks if not mark.passed)
    return NOT_SHOWN, f"An edge after base costs is not shown: {interval}. Not passed: {failed}."


def _notes(days: int, shown: float, trials: TrialCount) -> list[str]:
    notes = []
    if math.isfinite(shown):
        notes.append(
            f"Power: this sample of {days} days could have shown a true Sharpe ratio of {shown:.1f} a year or "
            f"more ({POWER:.0%} of the time); a smaller edge would most likely be missed."
        )
    worst = max(CALIBRATION, key=lambda rate: rate.upper)
    notes.append(
        f"False alarms of this rule: {worst.false_edges} of {worst.sets:,} sets of {worst.days} days without "
        f"any edge were called an edge on the worst kind of market ({worst.market}), "
        f"at most {worst.upper:.1%} with 95 % confidence."
    )
    notes.append(
        f"That rate is of the rule alone. With an agent trained on each market, {PIPELINE.false_edges} of "
        f"{PIPELINE.sets} {PIPELINE.market} were called an edge, at most {PIPELINE.upper:.1%}: that one belongs to "
        f"{LEARNER}, not to longer training."
    )
    if not trials.known:
        notes.append(f"The ledger of trials is missing, {trials}: without it an edge cannot be shown.")
    notes.append("One market and one period: an edge here may be none elsewhere, and can end.")
    return notes


def over_agents(verdicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdicts of several agents judged on the same bars, Holm-corrected for their number.

    An edge whose corrected p value is not below 0.05 becomes 'not shown'.
    """
    p = [1.0 if v.get("p_value") is None else float(v["p_value"]) for v in verdicts]
    out = []
    for verdict, adjusted in zip(verdicts, significance.holm(p), strict=True):
        passed = adjusted < 1.0 - LEVEL
        found = f"p = {adjusted:.3f} after Holm's correction for {len(p)} agents"
        mark = vars(Mark(f"holds among {len(p)} agents", passed, found))
        changed = {**verdict, "p_holm": adjusted, "marks": [*verdict["marks"], mark]}
        if verdict["word"] == EDGE and not passed:
            sentence = f"An edge is not shown: with {len(p)} agents tried, {found}."
            changed |= {"word": NOT_SHOWN, "sentence": sentence}
        out.append(changed)
    return out


def detectable_sharpe(days: int, trials: TrialCount) -> float:
    """Return the least true annual Sharpe ratio that is called an edge `POWER` of the time, NaN below `MIN_DAYS`.

    From the normal approximation of the two marks on the returns alone; those on random policies are
    passed by a policy that is this good.
    """
    if days < MIN_DAYS:
        return math.nan
    interval = _NORMAL.inv_cdf((1.0 + LEVEL) / 2.0)
    hurdle = significance.expected_max_sharpe(trials.effective, trials.spread)  # in standard errors
    z = max(interval, hurdle + _NORMAL.inv_cdf(LEVEL)) + _NORMAL.inv_cdf(POWER)
    return z * math.sqrt(TRADING_DAYS_PER_YEAR / days)


@functools.cache
def upper_bound(count: int, total: int, level: float = 0.95) -> float:
    """Return the upper end of the exact one-sided interval of a rate (Clopper & Pearson 1934)."""
    if count >= total:
        return 1.0
    low, high = count / total, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if _binomial_cdf(count, total, middle) < 1.0 - level else (middle, high)
    return (low + high) / 2.0


def _binomial_cdf(k: int, n: int, p: float) -> float:
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    ]
    top = max(logs)
    return math.exp(top) * sum(math.exp(x - top) for x in logs)
