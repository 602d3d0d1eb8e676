"""Several instruments in one run: each with trainings of its own, one report, and one account of all.

Fixed beforehand: the main result is an account split equally over the instruments and rebalanced every day, the mean
of their daily net returns at base cost on the union of their trading days. An instrument without a bar that day
earns 0. The instruments' own verdicts are Holm-corrected for their number.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.backtest import baselines
from sac_kernel.backtest.judgement import Judgement, instrument_returns
from sac_kernel.backtest.policies import Kind, PolicyId
from sac_kernel.core import files, locks, strings
from sac_kernel.core.clock import Deadline
from sac_kernel.experiment import checkpoint, job_outputs, output_layout
from sac_kernel.experiment.job_queue import FinishedRun, run_jobs
from sac_kernel.report import page, plots, sections, tables
from sac_kernel.stats import trials, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.experiment.run_config import RunConfig

    Runs = Mapping[str, FinishedRun]

logger = logging.getLogger(__name__)

JOINT, HOLD = PolicyId(Kind.AGENT, strings.JOINT), baselines.policy(strings.HOLD)


def run_instruments(
    config: RunConfig, deadline: Deadline | None = None, devices: Sequence[str] | None = None
) -> FinishedRun:
    """Train and judge every instrument of a run in a folder of its own; write one report at the top.

    The time left is shared equally by the instruments whose training is not over. Of one instrument this is
    `job_queue.run_jobs`, with the same parameters.

    Returns
    -------
    FinishedRun
        Its first judgement is that of the joint account, followed by those of all jobs.

    Raises
    ------
    SacKernelError
        If every instrument failed. One of several is named in the summary and makes the run incomplete.
    """
    deadline = deadline or Deadline(config.time_budget_h * 3600.0)
    with locks.hold(config.top_folder):
        _make_room(config)
        if len(config.runs) == 1:
            return run_jobs(config, deadline, devices)
        done, failures = _run_each(config, deadline, devices)
        return _report(config, done, failures)


def _make_room(config: RunConfig) -> None:
    """Move a finished run of several instruments, or outputs of a run of other ones, to previous/."""
    top, several = config.top_folder, len(config.runs) > 1
    there = {path.name for path in (top / output_layout.INSTRUMENTS).glob("*")}
    over = bool(there - {*(config.instruments if several else ())})
    if several:
        over |= output_layout.is_reported(top, config.num_episodes) or output_layout.is_moving(top)
        over |= config.resume == "never" or (top / "state").exists() or (top / output_layout.RUNS).exists()
    if over and (moved := output_layout.move_to_previous(top)):
        logger.info("Earlier outputs moved to %s. Starting a new run.", moved)


def _run_each(
    config: RunConfig, deadline: Deadline, devices: Sequence[str] | None
) -> tuple[dict[str, FinishedRun], dict[str, str]]:
    done, failures, runs = dict[str, FinishedRun](), dict[str, str](), config.runs
    for place, (name, run) in enumerate(zip(config.instruments, runs, strict=True)):
        # One instrument's run is over with the whole run: until then it goes on, and is judged again.
        (run.top_folder / "manifest.json").unlink(missing_ok=True)
        share_s = deadline.left_s() / max(sum(not _is_trained(other) for other in runs[place:]), 1)
        logger.info("-- %s, %d of %d instruments", name, place + 1, len(runs))
        try:
            own = dataclasses.replace(deadline, budget_s=deadline.elapsed_s() + share_s)
            done[name] = run_jobs(run, own, devices)
        except Exception as err:
            if len(failures) + 1 == len(runs):
                raise
            failures[name] = f"{type(err).__name__}: {err}"
            logger.exception("%s failed. The other instruments continue.", name)
    return done, failures


def _is_trained(run: RunConfig) -> bool:
    """Whether every job of one instrument has all its episodes, here or in the mounted state."""
    folders = run.job_folders()
    facts = {name: checkpoint.newest_facts(f / checkpoint.STATE_FOLDER) for name, f in folders.items()}
    if not any(facts.values()) and run.expected(checkpoint.EXPORT_INDEX):
        facts |= checkpoint.exported_facts(run.find_input(checkpoint.EXPORT_INDEX))
    states = [facts[name] for name in folders]
    return all(f and f["finished"] and f["episodes"] >= run.num_episodes for f in states)


# -- the joint account


def headline(run: FinishedRun) -> Judgement:
    """Return the judgement that stands for an instrument: its first policy and the random draws of it."""
    return run.judgements[0]


def joint_pass(passes: Sequence[EpisodeResult], policy: PolicyId) -> EpisodeResult:
    """Return one account split equally over passes and rebalanced every day; one entry a day of any of them.

    Rebalancing costs nothing. Exposure is the mean at the end of the day.
    """
    first, mean = passes[0], _mean([_days(part) for part in passes])
    net, paid, held = mean.to_numpy().T
    equity, days = first.start_equity * np.cumprod(1.0 + net), mean.index.to_numpy()
    return dataclasses.replace(
        first,
        policy=policy,
        open_time_utc=pd.DatetimeIndex(pd.to_datetime(days, unit="D", utc=True)),
        close=equity,
        equity=equity,
        exposure=held,
        cost_paid=np.cumsum(paid * np.append(first.start_equity, equity[:-1])),
        action=held,
        day=days,
        turnover=float(np.mean([part.turnover for part in passes])),
        trades=sum(part.trades for part in passes),
        costs={kind: float(np.mean([part.costs[kind] for part in passes])) for kind in first.costs},
        days_a_year=max(part.days_a_year for part in passes),
    )


def _days(part: EpisodeResult) -> pd.DataFrame:
    """Return net return, costs over equity and exposure of each day of a pass."""
    end = np.flatnonzero(np.diff(part.day, append=part.day[-1] + 1))
    begin = np.append(part.start_equity, part.equity[end[:-1]])
    paid = np.diff(part.cost_paid[end], prepend=0.0) / begin
    return pd.DataFrame(
        {"net": part.daily_returns, "paid": paid, "held": part.exposure[end]}, index=part.day[end]
    )


def _mean(by_day: Sequence[Any]) -> Any:  # noqa: ANN401  # Series or DataFrames alike
    """Return the mean of tables by day, with 0 on days that one lacks."""
    return pd.concat(by_day).groupby(level=0).sum() / len(by_day)


def joint_judgement(heads: Mapping[str, Judgement], counted: verdict.TrialCount | None) -> Judgement:
    """Return the joint account, each instrument's headline and buy and hold of all at every tier, and the verdict.

    Parameters
    ----------
    heads : instrument -> its `headline`
    counted : trials of all instruments
    """
    judged, results = list(heads.values()), {}
    for tier in judged[0].results:
        own = [head.results[tier][0] for head in judged]
        held = [next(r for r in head.results[tier] if r.policy == HOLD) for head in judged]
        alone = [
            dataclasses.replace(r, policy=PolicyId(Kind.AGENT, strings.IN_JOB.format(job=name, label=r.name)))
            for name, r in zip(heads, own, strict=True)
        ]
        results[tier] = [joint_pass(own, JOINT), *alone, joint_pass(held, HOLD)]
    joint, own = results["base"][0], [head.results["base"][0] for head in judged]
    drawn = np.mean([np.exp(head.random_log_growth) for head in judged], axis=0)
    mine = np.mean([np.exp(part.log_growth) for part in own])
    share = float(np.mean(drawn < mine)) if joint.turnover > 0.0 else None
    bought = [
        pd.Series(instrument_returns(part, head.market), np.unique(part.day))
        for part, head in zip(own, judged, strict=True)
    ]
    decided = verdict.decide(
        joint.daily_returns,
        share,
        counted,
        joint.turnover,
        instrument=_mean(bought).to_numpy(),
        days_a_year=joint.days_a_year,
    )
    notes = [strings.JOINT_NOTE, *(note for note in decided["notes"] if note != strings.ONE_MARKET)]
    return dataclasses.replace(
        judged[0],
        results=results,
        random_log_growth=np.log(drawn),
        percentile=share,
        verdict={**decided, "notes": notes},
    )


# -- the report


def _report(config: RunConfig, done: Runs, failures: Mapping[str, str]) -> FinishedRun:
    top, folders = config.top_folder, dict(zip(config.instruments, config.runs, strict=True))
    corrected = verdict.over_agents([run.summary["verdict"] for run in done.values()], "instruments")
    for (name, run), decided in zip(done.items(), corrected, strict=True):
        job_outputs.change_verdict(folders[name].top_folder, run.summary, decided)
    trials.merge(top / trials.NAME, [run.top_folder / trials.NAME for run in config.runs])
    heads = {name: headline(run) for name, run in done.items()}
    joint = joint_judgement(heads, trials.count(trials.read(top / trials.NAME)))
    summary = _summary(done, failures, joint)
    files.write_json(top / "summary.json", summary)
    passes = {"net_return_frac": joint, **heads}
    daily = {name: _days(head.results["base"][0])["net"] for name, head in passes.items()}
    table = pd.DataFrame(daily)
    table.index = pd.to_datetime(table.index, unit="D")
    files.write_text(top / "daily_returns.csv", table.to_csv(index_label="date", lineterminator="\n"))
    figures = {"equity": plots.equity_figure(joint.drawn)}
    figures["equity" + page.NARROW] = plots.equity_figure(joint.drawn, width=4.5)
    page.write_report(top, summary, figures)
    jobs = [job for run in done.values() for job in run.jobs]
    job_outputs.write_manifest(top, jobs, summary["status"])
    judgements = [joint, *(one for run in done.values() for one in run.judgements)]
    return FinishedRun(summary, jobs, judgements, summary["failures"])


def _summary(done: Runs, failures: Mapping[str, str], joint: Judgement) -> dict[str, Any]:
    parts = {name: run.summary for name, run in done.items()}
    first, names = next(iter(parts.values())), ", ".join(parts)
    failed = {f"{name} {job}": why for name, s in parts.items() for job, why in s["failures"].items()}
    failed |= failures
    notes = [strings.JOB_FAILED.format(job=job, why=why) for job, why in failed.items()]
    complete = not failed and all(s["status"] == "complete" for s in parts.values())
    said = {key: [x for s in parts.values() for x in s["data"][key]] for key in ("notes", "costs")}
    data = {**first["data"], **said, "traded": names, "notes": [*dict.fromkeys(said["notes"])]}
    rows = [
        _row(name, parts[name]["verdict"], joint.results["base"][i + 1].row()) for i, name in enumerate(parts)
    ]
    return {
        "judged": {"instrument": names, "policy": strings.JOINT, "run": first["judged"]["run"]},
        "verdict": {**joint.verdict, "notes": [*joint.verdict["notes"], *notes]},
        "verdicts": {name: s["verdict"] for name, s in parts.items()},
        "table": joint.rows,
        "tables": [
            {
                "title": strings.INSTRUMENTS,
                "note": strings.INSTRUMENTS_NOTE,
                "columns": strings.INSTRUMENTS_COLUMNS,
                "rows": [*rows, *([name, strings.FAILED, *[None] * 7] for name in failures)],
            }
        ],
        "months": sections.months(joint.results["base"][0]),
        "data": data,
        "status": "complete" if complete else "cut",
        "run": {**first["run"], "instrument": names},
        "jobs": [job for s in parts.values() for job in s["jobs"]],
        "failures": failed,
        "next_command": first["next_command"],
    }


def _row(name: str, decided: Mapping[str, Any], row: Mapping[str, Any]) -> list[Any]:
    """Return one instrument's row of the table (`strings.INSTRUMENTS_COLUMNS`)."""
    p = [tables.number(decided.get(key), 1.0, 3) for key in ("p_value", "p_holm")]
    figures = [100.0 * row["net_return_frac"], tables.interval(row), row["sharpe_ann"], *p, row["trades"]]
    return [name, decided["word"], *figures, f"{output_layout.INSTRUMENTS}/{name}/report.html"]
