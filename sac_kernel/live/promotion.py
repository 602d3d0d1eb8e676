"""The rule by which a new model replaces the one in use, fixed in code, with measured error rates.

Both models trade the same bars, on which neither was trained, selected or promoted. The rule looks at the difference
of their daily net returns at base cost.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import drift, policies, runner
from sac_kernel.core.errors import DataError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.report import sections
from sac_kernel.stats import evidence, significance
from sac_kernel.stats.metrics import annual_return

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.market.market import Market
    from sac_kernel.prices.processed_file import ProcessedData

    FloatArray = NDArray[np.float64]

MIN_DAYS = 60
"""Trading days required, as for the verdict."""
LEVEL = 0.95
"""Level of the two-sided interval that must lie above 0; `benchmarks.promotion` measures its error rates."""
LEVEL_AFTER_DRIFT = 0.5
"""Level if the market has drifted since the model in use was trained: odds of three to one are enough."""


@dataclass(frozen=True)
class Comparison:
    """A candidate compared with the model in use on the newest bars.

    Attributes
    ----------
    promote, reason : the decision and a text that explains it
    days : trading days that both traded
    low_frac, high_frac : 95 % interval of 260 times the mean difference of a day, candidate minus in use
    candidate_frac, in_use_frac : compound net return a year
    drift : 'retrain', 'keep', or '' if there are too few days
    evidence : that the candidate is better, on a scale on which 20 is asked for (`stats.evidence`); NaN if unknown
    """

    promote: bool
    reason: str
    days: int
    low_frac: float
    high_frac: float
    candidate_frac: float
    in_use_frac: float
    drift: str
    evidence: float = float("nan")

    def plain(self) -> dict[str, Any]:
        """Return the comparison as values that JSON can hold, NaN as None."""
        values = dataclasses.asdict(self)
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}


def decide(candidate: FloatArray, in_use: FloatArray, *, drifted: bool) -> tuple[bool, str]:
    """Return whether the candidate replaces the model in use, and why.

    Parameters
    ----------
    candidate, in_use : simple daily net returns of the same days, shape (n_days,)
    drifted : whether the drift check since the training of the model in use says retrain
    """
    difference = candidate - in_use
    if difference.size < MIN_DAYS:
        return False, f"{difference.size} days are new to both models; {MIN_DAYS} are required"
    low, high = significance.bootstrap_interval(difference, "mean")
    if low > 0:
        return True, f"better: 95 % interval of the annual difference {low:+.1%} to {high:+.1%}"
    if drifted:
        middle, _ = significance.bootstrap_interval(difference, "mean", LEVEL_AFTER_DRIFT)
        if middle > 0:
            return (
                True,
                f"the market has drifted and the candidate is likely better: 50 % interval above {middle:+.1%}",
            )
    return (
        False,
        f"not significantly better: 95 % interval of the annual difference {low:+.1%} to {high:+.1%}",
    )


def compare(candidate: Path, in_use: Path, data: ProcessedData, after: str) -> Comparison:
    """Let both models trade the bars of the test split after a time; return the comparison.

    Parameters
    ----------
    candidate, in_use : `.pt` files, each with its own features, scaler and account
    data : all bars so far; the candidate was trained on its train split and selected on its val split
    after : ISO time of the last bar used to choose the model in use
    """
    daily, days, markets = [], [], []
    for path in (candidate, in_use):
        result, train, window = _traded(path, data, pd.Timestamp(after))
        daily.append(result.daily_returns if result else np.zeros(0))
        days.append(np.unique(result.day) if result else np.zeros(0, np.int64))
        markets.append((train, window))
    common, *at = np.intersect1d(days[0], days[1], return_indices=True)
    theirs, ours = (values[rows] for values, rows in zip(daily, at, strict=True))
    word = _drift(*markets[1])
    promote, reason = decide(theirs, ours, drifted=word == drift.RETRAIN)
    year = data.spec.days_a_year
    low, high = significance.bootstrap_interval(theirs - ours, "mean", days_a_year=year)
    means = [annual_return(values, year) for values in (theirs, ours)]
    # The candidate's largest loss and the largest gain of the model in use, which is as large as its loss.
    largest = min(
        1.0, sum(evidence.largest_daily_loss(float(train.terms["exposure_cap"])) for train, _ in markets)
    )
    found = evidence.of_returns(theirs - ours, largest).now
    return Comparison(promote, reason, int(common.size), low, high, means[0], means[1], word, found)


def _traded(
    path: Path, data: ProcessedData, after: pd.Timestamp
) -> tuple[runner.EpisodeResult | None, Market, Market | None]:
    """Return a model's episode on the new bars, its train market and that of the new bars; None if there are none."""
    agent, pipeline = SACAgent.from_checkpoint(path, device="cpu"), FeaturePipeline.from_checkpoint(path)
    frames = pipeline.run_full_pipeline(data.train, data.val, data.test)
    config = TradingEnvConfig(**agent.context["env"])
    name = pipeline.instrument
    train = runner.market_of(data.train[name], frames[0], config, "base")
    bars, features = data.test[name], frames[2]
    new = bars.index > after
    if new.sum() < 2:
        return None, train, None
    window = runner.market_of(bars[new], features[new], config, "base")
    policy, act = policies.agent(agent.agent_id), runner.greedy_policy(agent)
    return runner.run_policy(window, act, config.initial_equity, policy, "base"), train, window


def _drift(train: Market, window: Market | None) -> str:
    if window is None:
        return ""
    try:
        return str(drift.check(sections.watched_series(train, window))["word"])
    except DataError:  # too few days for the test
        return ""
