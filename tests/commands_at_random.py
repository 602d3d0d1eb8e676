"""Commands stopped at random moments, and two at once: each ends as it would have ended alone, or is refused.

python -m tests.commands_at_random interrupts --count 200     # `make interrupts`
python -m tests.commands_at_random two --count 200            # `make two-at-once`

The suite runs a short form of both. A case is made from its number alone: --first N --count 1 repeats it. The commands
are those of users, in a copy of the clone, with the real client and a local Kaggle.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from sac_kernel.core import files
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_data
from tests.kaggle_standin import KaggleStandin, client_python, kaggle_env
from tests.kaggle_standin.samples import write_kernel
from tests.small_runs import TINY
from tests.use_models import lively_agent

ROOT = Path(__file__).resolve().parents[1]
SEED = 20261130
HANG_S = 600.0
STOPS_WITHIN_S = 20.0  # ten, and what a busy machine adds
COPIED = ("sac_kernel", "notebooks", "build_kernel.py", "kernel-metadata.json", "dataset-metadata.json")
SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))
TRAINED = ("agent_1_final.pt", "agent_1_best.pt", "logs", "checkpoints")
SETTINGS = [f"{k}={list(v) if isinstance(v, tuple) else v}" for k, v in TINY.items()]
BUILD = """
import faulthandler, runpy, signal, sys
if hasattr(signal, "SIGUSR1"):
    faulthandler.register(signal.SIGUSR1)  # a hang says where it is
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
sys.path.insert(0, ".")
client = sys.argv.pop(1)
sys.argv = sys.argv[1:]
if sys.argv[0] == "build_kernel.py":
    from sac_kernel.kaggle import wheels
    wheels.WHEELS = {}
    from sac_kernel.kaggle.client import KaggleClient
    KaggleClient.__init__.__defaults__ = (None, client)
    runpy.run_path("build_kernel.py", run_name="__main__")
else:
    runpy.run_module("sac_kernel", run_name="__main__", alter_sys=True)
"""
WRITES_A_RUN = """
import hashlib, json, os
os.makedirs("logs")
contents = {"agent_1_final.pt": b"w" * 3000, "logs/stats.json": b"{}", "summary.json": json.dumps(
    {"table": [], "verdict": {"sentence": "none"}}).encode()}
listed = {}
for name, content in contents.items():
    open(name, "wb").write(content)
    listed[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
facts = {"run": "RUN", "status": "complete", "episodes": 2, "updates": 9, "env_steps": 9}
json.dump({**facts, "files": listed, "end": "complete"}, open("manifest.json", "w"))
"""


class Command(NamedTuple):
    """A command, and the files by which its result is recognised."""

    words: tuple[str, ...]
    result: tuple[str, ...]


def settings() -> list[str]:
    return [part for setting in SETTINGS for part in ("--set", setting)]


def named(name: str) -> tuple[str, str]:
    """Return the folders of a name's build and outputs."""
    return f"build/{name}", "outputs" if name == "sac-trading" else f"outputs/{name}"


def publish(name: str) -> Command:
    build, _ = named(name)
    top = "kernel-metadata.json" if name == "sac-trading" else f"{build}/kernel-metadata.json"
    words = ("build_kernel.py", "--name", name, "--accelerator", "none", "--poll-s", "0.2", *settings())
    return Command(words, (f"{build}/train.ipynb", f"{build}/datasets", top))


def fetch(name: str) -> Command:
    words = ("build_kernel.py", "--name", name, "--fetch", "--poll-s", "0.2")
    outputs = named(name)[1]
    return Command(
        words, tuple(f"{outputs}/{n}" for n in ("manifest.json", "agent_1_final.pt", "logs", "summary.json"))
    )


def rehearse(name: str) -> Command:
    words = ("build_kernel.py", "--name", name, "--rehearse", *settings())
    working = f"{named(name)[0]}/rehearsal/working"
    return Command(words, tuple(f"{working}/{n}" for n in TRAINED))


def train(folder: str) -> Command:
    words = (
        "sac_kernel",
        "train",
        "--data",
        "data/processed/processed_data.h5",
        "--output",
        folder,
        *settings(),
    )
    return Command(words, tuple(f"{folder}/{n}" for n in TRAINED))


def paper(folder: str) -> Command:
    words = (
        "sac_kernel",
        "paper",
        "--model",
        "agent.pt",
        "--bars",
        "EURUSD.csv",
        "--journal",
        folder,
        "--speed",
        "0",
    )
    return Command(words, (f"{folder}/journal.jsonl",))


PUBLISHED = ("sac-trading", "other-name")
INTERRUPTED = (paper("paper"), publish("sac-trading"), fetch("fetched-one"), rehearse("sac-trading"))
TWO = (
    *map(publish, PUBLISHED), fetch("fetched-one"), fetch("fetched-two"), train("trained-a"), train("trained-b"),
    paper("paper-a"), paper("paper-b"), rehearse("sac-trading"),
)  # fmt: skip


class World:
    """A clone with bars, an agent and a feed, a platform with finished runs, and what each command leaves alone."""

    def __init__(self, folder: Path, kaggle: KaggleStandin) -> None:
        self.kaggle, self.folder = kaggle, folder
        self.clean = folder / "clean"
        self.clean.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.clean / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(ROOT / name, self.clean / name)
        data = make_data(1600)
        write_processed(data, self.clean / "data/processed/processed_data.h5")
        lively_agent(self.clean / "agent.pt", data, 1, TradingEnvConfig())
        bars = data.test["EURUSD"][["open", "high", "low", "close"]]
        bars.to_csv(self.clean / "EURUSD.csv", date_format="%Y-%m-%dT%H:%M:%S+00:00")
        home = folder / "home"
        self.env = {**kaggle_env(kaggle, home), "OMP_NUM_THREADS": "1"}
        self._alone: dict[Command, tuple[str, float]] = {}
        for name in ("fetched-one", "fetched-two"):
            ref = f"tester/{name}-train"
            kernel = write_kernel(folder / name, ref, WRITES_A_RUN.replace("RUN", name))
            subprocess.run([client_python(), "-P", "-m", "kaggle", "kernels", "push", "-p", str(kernel)], env=self.env,
                           check=True, capture_output=True)  # fmt: skip
            kaggle.wait_status(ref, "COMPLETE")

    def clone(self, number: int) -> Path:
        """Return a clone as it is before any command."""
        with self.kaggle.platform.lock:
            for dataset in self.kaggle.datasets.values():
                for version in dataset.versions:
                    shutil.rmtree(version.folder)
            self.kaggle.datasets.clear()
        return Path(shutil.copytree(self.clean, self.folder / f"clone-{number}"))

    def start(self, clone: Path, command: Command) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", BUILD, client_python(), *command.words]
        return subprocess.Popen(
            words, cwd=clone, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip

    def finish(self, clone: Path, command: Command) -> None:
        """Run a command to its end."""
        process = self.start(clone, command)
        said = said_by(process, clone)
        assert process.returncode == 0, said[-3000:]

    def alone(self, command: Command) -> tuple[str, float]:
        """Return the digest and seconds of a command that nobody disturbs."""
        if command not in self._alone:
            clone, began_s = self.clone(1_000_000 + len(self._alone)), time.monotonic()
            self.finish(clone, command)
            self._alone[command] = digest(clone, command), time.monotonic() - began_s
            shutil.rmtree(clone)
        return self._alone[command]


def digest(clone: Path, command: Command) -> str:
    """Return the hash of a result; it must be whole, and no half-written file may lie in it."""
    total = hashlib.sha256()
    for name in command.result:
        path = clone / name
        assert path.exists(), f"{command.words}: no {name}"
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            assert not file.name.endswith(".tmp"), file
            total.update(
                file.relative_to(clone).as_posix().encode() + b"\0" + files.file_sha256(file).encode()
            )
    return total.hexdigest()


def said_by(process: subprocess.Popen[str], clone: Path) -> str:
    """Return what a command said until its end; a hang is an error that says where each process stands."""
    try:
        return process.communicate(timeout=HANG_S)[0]
    except subprocess.TimeoutExpired:
        status, left = process.poll(), []
        for member in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if Path(member.cwd()).is_relative_to(clone):
                    left.append(member)
        found = [f"{member.pid} {' '.join(member.cmdline())[:100]!r}" for member in left]
        if status is None:
            process.send_signal(signal.SIGUSR1)
            time.sleep(2.0)
        for member in left:
            with contextlib.suppress(psutil.Error):
                member.kill()
        said, _ = process.communicate(timeout=60.0)
    msg = f"a hang of {HANG_S:.0f} s, status {status}, processes {found}:\n{said[-6000:]}"
    raise AssertionError(msg)


def end_family(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal; a kill also ends the kernels and clients, as a power cut does."""
    family = psutil.Process(process.pid).children(recursive=True) if number == SIGNALS[2] else []
    process.send_signal(number)
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.kill()


def interrupted(world: World, number: int) -> str:
    """Stop a command one to three times, let it end, and compare; return what was done."""
    rng = np.random.default_rng([SEED, number])
    command = INTERRUPTED[(0, 1, 2, 0, 1, 2, 3)[number % 7]]
    expected, seconds = world.alone(command)
    clone, events = world.clone(number), []
    for _ in range(int(rng.integers(1, 4))):
        process, sent = world.start(clone, command), SIGNALS[rng.integers(3)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(float(rng.uniform(0.0, seconds)))
        running, began_s = process.poll() is None, time.monotonic()
        if running:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                end_family(process, sent)
        said = said_by(process, clone)
        took_s, status = time.monotonic() - began_s, process.returncode
        where = f"case {number}, {command.words[:4]}, {sent!r}: status {status} after {took_s:.1f} s\n{said[-3000:]}"
        assert took_s < STOPS_WITHIN_S or status == 0, where
        early = (-sent, 1)  # while the interpreter itself starts
        assert status in (0, 128 + sent, *early), where
        if status == 128 + sent:
            assert "Traceback" not in said, where
            assert said.count("Stopped. ") == 1, where
        events.append(f"{signal.Signals(sent).name} {status}")
    world.finish(clone, command)
    assert digest(clone, command) == expected, f"case {number}: {command.words[:4]} after {events}"
    shutil.rmtree(clone)
    return f"{command.words[0]} {' '.join(command.words[1:4])}: {', '.join(events)}"


def two_at_once(world: World, number: int) -> str:
    """Run two commands at once; each ends as alone, or is refused because of the other."""
    rng = np.random.default_rng([SEED, 1, number])
    first = TWO[rng.integers(len(TWO) - (number % 10 != 0))]  # rehearsals are slow
    same = rng.random() < 0.5
    second = first if same else TWO[rng.integers(len(TWO) - 1)]
    for command in (first, second):
        world.alone(command)
    clone = world.clone(number)
    processes = []
    for command in (first, second):
        processes.append(world.start(clone, command))
        time.sleep(float(rng.uniform(0.0, 0.7 * world.alone(first)[1])))
    statuses = []
    for command, process in zip((first, second), processes, strict=True):
        said = said_by(process, clone)
        statuses.append(process.returncode)
        where = (
            f"case {number}: {command.words[:4]} beside {first.words[:4]}, {second.words[:4]}\n{said[-3000:]}"
        )
        assert "Traceback" not in said, where
        assert process.returncode == 0 or (process.returncode == 2 and "is in use by process" in said), where
        if process.returncode == 0:
            assert digest(clone, command) == world.alone(command)[0], where
    assert 0 in statuses
    assert same or first.words[:3] == second.words[:3] or statuses == [0, 0], (
        number,
        statuses,
        first,
        second,
    )
    shutil.rmtree(clone)
    return f"{' '.join(first.words[:3])} | {' '.join(second.words[:3])}: {statuses}"


CASES = {"interrupts": interrupted, "two": two_at_once}


@contextlib.contextmanager
def worlds(folder: Path):
    """Yield a world in a folder."""
    with KaggleStandin(folder / "platform") as kaggle:
        yield World(folder, kaggle)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=CASES)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    ends: collections.Counter[str] = collections.Counter()
    failed, began_s = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="commands-") as folder, worlds(Path(folder)) as world:
        for number in range(args.first, args.first + args.count):
            try:
                line = CASES[args.kind](world, number)
                ends.update(line.rpartition(": ")[2].split(", "))
            except AssertionError as err:
                failed.append(number)
                line = f"FAILED {err}"
            sys.stdout.write(f"{number}: {line}\n")
            sys.stdout.flush()
    facts = {
        "cases": args.count,
        "seconds": round(time.monotonic() - began_s),
        "failed": failed,
        "ends": ends,
    }
    sys.stdout.write(json.dumps({**facts, "seed": SEED, "python": platform.python_version()}) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
