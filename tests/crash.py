"""Kill -9 a training at random moments: each time it goes on to the bytes of one that was never killed.

python -m tests.crash --kills 200       # `make crash`; the suite runs a short form

A case is made from its number alone: --first N --kills 1 repeats it. Half of the kills fall at a random time,
half inside a write: with a half-written temporary file, before or after it is on the disk, before or after it
has its name. Beside the kills, every tenth case meets a disk that is full or read-only from a random write on.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import errno
import hashlib
import io
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch

from sac_kernel.core import files, packages
from sac_kernel.core.errors import StorageError
from sac_kernel.experiment import checkpoint, job_outputs
from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_data
from tests.small_runs import small_trainer

SEED = 20261125
HANG_S = 1800.0
KINDS = ("time", "write")
FAULTS = (errno.ENOSPC, errno.EROFS)
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM
REFUSED = 3
_WALL_TIME = ("train_s", "updates_per_s", "env_steps_per_s")


def trainer(h5, folder, whole):
    """A training of a second: three episodes of ten vector steps; `whole` adds judgement and report."""
    made = small_trainer(h5, folder, num_episodes=3)
    return made.run_training if whole else made.train


class WritePath:
    """Counts the steps of all writes; at one of them it kills this process, or the disk refuses from then on."""

    def __init__(self, step=None, fault=None):
        self.step, self.fault, self.count = step, fault, 0
        self._write, self._sync, self._name = Path.write_bytes, os.fsync, Path.replace

    def install(self):
        def write(path, content):
            if self.reached():
                with path.open("wb") as stream:
                    stream.write(content[: len(content) // 2])
                self.strike(path)
            self._write(path, content)
            if self.reached():
                self.strike(path)

        def sync(descriptor):
            self._sync(descriptor)
            if self.reached():
                self.strike("fsync")

        def name(path, target):
            done = self._name(path, target)
            if self.reached() and not self.fault:
                self.strike(path)
            return done

        Path.write_bytes, os.fsync, Path.replace = write, sync, name

    def reached(self):
        self.count += 1
        if self.step is None:
            return False
        return self.count - 1 >= self.step if self.fault else self.count - 1 == self.step

    def strike(self, path):
        if self.fault:
            raise OSError(self.fault, os.strerror(self.fault), str(path))
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def work(h5, folder, whole, step, fault, connection):
    """Train in a process of its own; report the number of write steps."""
    logging.disable(logging.CRITICAL)
    path = WritePath(step, fault)
    path.install()
    connection.send("started")
    try:
        trainer(h5, folder, whole)()
    except StorageError as err:
        connection.send(("refused", str(err)))
        os._exit(REFUSED)
    connection.send(("ended", path.count))
    os._exit(0)  # nothing but what the training did may tidy up


def run(h5, folder, whole, delay_s=None, step=None, fault=None):
    """Run one session, killed after `delay_s` or at a write step; return exit status, seconds, write steps."""
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(h5, folder, whole, step, fault, there), daemon=True)
    process.start()
    there.close()
    began = None
    with contextlib.suppress(EOFError):
        here.recv()
        began = time.monotonic()
    process.join(HANG_S if delay_s is None else delay_s)
    if process.is_alive():
        assert delay_s is not None, "a session hangs"
        process.kill()
        process.join()
    said = None
    with contextlib.suppress(EOFError):
        said = here.recv() if here.poll() else None
    return process.exitcode, time.monotonic() - (began or time.monotonic()), said


def canonical(total, value):
    """Hash nested values by content: a pickle's bytes also tell which equal strings are one object."""
    if isinstance(value, torch.Tensor):
        total.update(f"{value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    elif isinstance(value, dict | list | tuple):
        total.update(f"{type(value).__name__} {len(value)}".encode())
        for item in value.items() if isinstance(value, dict) else value:
            canonical(total, item)
    else:
        total.update(repr(value).encode() + b"\0")


def digest(folder):
    """SHA-256 of everything that a run leaves and wall time has no part in; no temporary may be left."""
    names = [p for p in Path(folder).rglob("*") if p.is_file()]
    left = [p.name for p in names if p.name.endswith(".tmp")]
    assert not left, f"temporary files are left: {left}"
    total = hashlib.sha256()
    wanted = ("agent_", "checkpoints/", "logs/", "trials.csv", "models.zip", "figures/")
    for path in sorted(names):
        name = path.relative_to(folder).as_posix()
        if name.startswith(wanted):
            total.update(name.encode() + b"\0" + path.read_bytes())
    state, _ = checkpoint.load_state(Path(folder) / checkpoint.STATE_FOLDER)
    state.pop("train_s")
    canonical(total, state)
    if (Path(folder) / "summary.json").is_file():
        job_outputs.read_manifest(Path(folder))
        summary = files.read_json(Path(folder) / "summary.json")
        for facts in (summary["run"], *summary["jobs"]):
            for name in _WALL_TIME:
                facts.pop(name)
        total.update(json.dumps(summary, sort_keys=True).encode())
    return total.hexdigest()


def attempt(number, h5, folder, uncut):
    """Kill one run once or more and let it end; return how often it was killed, by kind."""
    rng = np.random.default_rng([SEED, number])
    whole = number % 16 == 4 and True in uncut  # judged and reported too
    seconds, steps, expected = uncut[whole]
    kills = collections.Counter()
    for again in range(1 if rng.random() < 0.7 else 3):
        kind = KINDS[(number + again) % 2]
        if number % 10 == 9 and again == 0:
            fault = FAULTS[rng.integers(2)]
            status, _, said = run(h5, folder, whole, step=int(rng.integers(steps)), fault=fault)
            assert status in (0, REFUSED), (number, status, said)
            kills[errno.errorcode[fault]] += status == REFUSED
            continue
        if kind == "time":
            status, *_ = run(h5, folder, whole, delay_s=float(rng.uniform(0.0, seconds)))
        else:
            status, *_ = run(h5, folder, whole, step=int(rng.integers(steps)))
        assert status in (KILLED, 0), f"case {number}: exit status {status}"
        kills[kind] += status == KILLED
        if status == 0:
            break
    else:
        status, *_ = run(h5, folder, whole)
        assert status == 0, f"case {number}: the resumed run ended with {status}"
    found = digest(folder)
    assert found == expected, f"case {number}: another end, digest {found[:12]} instead of {expected[:12]}"
    return kills


def crash(kills, first=0, wholes=(False, True)):
    """Attempt case after case until so many kills hit; return the number of cases and kills by kind."""
    logging.disable(logging.CRITICAL)
    total, number = collections.Counter(), first
    with tempfile.TemporaryDirectory() as top:
        h5 = Path(top) / "processed_data.h5"
        write_processed(make_data(1600), h5)
        uncut = {}
        for whole in wholes:
            folder = Path(top) / f"uncut_{whole}"
            trainer(h5, folder, whole)()  # here, so that forks find everything compiled
            again = Path(top) / f"uncut_{whole}_again"
            status, seconds, said = run(h5, again, whole)
            assert status == 0, "the uncut run failed"
            assert digest(folder) == digest(again), "two uncut runs differ"
            uncut[whole] = seconds, said[1], digest(folder)
        while sum(total[kind] for kind in KINDS) < kills:
            total += attempt(number, h5, Path(top) / f"case_{number}", uncut)
            number += 1
    logging.disable(logging.NOTSET)
    return number - first, total, uncut


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--training-only", action="store_true", help="leave judgement and report out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    wholes = (False,) if args.training_only else (False, True)
    cases, total, uncut = crash(args.kills, args.first, wholes)
    out = io.StringIO()
    for whole, (seconds, steps, expected) in uncut.items():
        what = "training, judgement, report" if whole else "training"
        out.write(f"{what}: {seconds:.1f} s, {steps} write steps, final digest {expected[:16]}\n")
    said = ", ".join(f"{kind} {count}" for kind, count in sorted(total.items()))
    out.write(f"{cases} cases, hit by: {said}\n")
    out.write("every case went on to the digest of the uncut run; no temporary file was left\n")
    out.write(f"{time.perf_counter() - began:.0f} s, seed {SEED}, {packages.versions()}\n")
    sys.stdout.write(out.getvalue())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
