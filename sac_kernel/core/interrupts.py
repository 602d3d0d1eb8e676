"""Ctrl-C and SIGTERM for every command: children end, one sentence says how to go on, exit status 130 or 143.

A command runs in `run`. Ten seconds after the signal the process ends whatever it is doing: the last saved state
stands. Steps that must not be cut in two, such as a line of a journal, run in `deferred`.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from sac_kernel.core.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

LIMIT_S = 9.0
"""Seconds from the signal to the end of the process at the latest."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GO_ON = "Nothing is lost: the same command goes on."

_AGAIN_S = 0.05

requested = threading.Event()
"""Set once a signal came; threads that wait or retry look at it."""
_children: set[subprocess.Popen[str]] = set()
_advice = GO_ON
_deferred = 0
_pending = 0
_number = int(signal.SIGINT)
_ending = threading.Event()


def run(action: Callable[[], int]) -> int:
    """Return the exit status of `action`, or 128 + the signal's number after a sentence of advice.

    Only the main thread can be interrupted; elsewhere, and inside another `run`, the action just runs.
    """
    global _advice, _pending, _deferred  # one process has one pair of signals
    if threading.current_thread() is not threading.main_thread() or _installed():
        return action()
    requested.clear()
    _advice, _pending, _deferred = GO_ON, 0, 0
    _ending.clear()
    with _watched():
        old, old_hook = {number: _install(number) for number in SIGNALS}, sys.unraisablehook
        sys.unraisablehook = _swallowed
        try:
            return action()
        except KeyboardInterrupt as err:
            requested.set()
            _say()
            return 128 + (err.number if isinstance(err, Interrupted) else signal.SIGINT)
        finally:
            sys.unraisablehook = old_hook
            for number, handler in old.items():
                signal.signal(number, handler)


def end_at_once() -> None:
    """Until `run` begins, end on a signal with one sentence: nothing is under way that could be lost."""

    def handle(number: int, _frame: FrameType | None) -> None:
        _say()
        os._exit(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def advise(text: str) -> None:
    """Set the sentence that an interrupt from now on ends with."""
    global _advice  # noqa: PLW0603
    _advice = text


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Run a step whole: a signal takes effect at its end."""
    global _deferred, _pending  # noqa: PLW0603
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
        number, _pending = (_pending, 0) if _deferred == 0 else (0, _pending)
    if number:
        raise Interrupted(number)


def sleep(seconds: float) -> None:
    """Wait; a signal ends it in every thread."""
    if requested.wait(seconds):
        raise Interrupted(_number)


def finish(process: subprocess.Popen[str], timeout_s: float) -> tuple[str, str]:
    """Return what a child wrote until its end.

    A signal ends the child, and so does the timeout, which raises `subprocess.TimeoutExpired`.
    """
    _children.add(process)
    limit_s = time.monotonic() + timeout_s
    try:
        while True:
            if requested.is_set():
                raise Interrupted(_number)
            try:
                return process.communicate(timeout=min(0.2, max(limit_s - time.monotonic(), 0.0)))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= limit_s:
                    raise
    except BaseException:
        end(process)
        raise
    finally:
        _children.discard(process)


def forward(process: subprocess.Popen[str]) -> int:
    """Wait for a child that ends well by itself on a signal; return its status. The signal is passed on."""
    _children.add(process)
    try:
        while process.poll() is None:
            sleep(0.1)
        return process.returncode
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT_S - 1.0)
        end(process)
        raise
    finally:
        _children.discard(process)


def end(process: subprocess.Popen[str]) -> None:
    """End a child at once, with the group of processes that it leads."""
    if process.poll() is not None:
        return
    with contextlib.suppress(OSError):
        if sys.platform != "win32" and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2.0)


def _install(number: int) -> Callable[[int, FrameType | None], object] | int | None:
    """Set the handler; Ctrl-C stays ignored where the process was started with it ignored."""
    before = signal.getsignal(number)
    if before is not signal.SIG_IGN:
        signal.signal(number, _handle)
    return before


def _installed() -> bool:
    return _handle in (signal.getsignal(number) for number in SIGNALS)


def _handle(number: int, _frame: FrameType | None) -> None:
    global _pending  # noqa: PLW0603
    if _ending.is_set():
        return  # the end is under way
    _ending.set()
    _request(number)
    if _deferred:
        _pending = number
    else:
        raise Interrupted(number)


def _swallowed(found: sys.UnraisableHookArgs) -> None:
    """Raise an interrupt again that met a destructor or a callback of compiled code, which end without it."""
    if not isinstance(found.exc_value, Interrupted):
        sys.__unraisablehook__(found)
        return
    timer = threading.Timer(_AGAIN_S, _raise_again, (found.exc_value.number,))
    timer.daemon = True
    timer.start()


def _raise_again(number: int) -> None:
    if _installed():
        _ending.clear()
        _thread.interrupt_main(signal.Signals(number))


def _request(number: int) -> None:
    global _number  # noqa: PLW0603
    _number = number
    requested.set()


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """End the process LIMIT_S after a signal, even if a long computation keeps Python from seeing the signal."""
    inner, outer = socket.socketpair()
    outer.setblocking(False)
    try:
        before = signal.set_wakeup_fd(outer.fileno(), warn_on_full_buffer=False)
    except ValueError:  # an interpreter inside another program
        inner.close()
        outer.close()
        yield
        return
    done = threading.Event()
    threading.Thread(target=_end_late, args=(inner, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        outer.close()  # ends the thread


def _end_late(inner: socket.socket, done: threading.Event) -> None:
    with inner:
        while received := inner.recv(1):
            if received[0] in SIGNALS and signal.getsignal(received[0]) is not signal.SIG_IGN:
                _request(received[0])
                if done.wait(LIMIT_S):
                    return
                for process in list(_children):
                    end(process)
                _say()
                os._exit(128 + received[0])


def _say() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.write(f"\nStopped. {_advice}\n")
        sys.stderr.flush()
