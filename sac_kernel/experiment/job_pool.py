"""Many jobs on many processes: a pool on this machine, or Ray over several; a finished job never runs twice.

A job is a plain dictionary of everything that decides its result (settings, data hash, code hash). Its name is
the hash of that and of the function's, and `FOLDER/<name>/result.json`, written whole and last by the one process
that runs the jobs, says that it is finished. A worker that is lost (killed, its machine gone) costs its job one
attempt and the others nothing.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import io
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sac_kernel
from sac_kernel.core import files, packages
from sac_kernel.core.clock import Deadline, Progress
from sac_kernel.core.config import require
from sac_kernel.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    Job = Mapping[str, Any]

logger = logging.getLogger(__name__)

RESULT = "result.json"
LOG = "log.txt"
ATTEMPTS = 3
"""How often a job is begun whose worker is lost each time."""

_MODULE = __spec__.name
"""What a worker runs; `__name__` would be `__main__` in the worker itself."""
_POLL_S = 0.5  # how late a stop may be seen; an answer is seen at once
_GRACE_S = 180.0  # for a last evaluation and the state, after which a process is killed
_SIGNAL_GRACE_S = 6.0  # the same after a signal, of the ten seconds that a command may take


@dataclass(frozen=True)
class Place:
    """Where a job runs.

    Attributes
    ----------
    folder : the job's own; what it leaves here is kept. On the pool an attempt finds what the last one left
    device : 'cpu', 'cuda:0', ...
    inputs : the files that `run` was given, by their names there
    deadline : passes when the job should save what it has and return None
    """

    folder: Path
    device: str
    inputs: Mapping[str, Path]
    deadline: Deadline


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
    waiting = {name: job for name, job in named.items() if name not in outcomes}
    logger.info("%d jobs, %d finished already", len(named), len(outcomes))
    inputs, deadline = inputs or {}, deadline or Deadline()
    setup = _Setup(path, folder, {name: str(file.resolve()) for name, file in inputs.items()})
    answers = (
        _on_ray(waiting, setup, devices[0], address, deadline)
        if address
        else _on_processes(waiting, setup, _places(devices, workers, len(waiting)), deadline)
    )
    restore_signals = deadline.stop_on_signals()
    progress = Progress(logger, "jobs", len(named), len(outcomes))
    try:
        with contextlib.closing(answers):
            for answer in answers if waiting else ():
                name = answer["name"]
                outcomes[name] = _record(folder, named[name], answer)
                label = f"{named[name].get('label', '')} {name}".lstrip()
                logger.info("%d/%d %s %s", len(outcomes), len(named), label, answer["failure"] or "finished")
                progress.update(len(outcomes))
    finally:
        progress.close()
        restore_signals()
    deadline.raise_if_interrupted()
    stopped = "stopped before it started"
    return [outcomes.get(n) or Outcome(n, job, None, stopped, float("nan")) for n, job in named.items()]


def job_name(job: Job, function_path: str) -> str:
    """Return the name of a job run by 'module:function': the same for equal content, in whatever order."""
    return files.content_hash({"job": job, "function": function_path})[:16]


# -- what every worker does


@dataclass(frozen=True)
class _Setup:
    function: str
    folder: Path
    inputs: Mapping[str, str]


def _attempt(function_path: str, name: str, job: Job, place: Place) -> dict[str, Any]:
    """Run one job, its log lines into its folder; whatever it raises is its failure alone."""
    place.folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(place.folder / LOG, encoding="utf-8")
    root, started_s = logging.getLogger(), time.perf_counter()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    result, failure = None, ""
    try:
        module, _, attribute = function_path.partition(":")
        result = getattr(importlib.import_module(module), attribute)(job, place)
        result = json.loads(files.strict_json(result))  # plain values, or the job has failed
        failure = "" if result is not None else "stopped"
    except Exception as err:
        result, failure = None, f"{type(err).__name__}: {err}"
        logger.exception("the job failed")
    finally:
        root.removeHandler(handler)
        handler.close()
    return {"name": name, "result": result, "failure": failure, "seconds": time.perf_counter() - started_s}


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


def _record(folder: Path, job: Job, answer: Mapping[str, Any]) -> Outcome:
    """Write the result of a job, which finishes it, if there is one."""
    name, result = answer["name"], answer["result"]
    if result is not None:
        facts = {"job": job, "result": result, "seconds": answer["seconds"]}
        files.write_json(folder / name / RESULT, facts)
    return Outcome(name, job, result, answer["failure"], answer["seconds"])


def _finished(folder: Path, name: str, job: Job) -> Outcome | None:
    path = folder / name / RESULT
    if not path.is_file():
        return None
    facts = files.read_object(path)
    result, seconds = facts.get("result"), facts.get("seconds")
    if not isinstance(result, dict) or not isinstance(seconds, int | float):
        msg = f"{path} holds no result of a job. Delete the file, and the job runs again."
        raise CheckpointError(msg)
    return Outcome(name, job, result, "", seconds)


# -- a pool of processes on this machine


def main() -> int:
    """Run the jobs that come in on the standard input, one a line, until it ends; return the exit status."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a job prints must not be taken for an answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the input
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    deadline = Deadline()
    threading.Thread(target=_read_requests, args=(requests, deadline, os.getppid()), daemon=True).start()
    while request := requests.get():
        words = json.loads(request)
        inputs = {name: Path(path) for name, path in words["inputs"].items()}
        place = Place(Path(words["folder"]), words["device"], inputs, deadline)
        answer = _attempt(words["function"], words["name"], words["job"], place)
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except OSError:
            os._exit(1)  # the parent is gone
    return 0


def _read_requests(requests: queue.SimpleQueue[bytes], deadline: Deadline, parent: int) -> None:
    # Unbuffered and not through sys.stdin, whose lock, held here, would abort the interpreter's exit.
    for line in io.FileIO(0, closefd=False):
        requests.put(line)
    deadline.request_stop()
    requests.put(b"")
    ended_s = time.monotonic()
    while time.monotonic() - ended_s < (_GRACE_S if os.getppid() == parent else _SIGNAL_GRACE_S):
        time.sleep(_POLL_S)
    os._exit(1)  # the parent is gone or has waited long enough


class _Process:
    """A worker; closing its input asks it to stop, on every system alike."""

    def __init__(self, device: str, threads: int, answers: queue.SimpleQueue[tuple[_Process, str]]) -> None:
        self.device, self.name = device, ""  # name: of the job it is at
        known = filter(None, [str(packages.import_root()), os.environ.get("PYTHONPATH")])
        env = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(known)}
        self._process = subprocess.Popen(  # noqa: S603  # this interpreter, arguments as a list
            [sys.executable, "-P", "-m", _MODULE],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        threading.Thread(target=self._read, args=(answers,), daemon=True).start()

    def _read(self, answers: queue.SimpleQueue[tuple[_Process, str]]) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            answers.put((self, line))
        answers.put((self, ""))

    def begin(self, name: str, job: Job, setup: _Setup) -> None:
        """Send it a job; if it is gone, its end is read as that job's loss."""
        self.name = name
        request = {
            "function": setup.function,
            "folder": str(setup.folder.resolve() / name),
            "inputs": setup.inputs,
            "device": self.device,
            "name": name,
            "job": job,
        }
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Ask it to end what it does."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self, *, kill: bool) -> int:
        """Wait for its end, enforced with `kill`; return the exit status."""
        if kill:
            self._process.kill()
        self.stop()
        status = self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()
        return status


def _places(devices: Sequence[str], workers: int, jobs: int) -> list[str]:
    """Return the device of each process: never more processes than jobs."""
    return [devices[i % len(devices)] for i in range(min(max(workers, len(devices)), jobs))]


def _on_processes(
    waiting: Mapping[str, Job], setup: _Setup, places: Sequence[str], deadline: Deadline
) -> Generator[dict[str, Any]]:
    """Give the answer to every job that ended."""
    pool = _Pool(waiting, setup, places)
    try:
        while pool.begin_next():
            if deadline.passed():
                pool.stop(_SIGNAL_GRACE_S if deadline.interrupted else _GRACE_S)
            yield from pool.answers()
    finally:
        pool.end()


class _Pool:
    """Processes, the jobs that wait for them, and how often each was begun."""

    def __init__(self, jobs: Mapping[str, Job], setup: _Setup, places: Sequence[str]) -> None:
        self._jobs, self._setup = jobs, setup
        self._names, self._begun = collections.deque(jobs), collections.Counter[str]()
        self._threads = max(1, min(4, (os.cpu_count() or 1) // max(len(places), 1)))
        self._answers: queue.SimpleQueue[tuple[_Process, str]] = queue.SimpleQueue()
        self._processes = {_Process(device, self._threads, self._answers) for device in places}
        self._kill_by_s: float | None = None  # None until a stop was asked for

    @property
    def _busy(self) -> list[_Process]:
        return [process for process in self._processes if process.name]

    def begin_next(self) -> bool:
        """Give every idle process a job; return whether there is something to wait for."""
        for process in [p for p in self._processes if not p.name][: len(self._names)]:
            name = self._names.popleft()
            self._begun[name] += 1
            process.begin(name, self._jobs[name], self._setup)
        in_time = self._kill_by_s is None or time.monotonic() < self._kill_by_s
        return bool(self._busy) and in_time

    def stop(self, grace_s: float) -> None:
        """Begin no more jobs, and ask those that run to save what they have within `grace_s`."""
        if self._kill_by_s is None:
            self._kill_by_s = time.monotonic() + grace_s
            self._names.clear()
            for process in self._processes:
                process.stop()

    def answers(self) -> Iterator[dict[str, Any]]:
        """Wait a moment; give the answer that came, if one did."""
        try:
            process, line = self._answers.get(timeout=_POLL_S)
        except queue.Empty:
            return
        if line:
            process.name = ""
            yield json.loads(line)
        else:
            yield from self._replace(process)

    def _replace(self, process: _Process) -> Iterator[dict[str, Any]]:
        """Put another process where one has ended, and its job back in the queue."""
        self._processes.discard(process)
        status, name = process.end(kill=False), process.name
        if name:
            logger.warning("%s: the process ended with status %d", name, status)
        if name and self._begun[name] < ATTEMPTS and self._kill_by_s is None:
            self._names.append(name)
        elif name:
            yield _lost(name, f"the process ended with status {status} in attempt {self._begun[name]}")
        if self._names:
            self._processes.add(_Process(process.device, self._threads, self._answers))

    def end(self) -> None:
        """End every process: the idle ones by closing their input, the busy ones at once."""
        busy = self._busy
        for process in self._processes:
            process.stop()
        for process in self._processes:
            process.end(kill=process in busy)


def _lost(name: str, failure: str) -> dict[str, Any]:
    return {"name": name, "result": None, "failure": failure, "seconds": float("nan")}


# -- Ray


def _on_ray(
    waiting: Mapping[str, Job], setup: _Setup, device: str, address: str, deadline: Deadline
) -> Generator[dict[str, Any]]:
    """Give the answer to every job that ended. Ray itself begins a task again whose worker or node is lost."""
    ray = _import_ray()
    shipped = {sac_kernel.__name__, setup.function.partition(".")[0]}
    code = [sys.modules[name].__path__[0] for name in sorted(shipped)]
    ray.init(address=address, runtime_env={"py_modules": code}, log_to_driver=False)
    try:
        inputs = [ray.put(Path(path).read_bytes()) for path in setup.inputs.values()]
        gpus = 1 if device.startswith("cuda") else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_ray_attempt)
        function, names = setup.function, list(setup.inputs)
        pending = {
            task.remote(function, name, job, device, names, *inputs): name for name, job in waiting.items()
        }
        while pending and not deadline.passed():
            for done in ray.wait(list(pending), timeout=_POLL_S)[0]:
                name = pending.pop(done)
                try:
                    answer, written = ray.get(done)
                except ray.exceptions.RayError as err:
                    yield _lost(name, f"{type(err).__name__}: {str(err).splitlines()[0]}")
                    continue
                for path, content in written.items():
                    files.write_bytes(setup.folder / name / path, content)
                yield answer
    finally:
        ray.shutdown()  # which cancels what still runs


def _ray_attempt(
    function_path: str, name: str, job: Job, device: str, names: Sequence[str], *inputs: bytes
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Run a job on whatever machine Ray chose; nothing but the network is shared, so its files travel back."""
    with tempfile.TemporaryDirectory(prefix="sac_job_") as scratch:
        paths = {key: Path(scratch) / "inputs" / str(i) / key for i, key in enumerate(names)}
        for path, content in zip(paths.values(), inputs, strict=True):
            files.write_bytes(path, content)
        folder = Path(scratch) / "job"
        answer = _attempt(function_path, name, job, Place(folder, device, paths, Deadline()))
        written = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return answer, written


def _import_ray() -> Any:  # noqa: ANN401  # an optional package
    try:
        return importlib.import_module("ray")
    except ImportError as err:
        msg = f"A Ray address needs the package ray ({err}). Run: pip install -r requirements/ray.txt"
        raise ConfigError(msg) from err


if __name__ == "__main__":
    raise SystemExit(main())
