"""Several instruments in one run: each with trainings of its own, one report, and one account of all.

Fixed beforehand: the main result is an account split equally over the instruments and rebalanced every day, the mean
of their daily net returns at base cost on the union of their trading days. An instrument without a bar that day
earns 0. The instruments' own verdicts are Holm-corrected for their number.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.backtest import baselines
from sac_kernel.backtest.policies import Kind, PolicyId
from sac_kernel.core import files, locks, strings
from sac_kernel.core.clock import Deadline
from sac_kernel.experiment import job_outputs, output_layout, walk_forward_report
from sac_kernel.experiment.job_queue import FinishedRun, run_jobs
from sac_kernel.prices import hdf5
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.report import page, plots, tables
from sac_kernel.stats import fold_statistics, trials, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from sac_kernel.backtest.judgement import Judgement
    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.experiment.planted_edge import SelfTest
    from sac_kernel.experiment.run_config import RunConfig

    Runs = dict[str, FinishedRun]
    Why = dict[str, str]

logger = logging.getLogger(__name__)

JOINT, HOLD = PolicyId(Kind.AGENT, strings.JOINT), baselines.policy(strings.HOLD)


def run_instruments(
    config: RunConfig,
    deadline: Deadline | None = None,
    devices: Sequence[str] | None = None,
    tested: SelfTest | None = None,
) -> FinishedRun:
    """Train and judge every instrument of a run in a folder of its own; write one report at the top.

    The time left is shared equally by the instruments that are not over. Of one instrument this is
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
    with locks.hold(config.top_folder), tempfile.TemporaryDirectory(prefix="sac_") as copies:
        _make_room(config)
        runs = list(_on_own_bars(config, Path(copies))) if config.instruments else [config]
        if len(runs) == 1:
            return run_jobs(runs[0], deadline, devices, tested)
        return _report(config, *_run_each(runs, deadline, devices, tested))


def _make_room(config: RunConfig) -> None:
    """Move a finished run of several instruments, or a run of one in its place, to previous/; and the reverse."""
    top, over = config.top_folder, False
    foreign = [top / output_layout.INSTRUMENTS]
    if len(config.runs) > 1:
        over = config.resume == "never" or output_layout.is_reported(top, config.num_episodes)
        foreign = [top / "state", top / output_layout.RUNS]
    if over or output_layout.is_moving(top) or any(path.exists() for path in foreign):
        logger.info("Earlier outputs moved to %s.", output_layout.move_to_previous(top))


def _on_own_bars(config: RunConfig, folder: Path) -> Iterator[RunConfig]:
    """Yield the run of each instrument on a copy of the bars' file that names it as the traded one."""
    path = config.data_file
    data = read_processed(path)
    for run in config.runs:
        own = data.trading(run.instruments[0])
        copy = shutil.copyfile(path, folder / f"{own.traded}.h5")
        hdf5.set_attributes(copy, "metadata", traded=own.traded, content_hash=own.content_hash)
        right = config.expect_data_hash in ("", data.content_hash)
        expected = own.content_hash if right else config.expect_data_hash
        yield dataclasses.replace(run, h5_path=str(copy), expect_data_hash=expected)


def _run_each(
    runs: Sequence[RunConfig],
    deadline: Deadline,
    devices: Sequence[str] | None,
    tested: SelfTest | None,
) -> tuple[Runs, Why]:
    """Run every instrument, then those that were cut, with the time that the others have left."""
    done: Runs = {}
    failures: Why = {}
    waiting = list(runs)
    while waiting:
        for place, run in enumerate(waiting):
            (name,) = run.instruments
            # One instrument's run is over with the whole run: until then it goes on, and is judged again.
            (run.top_folder / "manifest.json").unlink(missing_ok=True)
            if (known := run.top_folder.parents[1] / trials.NAME).is_file():
                trials.merge(run.top_folder / trials.NAME, [known])
            budget_s = deadline.elapsed_s() + deadline.left_s() / (len(waiting) - place)
            logger.info("-- %s", name)
            try:
                done[name] = run_jobs(run, dataclasses.replace(deadline, budget_s=budget_s), devices, tested)
            except Exception as err:
                failures[name] = f"{type(err).__name__}: {err}"
                if len(failures) == len(runs):
                    raise
                logger.exception("%s failed. The others continue.", name)
        cut = [k for k, run in done.items() if run.summary["status"] == "cut" and not run.failures]
        waiting = [] if deadline.passed() else [run for run in runs if run.instruments[0] in cut]
    return done, failures


# -- the joint account


def headline(run: FinishedRun) -> tuple[dict[str, list[EpisodeResult]], NDArray[np.float64]]:
    """Return what stands for an instrument: tier -> passes of its agent and of buy and hold; random log growth.

    They are those of the joined folds of a walk-forward, else of the first job on the test split. The growth is of
    random policies with the agent's turnover, at base cost.
    """
    if run.folds is None:
        results, growth = run.judgements[0].results, run.judgements[0].random_log_growth
    else:
        top = walk_forward_report.standing({int(k): v for k, v in run.summary["verdicts"].items()})
        results = {tier: [run.folds.headline[top, tier], *r] for tier, r in run.folds.baselines.items()}
        growth = np.log1p(walk_forward_report.percentile(run.folds, top)[1])
    return {tier: [r[0], *(p for p in r if p.policy == HOLD)] for tier, r in results.items()}, growth


def _joint_pass(passes: Sequence[EpisodeResult], policy: PolicyId) -> EpisodeResult:
    """Return one account split equally over passes and rebalanced every day; one entry a day of any of them.

    Rebalancing costs nothing. Exposure is the mean at the end of the day.
    """
    first, mean = passes[0], pd.concat(map(_days, passes)).groupby(level=0).sum() / len(passes)
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
    paid = np.diff(part.cost_paid[end], prepend=0.0) / np.append(part.start_equity, part.equity[end[:-1]])
    return pd.DataFrame({"net": part.daily_returns, "paid": paid, "held": part.exposure[end]}, part.day[end])


def _joint(config: RunConfig, runs: Runs) -> Judgement:
    """Return the joint account, each instrument's headline and buy and hold of all at every tier, and the verdict."""
    heads = {name: headline(run) for name, run in runs.items()}
    results: dict[str, list[EpisodeResult]] = {}
    for tier in next(iter(heads.values()))[0]:
        own, held = zip(*(passes[tier] for passes, _ in heads.values()), strict=True)
        labels = [strings.IN_JOB.format(job=name, label=r.name) for name, r in zip(heads, own, strict=True)]
        results[tier] = [_joint_pass(own, JOINT)]
        for label, part in zip(labels, own, strict=True):
            results[tier].append(dataclasses.replace(part, policy=PolicyId(Kind.AGENT, label)))
        results[tier].append(_joint_pass(held, HOLD))
    joint, *parts, bought = results["base"]
    drawn = np.mean([np.exp(growth) for _, growth in heads.values()], axis=0)
    mine = np.mean([np.exp(part.log_growth) for part in parts])
    share = float(np.mean(drawn < mine)) if joint.turnover > 0.0 else None
    ledger = trials.read(config.top_folder / trials.NAME)
    decided = verdict.decide(
        joint.daily_returns,
        share,
        trials.count(fold_statistics.over_folds(ledger or ()) if config.folds else ledger),
        joint.turnover,
        instrument=bought.daily_returns,
        days_a_year=joint.days_a_year,
    )
    decided["notes"] = [strings.JOINT_NOTE, *(x for x in decided["notes"] if x != strings.ONE_MARKET)]
    changes: dict[str, Any] = {"results": results, "percentile": share, "verdict": decided}
    return dataclasses.replace(
        next(iter(runs.values())).judgements[0], random_log_growth=np.log(drawn), **changes
    )


# -- the report


def _report(config: RunConfig, done: Runs, failures: Why) -> FinishedRun:
    top, runs = config.top_folder, {name: done[name] for name in config.instruments if name in done}
    corrected = verdict.over_agents([run.summary["verdict"] for run in runs.values()], "instruments")
    for (name, run), decided in zip(runs.items(), corrected, strict=True):
        job_outputs.change_verdict(top / output_layout.INSTRUMENTS / name, run.summary, decided)
    trials.merge(top / trials.NAME, [run.top_folder / trials.NAME for run in config.runs])
    joint = _joint(config, runs)
    summary = _summary(runs, failures, joint)
    files.write_json(top / "summary.json", summary)
    columns = ("net_return_frac", *runs)
    daily = pd.DataFrame({k: _days(r)["net"] for k, r in zip(columns, joint.results["base"], strict=False)})
    daily.index = pd.to_datetime(daily.index, unit="D")
    files.write_text(top / "daily_returns.csv", daily.to_csv(index_label="date", lineterminator="\n"))
    figures = {"equity": plots.equity_figure(joint.drawn)}
    figures["equity" + page.NARROW] = plots.equity_figure(joint.drawn, width=4.5)
    page.write_report(top, summary, figures)
    jobs = [job for run in runs.values() for job in run.jobs]
    job_outputs.write_manifest(top, jobs, summary["status"])
    judgements = [joint, *(one for run in runs.values() for one in run.judgements)]
    return FinishedRun(summary, jobs, judgements, summary["failures"])


def _summary(runs: Runs, failures: Why, joint: Judgement) -> dict[str, Any]:
    parts = {name: run.summary for name, run in runs.items()}
    first, names, alone = next(iter(parts.values())), ", ".join(parts), joint.results["base"][1:]
    failed = {f"{name} {job}": why for name, s in parts.items() for job, why in s["failures"].items()}
    failed |= failures
    notes = [strings.JOB_FAILED.format(job=job, why=why) for job, why in failed.items()]
    complete = not failed and all(s["status"] == "complete" for s in parts.values())
    said = {key: [x for s in parts.values() for x in s["data"][key]] for key in ("notes", "costs")}
    said["notes"] = [*dict.fromkeys(said["notes"])]
    rows = [_row(name, parts[name]["verdict"], r.row()) for name, r in zip(parts, alone, strict=False)]
    table = {
        "title": strings.INSTRUMENTS,
        "note": strings.INSTRUMENTS_NOTE,
        "columns": strings.INSTRUMENTS_COLUMNS,
        "rows": [*rows, *([name, strings.FAILED, *[None] * 7] for name in failures)],
    }
    return {
        "judged": {"instrument": names, "policy": strings.JOINT, "run": first["judged"]["run"]},
        "verdict": {**joint.verdict, "notes": [*joint.verdict["notes"], *notes]},
        "verdicts": {name: s["verdict"] for name, s in parts.items()},
        "table": joint.rows,
        "tables": [table],
        "data": {**first["data"], **said, "traded": names},
        "status": "complete" if complete else "cut",
        "run": {**first["run"], "instrument": names},
        "jobs": [job for s in parts.values() for job in s["jobs"]],
        "failures": failed,
        **{key: first[key] for key in ("next_command", "walk_forward", "self_test") if key in first},
    }


def _row(name: str, decided: Mapping[str, Any], row: Mapping[str, Any]) -> list[Any]:
    """Return one instrument's row of the table (`strings.INSTRUMENTS_COLUMNS`)."""
    p = [tables.number(decided.get(key), 1.0, 3) for key in ("p_value", "p_holm")]
    figures = [100.0 * row["net_return_frac"], tables.interval(row), row["sharpe_ann"], *p, row["trades"]]
    return [name, decided["word"], *figures, f"{output_layout.INSTRUMENTS}/{name}/report.html"]
