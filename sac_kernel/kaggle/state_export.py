"""The states of fetched jobs as one flat folder, which a Kaggle dataset can hold; `experiment.checkpoint` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError
from sac_kernel.experiment.checkpoint import EXPORT_INDEX, STATE_SCHEMA, newest_intact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def export_states(jobs: Mapping[str, Path], target: Path) -> dict[str, Any]:
    """Copy the newest intact state of each job (name -> state folder) flat into `target`; return the index."""
    entries: dict[str, Any] = {}
    for job, folder in jobs.items():
        intact = newest_intact(folder)
        if intact is None:
            msg = f"{folder} has no intact training state of {job}. Fetch the run again."
            raise CheckpointError(msg)
        name = f"{job}.state"
        files.write_bytes(target / name, (folder / intact["file"]).read_bytes())
        entries[job] = {**intact, "file": name}
    index = {"schema": STATE_SCHEMA, "jobs": entries}
    files.write_json(target / EXPORT_INDEX, index)
    return index
