"""The ledgers of a project folder: one for each data set, whatever folder its trials were run into.

A trial is a trial across folders. A command that tries something runs inside `shared`; one that only brings trials
home calls `keep`.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel.core import files, locks
from sac_kernel.core.checkout import find_checkout
from sac_kernel.core.errors import InputNotFoundError
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sac_kernel.stats.trials import Trial

FOLDER = Path("data") / "ledgers"
VARIABLE = "SAC_LEDGERS"
"""Names another folder; empty: trials of other folders are neither counted nor kept."""
_WAIT_S = 30.0


def of_project() -> Path | None:
    """Return the folder of the ledgers: in the clone around the current folder, else in the current folder."""
    if (named := os.environ.get(VARIABLE)) is not None:
        return Path(named) if named else None
    try:
        return find_checkout() / FOLDER
    except InputNotFoundError:
        return Path.cwd() / FOLDER


def of_data(folder: Path, data_hash: str) -> Path:
    """Return the ledger of the trials on one data set."""
    plain = re.fullmatch("[0-9a-f]{8,64}", data_hash) is not None
    return folder / f"{(data_hash if plain else files.content_hash(data_hash))[:32]}.csv"


def keep(folder: Path | None, ledgers: Iterable[Path]) -> None:
    """Add the trials of ledgers to those of their data; missing files are ignored.

    `trials.csv` beside the folder, where earlier versions kept all trials, is taken in too.

    Raises
    ------
    BusyError
        If another command holds the ledgers for half a minute.
    DataError
        If a file is damaged; the message gives the line.
    """
    if folder is None:
        return
    by_data: dict[str, list[Trial]] = {}
    for path in (folder.parent / trials.NAME, *ledgers):
        for trial in trials.read(path) or ():
            by_data.setdefault(trial.data_hash, []).append(trial)
    if by_data:
        with locks.hold(folder, wait_s=_WAIT_S):
            for data_hash, listed in by_data.items():
                trials.append(of_data(folder, data_hash), listed)


@contextlib.contextmanager
def shared(output: Path, *data_hashes: str) -> Iterator[None]:
    """Let a command count the trials of the same data in other folders, and keep those that it adds.

    Parameters
    ----------
    output : the folder that the command writes to, whose `trials.csv` gets the known trials; jobs write to folders
        two levels below
    data_hashes : content hash of the processed file, one for each instrument that is traded
    """
    folder = of_project()

    def own() -> list[Path]:
        return [output / trials.NAME, *sorted(output.glob(f"*/*/{trials.NAME}"))]

    keep(folder, own())
    known = [of_data(folder, data_hash) for data_hash in data_hashes] if folder is not None else []
    if any(path.is_file() for path in known):
        trials.merge(output / trials.NAME, known)
    try:
        yield
    finally:
        keep(folder, own())


@contextlib.contextmanager
def joined(ledger: Path, data_hash: str) -> Iterator[Path]:
    """Yield a copy of a ledger with the trials of the same data in other folders; the ledger itself if it is missing.

    The ledger stays as it is, since the manifest of its run has its hash. Without one, nobody knows how a model was
    chosen, whatever the trials of other folders.
    """
    folder = of_project()
    keep(folder, [ledger])
    if folder is None or not ledger.is_file():
        yield ledger
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / trials.NAME
        trials.merge(path, [ledger, of_data(folder, data_hash)])
        yield path
