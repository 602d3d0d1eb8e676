"""Which saved agent is in use, and how it came to be: `models/current.json`, and a history that only grows.

`history.jsonl` is the truth: a promotion puts a model on top, a rollback takes it off, a rejection is remembered.
`current.json` says in one file what is on top, for whoever only wants to load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, InputNotFoundError
from sac_kernel.live.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CURRENT, HISTORY = "current.json", "history.jsonl"
PROMOTED, REJECTED, ROLLED_BACK = "promoted", "rejected", "rolled back"


@dataclass(frozen=True)
class InUse:
    """A model in use.

    Attributes
    ----------
    path, sha256 : its file, named by its content
    judged_until : ISO time of the last bar that any choice of it has seen
    """

    path: Path
    sha256: str
    judged_until: str


class ModelStore:
    """The folder of models in use, past and present."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> InUse | None:
        """Return the model in use after checking its hash; None where there is none yet."""
        stack = self._stack()
        return self._checked(stack[-1]) if stack else None

    def promote(self, model: Path, judged_until: str, facts: Mapping[str, Any]) -> InUse:
        """Copy a model in and make it the one in use."""
        content = model.read_bytes()
        digest = files.sha256(content)
        files.write_bytes(self.folder / _file_of(digest), content)
        self._write(PROMOTED, digest, {"judged_until": judged_until, **facts})
        return InUse(self.folder / _file_of(digest), digest, judged_until)

    def reject(self, model: Path, facts: Mapping[str, Any]) -> None:
        """Remember that a candidate was turned down."""
        self._write(REJECTED, files.file_sha256(model), facts)

    def roll_back(self, reason: str) -> InUse:
        """Take the model in use off and return to the one before it.

        Raises
        ------
        CheckpointError
            If there is none before it, or its file is gone or damaged; nothing is changed then.
        """
        stack = self._stack()
        if len(stack) < 2:
            msg = f"{self.folder}: a model before the one in use is required, found {len(stack)} promoted in all"
            raise CheckpointError(msg)
        before = self._checked(stack[-2])
        self._write(ROLLED_BACK, stack[-1]["sha256"], {"reason": reason})
        return before

    def _stack(self) -> list[dict[str, Any]]:
        stack: list[dict[str, Any]] = []
        for line in Journal(self.folder / HISTORY).lines:
            if line["event"] == PROMOTED:
                stack.append(line)
            elif line["event"] == ROLLED_BACK:
                stack.pop()
        return stack

    def _write(self, event: str, digest: str, facts: Mapping[str, Any]) -> None:
        with Journal(self.folder / HISTORY) as journal:
            journal.append({"event": event, "sha256": digest, **facts})
        stack = self._stack()
        if stack:
            files.write_json(self.folder / CURRENT, {**stack[-1], "file": _file_of(stack[-1]["sha256"])})

    def _checked(self, line: Mapping[str, Any]) -> InUse:
        path = self.folder / _file_of(line["sha256"])
        if not path.is_file() or files.file_sha256(path) != line["sha256"]:
            msg = f"{path}: the model promoted with this hash is required, found none or another; restore the file"
            raise CheckpointError(msg)
        return InUse(path, str(line["sha256"]), str(line["judged_until"]))


def resolve(path: Path) -> Path:
    """Return the `.pt` that a path stands for: itself, or the model in use of a `current.json`."""
    if path.suffix != ".json":
        return path
    found = ModelStore(path.parent).current()
    if found is None:
        msg = (
            f"{path}: a model in use is required, found none; promote one with `python -m sac_kernel retrain`"
        )
        raise InputNotFoundError(msg)
    return found.path


def _file_of(digest: str) -> str:
    return f"{digest[:16]}.pt"
