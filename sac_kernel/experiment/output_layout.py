"""Where the jobs of a run write: names of folders and files, and what becomes of an earlier run's.

A job (one agent, one seed) has the top of the output folder to itself; several live in
runs/agent_{id}_seed_{s}/ with one report at the top.
"""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

from sac_kernel.core import files, paths
from sac_kernel.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILES = 300
"""Kaggle lists at most 500 output files; beyond that some never come home."""

PREVIOUS = "previous"
_MOVING = "previous.moving"
RUNS = "runs"
STATS_FILE = "logs/training_stats.json"
FACTS_FILE = "state/job.json"
"""Of a job: rates and times, which no two runs share; logs/ holds what they do."""
REPORT_FILES = ("report.html", "summary.json", "manifest.json", "models.zip")
ENTRIES = ("checkpoints", "logs", "state", "figures", RUNS, *REPORT_FILES)


def job_name(agent_id: int, seed: int) -> str:
    """Return the name of one job: 'agent_1_seed_0'."""
    return f"agent_{agent_id}_seed_{seed}"


def job_folder(top: Path, agent_id: int, seed: int, jobs: int) -> Path:
    """Return where a job writes: the top if it is alone, else its own folder under runs/."""
    return top if jobs == 1 else top / RUNS / job_name(agent_id, seed)


def top_of(folder: Path) -> Path:
    """Return the output folder of the run that a job's folder belongs to."""
    return folder.parent.parent if folder.parent.name == RUNS else folder


def is_reported(folder: Path, num_episodes: int) -> bool:
    """Whether the run of a job is over: every job done, at least `num_episodes` long, and its report written.

    A queue that was cut, or a run killed before its report, is not over: it goes on.
    """
    path = top_of(folder) / "manifest.json"
    manifest = files.read_object(path) if path.is_file() else {}
    episodes = manifest.get("episodes")
    return manifest.get("status") == "complete" and isinstance(episodes, int) and episodes >= num_episodes


def check_file_count(jobs: int, num_episodes: int, checkpoint_frequency: int) -> None:
    """Raise ConfigError if the run would write more than MAX_FILES files."""
    fixed, per_job = 20, 12
    room = (MAX_FILES - fixed) // jobs - per_job
    checkpoints = num_episodes // checkpoint_frequency
    if 2 * checkpoints > room:
        least = math.ceil(2 * num_episodes / max(room, 1))
        msg = (
            f"job_folders: at most {MAX_FILES} output files, found {2 * checkpoints} checkpoint files in each of "
            f"{jobs} job(s); set checkpoint_frequency to {least} or more"
        )
        raise ConfigError(msg)


def move_to_previous(top: Path) -> bool:
    """Move the outputs of an earlier run into previous/, replacing what was there; return whether any were.

    Files gather in a folder of their own that takes the place of previous/ when all are there: a kill between
    two of them loses neither run, and the next start goes on with the move.
    """
    found = [top / name for name in ENTRIES if (top / name).exists()] + sorted(top.glob("agent_*.pt"))
    if not found and not is_moving(top):
        return False
    moving, previous = top / _MOVING, top / PREVIOUS
    moving.mkdir(parents=True, exist_ok=True)
    for path in found:
        path.rename(moving / path.name)
    if previous.exists():
        shutil.rmtree(previous)
    moving.rename(previous)
    return True


def is_moving(top: Path) -> bool:
    """Whether a move to previous/ was begun and not ended."""
    return (top / _MOVING).is_dir()


def warm_start_file(digest: str) -> Path:
    """Return the mounted agent that a run starts from, after checking its SHA-256."""
    path = paths.find_input(paths.WARM_START)
    if (found := files.file_sha256(path)) != digest:
        msg = (
            f"{path}: the agent to start from (hash {digest[:12]}) is required, found {found[:12]}: an older version "
            "is mounted; push again once it is ready"
        )
        raise CheckpointError(msg)
    return path
