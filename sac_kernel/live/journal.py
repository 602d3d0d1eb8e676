"""An append-only file of JSON lines that stays readable if the process is killed at any moment.

A line counts once its line end is written. An unfinished last line is cut off when the next line is added. Nothing
else is ever changed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from sac_kernel.core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Journal:
    """The lines of a file, and a way to add one.

    Attributes
    ----------
    path : of the file
    lines : those in the file when it was opened
    torn_bytes : length of an unfinished last line, which is not among them
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes() if path.is_file() else b""
        whole = content.rfind(b"\n") + 1
        self.torn_bytes = len(content) - whole
        self.lines = [_parsed(line, i, path) for i, line in enumerate(content[:whole].splitlines(), 1)]
        self.path, self._whole = path, whole
        self._file: BinaryIO | None = None

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line and hand it to the operating system: it survives a kill, and after `sync` a power cut."""
        text = json.dumps(line, allow_nan=False, separators=(",", ":"))
        stream = self._stream()
        stream.write(text.encode() + b"\n")
        stream.flush()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _stream(self) -> BinaryIO:
        """Return the open file; opening it cuts off an unfinished last line."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            if self._file.tell() > self._whole:
                self._file.truncate(self._whole)
            self._whole = sys.maxsize
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parsed(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # neither text nor JSON
        value = None
    if not isinstance(value, dict):
        msg = f"{path}, line {number} is not a JSON object: {line[:40]!r}. Restore the file, or start a new one."
        raise CheckpointError(msg)
    return value
