"""Sections of the report besides the results: months, stress, costs, inputs, drift, with figures.

Each section is a value of the summary under its own key; `report.write_report` shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.backtest import drift, runner, stress, trades
from sac_kernel.backtest.drift import Series
from sac_kernel.backtest.policies import Kind
from sac_kernel.core import strings
from sac_kernel.core.errors import ConfigError
from sac_kernel.features.columns import time_features
from sac_kernel.market.market import CLOCK_FEATURES, DECISION_FEATURES
from sac_kernel.report import plots
from sac_kernel.stats import metrics, significance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sac_kernel.backtest.judgement import Judgement
    from sac_kernel.backtest.runner import Agent, EpisodeResult
    from sac_kernel.market.market import Market
    from sac_kernel.stats.trials import Trial

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

LEAST_CONFIGURATIONS = 10
"""The fewest that PBO is computed for."""
PBO_BLOCKS = 16


def sections(
    judgement: Judgement, agent: Agent | None = None, ledger: Sequence[Trial] = ()
) -> dict[str, Any]:
    """Return tables, months, stress, costs, break_even_multiple, statistics, inputs and policy (with an agent), drift.

    Of an agent that never traded there are tables and drift only, and `no_trade`, the sentence that says so.

    Parameters
    ----------
    judgement : from `judgement.judge`; its first agent is described
    agent : that agent, for the importance of its inputs and a map of its actions
    ledger : all trials
    """
    base, market = judgement.results["base"][0], judgement.market
    search = search_table(
        {r.name: r.daily_returns for r in judgement.results["base"] if r.policy.is_agent},
        benchmarks(judgement.results["base"]),
        ledger,
    )
    shown: dict[str, Any] = {"tables": [search]}
    if base.turnover > 0.0:
        fills = trades.fills_of(market, base)
        shown |= {
            "months": months(base),
            "tables": [regimes_table(base, *_log_changes(market)), search],
            "stress": stress.stress_table(market, base),
            "costs": stress.cost_table(market, base),
            "break_even_multiple": stress.break_even_multiple(market, base),
            "statistics": trades.statistics(market, base, fills),
        }
    else:
        titles = strings.FIGURES
        names = (
            strings.TRADES,
            titles["exposure"],
            strings.MONTH_BY_MONTH,
            strings.REGIMES_TITLE,
            titles["costs"],
        )
        shown["no_trade"] = strings.NO_TRADE.format(
            sections=", ".join((*names, titles["random"], titles["inputs"]))
        )
    if agent is not None and base.turnover > 0.0:
        seen, act = stress.observations(market, base), runner.greedy_batch(agent)
        shown["inputs"] = stress.permutation_importance(act, seen, market.observation_names)
        first = next(name for name in shown["inputs"] if name in market.feature_names)
        shown["policy"] = stress.policy_map(act, seen, market.observation_names, first)
    if judgement.train is not None:
        watched = watched_series(judgement.train, market)
        if min(series.now.size for series in watched.values()) >= drift.MIN_DAYS:
            shown["drift"] = drift.check(watched)
    return shown


def figures(judgement: Judgement, shown: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the figures of the result of `sections`: costs and, if present, inputs, policy, drift."""
    drawn = {}
    if shown.get("costs"):
        drawn["costs"] = plots.costs_figure(shown["costs"], shown["break_even_multiple"])
    if shown.get("inputs"):
        drawn["inputs"] = plots.inputs_figure(shown["inputs"])
    if shown.get("policy"):
        drawn["policy"] = plots.policy_figure(**shown["policy"])
    if shown.get("drift"):
        watched = watched_series(judgement.train, judgement.market)  # type: ignore[arg-type]  # drift needs it
        first = list(dict.fromkeys(row["name"] for row in shown["drift"]["rows"]))[:4]
        paths = {name: drift.cusum(watched[name]) for name in first}
        drawn["drift"] = plots.drift_figure(shown["drift"]["rows"], paths, shown["drift"]["word"])
    return drawn


def months(result: EpisodeResult) -> dict[str, list[float | None]]:
    """Return net returns by calendar month: year -> 12 months, then the year; None where nothing was traded."""
    days = np.unique(result.day)
    month = days.astype("datetime64[D]").astype("datetime64[M]").astype(int)
    growth = np.log1p(result.daily_returns)
    years: dict[str, list[float | None]] = {}
    for year in range(month[0] // 12, month[-1] // 12 + 1):
        inside = [growth[month == 12 * year + m] for m in range(12)]
        row: list[float | None] = [float(np.expm1(g.sum())) if g.size else None for g in inside]
        years[str(1970 + year)] = [*row, float(np.expm1(np.concatenate(inside).sum()))]
    return years


def regimes_table(result: EpisodeResult, day: IntArray, change: FloatArray) -> dict[str, Any]:
    """Return the results on calm, middling and wild days, and on days when the market rose or fell.

    Parameters
    ----------
    result : a pass
    day, change : trading day and log return of every bar of the market, shape (n_bars,)
    """
    days, inside = np.unique(result.day), np.isin(day, result.day)
    at = np.searchsorted(days, day[inside])
    size = np.sqrt(np.bincount(at, change[inside] ** 2, days.size))
    move = np.bincount(at, change[inside], days.size)
    low, high = np.quantile(size, [1 / 3, 2 / 3])
    regimes = {
        strings.REGIMES["calm"]: size <= low,
        strings.REGIMES["middle"]: (size > low) & (size <= high),
        strings.REGIMES["wild"]: size > high,
        strings.REGIMES["rose"]: move > 0,
        strings.REGIMES["fell"]: move < 0,
    }
    daily, rows = result.daily_returns, []
    for name, chosen in regimes.items():
        part = daily[chosen]
        ends = significance.bootstrap_interval(part, days_a_year=result.days_a_year)
        interval = (
            strings.SPAN.format(low=f"{100 * ends[0]:.1f}", high=f"{100 * ends[1]:.1f}")
            if np.isfinite(ends[0])
            else None
        )
        year = result.days_a_year
        annual = 100 * metrics.annual_return(part, year) if part.size else None
        rows.append([name, int(chosen.sum()), annual, interval, metrics.sharpe_ann(part, year)])
    return {
        "title": strings.REGIMES_TITLE,
        "note": strings.REGIMES_NOTE.format(policy=result.name),
        "columns": strings.REGIMES_COLUMNS,
        "rows": rows,
    }


def search_table(
    models: Mapping[str, FloatArray], against: Mapping[str, FloatArray], ledger: Sequence[Trial]
) -> dict[str, Any]:
    """Return tests of the best result that allow for the search: SPA and StepM on these days, PBO on the ledger.

    What cannot be computed is a sentence of the note.

    Parameters
    ----------
    models : judged policies, name -> daily returns, all of the same days
    against : benchmarks, in the same form
    ledger : validated checkpoints with their days (`trials.over_folds`)
    """
    rows: list[list[Any]] = []
    missing: list[str] = []
    names, returns = list(models), np.stack(list(models.values()), axis=1)
    for name, benchmark in against.items():
        try:
            p_value = significance.spa_p_value(returns, benchmark)
        except ConfigError:
            missing.append(strings.NEEDS_ARCH)
            break
        rows.append([strings.SPA.format(count=len(names), name=name), p_value, strings.SPA_READ])
        better = significance.step_m(returns, benchmark)
        winners = ", ".join(names[i] for i in better) or strings.NOBODY
        read = strings.STEP_M_READ.format(names=winners)
        rows.append([strings.STEP_M.format(name=name), len(better), read])
    value, basis = _pbo(ledger)
    if value is None:
        missing.append(basis)
    else:
        rows.append([strings.PBO, value, basis])
    return {
        "title": strings.SEARCH_TITLE,
        "note": " ".join(([strings.SEARCH_NOTE] if rows else []) + missing),
        "columns": strings.SEARCH_COLUMNS,
        "rows": rows,
    }


def benchmarks(results: Sequence[EpisodeResult]) -> dict[str, FloatArray]:
    """Return flat and the baseline with the highest Sharpe ratio, without the bound: name -> daily returns."""
    real = [r for r in results if r.policy.kind is Kind.BASELINE and r.name != strings.FLAT]
    best = sorted(real, key=lambda r: float(np.nan_to_num(significance.moments(r.daily_returns).sharpe)))[-1:]
    flat = np.zeros(results[0].daily_returns.size)
    return {strings.FLAT: flat, **{r.name: r.daily_returns for r in best}}


def _pbo(ledger: Sequence[Trial]) -> tuple[float | None, str]:
    """Return PBO on the days that most checkpoints share, and its basis; None and what is missing."""
    groups: dict[bytes, list[Trial]] = {}
    for trial in ledger:
        groups.setdefault(trial.day.tobytes(), []).append(trial)
    same = max(groups.values(), key=len, default=[])
    moving = [trial.daily for trial in same if trial.daily.any()]
    days = same[0].day.size if same else 0
    basis = strings.PBO_READ.format(count=len(moving), days=days)
    if len(moving) < LEAST_CONFIGURATIONS or days < 2 * PBO_BLOCKS:
        needs = {"count": LEAST_CONFIGURATIONS, "days": 2 * PBO_BLOCKS}
        return None, strings.PBO_NEEDS.format(**needs, found=basis)
    return significance.pbo(np.stack(moving, axis=1), PBO_BLOCKS), basis


def _log_changes(market: Market) -> tuple[IntArray, FloatArray]:
    """Return trading day and log return of every bar with features."""
    rows = slice(market.first_bar, None)
    change = np.diff(np.log(market.bars["close"]), prepend=np.log(market.bars["open"][0]))[rows]
    return market.bars["trading_day"][rows].astype(np.int64), change


def watched_series(train: Market, now: Market) -> dict[str, Series]:
    """Return daily means of every feature, the day's return and its size, in training and now.

    Clock features cannot drift and are left out.
    """
    frames = [_daily(market) for market in (train, now)]
    return {name: Series(frames[0][name], frames[1][name]) for name in frames[0]}


def _daily(market: Market) -> dict[str, FloatArray]:
    day, change = _log_changes(market)
    means = drift.daily_means(market.observed[market.first_bar :].astype(np.float64), day)
    times = time_features(market.open_time[:1], market.bar_seconds, market.spec)
    clock = {*CLOCK_FEATURES, *DECISION_FEATURES, *times}
    daily = {name: means[:, i] for i, name in enumerate(market.feature_names) if name not in clock}
    bars_a_day = float(np.median(np.unique(day, return_counts=True)[1]))
    daily["return"] = bars_a_day * drift.daily_means(change[:, None], day)[:, 0]
    daily["volatility"] = np.log(np.sqrt(drift.daily_means(np.square(change)[:, None], day)[:, 0]) + 1e-12)
    return daily
