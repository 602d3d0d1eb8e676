"""An append-only file of JSON lines that a kill at any moment leaves readable.

A line counts once its line end is written; what a kill left after the last one is cut off when
the next is added. Nothing else is ever changed.
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
    """The lines of a file, and the way to add one.

    Attributes
    ----------
    path : of the file
    lines : what the file held when it was opened
    torn_bytes : length of the unfinished line that was cut off then
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
        """Return the open file; the first to ask for it cuts off the unfinished line."""
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
    except ValueError:  # of bytes that are no text, or no JSON
        value = None
    if not isinstance(value, dict):
        msg = f"{path}, line {number}: a JSON object is required, found {line[:40]!r}; restore the file, or begin anew"
        raise CheckpointError(msg)
    return value
