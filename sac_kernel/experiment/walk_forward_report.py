"""Report of a walk-forward: folds joined in date order, seeds averaged, one verdict per agent, one page.

Fixed beforehand: an agent's headline is an account split equally over its seeds and rebalanced every day
(the mean of the seeds' daily returns) at base cost over all test days in date order. The agent with the
smallest p value is at the top of the page; Holm's correction over all agents allows for that choice.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.backtest import policies, runner, validation
from sac_kernel.backtest.policies import Form
from sac_kernel.core import packages, strings
from sac_kernel.core.errors import DataError
from sac_kernel.experiment import fold_jobs
from sac_kernel.experiment.run_config import preset_of
from sac_kernel.report import fold_plots, plots, sections
from sac_kernel.stats import fold_statistics, metrics, trials, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sac_kernel.backtest.policies import PolicyId
    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.experiment.fold_jobs import JobResult, Settings
    from sac_kernel.stats.trials import Trial

    FloatArray = NDArray[np.float64]


# -- joining ------------------------------------------------------------------------------------------


def joined(passes: Sequence[EpisodeResult], policy: PolicyId) -> EpisodeResult:
    """Return passes over folds, in time order, as one: each fold starts with the equity that the previous one left."""
    passes = sorted(passes, key=lambda part: part.open_time_utc[0])
    start = passes[0].start_equity
    factor, paid, equity, cost = 1.0, 0.0, [], []
    for part in passes:
        scale = factor * start / part.start_equity
        equity.append(scale * part.equity)
        cost.append(paid + scale * part.cost_paid)
        factor, paid = equity[-1][-1] / start, cost[-1][-1]
    whole = {
        k: np.concatenate([getattr(part, k) for part in passes])
        for k in ("close", "exposure", "action", "day")
    }
    return dataclasses.replace(
        passes[0],
        policy=policy,
        open_time_utc=pd.DatetimeIndex(np.concatenate([part.open_time_utc for part in passes])),
        **whole,
        equity=np.concatenate(equity),
        cost_paid=np.concatenate(cost),
        turnover=sum(part.turnover for part in passes),
        trades=sum(part.trades for part in passes),
        costs={kind: sum(part.costs[kind] for part in passes) for kind in passes[0].costs},
    )


def averaged(results: Sequence[EpisodeResult], policy: PolicyId) -> EpisodeResult:
    """Return an account split equally over results on the same times, rebalanced at each day's end."""
    first = results[0]
    last = np.append(np.flatnonzero(np.diff(first.day)), first.day.size - 1)  # of each day
    of_day = np.cumsum(np.diff(first.day, prepend=first.day[0]) != 0)
    ratios = []
    for result in results:
        before = np.concatenate(([result.start_equity], result.equity[last[:-1]]))
        ratios.append(result.equity / before[of_day])
    ratio = np.mean(ratios, axis=0)
    begin = first.start_equity * np.concatenate(([1.0], np.cumprod(ratio[last])[:-1]))
    mean = {k: np.mean([getattr(r, k) for r in results], axis=0) for k in ("exposure", "cost_paid", "action")}
    return dataclasses.replace(
        first,
        policy=policy,
        equity=begin[of_day] * ratio,
        **mean,
        turnover=float(np.mean([r.turnover for r in results])),
        trades=sum(r.trades for r in results),
        costs={kind: float(np.mean([r.costs[kind] for r in results])) for kind in first.costs},
    )


@dataclasses.dataclass(frozen=True)
class Collected:
    """All finished jobs of a walk-forward, joined.

    Attributes
    ----------
    seeds : (agent, tier) -> joined pass of each seed
    headline, ensemble : (agent, tier) -> mean over seeds; one account on the seeds' mean target
    baselines : tier -> joined passes
    """

    settings: Settings
    jobs: list[JobResult]
    seeds: dict[tuple[int, str], list[EpisodeResult]]
    headline: dict[tuple[int, str], EpisodeResult]
    ensemble: dict[tuple[int, str], EpisodeResult]
    baselines: dict[str, list[EpisodeResult]]

    def of(self, agent_id: int, tier: str = "base") -> list[list[JobResult]]:
        """Return an agent's jobs, one list per seed, folds in order."""
        mine = [r for r in self.jobs if r.job.agent_id == agent_id and r.job.tier == tier]
        return [
            sorted((r for r in mine if r.job.seed == seed), key=lambda r: r.job.fold)
            for seed in self.settings.seeds
        ]


def collect(settings: Settings, jobs: Iterable[JobResult]) -> Collected:
    """Return the joined passes of a run whose jobs are all finished."""
    whole = Collected(settings, list(jobs), {}, {}, {}, {})
    missing = {job.name for job in settings.jobs} - {r.job.name for r in whole.jobs}
    if missing:
        msg = f"{len(missing)} of {len(settings.jobs)} jobs are not finished. Run them first."
        raise DataError(msg)
    for tier in settings.tiers:
        parts = [r.passes for r in whole.jobs if r.job.tier == tier and r.job.agent_id == fold_jobs.BASELINES]
        whole.baselines[tier] = [joined(same, same[0].policy) for same in zip(*parts, strict=True)]
        for agent_id in settings.agents:
            key, of_seeds = (agent_id, tier), whole.of(agent_id, tier)
            whole.seeds[key] = [
                joined([r.passes[0] for r in folds], policies.agent(agent_id, Form.FOLD_SEED, seed=seed))
                for seed, folds in zip(settings.seeds, of_seeds, strict=True)
            ]
            mean, ensemble = (
                policies.agent(agent_id, form, seeds=len(settings.seeds))
                for form in (Form.FOLD_MEAN, Form.FOLD_ENSEMBLE)
            )
            whole.headline[key] = averaged(whole.seeds[key], mean)
            same_folds = zip(*of_seeds, strict=True)
            whole.ensemble[key] = joined([_mean_target(settings, same) for same in same_folds], ensemble)
    return whole


def _mean_target(settings: Settings, same_fold: Sequence[JobResult]) -> EpisodeResult:
    market = fold_jobs.bare_market(settings, same_fold[0].job)
    targets = np.mean([r.passes[0].action for r in same_fold], axis=0)
    first = same_fold[0].passes[0]
    return runner.run_targets(market, targets, first.start_equity, first.policy, first.tier)


# -- judging ------------------------------------------------------------------------------------------


def percentile(collected: Collected, agent_id: int) -> tuple[float | None, FloatArray]:
    """Return the share of random policies with the agent's turnover that it beats, and their net returns.

    Each fold's growth is the mean over seeds, and folds are chained. In each draw all seeds are shifted equally.
    """
    by_fold = [*zip(*collected.of(agent_id), strict=True)]
    own = [[r.passes[0].log_growth for r in fold] for fold in by_fold]
    drawn = [[r.random_growth for r in fold] for fold in by_fold]
    mine = np.prod([np.mean(np.exp(fold)) for fold in own]) - 1.0
    random = np.prod([np.mean(np.exp(fold), axis=0) for fold in drawn], axis=0) - 1.0
    traded = collected.headline[agent_id, "base"].turnover > 0.0
    return float(np.mean(random < mine)) if traded else None, random


def verdicts(
    collected: Collected,
    ledger: Iterable[Trial],
    null: Mapping[str, Any] | None = None,
    power: Mapping[str, Any] | None = None,
) -> dict[int, dict[str, Any]]:
    """Return the verdict on each agent by the fixed rule, Holm-corrected for their number.

    An agent's trials are its own: configurations x checkpoints, refits in several folds counting as one.
    """
    listed, decided = list(ledger), []
    own = {trial.config_hash for result in collected.jobs for trial in result.trials}
    own |= {result.facts.get("config_hash", "") for result in collected.jobs}
    for agent_id in collected.settings.agents:
        headline = collected.headline[agent_id, "base"]
        counted = trials.count(
            fold_statistics.over_folds(t for t in listed if t.agent_id == agent_id), own=own
        )
        share, _ = percentile(collected, agent_id)
        decided.append(
            verdict.decide(
                headline.daily_returns,
                share,
                counted,
                headline.turnover,
                null=null,
                power=power,
                instrument=metrics.daily_returns(headline.close, headline.day, float(headline.close[0])),
                days_a_year=headline.days_a_year,
            )
        )
    corrected = verdict.over_agents(decided) if len(decided) > 1 else decided
    return dict(zip(collected.settings.agents, corrected, strict=True))


def standing(by_agent: Mapping[int, dict[str, Any]]) -> int:
    """Return the agent at the top of the page: the smallest p value, the first of equals."""
    return min(
        by_agent,
        key=lambda agent_id: (
            1.0 if by_agent[agent_id].get("p_value") is None else by_agent[agent_id]["p_value"]
        ),
    )


# -- the page -----------------------------------------------------------------------------------------


def summary(
    collected: Collected,
    ledger: Sequence[Trial],
    command: str,
    null: Mapping[str, Any] | None = None,
    power: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the page's content (see `report.write_report`); null and power of the pipeline (`stats.null`)."""
    settings, by_agent = collected.settings, verdicts(collected, ledger, null, power)
    top = standing(by_agent)
    order = [top, *(a for a in settings.agents if a != top)]
    share, random = percentile(collected, top)
    headline = collected.headline[top, "base"]
    rows = []
    for tier in settings.tiers:
        policies = [which[a, tier] for a in order for which in (collected.headline, collected.ensemble)]
        rows += [result.row() for result in (*policies, *collected.baselines[tier])]
    agent = strings.AGENT_NAME.format(agent_id=top, preset=preset_of(top).label)
    sentences = {
        part: strings.AGENT_SAYS.format(agent=agent, sentence=by_agent[top][part])
        for part in ("sentence", "finding")
    }
    headline_verdict = {**by_agent[top], **(sentences if len(by_agent) > 1 else {})}
    others = [strings.STANDS_FOR_ALL.format(agents=len(by_agent))] if len(by_agent) > 1 else []
    headline_verdict["notes"] = [*others, *headline_verdict["notes"], budget(collected)]
    source = fold_jobs.opened(settings.h5_path)
    return {
        "title": strings.WALK_FORWARD_TITLE,
        "verdict": headline_verdict,
        "verdicts": {str(agent_id): decided for agent_id, decided in by_agent.items()},
        "table": rows,
        "tables": tables(collected, by_agent, ledger),
        "random": {"percentile": share, "draws": int(random.size)},
        "months": sections.months(headline),
        "inputs": _inputs(collected, top),
        "drift": _last_baselines(collected).facts.get("drift"),
        "data": source.facts,
        "run": _facts(collected),
        "captions": strings.WALK_FORWARD_CAPTIONS,
        "next_command": command,
    }


def budget(collected: Collected) -> str:
    """Return a note on the learner and the budget behind the verdict."""
    s = collected.settings
    recipe = s.recipe(fold_jobs.Job(s.agents[0], 0, 1, "base"))
    config, env = recipe.config, recipe.env_config
    return strings.BUDGET.format(
        learner=s.learner,
        widths="x".join(map(str, config.hidden_dims)),
        batch=config.batch_size,
        updates=s.updates,
        reward=env.reward,
        seeds=len(s.seeds),
        folds=s.folds,
        days=s.test_days,
    )


def tables(
    collected: Collected, by_agent: Mapping[int, dict[str, Any]], ledger: Sequence[Trial]
) -> list[dict[str, Any]]:
    """Return the tables of agents, folds, regimes and searches, as `report` shows them."""
    top, source = standing(by_agent), fold_jobs.opened(collected.settings.h5_path)
    headline = collected.headline[top, "base"]
    return [
        _agents_table(collected, by_agent),
        _folds_table(collected),
        sections.regimes_table(headline, *_market_days(source.bars[source.instrument])),
        sections.search_table(
            _models(collected),
            sections.benchmarks(collected.baselines["base"]),
            fold_statistics.over_folds(ledger),
        ),
    ]


def _market_days(bars: pd.DataFrame) -> tuple[NDArray[np.int64], FloatArray]:
    """Return trading day and log return of every bar."""
    close = np.log(bars["close"].to_numpy(np.float64))
    return validation.trading_days(bars), np.diff(close, prepend=close[0])


def _agents_table(collected: Collected, by_agent: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    rows = []
    ridge = _sharpes([_by_fold(collected, strings.RIDGE)])
    for agent_id, decided in by_agent.items():
        scores = _sharpes([[r.passes[0] for r in folds] for folds in collected.of(agent_id)])
        low, high = fold_statistics.iqm_interval(scores)
        share = decided["random_percentile"]
        rows.append(
            [
                f"{agent_id} ({preset_of(agent_id).label})",
                decided["word"],
                decided.get("dsr"),
                decided.get("p_holm", decided.get("p_value")),
                decided["trials"]["listed"],
                round(decided["trials"]["effective"], 1),
                None if share is None else 100.0 * share,
                fold_statistics.iqm(scores),
                strings.SPAN.format(low=f"{low:.2f}", high=f"{high:.2f}"),
                fold_statistics.probability_of_improvement(scores, ridge),
            ]
        )
    return {
        "title": strings.AGENTS,
        "note": strings.AGENTS_NOTE,
        "columns": strings.AGENTS_COLUMNS,
        "rows": rows,
    }


def _folds_table(collected: Collected) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for fold in range(1, collected.settings.folds + 1):
        for agent_id in collected.settings.agents:
            same = [folds[fold - 1] for folds in collected.of(agent_id)]
            net = [100.0 * math.expm1(r.passes[0].log_growth) for r in same]
            first, last = span(same[0].passes[0])
            days = strings.SPAN.format(low=first, high=last)
            rows.append(
                [
                    f"{fold}",
                    days,
                    same[0].facts["train_days"],
                    policies.agent(agent_id).label,
                    np.mean(net),
                    min(net),
                    max(net),
                ]
            )
        for name in (strings.RIDGE, strings.HOLD):
            baseline = _by_fold(collected, name)[fold - 1]
            net = [100.0 * math.expm1(baseline.log_growth)]
            rows.append([f"{fold}", rows[-1][1], rows[-1][2], name, net[0], None, None])
    return {
        "title": strings.FIGURES["folds"],
        "note": strings.FOLDS_NOTE,
        "columns": strings.FOLDS_COLUMNS,
        "rows": rows,
    }


def figures(collected: Collected, shown: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the page's figures in its order."""
    top = standing({int(k): v for k, v in shown["verdicts"].items()})
    base = collected.headline[top, "base"]
    order = [top, *(a for a in collected.settings.agents if a != top)]
    rivals = [collected.headline[a, "base"] for a in order[1:]]
    drawn = (strings.HOLD, strings.MOMENTUM, strings.RIDGE)
    rivals += [b for b in collected.baselines["base"] if b.name in drawn]
    made = {"equity": plots.equity_figure([base, *rivals])}
    if len(collected.settings.seeds) > 1:
        for agent_id in order:
            made[f"seeds-agent-{agent_id}"] = plots.seeds_figure(collected.seeds[agent_id, "base"])
    made["folds"] = fold_plots.folds_figure(_fold_returns(collected, order))
    made["exposure"] = plots.exposure_figure(base)
    share, random = percentile(collected, top)
    if share is not None:
        made["random"] = plots.random_figure(base.equity[-1] / base.start_equity - 1.0, random)
    made["costs"] = plots.costs_figure(*cost_rows(collected, top))
    if shown["inputs"]:
        made["inputs"] = plots.inputs_figure(shown["inputs"])
    if shown["drift"]:
        made["drift"] = plots.drift_figure(
            shown["drift"]["rows"], shown["drift"]["paths"], shown["drift"]["word"]
        )
    made["training"] = plots.training_figure(collected.of(top)[0][-1].facts["stats"])
    return made


def cost_rows(collected: Collected, agent_id: int) -> tuple[list[dict[str, float]], float | None]:
    """Return net return by cost multiple, and the multiple at which it is 0, interpolated linearly.

    0 if the agent loses without costs; None if it gains at every multiple or never trades.
    """
    growth = np.array([[r.facts["cost_growth"] for r in folds] for folds in collected.of(agent_id)])
    net = np.prod(np.exp(growth).mean(axis=0), axis=0) - 1.0
    at = np.array(fold_jobs.COST_MULTIPLES)
    rows = [{"multiple": float(k), "net_return_frac": float(x)} for k, x in zip(at, net, strict=True)]
    below = np.flatnonzero(net <= 0.0)
    if not below.size or collected.headline[agent_id, "base"].turnover == 0.0:
        return rows, None
    i = int(below[0])
    if i == 0:
        return rows, 0.0
    return rows, float(at[i - 1] + (at[i] - at[i - 1]) * net[i - 1] / (net[i - 1] - net[i]))


def _facts(collected: Collected) -> dict[str, Any]:
    s = collected.settings
    trained = [r for r in collected.jobs if r.job.agent_id != fold_jobs.BASELINES]
    source = fold_jobs.opened(s.h5_path)
    return {
        "instrument": source.instrument,
        "trainings": len(trained),
        "agents": list(s.agents),
        "seeds": len(s.seeds),
        "folds": s.folds,
        "tiers": list(s.tiers),
        "updates": s.updates,
        "evaluations": s.evaluations,
        "test_days": s.test_days,
        "val_days": s.val_days,
        "purge_days": s.purge_days,
        "cpu_s_a_training": float(np.median([r.facts["cpu_s"] for r in trained])),
        "cpu_s_in_all": float(np.sum([r.facts["cpu_s"] for r in collected.jobs])),
        "data_hash": source.content_hash,
        "versions": packages.versions(),
    }


def span(result: EpisodeResult) -> tuple[str, str]:
    """Return the first and the last trading day."""
    first, last = result.day[[0, -1]].astype("datetime64[D]")
    return str(first), str(last)


def _inputs(collected: Collected, agent_id: int) -> dict[str, float]:
    moved = [r.facts["inputs"] for folds in collected.of(agent_id) for r in folds]
    names = dict.fromkeys(name for job in moved for name in job)
    means = {name: float(np.mean([job[name] for job in moved if name in job])) for name in names}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def _last_baselines(collected: Collected) -> JobResult:
    return max(
        (r for r in collected.jobs if r.job.agent_id == fold_jobs.BASELINES and r.job.tier == "base"),
        key=lambda r: r.job.fold,
    )


def _by_fold(collected: Collected, name: str) -> list[EpisodeResult]:
    parts = [r for r in collected.jobs if r.job.agent_id == fold_jobs.BASELINES and r.job.tier == "base"]
    parts.sort(key=lambda r: r.job.fold)
    return [next(p for p in r.passes if p.name == name) for r in parts]


def _sharpes(runs: Sequence[Sequence[EpisodeResult]]) -> FloatArray:
    """Return the annual Sharpe ratio of each run in each fold, shape (runs, folds); 0 where it is flat."""
    sharpes = [[fold.figures()["sharpe_ann"] for fold in folds] for folds in runs]
    return np.nan_to_num(np.array(sharpes, np.float64))


def _models(collected: Collected) -> dict[str, FloatArray]:
    agents = collected.settings.agents
    return {r.name: r.daily_returns for a in agents for r in collected.seeds[a, "base"]}


def _fold_returns(collected: Collected, agents: Sequence[int]) -> dict[str, list[list[float]]]:
    """Return policy -> per fold, a list of net returns, one per seed."""
    returns = {}
    for agent_id in agents:
        by_fold = zip(*collected.of(agent_id), strict=True)
        returns[policies.agent(agent_id).label] = [
            [math.expm1(r.passes[0].log_growth) for r in fold] for fold in by_fold
        ]
    for name in (strings.RIDGE, strings.HOLD):
        returns[name] = [[math.expm1(fold.log_growth)] for fold in _by_fold(collected, name)]
    return returns
