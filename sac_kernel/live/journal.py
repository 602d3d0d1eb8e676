"""An append-only file of JSON lines that stays readable if the process is killed at any moment.

A line counts once its line end is written. An unfinished last line is cut off when the next line is added. Nothing
else is ever changed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING, Any, Self

from sac_kernel.core import locks
from sac_kernel.core.errors import CheckpointError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO
    from pathlib import Path


class Journal:
    """The lines of a file, and a way to add one.

    Attributes
    ----------
    path : of the file
    lines : those in the file when it was opened
    torn_bytes : length of an unfinished last line, which is not among them

    Parameters
    ----------
    claim : hold the lock of the folder from now until `close`: nobody else writes

    Raises
    ------
    BusyError
        If another process has claimed it.
    """

    def __init__(self, path: Path, *, claim: bool = False) -> None:
        self._claim = contextlib.ExitStack()
        if claim:
            self._claim.enter_context(locks.hold(path.parent))
        content = path.read_bytes() if path.is_file() else b""
        whole = content.rfind(b"\n") + 1
        self.torn_bytes = len(content) - whole
        self.lines = [_parsed(line, i, path) for i, line in enumerate(content[:whole].splitlines(), 1)]
        self.path, self._whole, self._end = path, whole, len(content)
        self._file: FileIO | None = None

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line and hand it to the operating system: it survives a kill, and after `sync` a power cut.

        Raises
        ------
        StorageError
            If it cannot be written; the lines before it are intact.
        CheckpointError
            If another process has added lines since the file was read.
        """
        content = json.dumps(line, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            stream = self._stream()
            if stream.write(content) != len(content):
                stream.truncate(self._end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as err:
            msg = f"Cannot write to {self.path}: {err.strerror or err}. Its lines are intact: free space, then repeat."
            raise StorageError(msg) from err
        self._end = self._whole = self._end + len(content)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._claim.close()

    def _stream(self) -> FileIO:
        """Return the open file; opening it cuts off an unfinished last line."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stream = self.path.open("ab", buffering=0)  # a line is one write: the disk takes it whole or not
            if stream.tell() != self._end:
                stream.close()
                msg = f"{self.path}: another process has written to it since it was read. Run the command again."
                raise CheckpointError(msg)
            if self._whole < self._end:
                stream.truncate(self._whole)
            self._end = self._whole
            self._file = stream
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
