"""Many jobs on many processes of this machine; no job costs another anything.

`run` keeps results, so that a finished job never runs twice. A job is a plain dictionary of everything that decides
its result (settings, data hash, code hash). Its name is the hash of that and of the function's, and
`FOLDER/<name>/result.json`, written whole and last by the one process that runs the jobs, says that it is finished.
`Processes` is the pool alone, for jobs that keep their results themselves (`job_queue`). `ray_pool` takes its place
on several machines.
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
from sac_kernel.core.errors import CheckpointError, ConfigError
from sac_kernel.core.printable import PlainFormatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Job = Mapping[str, Any]
    Request = Mapping[str, Any]
    Pool = Callable[..., Any]  # of the fields of `Processes`

logger = logging.getLogger(__name__)

RESULT = "result.json"
LOG = "log.txt"
ATTEMPTS = 3  # of a job of `run` whose worker is lost each time
STOPPED = "stopped"  # the failure of a job that returned None: it has saved what it had
POLL_S = 0.5  # how late a stop may be seen; an answer is seen at once
_GRACE_S = 180.0  # for a last evaluation and the state, after which a process is killed
_SIGNAL_GRACE_S = 6.0  # the same after a signal, of the ten seconds that a command may take
_MODULE = __spec__.name  # what a worker runs, where `__name__` is `__main__`
_MARK = "\0"  # begins a line of a worker that is no line of its log


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
    pool: Pool | None = None,
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
    pool : what runs the jobs: `Processes`, or `ray_pool.at(address)`
    deadline : when it passes, or on SIGINT or SIGTERM, jobs are asked to save what they have and stop

    Raises
    ------
    ConfigError
        If the function cannot be found by name in another process.
    """
    require(workers >= 1, "--workers", "workers must be >= 1", workers)
    path = _path_of(function)
    named = {job_name(job, path): job for job in jobs}
    outcomes = dict[str, Outcome]()
    for name, job in named.items():
        if (file := folder / name / RESULT).is_file():
            facts = files.read_object(file)
            if not isinstance(facts.get("result"), dict) or not isinstance(facts.get("seconds"), int | float):
                msg = f"{file} holds no result of a job. Delete the file, and the job runs again."
                raise CheckpointError(msg)
            outcomes[name] = Outcome(name, job, facts["result"], "", facts["seconds"])
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

    if requests:
        progress = TotalProgress(logger, "jobs", dict.fromkeys(requests, 1))
        count = min(max(workers, len(devices)), len(requests))
        places = [devices[i % len(devices)] for i in range(count)]
        (pool or Processes)(requests, places, deadline, ended, progress, ATTEMPTS).run()
    deadline.raise_if_interrupted()
    never = "stopped before it started"
    return [outcomes.get(n) or Outcome(n, job, None, never, math.nan) for n, job in named.items()]


def job_name(job: Job, function_path: str) -> str:
    """Return the name of a job run by 'module:function': the same for equal content, in whatever order."""
    return files.content_hash({"job": job, "function": function_path})[:16]


# -- what every worker does


def attempt(request: Request, place: Place) -> dict[str, Any]:
    """Run one job, its log lines into its folder or to the parent; whatever it raises is its failure alone."""
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if request.get("folder"):
        place.folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(place.folder / LOG, encoding="utf-8")
    handler.setFormatter(PlainFormatter())  # no text of a file can be taken for an answer
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    started_s = time.perf_counter()
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
        handler.close()
    return {"result": result, "failure": failure, "seconds": time.perf_counter() - started_s}


def _path_of(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module == "__main__" and (spec := sys.modules["__main__"].__spec__):
        module = spec.name  # `python -m PACKAGE.MODULE`: other processes know it by this name
    if module == "__main__" or "." in function.__qualname__:
        msg = f"Other processes cannot import {function.__qualname__} of {module}. Put it at the top of a module."
        raise ConfigError(msg)
    return f"{module}:{function.__qualname__}"


# -- a pool of processes on this machine


def main() -> int:
    """Run the jobs that come in on the standard input, one a line, until it ends; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the input
    if os.environ.get(paths.REHEARSAL_VARIABLE):
        network.block_network()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    deadline = Deadline()
    threading.Thread(target=_read_requests, args=(requests, deadline, os.getppid()), daemon=True).start()

    def tell(words: object) -> None:
        with contextlib.suppress(OSError):  # a job whose parent is gone has its state to save
            sys.stdout.write(f"\n{_MARK}{json.dumps(words)}\n")
            sys.stdout.flush()

    while line := requests.get():
        request = json.loads(line)
        inputs = {name: Path(path) for name, path in request.get("inputs", {}).items()}
        place = Place(Path(request.get("folder", "")), request["device"], inputs, deadline, tell)
        tell(attempt(request, place))
    return 0


def _read_requests(requests: queue.SimpleQueue[bytes], deadline: Deadline, parent: int) -> None:
    # Not through sys.stdin, whose lock, held here, would abort the interpreter's exit.
    for line in io.FileIO(0, closefd=False):
        requests.put(line)
    deadline.request_stop()
    requests.put(b"")
    ended_s = time.monotonic()
    while time.monotonic() - ended_s < (_GRACE_S if os.getppid() == parent else _SIGNAL_GRACE_S):
        time.sleep(POLL_S)
    os._exit(1)  # the parent is gone or has waited long enough


class _Process:
    """A worker; closing its input asks it to stop, on every system alike."""

    def __init__(self, device: str, threads: int, answers: queue.SimpleQueue[Any]) -> None:
        self.device, self.name, self._answers = device, "", answers  # name: of the job it is at
        known = filter(None, [packages.worker_path(), os.environ.get("PYTHONPATH")])
        env = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(known)}
        self._process: Any = subprocess.Popen(  # noqa: S603  # this interpreter, arguments as a list
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
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({**request, "device": self.device}) + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self) -> int:
        """End it at once; return the exit status."""
        self.stop()
        self._process.kill()
        return int(self._process.wait())


@dataclass
class Processes:
    """Jobs on processes of this machine, each job on the next process that is free.

    Attributes
    ----------
    requests : name -> job, its function 'module:name', inputs (name -> file) and folder. Log lines of a job without a
        folder are passed on to this process's log, its name in front
    places : device of each process
    deadline : when it passes, or on SIGINT or SIGTERM, jobs are asked to save what they have and stop. Those that do
        not in time are killed. Those that wait are not begun, and `ended` hears nothing of them
    ended : is given name and answer (`attempt`, `lost`) of each job
    attempts : how often a job is begun whose worker is lost each time
    """

    requests: Mapping[str, Request]
    places: Sequence[str]
    deadline: Deadline
    ended: Callable[[str, Mapping[str, Any]], None]
    progress: TotalProgress
    attempts: int = 1

    def run(self) -> None:
        """Run the jobs."""
        self._waiting, self._begun = collections.deque(self.requests), collections.Counter[str]()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._kill_at_s, self._processes = math.inf, set[_Process]()
        restore_signals = self.deadline.stop_on_signals()
        try:
            for device in self.places:
                self._add(device)
            while (busy := self._begin_next()) and time.monotonic() < self._kill_at_s:
                if self.deadline.passed() and self._kill_at_s == math.inf:
                    grace_s = _SIGNAL_GRACE_S if self.deadline.interrupted else _GRACE_S
                    self._kill_at_s = time.monotonic() + grace_s
                    self._waiting.clear()
                    for process in self._processes:
                        process.stop()
                with contextlib.suppress(queue.Empty):
                    self._take(*self._answers.get(timeout=POLL_S))
            for process in busy:
                self.ended(process.name, lost("killed after it was asked to stop"))
        finally:
            self.progress.close()
            restore_signals()
            for process in self._processes:
                process.end()

    def _add(self, device: str) -> None:
        threads = max(1, min(4, (os.cpu_count() or 1) // len(self.places)))
        self._processes.add(_Process(device, threads, self._answers))

    def _begin_next(self) -> list[_Process]:
        """Give every idle process a job; return those that are busy."""
        for process in [p for p in self._processes if not p.name][: len(self._waiting)]:
            name = self._waiting.popleft()
            self._begun[name] += 1
            process.begin(name, self.requests[name])
        return [p for p in self._processes if p.name]

    def _take(self, process: _Process, answer: dict[str, Any] | float | None) -> None:
        """Act on what a process says: an answer, the share of its job that is done, or nothing, which is its end."""
        name = process.name
        if isinstance(answer, float | int):
            self.progress.report(name, answer)
            return
        again = not answer and self._begun[name] < self.attempts and self._kill_at_s == math.inf
        answer = answer or lost(f"the process ended with status {process.end()}")
        process.name = ""
        if name and again:
            logger.warning("%s: %s", name, answer["failure"])
            self._waiting.append(name)
        elif name:
            self.progress.finish(name)
            self.ended(name, answer)
        if answer["failure"] and process in self._processes:  # its device may be of no use to another job
            process.end()
            self._processes.discard(process)
            if self._waiting:
                self._add(process.device)


def lost(failure: str) -> dict[str, Any]:
    """Return the answer to a job that has no result."""
    return {"result": None, "failure": failure, "seconds": math.nan}


if __name__ == "__main__":
    raise SystemExit(main())
