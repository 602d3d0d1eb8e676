"""One writer a folder: a lock of the operating system, held for a whole command and released when it dies."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel.core.errors import BusyError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_FILE = ".lock"
_RETRY_S = 0.05
_held: set[tuple[str, int]] = set()  # lock file and thread
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_FAR = 1 << 30  # Windows forbids others to read a locked byte, so one behind the text is locked


@contextlib.contextmanager
def hold(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be; a thread that holds it already just goes on.

    Parameters
    ----------
    wait_s : seconds to wait for another holder

    Raises
    ------
    BusyError
        If another process or thread holds it; the message names process, start and command.
    StorageError
        If the folder cannot be written.
    """
    path = folder.absolute() / LOCK_FILE
    holder = (str(path), threading.get_ident())
    if holder in _held:
        yield
        return
    made = not folder.exists()
    descriptor = _acquire(path, time.monotonic() + wait_s)
    _held.add(holder)
    try:
        yield
    finally:
        _held.discard(holder)
        _release(descriptor, path)
        if made:
            with contextlib.suppress(OSError):  # something was written to it
                path.parent.rmdir()


def _acquire(path: Path, limit_s: float) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as err:
            msg = (
                f"Cannot write to {path.parent}: {err.strerror or err}. Choose a folder that can be written."
            )
            raise StorageError(msg) from err
        if _try_lock(descriptor):
            if _is_in_place(descriptor, path):
                _sign(descriptor)
                return descriptor
            os.close(descriptor)  # its holder removed the file in between
            continue
        os.close(descriptor)
        if time.monotonic() >= limit_s:
            msg = f"{path.parent} is in use by {_holder(path)}. Wait until that ends, or stop it."
            raise BusyError(msg)
        time.sleep(_RETRY_S)


def _release(descriptor: int, path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows keeps an open file: an empty one stays there
        os.ftruncate(descriptor, 0)
        if _is_in_place(descriptor, path):
            path.unlink(missing_ok=True)
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child has a copy of the descriptor
    os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        return err.errno not in _HELD  # a file system without locks cannot refuse anybody
    return True


def _is_in_place(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _sign(descriptor: int) -> None:
    """Write who holds the lock: process, start, and the command without folders."""
    words = [Path(word).name if os.sep in word else word for word in sys.argv]
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    text = f"process {os.getpid()} since {started}: {' '.join(words)[:200]}"
    with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text.encode("utf-8", "replace"))


def _holder(path: Path) -> str:
    try:
        return path.read_bytes()[:400].decode("utf-8", "replace") or "another process"
    except OSError:
        return "another process"
