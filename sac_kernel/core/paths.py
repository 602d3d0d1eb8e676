"""Where a run reads and writes: mounted inputs, the working folder, and the names of shared files.

Only `paths()` decides where inputs and outputs are. Nothing here does work at import. A mounted file is trusted by
its SHA-256, which the build wrote into the notebook, never by its name or the dataset that holds it.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel.core import files
from sac_kernel.core.errors import InputNotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

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


def find_input(name: str, root: Path | None = None, digests: Collection[str] = ()) -> Path:
    """Return the one mounted (or local) file called `name`.

    Under a mount both schemes are searched, at most four folders deep: input/datasets/OWNER/SLUG/ and
    input/SLUG/. Without a mount the file is ./data/processed/`name` or ./`name`.

    Parameters
    ----------
    digests : SHA-256 that a mounted file must have; then its folder and the stem of its name mean nothing. Without
        them all mounted files called `name` must be equal

    Raises
    ------
    InputNotFoundError
        If there is none, or several that differ; the message lists what is mounted.
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
    if digests:
        others = (path for path in input_files(root, f"*{Path(name).suffix}") if path.name != name)
        if trusted := next((path for path in (*matches, *others) if digest(path) in digests), None):
            return trusted
    elif len({digest(path) for path in matches}) == 1:
        return matches[0]
    found = ", ".join(f"{path.relative_to(root).as_posix()} ({digest(path)[:12]})" for path in matches[:12])
    if digests and matches:
        wanted = " or ".join(value[:12] for value in digests)
        msg = (
            f"No mounted file is the {name} of this build (SHA-256 {wanted}). Found: {found}. Attach the newest "
            "version of the dataset, or build and push again."
        )
    elif matches:
        msg = (
            f"Several different {name} are mounted: {found}. Detach all but one, or build the notebook again."
        )
    else:
        msg = (
            f"There is no {name} under {root}, which holds: {mounted_listing(root)}. "
            "Attach its dataset to the notebook, or pass the file's path."
        )
    raise InputNotFoundError(msg)


def expected(names: Iterable[str], name: str) -> list[str]:
    """Return the SHA-256 of each entry 'NAME SHA256' for `name`."""
    return [entry.rpartition(" ")[2] for entry in names if entry.rpartition(" ")[0] == name]


def is_expected(entry: str) -> bool:
    """Whether `entry` has the form 'NAME SHA256'."""
    return re.fullmatch(r"[\w.+-]+ [0-9a-f]{64}", entry) is not None


def digest(path: Path) -> str:
    """Return the SHA-256 of a mounted file, '' if it cannot be read; a file is hashed once."""
    try:
        facts = path.stat()
        return _digest(str(path), facts.st_size, facts.st_mtime_ns)
    except OSError:
        return ""


@functools.lru_cache(maxsize=4096)
def _digest(path: str, n_bytes: int, modified_ns: int) -> str:  # noqa: ARG001  # another size or time: another file
    return files.file_sha256(Path(path))


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
