"""The queue of a run: one job for each agent and seed, trained, judged and reported together.

Several jobs run side by side, on a process for each GPU or each core (`job_pool`): the networks are small, so that two
independent trainings use two devices better than one split over both. A single job, or a single GPU, is this process's
own. Both ways write the same bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sac_kernel.agent.config import EXACT
from sac_kernel.core import locks
from sac_kernel.core.clock import Deadline, TotalProgress
from sac_kernel.core.device import device_names
from sac_kernel.core.errors import SacKernelError
from sac_kernel.experiment import job_outputs, job_pool, output_layout, run_folds
from sac_kernel.experiment.job_outputs import FinishedJob
from sac_kernel.experiment.run_config import Job, RunConfig
from sac_kernel.experiment.trainer import RESUME_MODES, KaggleTrainer
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sac_kernel.backtest.judgement import Judgement
    from sac_kernel.experiment.planted_edge import SelfTest
    from sac_kernel.experiment.walk_forward_report import Collected

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """What a run leaves in memory.

    Attributes
    ----------
    summary : content of summary.json
    jobs, judgements : of every job that finished or was cut, in the queue's order
    failures : job name -> why it ended; its last good state is kept
    folds : the joined folds, None without a walk-forward
    """

    summary: dict[str, Any]
    jobs: list[FinishedJob]
    judgements: list[Judgement]
    failures: dict[str, str]
    folds: Collected | None = None


def job_trainer(config: RunConfig, job: Job, deadline: Deadline | None = None) -> KaggleTrainer:
    """Return the trainer of one job of a run."""
    return KaggleTrainer.of_run(config, job, deadline)


def run_jobs(
    config: RunConfig,
    deadline: Deadline | None = None,
    devices: Sequence[str] | None = None,
    tested: SelfTest | None = None,
) -> FinishedRun:
    """Train every (agent, seed) of `config`, judge them and write one report at the top.

    Parameters
    ----------
    config : the run
    deadline : the run's own clock, by default one of `config.time_budget_h` that starts now
    devices : where jobs may run at the same time; None is every device that `config.device` names
    tested : the self-test, for the report

    Raises
    ------
    SacKernelError
        If the only job, or every job, failed. One failed job of several is named in the summary: it must not
        cost the others their hours.
    """
    with locks.hold(config.top_folder):
        return _run_jobs(config, deadline or Deadline(config.time_budget_h * 3600.0), devices, tested)


def _run_jobs(
    config: RunConfig, deadline: Deadline, devices: Sequence[str] | None, tested: SelfTest | None
) -> FinishedRun:
    devices = tuple(devices or _devices(config))
    logger.info("%s", describe_queue(config, devices))
    failures = _train(config, deadline, devices)
    deadline.raise_if_interrupted()
    if len(failures) == len(config.jobs):
        why = next(iter(failures.values()))
        msg = f"Every job failed. First error: {why}"
        raise SacKernelError(msg)
    finished = [job for job in config.jobs if output_layout.job_name(*job) not in failures]
    folders = [output_layout.job_folder(config.top_folder, job, len(config.jobs)) for job in finished]
    job_outputs.bring_ledger(config.top_folder, config)
    trials.merge(config.top_folder / trials.NAME, [folder / trials.NAME for folder in folders])
    jobs, judgements, ensembles = [], [], []
    for place, job in enumerate(finished):
        trainer = job_trainer(config, job)
        trainer.load_data()
        jobs.append(FinishedJob.load(trainer.folder, job.agent_id))
        judgements.append(trainer.judge(jobs[-1]))
        alike = [i for i, other in enumerate(finished) if other._replace(seed=0) == job._replace(seed=0)]
        if len(alike) > 1 and alike[-1] == place:
            ensembles += trainer.judge_ensemble([jobs[i] for i in alike])
    folds = None
    if config.folds and not failures:
        folds = run_folds.run(config, jobs, judgements, config.data_file, deadline)
        deadline.raise_if_interrupted()
    joined = functools.partial(run_folds.report, folds, config) if folds else None
    summary = job_outputs.finish_outputs(
        config.top_folder, jobs, trainer.data, judgements, failures, ensembles, joined, tested
    )
    return FinishedRun(summary, jobs, judgements, failures, folds and folds.collected)


def _devices(config: RunConfig) -> tuple[str, ...]:
    """Return where the jobs may run; exact SAC left to itself runs in turn and times its devices (`learning`).

    A process a core costs next to no processor time: two exact trainings of 100 episodes on 134,000 bars took
    35 and 29 CPU seconds in turn and 29 and 32 side by side, three agents 59 and 57.
    """
    names = device_names(config.device)
    if names == ("cpu",):
        return names * min(len(config.jobs), os.cpu_count() or 1)
    exact = all(config.learner_of(job)[0] == EXACT for job in config.jobs)
    return (config.device,) if exact and config.device == "auto" else names


def describe_queue(config: RunConfig, devices: Sequence[str]) -> str:
    """Return one line: how many jobs run on which devices."""
    count = len(config.jobs)
    used, idle = devices[:count], ", ".join(devices[count:])
    text = f"{count} job{'s' if count > 1 else ''} on {', '.join(dict.fromkeys(used))}"
    if count > 1:
        how = f"one process on each of {len(used)} cores" if used[0] == used[-1] else "one process each"
        text += f", {'in turn' if len(used) == 1 else how}"
    return f"{text}; {idle} idle: add seeds or agents to use it" if idle else text


def train_job(job: Mapping[str, Any], place: job_pool.Place) -> dict[str, Any] | None:
    """Train a job of a run on a process of the pool; it leaves what it leaves in its own folder."""
    config = RunConfig.from_flat({**job["config"], "device": place.device})
    trainer = job_trainer(config, Job(*job["job"]), place.deadline)
    trainer.progress = place.report
    return {} if trainer.train().facts["status"] == "complete" else None


def _train(config: RunConfig, deadline: Deadline, devices: Sequence[str]) -> dict[str, str]:
    """Train the jobs; return why jobs failed."""
    waiting, failures = {output_layout.job_name(*job): job for job in config.jobs}, dict[str, str]()
    updates = {name: config.updates_of(job) for name, job in waiting.items()}

    def ended(name: str, answer: Mapping[str, Any]) -> None:
        del waiting[name]
        if (why := answer["failure"]) not in ("", job_pool.STOPPED):
            failures[name] = why
            logger.error("%s failed (%s). The other jobs continue.", name, why)

    with contextlib.closing(TotalProgress(logger, "updates", updates)) as progress:
        if min(len(waiting), len(devices)) > 1:
            if config.resume in RESUME_MODES:
                job_trainer(config, config.jobs[0]).make_room()  # two processes must not do it at once
            function, settings = f"{__name__}:{train_job.__name__}", config.flat()
            requests = {
                name: {"function": function, "job": {"config": settings, "job": job}}
                for name, job in waiting.items()
            }
            job_pool.Processes(requests, devices[: len(waiting)], deadline, ended, progress).run()
            config = dataclasses.replace(config, device=devices[0])
        # In turn; those that a stop kept from beginning on a process restore their state and save it.
        for name, job in waiting.items():
            try:
                # Nothing of a job stays in memory: what is judged is what was written.
                trainer = job_trainer(config, job, deadline)
                trainer.progress = functools.partial(progress.report, name)
                trainer.train()
            except Exception as err:
                if len(failures) + 1 == len(config.jobs):
                    raise
                failures[name] = f"{type(err).__name__}: {err}"
                logger.exception("%s failed. The other jobs continue.", name)
            progress.finish(name)
    return failures
