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
    from collections.abc import Callable, Mapping
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

    Parameters
    ----------
    total, done : of the work, at the end and at the start
    show : False shows nothing; a function is told the share that is done instead, at once and then each second
    """

    def __init__(
        self,
        logger: logging.Logger,
        label: str,
        total: float,
        done: float = 0,
        show: bool | Callable[[float], object] = True,
    ) -> None:
        self._label, self._total = label, total
        self._started_s, self._first = time.monotonic(), done
        live = _display(show, label, total)
        self._interval_s = 1.0 if live else 10.0
        self._next_s = self._started_s + 1.0
        self._show = live or (lambda _done, line: logger.info("%s", line) if line else None)
        self._show(done, "")

    def update(self, done: float, note: str = "") -> None:
        """Show `done` of the total if the interval has passed."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + self._interval_s
        rate = (done - self._first) / max(now - self._started_s, 1e-9)
        eta = duration((self._total - done) / rate) if rate > 0 else "?"
        line = f"{self._label} {done:,.10g}/{self._total:,.10g} ({done / self._total:.0%}) ETA {eta} {note}"
        self._show(done, line.rstrip())

    def close(self) -> None:
        """End what is live."""
        self._show(None, "")


class TotalProgress(Progress):
    """Progress over all jobs of a run.

    Parameters
    ----------
    sizes : name of a job -> its work
    """

    def __init__(self, logger: logging.Logger, label: str, sizes: Mapping[str, float]) -> None:
        self._sizes, self._done, self._ended = sizes, dict[str, float](), 0
        super().__init__(logger, label, sum(sizes.values()))

    def report(self, name: str, share: float) -> None:
        """Enter the share of a job that is done; what it begins with was done before."""
        done = self._sizes[name] * share
        if name not in self._done:
            self._first += done
        self._done[name] = done
        self.update(round(sum(self._done.values()), 1), f"| {self._ended}/{len(self._sizes)} finished")

    def finish(self, name: str) -> None:
        """Enter the end of a job."""
        self._ended += 1
        self._done.setdefault(name, 0.0)
        self.report(name, 1.0)


def _display(
    show: bool | Callable[[float], object], label: str, total: float
) -> Callable[[float | None, str], object] | None:
    """Return what shows progress live: it takes the count, None at the end, and a line. None if nothing does."""
    if callable(show):
        return lambda done, _line: done is None or show(done / total)
    return _live_display(label, total) if show else lambda _done, _line: None


def _live_display(label: str, total: float) -> Callable[[float | None, str], None] | None:
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

    def show(done: float | None, _line: str) -> None:
        if done is None:
            bar.stop()
            return
        bar.start()
        bar.update(task, completed=done)

    return show


def _on_terminal(_done: float | None, line: str) -> None:
    sys.stderr.write(f"\r\x1b[K{line}")
    sys.stderr.flush()


def _in_notebook() -> Callable[[float | None, str], None]:
    import IPython.display

    shown: Any = IPython.display  # untyped
    handle = shown.display(shown.HTML(""), display_id=True)

    def show(_done: float | None, line: str) -> None:
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
