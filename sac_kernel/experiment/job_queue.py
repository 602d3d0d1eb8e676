"""The queue of a run: one job for each agent and seed, trained, judged and reported together.

On one device the jobs run in turn in this process. On several (two T4s) each job is a process of its own: the
networks are small, so that two independent trainings use two devices better than one split over both.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sac_kernel.agent.config import EXACT
from sac_kernel.core import locks, network, packages, paths
from sac_kernel.core.clock import Deadline
from sac_kernel.core.device import device_names
from sac_kernel.core.errors import SacKernelError
from sac_kernel.core.printable import log_to
from sac_kernel.experiment import job_outputs, output_layout, run_folds
from sac_kernel.experiment.job_outputs import FinishedJob
from sac_kernel.experiment.run_config import Job, RunConfig
from sac_kernel.experiment.trainer import RESUME_MODES, KaggleTrainer
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sac_kernel.backtest.judgement import Judgement
    from sac_kernel.experiment.walk_forward_report import Collected

logger = logging.getLogger(__name__)

_MODULE = __spec__.name
"""What a worker runs; `__name__` would be `__main__` in the worker itself."""
_POLL_S = 0.2
_GRACE_S = (
    180.0  # for a last evaluation and the state, after which a process is killed; its state before stands
)


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
    config: RunConfig, deadline: Deadline | None = None, devices: Sequence[str] | None = None
) -> FinishedRun:
    """Train every (agent, seed) of `config`, judge them and write one report at the top.

    Parameters
    ----------
    config : the run
    deadline : the run's own clock, by default one of `config.time_budget_h` that starts now
    devices : where jobs may run at the same time; None is every device that `config.device` names

    Raises
    ------
    SacKernelError
        If the only job, or every job, failed. One failed job of several is named in the summary: it must not
        cost the others their hours.
    """
    with locks.hold(config.top_folder):
        return _run_jobs(config, deadline or Deadline(config.time_budget_h * 3600.0), devices)


def _run_jobs(config: RunConfig, deadline: Deadline, devices: Sequence[str] | None) -> FinishedRun:
    devices = tuple(devices or _devices(config))
    logger.info("%s", describe_queue(config, devices))
    if min(len(config.jobs), len(devices)) > 1:
        if config.resume in RESUME_MODES:
            job_trainer(config, config.jobs[0]).make_room()  # two processes must not do it at once
        failures = _spread(config, deadline, devices)
    else:
        failures = _in_turn(config, deadline)
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
        alike = [
            j
            for j, other in zip(jobs, finished, strict=False)
            if other._replace(seed=0) == job._replace(seed=0)
        ]
        last = not any(other._replace(seed=0) == job._replace(seed=0) for other in finished[place + 1 :])
        if len(alike) > 1 and last:
            ensembles += trainer.judge_ensemble(alike)
    folds = None
    if config.folds and not failures:
        folds = run_folds.run(config, jobs, judgements, config.data_file, deadline)
        deadline.raise_if_interrupted()
    joined = functools.partial(run_folds.report, folds, config) if folds else None
    summary = job_outputs.finish_outputs(
        config.top_folder, jobs, trainer.data, judgements, failures, ensembles, joined
    )
    return FinishedRun(summary, jobs, judgements, failures, folds and folds.collected)


def _devices(config: RunConfig) -> tuple[str, ...]:
    """Return where the jobs may run; exact SAC left to itself runs in turn and times its devices (`learning`)."""
    names = device_names(config.device)
    exact = all(config.learner_of(job)[0] == EXACT for job in config.jobs)
    return (config.device,) if exact and config.device == "auto" and names != ("cpu",) else names


def describe_queue(config: RunConfig, devices: Sequence[str]) -> str:
    """Return one line: how many jobs run on which devices."""
    count, used = len(config.jobs), list(devices[: len(config.jobs)])
    text = f"{count} job{'s' if count > 1 else ''} on {', '.join(used)}"
    if len(used) == 1:
        text += ", in turn" if count > 1 else ""
    else:
        text += ", one process each"
    idle = list(devices[len(used) :])
    return text + (f"; {', '.join(idle)} idle: add seeds or agents to use it" if idle else "")


def main() -> int:
    """Train one job named on the standard input, until its end is closed; return the exit status."""
    log_to(sys.stdout)
    request = json.loads(sys.stdin.buffer.readline())
    if os.environ.get(paths.REHEARSAL_VARIABLE):
        network.block_network()
    deadline = Deadline(request["budget_s"])
    threading.Thread(target=_stop_at_end_of_input, args=(deadline,), daemon=True).start()
    try:
        job_trainer(RunConfig.from_flat(request["config"]), Job(*request["job"]), deadline).train()
    except SacKernelError as err:
        logger.error("%s: %s", type(err).__name__, err)  # the message says it all
        return 2
    return 0


# -- in turn


def _in_turn(config: RunConfig, deadline: Deadline) -> dict[str, str]:
    failures: dict[str, str] = {}
    for job in config.jobs:
        try:
            # Nothing of a job stays in memory: what is judged is what was written.
            job_trainer(config, job, deadline).train()
        except Exception as err:
            if len(failures) + 1 == len(config.jobs):
                raise
            failures[output_layout.job_name(*job)] = f"{type(err).__name__}: {err}"
            logger.exception("%s failed. The other jobs continue.", output_layout.job_name(*job))
    return failures


# -- one process each


class _Worker:
    """One job in a process of its own; closing its input asks it to stop, on every system alike."""

    def __init__(self, config: RunConfig, job: Job, device: str, budget_s: float, threads: int) -> None:
        self.job, self.name = job, output_layout.job_name(*job)
        env = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": packages.worker_path()}
        self._process = subprocess.Popen(  # noqa: S603  # this interpreter, arguments as a list
            [sys.executable, "-P", "-u", "-m", _MODULE],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        settings = dataclasses.replace(config, device=device).flat()
        request = {"config": settings, "job": job, "budget_s": min(budget_s, threading.TIMEOUT_MAX)}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self._kill_by_s = math.inf
        self._last: collections.deque[str] = collections.deque(maxlen=1)
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def _pass_on(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.strip():
                self._last.append(line.strip())
                logger.info("%s | %s", self.name, line.rstrip())

    def ended(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask for the end by closing the input, and enforce it when the time for a last state is over."""
        assert self._process.stdin
        self._process.stdin.close()
        self._kill_by_s = min(self._kill_by_s, time.monotonic() + _GRACE_S)
        if time.monotonic() > self._kill_by_s:
            self.kill()

    def kill(self) -> None:
        """End the process at once; the state before stands."""
        self._process.kill()

    def failure(self) -> str:
        """Wait for the end; return why it failed, '' if it did not."""
        status = self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()
        self.stop()
        return f"exit status {status}: {' '.join(self._last)}" if status else ""


def _spread(config: RunConfig, deadline: Deadline, devices: Sequence[str]) -> dict[str, str]:
    """Train the jobs, each device taking the next one as it gets free; return why jobs failed."""
    waiting, active = list(config.jobs), dict[int, _Worker]()
    failures: dict[str, str] = {}
    threads = max(1, min(4, (os.cpu_count() or 1) // min(len(waiting), len(devices))))
    restore_signals = deadline.stop_on_signals()
    try:
        while waiting or active:
            free = [place for place in range(len(devices)) if place not in active]
            for place in free[: len(waiting)]:
                job = waiting.pop(0)
                active[place] = _Worker(config, job, devices[place], deadline.left_s(), threads)
            for place in [p for p, worker in active.items() if worker.ended()]:
                worker = active.pop(place)
                if why := worker.failure():
                    failures[worker.name] = why
                    logger.error("%s failed (%s). The other jobs continue.", worker.name, why)
            for worker in active.values() if deadline.passed() else ():
                worker.stop()
            time.sleep(_POLL_S)
    finally:
        restore_signals()
        for worker in active.values():
            worker.kill()
    return failures


def _stop_at_end_of_input(deadline: Deadline) -> None:
    # Not through sys.stdin: its lock, held here, would abort the interpreter's exit.
    while os.read(0, 4096):
        pass
    deadline.request_stop()


if __name__ == "__main__":
    raise SystemExit(main())
