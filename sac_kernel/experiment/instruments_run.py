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

    from numpy.typing import NDArray

    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.experiment.run_config import RunConfig

    FloatArray = NDArray[np.float64]
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
    foreign = {path.name for path in (top / output_layout.INSTRUMENTS).glob("*")}
    foreign -= set(config.instruments) if several else set()
    if several:
        over = output_layout.is_reported(top, config.num_episodes) or config.resume == "never"
        alone = any((top / name).exists() for name in (checkpoint.STATE_FOLDER, output_layout.RUNS))
        foreign |= {top.name} if over or alone or output_layout.is_moving(top) else set()
    if foreign and (moved := output_layout.move_to_previous(top)):
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
    first, days = passes[0], np.unique(np.concatenate([part.day for part in passes]))
    last = [np.flatnonzero(np.diff(part.day, append=part.day[-1] + 1)) for part in passes]
    before = [np.append(p.start_equity, p.equity[ends[:-1]]) for p, ends in zip(passes, last, strict=True)]
    paid = [
        np.diff(part.cost_paid[ends], prepend=0.0) / equity
        for part, ends, equity in zip(passes, last, before, strict=True)
    ]
    held = _mean(passes, [p.exposure[ends] for p, ends in zip(passes, last, strict=True)], days)
    growth = np.cumprod(1.0 + _mean(passes, [part.daily_returns for part in passes], days))
    begin = first.start_equity * np.append(1.0, growth[:-1])
    return dataclasses.replace(
        first,
        policy=policy,
        open_time_utc=pd.DatetimeIndex(days.astype("datetime64[D]")).as_unit("ns").tz_localize("UTC"),
        close=growth,
        equity=first.start_equity * growth,
        exposure=held,
        cost_paid=np.cumsum(_mean(passes, paid, days) * begin),
        action=held,
        day=days,
        turnover=float(np.mean([part.turnover for part in passes])),
        trades=sum(part.trades for part in passes),
        costs={kind: float(np.mean([part.costs[kind] for part in passes])) for kind in first.costs},
        days_a_year=max(part.days_a_year for part in passes),
    )


def _mean(
    passes: Sequence[EpisodeResult], values: Sequence[FloatArray], days: NDArray[np.int64]
) -> FloatArray:
    """Return the mean over passes of one value for each of their days, 0 on days that a pass lacks."""
    total = np.zeros(days.size)
    for part, own in zip(passes, values, strict=True):
        total[np.searchsorted(days, np.unique(part.day))] += own
    return total / len(passes)


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
    bought = [instrument_returns(part, head.market) for part, head in zip(own, judged, strict=True)]
    decided = verdict.decide(
        joint.daily_returns,
        share,
        counted,
        joint.turnover,
        instrument=_mean(own, bought, joint.day),
        days_a_year=joint.days_a_year,
    )
    notes = [strings.JOINT_NOTE, *(note for note in decided["notes"] if note != strings.ONE_MARKET)]
    decided = {**decided, "notes": notes}
    return dataclasses.replace(
        judged[0], results=results, random_log_growth=np.log(drawn), percentile=share, verdict=decided
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
    files.write_text(top / "daily_returns.csv", _daily(joint, heads).to_csv(lineterminator="\n"))
    figures = {"equity": plots.equity_figure(joint.drawn)}
    figures["equity" + page.NARROW] = plots.equity_figure(joint.drawn, width=4.5)
    page.write_report(top, summary, figures)
    jobs = [job for run in done.values() for job in run.jobs]
    job_outputs.write_manifest(top, jobs, summary["status"])
    judgements = [joint, *(one for run in done.values() for one in run.judgements)]
    return FinishedRun(summary, jobs, judgements, dict(summary["failures"]))


def _daily(joint: Judgement, heads: Mapping[str, Judgement]) -> pd.DataFrame:
    """Return daily net returns by date: of the joint account, and of each instrument on its own days."""
    passes = {"net_return_frac": joint.results["base"][0]}
    passes |= {name: head.results["base"][0] for name, head in heads.items()}
    days = {
        name: pd.Series(part.daily_returns, np.unique(part.day).astype("datetime64[D]").astype(str))
        for name, part in passes.items()
    }
    return pd.DataFrame(days).rename_axis("date")


def _summary(done: Runs, failures: Mapping[str, str], joint: Judgement) -> dict[str, Any]:
    parts = {name: run.summary for name, run in done.items()}
    first, names = next(iter(parts.values())), ", ".join(parts)
    failed = dict(failures)
    failed |= {f"{name} {job}": why for name, s in parts.items() for job, why in s["failures"].items()}
    notes = [strings.JOB_FAILED.format(job=job, why=why) for job, why in failed.items()]
    complete = not failed and all(s["status"] == "complete" for s in parts.values())
    data = {
        "traded": names,
        "content_hash": {name: s["data"]["content_hash"] for name, s in parts.items()},
        **{
            key: list(dict.fromkeys(x for s in parts.values() for x in s["data"][key]))
            for key in ("notes", "costs")
        },
    }
    return {
        "judged": {"instrument": names, "policy": strings.JOINT, "run": first["judged"]["run"]},
        "verdict": {**joint.verdict, "notes": [*joint.verdict["notes"], *notes]},
        "verdicts": {name: s["verdict"] for name, s in parts.items()},
        "table": joint.rows,
        "tables": [_table(joint, parts, failures)],
        "months": sections.months(joint.results["base"][0]),
        "data": {**first["data"], **data},
        "status": "complete" if complete else "cut",
        "run": {**first["run"], "instrument": names},
        "jobs": [job for s in parts.values() for job in s["jobs"]],
        "failures": failed,
        "random": {"percentile": joint.percentile, "draws": int(joint.random_log_growth.size)},
        "files": [
            {**file, "name": f"{output_layout.INSTRUMENTS}/{name}/{file['name']}"}
            for name, s in parts.items()
            for file in s["files"]
        ],
        "training": {job: found for s in parts.values() for job, found in s["training"].items()},
        "next_command": first["next_command"],
    }


def _table(joint: Judgement, parts: Mapping[str, Any], failures: Mapping[str, str]) -> dict[str, Any]:
    """Return one row an instrument, those that failed last."""
    rows: list[list[Any]] = []
    for (name, summary), result in zip(parts.items(), joint.results["base"][1:-1], strict=True):
        decided, row = summary["verdict"], result.row()
        p = [f"{decided[key]:.3f}" if key in decided else None for key in ("p_value", "p_holm")]
        report = f"{output_layout.INSTRUMENTS}/{name}/report.html"
        figures = [100.0 * row["net_return_frac"], tables.interval(row), row["sharpe_ann"]]
        rows.append([name, decided["word"], *figures, *p, row["trades"], report])
    rows += [[name, strings.FAILED, *[None] * 7] for name in failures]
    return {
        "title": strings.INSTRUMENTS,
        "note": strings.INSTRUMENTS_NOTE,
        "columns": strings.INSTRUMENTS_COLUMNS,
        "rows": rows,
    }
