"""The home of a named run: where its build, outputs, bars and records are, apart from those of every other name.

`build/NAME/` holds what was built and what is known of the last run. Fetched files go to `outputs/NAME/`, those of the
default name to `outputs/` itself. Bars go to `data/NAME/`, those of the default name to `data/processed/`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sac_kernel.core import paths
from sac_kernel.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEFAULT_NAME = "sac-trading"
LEDGER = "trials.csv"
_TAKEN = (
    "bench",
    "checkpoints",
    "figures",
    "logs",
    "previous",
    "processed",
    "runs",
    "state",
    "wheels",
    "docs",
)
_OLDER = (
    "datasets",
    "last_run.json",
    "published.json",
    LEDGER,
    paths.WARM_START,
    "rehearsal",
    "probe",
    "train.ipynb",
)
"""What lay in build/ itself when there was one home for all names."""


def check_name(name: str) -> None:
    """Raise ConfigError unless a run can have this name on Kaggle and as a folder."""
    ok = name.isascii() and all(part.isalnum() and part.islower() for part in name.split("-"))
    if not ok or not 3 <= len(name) <= 40:
        msg = f"--name must be 3 to 40 lower-case letters, digits and single hyphens, got {name!r}"
        raise ConfigError(msg)
    if name in _TAKEN:
        msg = f"--name {name}: a folder of this name has another meaning. Choose another name."
        raise ConfigError(msg)


@dataclass(frozen=True)
class Home:
    """The folders of one name in a clone at `root`."""

    root: Path
    name: str

    @property
    def is_default(self) -> bool:
        """Whether `kaggle kernels push` at the top of the clone pushes this run."""
        return self.name == DEFAULT_NAME

    @property
    def build(self) -> Path:
        """Return the folder of what is built; one command at a time holds its lock."""
        return self.root / "build" / self.name

    @property
    def outputs(self) -> Path:
        """Return the folder of fetched files."""
        return self.root / "outputs" if self.is_default else self.root / "outputs" / self.name

    @property
    def data(self) -> Path:
        """Return the file of the bars to train on."""
        return (
            self.root / paths.LOCAL_DATA
            if self.is_default
            else self.root / "data" / self.name / paths.DATA_FILE
        )

    @property
    def notebook(self) -> Path:
        """Return the built notebook, which belongs to `kernel_metadata`."""
        return self.build / "train.ipynb"

    @property
    def kernel_folder(self) -> Path:
        """Return the folder for `kaggle kernels push`."""
        return self.root if self.is_default else self.build

    @property
    def rehearsal(self) -> Path:
        """Return the folder of the rehearsal, whose `working` continues if interrupted."""
        return self.build / "rehearsal"

    @property
    def warm_start(self) -> Path:
        """Return the agent to start from."""
        return self.build / paths.WARM_START

    @property
    def ledger_at_start(self) -> Path:
        """Return the ledger of trials as it was when the run began."""
        return self.build / LEDGER

    @property
    def ledgers(self) -> Path:
        """Return the folder of the clone's ledgers of trials, one for each data set and all names."""
        return self.root / "data" / "ledgers"

    def dataset(self, kind: str) -> Path:
        """Return the staged folder of the data, code or state dataset."""
        return self.build / "datasets" / kind

    def take_over(self, say: Callable[[str], object]) -> None:
        """Move what an earlier version left in build/ into this home, once; the caller holds its lock.

        Only the home that the files belong to takes them: that of the last run, by default the default one.
        """
        older = [path for name in _OLDER if (path := self.root / "build" / name).exists()]
        if not older or self.name != (_name_of(self.root / "build" / "last_run.json") or DEFAULT_NAME):
            return
        for path in older:
            target = self.build / path.name
            if target.is_dir() and path.is_dir() and not any(target.iterdir()):
                target.rmdir()
            if not target.exists():
                path.rename(target)
            elif path.name in ("datasets", "train.ipynb", "probe"):  # built again from what is there
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        say(
            f"moved     {', '.join(path.name for path in older)} from build/ to build/{self.name}/, their new place"
        )


def _name_of(last_run: Path) -> str:
    """Return the name of the run that an older record is about; '' if it does not tell."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, IndexError):
        return str(json.loads(last_run.read_bytes())["kernel"]).split("/")[1].rpartition("-")[0]
    return ""
