"""Folders and files of a run, and the move of earlier outputs to previous/.

A single job (one agent, one seed) writes to the top of the output folder; several write to
runs/agent_{id}_seed_{s}/ with one report at the top.
"""

from __future__ import annotations

import errno
import itertools
import re
import shutil
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files, paths
from sac_kernel.core.errors import CheckpointError, ConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_FILES = 300
"""Kaggle lists at most 500 output files; the others cannot be fetched."""

PREVIOUS = "previous"
_MOVING = "previous.moving"
RUNS = "runs"
STATS_FILE = "logs/training_stats.json"
FACTS_FILE = "state/job.json"
"""Rates and times of a job, which differ between equal runs, unlike logs/."""
TABLE_FILES = ("equity.csv", "fills.csv", "daily_returns.csv", "walk_forward.csv")
"""The headline at base cost, the last one of all folds, for other tools: docs/report-files.md."""
REPORT_FILES = ("report.html", "equity.html", *TABLE_FILES, "summary.json", "manifest.json", "models.zip")
ENTRIES = ("checkpoints", "logs", "state", "figures", RUNS, *REPORT_FILES)


def job_name(agent_id: int, seed: int, learner: str = "") -> str:
    """Return the name of one job: 'agent_1_seed_0', with its learner in a run of both."""
    return f"agent_{agent_id}_seed_{seed}" + (f"_{learner}" if learner else "")


def job_folder(top: Path, job: tuple[int, int, str], jobs: int) -> Path:
    """Return the folder of a job: the top for a single job, else its own under runs/."""
    return top if jobs == 1 else top / RUNS / job_name(*job)


def top_of(folder: Path) -> Path:
    """Return the output folder of the run that a job's folder belongs to."""
    return folder.parent.parent if folder.parent.name == RUNS else folder


def is_reported(folder: Path, num_episodes: int) -> bool:
    """Whether the run of a job is over: every job has `num_episodes` or more, and the report is written.

    An interrupted queue, or a run killed before its report, is not over and continues.
    """
    path = top_of(folder) / "manifest.json"
    manifest = files.read_object(path) if path.is_file() else {}
    episodes = manifest.get("episodes")
    return manifest.get("status") == "complete" and isinstance(episodes, int) and episodes >= num_episodes


def check_file_count(jobs: int, num_episodes: int, checkpoint_frequency: int) -> None:
    """Raise ConfigError if the run would write more than MAX_FILES files."""
    fixed, per_job = 30, 14
    room = (MAX_FILES - fixed) // jobs - per_job
    checkpoints = num_episodes // checkpoint_frequency
    if 2 * checkpoints > room:
        least = -(-2 * num_episodes // max(room, 1))  # whole numbers of any size
        msg = (
            f"{jobs} job(s) with {2 * checkpoints} checkpoint files each exceed the limit of {MAX_FILES} output "
            f"files. Set checkpoint_frequency to {least} or more."
        )
        raise ConfigError(msg)


def run_id(manifest: Mapping[str, Any]) -> str:
    """Return the id of the run of a manifest: as built in, else made of its hashes; '' if it has neither."""
    if manifest.get("run"):
        return str(manifest["run"])
    hashes = [manifest.get(name) for name in ("data_hash", "code_hash", "config_hash")]
    return files.content_hash(hashes)[:12] if all(hashes) else ""


def move_to_previous(top: Path) -> Path | None:
    """Move the outputs of an earlier run to previous/RUN_ID/ and return that folder; None if there were none.

    Nothing is replaced: a second run of the same id gets a number. A complete temporary folder is renamed at the
    end, so a kill on the way loses neither run, and the next start continues the move.

    Raises
    ------
    StorageError
        If the files cannot be moved; those moved already are in previous.moving/.
    """
    earlier = entries_of(top)
    if not earlier and not is_moving(top):
        return None
    moving, previous = top / _MOVING, top / PREVIOUS
    try:
        moving.mkdir(parents=True, exist_ok=True)
        for path in earlier:
            path.rename(moving / path.name)
        previous.mkdir(exist_ok=True)
        if flat := entries_of(previous):  # as older versions kept the one run before
            _move_whole(flat, previous, _free(previous))
        target = _free(moving, previous)
        try:
            moving.rename(target)
        except OSError as err:
            if err.errno != errno.EXDEV:
                raise
            _copy_away(moving, target)
    except OSError as err:
        msg = (
            f"Cannot move the earlier outputs of {top} to {previous}: {err.strerror or err}. Nothing is lost. Make "
            "that folder writable, with room, then run again."
        )
        raise StorageError(msg) from err
    return target


def entries_of(top: Path) -> list[Path]:
    """Return what a run has written to `top`, without the ledger, which outlives runs."""
    return [top / name for name in ENTRIES if (top / name).exists()] + sorted(top.glob("agent_*.pt"))


def sweep_temporaries(top: Path) -> None:
    """Delete what a killed run left half-written in its own files: other runs may have their homes below `top`."""
    for path in top.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}\.tmp", path.name):
            path.unlink(missing_ok=True)
    for entry in entries_of(top):
        if entry.is_dir():
            files.sweep_temporaries(entry)


def _free(outputs: Path, previous: Path | None = None) -> Path:
    """Return the folder in `previous` for the run in `outputs`; it does not exist yet."""
    previous = previous or outputs
    try:
        name = run_id(files.read_object(outputs / "manifest.json"))
    except CheckpointError:
        name = ""
    name = name if re.fullmatch(r"[\w-]{1,60}", name) else "unfinished"
    names = itertools.chain((name,), (f"{name}-{n}" for n in itertools.count(2)))
    return next(previous / name for name in names if not (previous / name).exists())


def _move_whole(entries: list[Path], previous: Path, target: Path) -> None:
    """Move the entries of an older previous/ itself into a folder of their own."""
    collected = previous / f".{target.name}"
    collected.mkdir(exist_ok=True)
    for path in entries:
        path.rename(collected / path.name)
    collected.rename(target)


def _copy_away(folder: Path, target: Path) -> None:
    """Move a folder to another disk: copied under a temporary name, renamed, then deleted here."""
    copied = target.with_name(f".{target.name}.copying")
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(folder, copied)
    copied.rename(target)
    shutil.rmtree(folder)


def is_moving(top: Path) -> bool:
    """Whether a move to previous/ is incomplete."""
    return (top / _MOVING).is_dir()


def warm_start_file(digest: str) -> Path:
    """Return the mounted agent to start from, after checking its SHA-256."""
    path = paths.find_input(paths.WARM_START, digests=[digest])
    if (found := files.file_sha256(path)) != digest:
        msg = (
            f"{path}: this run starts from the agent with hash {digest[:12]}, but {found[:12]} is mounted. Push again "
            "once the new version is ready."
        )
        raise CheckpointError(msg)
    return path
