"""Where a run reads and writes: mounted inputs, the working folder, and the names of shared files.

Only `paths()` decides where inputs and outputs are. Nothing here does work at import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sac_kernel.core.errors import InputNotFoundError

INPUT_ROOT_VARIABLE = "SAC_INPUT_ROOT"
WORKING_DIR_VARIABLE = "SAC_WORKING_DIR"
REHEARSAL_VARIABLE = "SAC_REHEARSAL"
"""Set when the notebook runs at home in a rehearsal: no network, and no GPU is expected."""

KAGGLE_INPUT, KAGGLE_WORKING = Path("/kaggle/input"), Path("/kaggle/working")
DATA_FILE = "processed_data.h5"
CODE_MANIFEST = "code_manifest.json"
NOT_TRAINED = "NOT TRAINED:"
"""Starts the line of a run that ended before training; Kaggle shows such a run as COMPLETE."""
WARM_START = "warm_start.agent"
"""A saved agent whose weights a run starts from; not `.pt`, because Kaggle may unpack that."""
LOCAL_DATA = Path("data") / "processed" / DATA_FILE

_SEARCH_DEPTH = 4  # input/datasets/OWNER/SLUG is the deepest known mount; large inputs are slow to walk


@dataclass(frozen=True)
class Paths:
    """Input root (None where nothing is mounted) and output folder of this process."""

    input_root: Path | None
    working_dir: Path

    @property
    def mounted(self) -> bool:
        """Whether inputs are mounted, as on Kaggle and in a rehearsal."""
        return self.input_root is not None


def paths() -> Paths:
    """Return the folders of this run.

    SAC_INPUT_ROOT and SAC_WORKING_DIR if set (a rehearsal sets them), else the Kaggle folders where they
    exist, else ./outputs without a mount.
    """
    root, working = os.environ.get(INPUT_ROOT_VARIABLE), os.environ.get(WORKING_DIR_VARIABLE)
    on_kaggle = KAGGLE_WORKING.is_dir() and bool(os.environ.get("KAGGLE_KERNEL_RUN_TYPE"))
    if root is None and on_kaggle:
        root = str(KAGGLE_INPUT)
    if working is None:
        working = str(KAGGLE_WORKING) if on_kaggle else "outputs"
    return Paths(Path(root) if root else None, Path(working))


def find_input(name: str, root: Path | None = None) -> Path:
    """Return the one mounted (or local) file called `name`.

    Under a mount both schemes are searched, at most four folders deep: input/datasets/OWNER/SLUG/ and
    input/SLUG/. Without a mount the file is ./data/processed/`name` or ./`name`.

    Raises
    ------
    InputNotFoundError
        If there is none; the message lists what is mounted.
    """
    root = root if root is not None else paths().input_root
    if root is None:
        candidates = [LOCAL_DATA.parent / name, Path(name)]
        for path in candidates:
            if path.is_file():
                return path
        msg = (
            f"There is no {' or '.join(map(str, candidates))} in {Path.cwd()}. "
            "Make it with `python build_kernel.py`, or pass its path."
        )
        raise InputNotFoundError(msg)
    matches = input_files(root, name)
    if not matches:
        msg = (
            f"There is no {name} under {root}, which holds: {mounted_listing(root)}. "
            "Attach the data dataset to the notebook, or pass the file's path."
        )
        raise InputNotFoundError(msg)
    return matches[0]


def input_files(root: Path, name: str) -> list[Path]:
    """Return every file called `name` at most four folders below `root`, nested schemes first."""
    matches = [p for depth in range(_SEARCH_DEPTH + 1) for p in root.glob("*/" * depth + name)]
    return sorted((p for p in matches if p.is_file()), key=lambda p: (-len(p.parts), str(p)))


def mounted_listing(root: Path, limit: int = 12) -> str:
    """Return a short comma-separated list of the files and folders under `root`."""
    if not root.is_dir():
        return f"no folder {root}"
    names = [
        str(p.relative_to(root)) + ("/" if p.is_dir() else "")
        for depth in range(1, _SEARCH_DEPTH + 1)
        for p in sorted(root.glob("/".join("*" * depth)))
    ]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"
