"""The walk-forward of a run: earlier folds and other seeds beside its own trainings, one verdict over all test days.

The last fold is the file's own split, and its first seed the model that goes home, trained by `job_queue`. All other
trainings and the baselines are jobs of `job_pool`. What is finished travels in one file, so that a session that was
cut goes on with the next training.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import re
import shutil
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sac_kernel.agent.config import EXACT
from sac_kernel.backtest import policies
from sac_kernel.core import files, strings
from sac_kernel.core.errors import DataError
from sac_kernel.experiment import (
    checkpoint,
    fold_jobs,
    job_outputs,
    job_pool,
    pipeline_null,
    walk_forward_report,
)
from sac_kernel.experiment.fold_jobs import FILE, JobResult, Settings
from sac_kernel.experiment.run_config import PURGE_DAYS
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from sac_kernel.backtest.judgement import Judgement
    from sac_kernel.core.clock import Deadline
    from sac_kernel.experiment.job_outputs import FinishedJob
    from sac_kernel.experiment.run_config import RunConfig
    from sac_kernel.experiment.walk_forward_report import Collected
    from sac_kernel.stats.trials import Trial

logger = logging.getLogger(__name__)

NULL_UPDATES = 600
"""Updates of each training of the null: the planted signals of docs/verdict.md are found with as many."""
_RESERVE_S = 300.0  # for judging and writing, which the null's copies must leave
_MEMBER = re.compile(r"(jobs/)?[0-9a-f]{16}/(result\.json|result\.npz)")
_JOINED = ("verdict", "verdicts", "table", "tables", "random", "months", "inputs", "drift", "captions")
_OF_LAST_FOLD = ("table", "tables", "random", "months", "statistics", "no_trade", "stress")


class Folds(NamedTuple):
    """What a walk-forward found.

    Attributes
    ----------
    collected : None if not every job is finished
    null, power : of the pipeline (`stats.null`), None if they were not run
    finished, planned : jobs
    """

    collected: Collected | None
    null: dict[str, Any] | None
    power: dict[str, Any] | None
    finished: int
    planned: int


def settings_of(config: RunConfig, h5_path: Path) -> Settings:
    """Return the walk-forward of a run: its test blocks have as many days as the file's test split.

    Raises
    ------
    DataError
        If the bars have too few days.
    """
    days = fold_jobs.opened(str(h5_path)).split_days
    source = fold_jobs.opened(str(h5_path)).days
    counts = [int(((source >= a) & (source < b)).sum()) for a, b in zip(days[::2], days[1::2], strict=True)]
    settings = Settings(
        str(h5_path),
        agents=config.agent_ids,
        seeds=config.seeds,
        folds=config.folds,
        tiers=config.tiers,
        updates=round(config.updates_of(config.jobs[0])),
        evaluations=1,
        test_days=counts[2],
        val_days=counts[1],
        purge_days=PURGE_DAYS,
        config=config,
        final=True,
        own_split=True,
    )
    settings.fold_list()
    return settings


def run(
    config: RunConfig,
    jobs: Sequence[FinishedJob],
    judgements: Sequence[Judgement],
    h5_path: Path,
    deadline: Deadline,
) -> Folds:
    """Run what is not finished, after the run's own trainings; the ledger gets a trial for each agent, seed and fold.

    Parameters
    ----------
    jobs, judgements : of the run's own trainings, the last fold's first seed of each agent
    """
    settings, top = settings_of(config, h5_path), config.top_folder
    folder = top / checkpoint.STATE_FOLDER / "folds"
    _unpack(config, top, folder)
    own = [_of_own(settings, job, judgement) for job, judgement in zip(jobs, judgements, strict=True)]
    wanted = [job for job in settings.jobs if job not in {result.job for result in own}]
    workers = max(1, os.cpu_count() or 1)
    logger.info("%s", strings.FOLDS_PLAN.format(jobs=len(wanted), folds=settings.folds, workers=workers))
    null, power = None, None
    try:
        outcomes = job_pool.run(
            [fold_jobs.pool_job(settings, job) for job in wanted],
            fold_jobs.run_pool_job,
            folder,
            inputs=settings.inputs,
            workers=workers,
            deadline=deadline,
        )
        failed = [o for o in outcomes if o.failure and not deadline.passed()]
        if failed:
            first = f"{failed[0].job['label']}: {failed[0].failure}"
            msg = f"{len(failed)} of {len(outcomes)} trainings failed. First: {first}"
            raise DataError(msg)
        finished = [fold_jobs.load(folder / o.name / FILE) for o in outcomes if o.result]
        collected = None
        if len(finished) == len(wanted):
            collected = walk_forward_report.collect(settings, [*own, *finished])
            null, power = _null(config, settings, folder, deadline)
    finally:
        _pack(folder, top / checkpoint.STATE_FOLDER / checkpoint.FOLDS_FILE)
    trials.append(top / trials.NAME, [t for result in finished for t in result.trials])
    return Folds(collected, null, power, len(finished) + len(own), len(settings.jobs))


def _of_own(settings: Settings, job: FinishedJob, judgement: Judgement) -> JobResult:
    """Return a training of the run itself as a job of the last fold; its trials are in the ledger already."""
    agent_id, seed = job.final.agent_id, int(job.facts["seed"])
    of_fold = fold_jobs.Job(agent_id, seed, settings.folds, "base")
    result = dataclasses.replace(judgement.results["base"][0], policy=policies.agent(agent_id, seed=seed))
    facts, growth = fold_jobs.agent_facts(result, judgement.market, job.final, of_fold)
    facts |= {
        "stats": job_outputs.stats_for_plot(job),
        "updates": job.facts["updates"],
        "train_days": int(settings.fold_list()[-1].train.size),
        "trials": [],
        "config_hash": job.facts["config_hash"],
        "cpu_s": job.facts["train_s"],
    }
    return JobResult(of_fold, [result], facts, growth)


def _null(
    config: RunConfig, settings: Settings, folder: Path, deadline: Deadline
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the pipeline's null and power, with as many copies as there is time for."""
    if not config.null_copies or settings.learner != EXACT or config.has_own or deadline.passed():
        return None, None
    plain = dataclasses.replace(
        settings,
        seeds=settings.seeds[:1],
        tiers=("base",),
        updates=min(NULL_UPDATES, settings.updates),
        val_days=0,
        own_split=False,
    )
    fitting = _with_room(plain, config.null_copies)
    if fitting is None:
        logger.warning("%s", strings.NULL_NO_ROOM)
        return None, None
    found = pipeline_null.run(
        fitting, folder, config.null_copies, config.power_copies, os.cpu_count() or 1, deadline, _RESERVE_S
    )
    return found["null"], found["power"]


def _with_room(settings: Settings, copies: int) -> Settings | None:
    """Return the most folds, the last ones, that leave room for the copies, else for the most copies; None for none.

    A copy takes its features from earlier weeks, and fewer folds have more weeks before them.
    """
    most: tuple[int, Settings | None] = (0, None)
    for count in range(settings.folds, 0, -1):
        fewer = dataclasses.replace(settings, folds=count)
        try:
            found = len(pipeline_null.plan(fewer, copies).offsets)
        except DataError:
            continue
        most = max(most, (found, fewer), key=lambda pair: pair[0])
        if found >= copies:
            break
    return most[1]


def report(
    folds: Folds, config: RunConfig, ledger: Sequence[Trial], summary: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Return the run's summary with the joined folds in front, and the figures of the page that change.

    What was judged on the last fold alone moves to `last_fold`.
    """
    if folds.collected is None:
        note = strings.FOLDS_CUT.format(finished=folds.finished, planned=folds.planned)
        found = {**summary["verdict"], "notes": [note, *summary["verdict"]["notes"]]}
        return {**summary, "verdict": found, "status": "cut"}, {}
    joined = walk_forward_report.summary(folds.collected, ledger, "", folds.null, folds.power)
    decided = joined["verdict"]
    if config.null_copies and config.has_own:
        decided["notes"] = [strings.NULL_OWN_FEATURES, *decided["notes"]]
    decided["notes"] = [*decided["notes"], strings.NULL_NOT_TESTED] if folds.null else decided["notes"]
    last = {key: summary[key] for key in _OF_LAST_FOLD if key in summary}
    kept = {key: value for key, value in summary.items() if key not in last}
    parts = {key: joined[key] for key in _JOINED}
    judged = {key: value for key, value in summary["judged"].items() if key not in {"seed", "file"}}
    judged |= {
        "policy": joined["table"][0]["policy"],
        "folds": strings.FOLDS_JUDGED.format(**joined["run"]),
        "home": summary["judged"]["file"],
    }
    _write_days(config.top_folder / "walk_forward.csv", folds.collected, joined["verdicts"])
    figures = walk_forward_report.figures(folds.collected, joined)
    del figures["training"]  # the run has the whole curve
    return {
        **kept,
        **parts,
        "judged": judged,
        "last_fold": last,
        "walk_forward": joined["run"],
        "null": folds.null,
        "power": folds.power,
    }, figures


def _write_days(path: Path, collected: Collected, verdicts: Mapping[str, Any]) -> None:
    """Write the daily returns of the headline and of every seed."""
    top = collected.headline[walk_forward_report.standing({int(k): v for k, v in verdicts.items()}), "base"]
    days = np.unique(top.day).astype("datetime64[D]").astype(str)
    table = pd.DataFrame({"date": days, "net_return_frac": top.daily_returns})
    for agent_id in collected.settings.agents:
        for seed, result in zip(collected.settings.seeds, collected.seeds[agent_id, "base"], strict=True):
            table[f"agent_{agent_id}_seed_{seed}_frac"] = result.daily_returns
    files.write_text(path, table.to_csv(index=False, lineterminator="\n"))


# -- the file of finished jobs


def _pack(folder: Path, path: Path) -> None:
    """Write the finished jobs of a folder into one file and delete the folder."""
    if folder.is_dir():
        kept = [p for p in folder.rglob("*") if p.is_file() and p.name != job_pool.LOG]
        files.write_zip(path, {p.relative_to(folder).as_posix(): p.read_bytes() for p in kept})
        shutil.rmtree(folder)


def _unpack(config: RunConfig, top: Path, folder: Path) -> None:
    """Put the finished jobs of an earlier session into the folder; what a killed session left there stays."""
    path = top / checkpoint.STATE_FOLDER / checkpoint.FOLDS_FILE
    if not path.is_file() and config.expected(checkpoint.FOLDS_FILE):
        path = config.find_input(checkpoint.FOLDS_FILE)
    if path.is_file():
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as packed:
            for member in packed.infolist():
                if _MEMBER.fullmatch(member.filename):
                    files.write_bytes(folder / member.filename, packed.read(member))
