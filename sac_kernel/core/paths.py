"""Where a run reads and writes: mounted inputs, the working folder, and the names of files that travel.

`paths()` alone decides where inputs and outputs lie. Nothing here does work at import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sac_kernel.core.errors import InputNotFoundError

INPUT_ROOT_VARIABLE = "SAC_INPUT_ROOT"
WORKING_DIR_VARIABLE = "SAC_WORKING_DIR"
REHEARSAL_VARIABLE = "SAC_REHEARSAL"
"""Set where the notebook runs at home in Kaggle's place: no network then, and no GPU is expected."""

KAGGLE_INPUT, KAGGLE_WORKING = Path("/kaggle/input"), Path("/kaggle/working")
DATA_FILE = "processed_data.h5"
CODE_MANIFEST = "code_manifest.json"
NOT_TRAINED = "NOT TRAINED:"
"""Begins the line of a run that ended before training, as COMPLETE and after a minute."""
WARM_START = "warm_start.agent"
"""A saved agent whose weights a run starts from; Kaggle may unpack a `.pt`."""
CHECKOUT = ("build_kernel.py", "notebooks/train.ipynb", "sac_kernel")
"""What only a clone of the project holds."""
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


def find_checkout() -> Path:
    """Return the clone of the project that the current folder lies in: what builds and rehearsals need.

    Raises
    ------
    InputNotFoundError
        If there is none, as in a folder beside an installed package.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if all((folder / name).exists() for name in CHECKOUT):
            return folder
    msg = (
        f"This command needs a clone of the project, and {here} is not in one. Go to the folder that holds "
        f"{CHECKOUT[0]} and call it there; the installed package has no notebook to build from."
    )
    raise InputNotFoundError(msg)


def find_input(name: str, root: Path | None = None) -> Path:
    """Return the one mounted (or local) file called `name`.

    Under a mount both schemes are searched, at most four folders deep: input/datasets/OWNER/SLUG/ and
    input/SLUG/. Without a mount the file is ./data/processed/`name` or ./`name`.

    Raises
    ------
    InputNotFoundError
        If it is nowhere; the message lists what is mounted.
    """
    root = root if root is not None else paths().input_root
    if root is None:
        candidates = [LOCAL_DATA.parent / name, Path(name)]
        for path in candidates:
            if path.is_file():
                return path
        msg = (
            f"paths.find_input: {name} is required, found none of {', '.join(map(str, candidates))} "
            f"in {Path.cwd()}; make it with `python build_kernel.py` or pass its path"
        )
        raise InputNotFoundError(msg)
    found = input_files(root, name)
    if not found:
        listing = mounted_listing(root)
        msg = (
            f"paths.find_input: {name} is required under {root}, found: {listing}; "
            "attach the data dataset to the notebook, or pass the path shown here"
        )
        raise InputNotFoundError(msg)
    return found[0]


def input_files(root: Path, name: str) -> list[Path]:
    """Return every file called `name` at most four folders below `root`, nested schemes first."""
    found = [p for depth in range(_SEARCH_DEPTH + 1) for p in root.glob("*/" * depth + name)]
    return sorted((p for p in found if p.is_file()), key=lambda p: (-len(p.parts), str(p)))


def mounted_listing(root: Path, limit: int = 12) -> str:
    """Return a short comma-separated list of what lies under `root`."""
    if not root.is_dir():
        return f"no folder {root}"
    names = [
        str(p.relative_to(root)) + ("/" if p.is_dir() else "")
        for depth in range(1, _SEARCH_DEPTH + 1)
        for p in sorted(root.glob("/".join("*" * depth)))
    ]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"
