"""How every command ends: with its status, with one plain error, or stopped by a signal."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from sac_kernel.core import interrupts
from sac_kernel.core.errors import SacKernelError

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = 2


def run(action: Callable[[], int], say: Callable[[str], object]) -> int:
    """Return the exit status of a command; every expected failure is one message, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a name that the terminal cannot show is no failure
    return interrupts.run(lambda: _plainly(action, say))


def _plainly(action: Callable[[], int], say: Callable[[str], object]) -> int:
    try:
        return action()
    except SacKernelError as err:
        say(f"{type(err).__name__}: {err}")
    except OSError as err:
        say(f"StorageError: {_problem(err)}")
    return REFUSED


def _problem(err: OSError) -> str:
    """Return what the system refused: the file, the reason, and what to do."""
    named = [str(name) for name in (err.filename, err.filename2) if name]
    where = f"Cannot read or write {' and '.join(named)}" if named else "Cannot read or write a file"
    return (
        f"{where}: {err.strerror or err or type(err).__name__}. Free space, or use a folder that can be written, then "
        "run the same command again."
    )
