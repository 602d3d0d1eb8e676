"""Runs of a benchmark: one process and one thread each, results as JSON lines, so that a stopped bench goes on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
PACKAGES = ("torch", "jax", "numpy", "gymnasium", "mujoco", "stable-baselines3", "sbx-rl")


class Journal:
    """Rows of results in a file of JSON lines, appended as they come.

    A last line that was cut off by a kill is dropped, so its run is done again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]

    def find(self, **key: Any) -> list[dict[str, Any]]:
        """Return the rows with these values, oldest first."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in key.items())]

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self.rows.append(json.loads(json.dumps(row)))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class Clock:
    """Processor and wall seconds of what is timed; the processor's are of all threads of this process."""

    def __init__(self) -> None:
        self._cpu, self._wall = 0.0, 0.0
        self._started = (time.process_time(), time.perf_counter())

    def cpu_s(self) -> float:
        """Return processor seconds so far, while running."""
        return self._cpu + time.process_time() - self._started[0]

    def pause(self) -> tuple[float, float]:
        """Stop and return (processor, wall) seconds so far."""
        self._cpu += time.process_time() - self._started[0]
        self._wall += time.perf_counter() - self._started[1]
        return self._cpu, self._wall

    def go_on(self) -> None:
        """Start again."""
        self._started = (time.process_time(), time.perf_counter())


def run_alone(module: str, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows that `python -m module --job JSON` prints, one JSON line each, as they come.

    Raises
    ------
    RuntimeError
        If the process fails; its last words are on standard error.
    """
    command = [sys.executable, "-m", module, "--job", json.dumps(job)]
    environment = {**os.environ, **ONE_THREAD}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):  # frameworks greet on standard output
                yield json.loads(line)
    if process.returncode:
        msg = (
            f"{module}: exit status 0 is required, found {process.returncode} for {job}; see the error above"
        )
        raise RuntimeError(msg)


def run_missing(
    module: str,
    wanted: Iterable[dict[str, Any]],
    results: Path,
    say: Callable[[dict[str, Any]], str],
    **done: Any,
) -> list[dict[str, Any]]:
    """Run the jobs that the results file lacks, one after the other; return the last row of each.

    Parameters
    ----------
    module, wanted : as of `run_alone`; a row repeats its job's values
    results : the file of rows; what comes is appended
    say : a row -> what to print of it
    done : values that only the last row of a job has, where a job has several
    """
    journal, rows = Journal(results), []
    for job in wanted:
        if not journal.find(**job, **done):
            for row in run_alone(module, job):
                journal.add(row)
                print(f"  {say(row)}", flush=True)
        rows.append(journal.find(**job, **done)[-1])
    return rows


def pin() -> None:
    """Keep this process, threads of its libraries included, on one of its cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})


def header() -> str:
    """Return the line that says when, how and on what."""
    found = {name: _version(name) for name in PACKAGES}
    facts = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    how = f"{day}, one process and one thread a run, pinned to one core of {os.cpu_count()}"
    return f"{how}; python {platform.python_version()}, {facts}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
