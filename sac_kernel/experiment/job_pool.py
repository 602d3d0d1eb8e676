"""Many jobs on many processes: a pool on this machine, or Ray over several; no job costs another anything.

`run` keeps results, so that a finished job never runs twice. A job is a plain dictionary of everything that decides
its result (settings, data hash, code hash). Its name is the hash of that and of the function's, and
`FOLDER/<name>/result.json`, written whole and last by the one process that runs the jobs, says that it is finished.
`on_processes` is the pool alone, for jobs that keep their results themselves (`job_queue`).
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import io
import json
import logging
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files, network, packages, paths
from sac_kernel.core.clock import Deadline, TotalProgress
from sac_kernel.core.config import require
from sac_kernel.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Job = Mapping[str, Any]
    Request = Mapping[str, Any]
    Ended = Callable[[str, Mapping[str, Any]], None]

logger = logging.getLogger(__name__)

RESULT = "result.json"
LOG = "log.txt"
ATTEMPTS = 3
"""How often a job of `run` is begun whose worker is lost each time."""
STOPPED = "stopped"
"""Failure of a job whose function returned None: it was stopped and has saved what it had."""

_MODULE = __spec__.name
"""What a worker runs; `__name__` would be `__main__` in the worker itself."""
POLL_S = 0.5  # how late a stop may be seen; an answer is seen at once
_MARK = "\0"  # begins a line of a worker that is no line of its log
_GRACE_S = 180.0  # for a last evaluation and the state, after which a process is killed


@dataclass(frozen=True)
class Place:
    """Where a job runs.

    Attributes
    ----------
    folder : the job's own; what it leaves here is kept. On the pool an attempt finds what the last one left
    device : 'cpu', 'cuda:0', ...
    inputs : the files that `run` was given, by their names there
    deadline : passes when the job should save what it has and return None
    report : may be told the share of the job that is done, 0 to 1, as often as the job likes
    """

    folder: Path
    device: str
    inputs: Mapping[str, Path]
    deadline: Deadline
    report: Callable[[float], object] = lambda _share: None


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes
    ----------
    name : of the job and its folder, 16 hex digits
    result : what the function returned; None if it failed or was stopped
    failure : why there is no result, else ''
    seconds : wall time of the attempt that finished, NaN without a result
    """

    name: str
    job: Job
    result: dict[str, Any] | None
    failure: str
    seconds: float


def run(  # noqa: PLR0913  # where, on what and how many belong to the caller
    jobs: Iterable[Job],
    function: Callable[[Job, Place], Mapping[str, Any] | None],
    folder: Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    devices: Sequence[str] = ("cpu",),
    workers: int = 1,
    address: str = "",
    deadline: Deadline | None = None,
) -> list[Outcome]:
    """Run every job that has no result yet; return one outcome a job, in order.

    Parameters
    ----------
    jobs : plain values only. Whatever changes a result must be in it: equal jobs are one job. A `label` is shown
        beside its name
    function : of a module, by name; takes a job and a `Place`, returns plain values, or None if it was stopped.
        An exception fails its job alone; the job is tried again by the next `run`
    folder : results, one folder a job
    inputs : name -> file that jobs read; on Ray they travel to the workers
    devices : what the processes of the pool run on, in turn; on Ray a name that begins with 'cuda' asks for one
        GPU a job
    workers : processes of the pool, at least one a device
    address : of a Ray cluster ('auto', 'ray://HOST:10001'); '' is the pool on this machine
    deadline : when it passes, or on SIGINT or SIGTERM, jobs are asked to save what they have and stop

    Raises
    ------
    ConfigError
        If the function cannot be found by name in another process, or Ray is asked for and absent.
    """
    require(workers >= 1, "--workers", "workers must be >= 1", workers)
    path = _path_of(function)
    named = {job_name(job, path): job for job in jobs}
    outcomes = {name: found for name in named if (found := _finished(folder, name, named[name]))}
    logger.info("%d jobs, %d finished already", len(named), len(outcomes))
    files_in = {name: str(file.resolve()) for name, file in (inputs or {}).items()}
    requests = {
        name: {"function": path, "job": job, "inputs": files_in, "folder": str(folder.resolve() / name)}
        for name, job in named.items()
        if name not in outcomes
    }
    deadline = deadline or Deadline()

    def ended(name: str, answer: Mapping[str, Any]) -> None:
        outcomes[name] = Outcome(name, named[name], **answer)
        if answer["result"] is not None:  # written whole, which finishes the job
            facts = {"job": named[name], "result": answer["result"], "seconds": answer["seconds"]}
            files.write_json(folder / name / RESULT, facts)
        label = f"{named[name].get('label', '')} {name}".lstrip()
        logger.info("%d/%d %s %s", len(outcomes), len(named), label, answer["failure"] or "finished")

    with contextlib.closing(TotalProgress(logger, "jobs", dict.fromkeys(named, 1), outcomes)) as progress:
        if requests and address:
            _ray_pool().on_ray(requests, devices[0], address, deadline, ended, progress)
        elif requests:
            count = min(max(workers, len(devices)), len(requests))
            places = [devices[i % len(devices)] for i in range(count)]
            on_processes(requests, places, deadline, ended, progress, ATTEMPTS)
    deadline.raise_if_interrupted()
    never = "stopped before it started"
    return [outcomes.get(n) or Outcome(n, job, None, never, math.nan) for n, job in named.items()]


def job_name(job: Job, function_path: str) -> str:
    """Return the name of a job run by 'module:function': the same for equal content, in whatever order."""
    return files.content_hash({"job": job, "function": function_path})[:16]


# -- what every worker does


def attempt(request: Request, place: Place, handler: logging.Handler | None = None) -> dict[str, Any]:
    """Run one job, its log lines to `handler` or into its folder; whatever it raises is its failure alone."""
    if handler is None:
        place.folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(place.folder / LOG, encoding="utf-8")
    root, started_s = logging.getLogger(), time.perf_counter()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    result, failure = None, ""
    try:
        module, _, attribute = request["function"].partition(":")
        result = getattr(importlib.import_module(module), attribute)(request["job"], place)
        result = json.loads(files.strict_json(result))  # plain values, or the job has failed
        failure = "" if result is not None else STOPPED
    except Exception as err:
        result, failure = None, f"{type(err).__name__}: {err}"
        logger.exception("the job failed")
    finally:
        root.removeHandler(handler)
        handler.close()
    return {"result": result, "failure": failure, "seconds": time.perf_counter() - started_s}


def _path_of(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module == "__main__" and (spec := sys.modules["__main__"].__spec__):
        module = spec.name  # `python -m PACKAGE.MODULE`: other processes know it by this name
    if module == "__main__" or "." in function.__qualname__:
        msg = (
            f"Other processes cannot import {function.__qualname__} of {module}. Move it to the top level of an "
            "importable module."
        )
        raise ConfigError(msg)
    return f"{module}:{function.__qualname__}"


def _finished(folder: Path, name: str, job: Job) -> Outcome | None:
    path = folder / name / RESULT
    if not path.is_file():
        return None
    facts = files.read_json(path)
    return Outcome(name, job, facts["result"], "", facts["seconds"])


def _ray_pool() -> Any:  # noqa: ANN401  # a module
    """Return `ray_pool`; the kernel notebook does not carry it."""
    try:
        return importlib.import_module("sac_kernel.experiment.ray_pool")
    except ModuleNotFoundError as err:
        msg = "This notebook runs its jobs on its own machine. Leave the Ray address empty."
        raise ConfigError(msg) from err


# -- a pool of processes on this machine


def main() -> int:
    """Run the jobs that come in on the standard input, one a line, until it ends; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the input
    if os.environ.get(paths.REHEARSAL_VARIABLE):
        network.block_network()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    deadline = Deadline()
    threading.Thread(target=_read_requests, args=(requests, deadline), daemon=True).start()
    while line := requests.get():
        request = json.loads(line)
        inputs = {name: Path(path) for name, path in request.get("inputs", {}).items()}
        folder = request.get("folder", "")
        place = Place(Path(folder), request["device"], inputs, deadline, lambda share: _tell(share=share))
        _tell(**attempt(request, place, None if folder else logging.StreamHandler(sys.stdout)))
    return 0


def _tell(**words: object) -> None:
    with contextlib.suppress(OSError):  # a job whose parent is gone has its state to save
        sys.stdout.write(f"\n{_MARK}{json.dumps(words)}\n")
        sys.stdout.flush()


def _read_requests(requests: queue.SimpleQueue[bytes], deadline: Deadline) -> None:
    # Not through sys.stdin, whose lock, held here, would abort the interpreter's exit.
    for line in io.FileIO(0, closefd=False):
        requests.put(line)
    deadline.request_stop()
    requests.put(b"")
    time.sleep(_GRACE_S)
    os._exit(1)  # the parent is gone or has waited long enough


class _Process:
    """A worker; closing its input asks it to stop, on every system alike."""

    def __init__(self, device: str, threads: int, answers: queue.SimpleQueue[Any]) -> None:
        self.device, self.name, self._answers = device, "", answers  # name: of the job it is at
        known = filter(None, [packages.worker_path(), os.environ.get("PYTHONPATH")])
        env = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(known)}
        self._process = subprocess.Popen(  # noqa: S603  # this interpreter, arguments as a list
            [sys.executable, "-P", "-u", "-m", _MODULE],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(_MARK) and line.endswith("\n"):
                    self._answers.put((self, json.loads(line[len(_MARK) :])))
                elif line.strip():
                    logger.info("%s | %s", self.name, line.rstrip())
        self._answers.put((self, None))

    def begin(self, name: str, request: Request) -> None:
        """Send it a job; if it is gone, its end is read as that job's loss."""
        self.name = name
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({**request, "device": self.device}) + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Ask it to end what it does."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self) -> int:
        """End it at once; return the exit status."""
        self.stop()
        self._process.kill()
        return self._process.wait()


@dataclass
class _Pool:
    """Processes, and the jobs that wait for them."""

    requests: Mapping[str, Request]
    ended: Ended
    progress: TotalProgress
    attempts: int
    threads: int

    def __post_init__(self) -> None:
        self.waiting, self.begun = collections.deque(self.requests), collections.Counter[str]()
        self.answers: queue.SimpleQueue[tuple[_Process, dict[str, Any] | None]] = queue.SimpleQueue()
        self.processes: set[_Process] = set()
        self.kill_at_s = math.inf

    def add(self, device: str) -> None:
        """Start a process."""
        self.processes.add(_Process(device, self.threads, self.answers))

    def begin_next(self) -> list[_Process]:
        """Give every idle process a job; return those that are busy."""
        for process in [p for p in self.processes if not p.name][: len(self.waiting)]:
            name = self.waiting.popleft()
            self.begun[name] += 1
            process.begin(name, self.requests[name])
        return [p for p in self.processes if p.name]

    def stop(self) -> None:
        """Begin no more jobs, and ask those that run to save what they have."""
        if self.kill_at_s == math.inf:
            self.kill_at_s = time.monotonic() + _GRACE_S
            self.waiting.clear()
            for process in self.processes:
                process.stop()

    def take(self) -> None:
        """Wait a moment for what a process says."""
        try:
            process, answer = self.answers.get(timeout=POLL_S)
        except queue.Empty:
            return
        name = process.name
        if answer and "share" in answer:
            self.progress.report(name, answer["share"])
            return
        process.name = ""
        failure = f"the process ended with status {process.end()}" if answer is None else answer["failure"]
        if name and not answer and self.begun[name] < self.attempts and self.kill_at_s == math.inf:
            logger.warning("%s: %s", name, failure)
            self.waiting.append(name)
        elif name:
            self.progress.finish(name)
            self.ended(name, answer or lost(failure))
        if failure and process in self.processes:  # its device may be of no use to another job
            process.end()
            self.processes.discard(process)
            if self.waiting:
                self.add(process.device)


def on_processes(
    requests: Mapping[str, Request],
    places: Sequence[str],
    deadline: Deadline,
    ended: Ended,
    progress: TotalProgress,
    attempts: int = 1,
) -> None:
    """Run jobs, each on the next process that is free.

    Parameters
    ----------
    requests : name -> job, its function 'module:name', inputs (name -> file) and folder. Log lines of a job without a
        folder are passed on to this process's log, its name in front
    places : device of each process
    deadline : when it passes, or on SIGINT or SIGTERM, jobs are asked to save what they have and stop. Those that do
        not in time are killed. Those that wait are not begun, and `ended` hears nothing of them
    ended : is given name and answer (`attempt`, `lost`) of each job
    attempts : how often a job is begun whose worker is lost each time
    """
    pool = _Pool(requests, ended, progress, attempts, max(1, min(4, (os.cpu_count() or 1) // len(places))))
    restore_signals = deadline.stop_on_signals()
    try:
        for device in places:
            pool.add(device)
        while (busy := pool.begin_next()) and time.monotonic() < pool.kill_at_s:
            if deadline.passed():
                pool.stop()
            pool.take()
        for process in busy:
            ended(process.name, lost(f"killed {_GRACE_S:.0f} s after it was asked to stop"))
    finally:
        restore_signals()
        for process in pool.processes:
            process.end()


def lost(failure: str) -> dict[str, Any]:
    """Return the answer to a job that has no result."""
    return {"result": None, "failure": failure, "seconds": math.nan}


if __name__ == "__main__":
    raise SystemExit(main())
