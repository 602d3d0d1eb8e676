"""What the report shows beside the results: months, stress, costs, inputs, drift; plain values and figures.

Each section is a value of the summary under its own key; `report.write_report` knows how to show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel import drift, evaluation, plots, stress
from sac_kernel.bar_engine import Bar
from sac_kernel.drift import Series
from sac_kernel.feature_engineering import time_features
from sac_kernel.market import CLOCK_FEATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sac_kernel.evaluation import Agent, EpisodeResult, Judgement
    from sac_kernel.trading_env import Market

    FloatArray = NDArray[np.float64]

DRIFT_ROWS = 8
"""Rows of the drift table on the page: the most suspicious ones."""


def sections(judgement: Judgement, agent: Agent | None = None) -> dict[str, Any]:
    """Return months, stress, costs, break_even_multiple, inputs and policy (with an agent), drift (with train rows).

    Parameters
    ----------
    judgement : as `evaluation.judge` gives it; the first agent is the one looked at
    agent : that agent, for the importance of its inputs and a map of its actions
    """
    base, market = judgement.results["base"][0], judgement.market
    out: dict[str, Any] = {
        "months": months(base),
        "stress": stress.stress_table(market, base),
        "costs": stress.cost_table(market, base),
        "break_even_multiple": stress.break_even_multiple(market, base),
    }
    if agent is not None and base.turnover > 0.0:
        seen, act = stress.observations(market, base), evaluation.greedy_batch(agent)
        out["inputs"] = stress.permutation_importance(act, seen, market.observation_names)
        first = next(name for name in out["inputs"] if name in market.feature_names)
        out["policy"] = stress.policy_map(act, seen, market.observation_names, first)
    if judgement.train is not None:
        watched = watched_series(judgement.train, market)
        if min(series.now.size for series in watched.values()) >= drift.MIN_DAYS:
            out["drift"] = drift.check(watched)
    return out


def figures(judgement: Judgement, shown: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the figures of what `sections` returned: costs, inputs, policy, drift; those that are there."""
    out = {"costs": plots.costs_figure(shown["costs"], shown["break_even_multiple"])}
    if shown.get("inputs"):
        out["inputs"] = plots.inputs_figure(shown["inputs"])
    if shown.get("policy"):
        out["policy"] = plots.policy_figure(**shown["policy"])
    if shown.get("drift"):
        watched = watched_series(judgement.train, judgement.market)  # type: ignore[arg-type]  # drift needs it
        first = list(dict.fromkeys(row["name"] for row in shown["drift"]["rows"]))[:4]
        paths = {name: drift.cusum(watched[name]) for name in first}
        out["drift"] = plots.drift_figure(shown["drift"]["rows"], paths, shown["drift"]["word"])
    return out


def months(result: EpisodeResult) -> dict[str, list[float | None]]:
    """Return net returns by calendar month: year -> 12 months, then the year; None where nothing was traded."""
    days = np.unique(result.day)
    month = days.astype("datetime64[D]").astype("datetime64[M]").astype(int)
    growth = np.log1p(result.daily_returns)
    out: dict[str, list[float | None]] = {}
    for year in range(month[0] // 12, month[-1] // 12 + 1):
        inside = [growth[month == 12 * year + m] for m in range(12)]
        row: list[float | None] = [float(np.expm1(g.sum())) if g.size else None for g in inside]
        out[str(1970 + year)] = [*row, float(np.expm1(np.concatenate(inside).sum()))]
    return out


def watched_series(train: Market, now: Market) -> dict[str, Series]:
    """Return daily means of every feature, the day's return and its size, in training and now.

    Features of the clock alone cannot drift: they are left out.
    """
    frames = [_daily(market) for market in (train, now)]
    return {name: Series(frames[0][name], frames[1][name]) for name in frames[0]}


def _daily(market: Market) -> dict[str, FloatArray]:
    rows = slice(market.first_bar, None)
    day = market.bars[rows, Bar.DAY].astype(np.int64)
    change = np.diff(np.log(market.bars[:, Bar.CLOSE]), prepend=np.log(market.bars[0, Bar.OPEN]))[rows]
    means = drift.daily_means(market.observed[rows].astype(np.float64), day)
    clock = {*CLOCK_FEATURES, *time_features(market.open_time[:1], market.bar_seconds)}
    out = {name: means[:, i] for i, name in enumerate(market.feature_names) if name not in clock}
    bars_a_day = float(np.median(np.unique(day, return_counts=True)[1]))
    out["return"] = bars_a_day * drift.daily_means(change[:, None], day)[:, 0]
    out["volatility"] = np.log(np.sqrt(drift.daily_means(np.square(change)[:, None], day)[:, 0]) + 1e-12)
    return out
