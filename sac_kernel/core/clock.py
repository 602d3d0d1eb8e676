"""A run's time budget, and progress with rate and ETA."""

from __future__ import annotations

import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sac_kernel.core.errors import Interrupted, TimeUpError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import FrameType


@dataclass
class Deadline:
    """A run's time budget: the run stops itself before the platform does.

    Parameters
    ----------
    budget_s : seconds from `started_s` until `passed` is true; infinite by default.
    started_s : `time.monotonic()` at the start.
    """

    budget_s: float = float("inf")
    started_s: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _signal: int = 0

    def elapsed_s(self) -> float:
        """Return seconds since the start."""
        return time.monotonic() - self.started_s

    def left_s(self) -> float:
        """Return seconds left, negative when overrun."""
        return self.budget_s - self.elapsed_s()

    def passed(self, reserve_s: float = 0.0) -> bool:
        """Return whether at most `reserve_s` is left, or a stop was requested."""
        return self._stop.is_set() or self.left_s() <= reserve_s

    def check(self) -> None:
        """Raise TimeUpError if time is up or a stop was requested; for long steps that can be repeated."""
        if self._stop.is_set() or self.left_s() <= 0.0:
            msg = f"The run stopped after {self.elapsed_s():.0f} s of its {self.budget_s:.0f} s."
            raise TimeUpError(msg)

    def request_stop(self) -> None:
        """Make `passed` true from now on; safe in a signal handler."""
        self._stop.set()

    def stop_on_signals(self) -> Callable[[], None]:
        """Make SIGTERM and SIGINT call `request_stop`; return a function that undoes it.

        Only the main thread may set handlers; elsewhere nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            return lambda: None

        def handler(number: int, _frame: FrameType | None) -> None:
            self._signal = number
            self.request_stop()

        old = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, previous in old.items():
                signal.signal(number, previous)

        return restore

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked for the stop."""
        return bool(self._signal)

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted if a signal, not the clock, ended the run: what was trained is saved."""
        if self._signal:
            raise Interrupted(self._signal)


class Progress:
    """Progress with rate and ETA: a live bar or line on a terminal, a live line in a notebook, else log lines.

    The bar needs the package rich; a terminal without it gets the line.
    """

    def __init__(self, logger: logging.Logger, label: str, total: int, done: int = 0) -> None:
        self._logger, self._label, self._total = logger, label, total
        self._started_s, self._first = time.monotonic(), done
        self._show = _live_display(label, total)
        self._live = self._show is not None
        self._interval_s = 1.0 if self._live else 10.0
        self._next_s = self._started_s + 1.0

    def update(self, done: int, note: str = "") -> None:
        """Show `done` of the total if the interval has passed."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + self._interval_s
        rate = (done - self._first) / max(now - self._started_s, 1e-9)
        eta = duration((self._total - done) / rate) if rate > 0 else "?"
        line = f"{self._label} {done:,}/{self._total:,} ({done / self._total:.0%}) ETA {eta} {note}".rstrip()
        if self._show:
            self._show(done, line)
        else:
            self._logger.info("%s", line)

    def close(self) -> None:
        """End what is live."""
        if self._show:
            self._show(None, "")


def _live_display(label: str, total: int) -> Callable[[int | None, str], None] | None:
    """Return what shows progress live: it takes the count, None at the end, and a line. None if nothing does."""
    if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
        return _in_notebook() if hasattr(shell, "kernel") else None
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
        from rich.progress import Progress as Bar
    except ImportError:
        return _on_terminal
    bar = Bar(console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    task = bar.add_task(label, total=total)

    def show(done: int | None, _line: str) -> None:
        if done is None:
            bar.stop()
            return
        bar.start()
        bar.update(task, completed=done)

    return show


def _on_terminal(_done: int | None, line: str) -> None:
    sys.stderr.write(f"\r\x1b[K{line}")
    sys.stderr.flush()


def _in_notebook() -> Callable[[int | None, str], None]:
    import IPython.display

    shown: Any = IPython.display  # untyped
    handle = shown.display(shown.HTML(""), display_id=True)

    def show(_done: int | None, line: str) -> None:
        handle.update(shown.HTML(f"<pre>{line}</pre>" if line else ""))

    return show


def duration(seconds: float) -> str:
    """Return seconds as '8 s', '2 min 05 s' or '3 h 07 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
