"""The saved agent in use, `models/current.json`, and the history of how it was chosen.

`history.jsonl` is authoritative: a promotion pushes a model onto a stack, a rollback pops it, a rejection is only
recorded. `current.json` repeats the top of the stack for programs that only load the model.
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
    path, sha256 : its file, named after its content
    judged_until : ISO time of the last bar used to choose it
    """

    path: Path
    sha256: str
    judged_until: str


class ModelStore:
    """The folder of the current and earlier models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> InUse | None:
        """Return the model in use after checking its hash; None if there is none yet."""
        stack = self._stack()
        return self._checked(stack[-1]) if stack else None

    def promote(self, model: Path, judged_until: str, facts: Mapping[str, Any]) -> InUse:
        """Copy a model into the folder and make it the one in use."""
        content = model.read_bytes()
        digest = files.sha256(content)
        files.write_bytes(self.folder / _file_of(digest), content)
        self._write(PROMOTED, digest, {"judged_until": judged_until, **facts})
        return InUse(self.folder / _file_of(digest), digest, judged_until)

    def reject(self, model: Path, facts: Mapping[str, Any]) -> None:
        """Record that a candidate was rejected."""
        self._write(REJECTED, files.file_sha256(model), facts)

    def roll_back(self, reason: str) -> InUse:
        """Return to the model before the one in use, and return it.

        Raises
        ------
        CheckpointError
            If there is no earlier model, or its file is missing or damaged. Nothing is changed then.
        """
        stack = self._stack()
        if len(stack) < 2:
            msg = f"{self.folder} has no earlier model to return to: {len(stack)} promoted in all."
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
            msg = f"{path} is missing, or its hash is not that of the promoted model. Restore the file."
            raise CheckpointError(msg)
        return InUse(path, str(line["sha256"]), str(line["judged_until"]))


def resolve(path: Path) -> Path:
    """Return a path itself, or the model that it names if it is a `current.json`."""
    if path.suffix != ".json":
        return path
    in_use = ModelStore(path.parent).current()
    if in_use is None:
        msg = f"{path} names no model yet. Promote one with `python -m sac_kernel retrain`."
        raise InputNotFoundError(msg)
    return in_use.path


def _file_of(digest: str) -> str:
    return f"{digest[:16]}.pt"
