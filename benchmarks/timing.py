"""How a figure is taken: the median of interleaved rounds in processor seconds of one thread.

A busy neighbour then slows both sides alike, and the ratio is taken round by round.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
WINDOW_S = 1.0
HEAD = "| | this project | peer | ratio (range) | unit |\n|---|---|---|---|---|"


def rate(work: Callable[[], int], clock: Callable[[], float] = time.process_time) -> float:
    """Return units of work per second of `clock` over one window."""
    done, started = 0, clock()
    while clock() - started < WINDOW_S:
        done += work()
    return done / (clock() - started)


def interleaved(
    works: dict[str, Callable[[], int]], rounds: int = ROUNDS, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Return the rates of each side, one a round; a round is a window of each in turn."""
    for work in works.values():
        work()  # compile and warm up
    taken = [[rate(work, clock) for work in works.values()] for _ in range(rounds)]
    return dict(zip(works, map(list, zip(*taken, strict=True)), strict=True))


def ratio(ours: list[float], peer: list[float]) -> str:
    """Return the median of the ratios, taken round by round, with their range."""
    ratios = sorted(x / y for x, y in zip(ours, peer, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"


def compare(title: str, ours: Callable[[], int], peer: Callable[[], int], unit: str) -> str:
    """Return one row: medians of both sides and of their ratios."""
    rates = interleaved({"ours": ours, "peer": peer})
    a, b = (statistics.median(side) for side in rates.values())
    return f"| {title} | {a:,.0f} | {b:,.0f} | {ratio(*rates.values())} | {unit} |"


def header(versions: dict[str, Any], threads: int = 1, rounds: int = ROUNDS) -> str:
    """Return the line that says when, how and on what."""
    facts = {**versions, "cpu": platform.processor() or platform.machine()}
    day = time.strftime("%Y-%m-%d", time.gmtime())
    clock = "one thread, processor seconds" if threads == 1 else f"{threads} threads, wall clock"
    how = f"{day}, seed 0, {clock}, medians of {rounds} interleaved rounds"
    return f"{how}\n{', '.join(f'{k} {v}' for k, v in facts.items())}"
