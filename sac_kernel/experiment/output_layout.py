"""Folders and files of a run, and the move of earlier outputs to previous/.

A single job (one agent, one seed) writes to the top of the output folder; several write to
runs/agent_{id}_seed_{s}/ with one report at the top.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from sac_kernel.core import files, paths
from sac_kernel.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILES = 300
"""Kaggle lists at most 500 output files; the others cannot be fetched."""

PREVIOUS = "previous"
_MOVING = "previous.moving"
RUNS = "runs"
STATS_FILE = "logs/training_stats.json"
FACTS_FILE = "state/job.json"
"""Rates and times of a job, which differ between equal runs, unlike logs/."""
REPORT_FILES = ("report.html", "summary.json", "manifest.json", "models.zip")
ENTRIES = ("checkpoints", "logs", "state", "figures", RUNS, *REPORT_FILES)


def job_name(agent_id: int, seed: int) -> str:
    """Return the name of one job: 'agent_1_seed_0'."""
    return f"agent_{agent_id}_seed_{seed}"


def job_folder(top: Path, agent_id: int, seed: int, jobs: int) -> Path:
    """Return the folder of a job: the top for a single job, else its own under runs/."""
    return top if jobs == 1 else top / RUNS / job_name(agent_id, seed)


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
    fixed, per_job = 20, 12
    room = (MAX_FILES - fixed) // jobs - per_job
    checkpoints = num_episodes // checkpoint_frequency
    if 2 * checkpoints > room:
        least = -(-2 * num_episodes // max(room, 1))  # whole numbers of any size
        msg = (
            f"{jobs} job(s) with {2 * checkpoints} checkpoint files each exceed the limit of {MAX_FILES} output "
            f"files. Set checkpoint_frequency to {least} or more."
        )
        raise ConfigError(msg)


def move_to_previous(top: Path) -> bool:
    """Move the outputs of an earlier run into previous/, replacing what was there; return whether any were.

    A complete temporary folder replaces previous/: a kill on the way loses neither run, and the next start
    continues the move.
    """
    earlier = [top / name for name in ENTRIES if (top / name).exists()] + sorted(top.glob("agent_*.pt"))
    if not earlier and not is_moving(top):
        return False
    moving, previous = top / _MOVING, top / PREVIOUS
    moving.mkdir(parents=True, exist_ok=True)
    for path in earlier:
        path.rename(moving / path.name)
    if previous.exists():
        shutil.rmtree(previous)
    moving.rename(previous)
    return True


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
