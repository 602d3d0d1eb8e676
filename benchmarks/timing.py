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
WINDOW_S = 1.5
HEAD = "| | this project | peer | ratio (range) | unit |\n|---|---|---|---|---|"


def rate(work: Callable[[], int]) -> float:
    """Return units of work per processor second over one window."""
    done, started = 0, time.process_time()
    while time.process_time() - started < WINDOW_S:
        done += work()
    return done / (time.process_time() - started)


def compare(title: str, ours: Callable[[], int], peer: Callable[[], int], unit: str) -> str:
    """Return one row: medians of both sides and the median of the ratios, round by round."""
    ours(), peer()  # compile and warm up
    pairs = [(rate(ours), rate(peer)) for _ in range(ROUNDS)]
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(x / y for x, y in pairs)
    spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
    return f"| {title} | {a:,.0f} | {b:,.0f} | {statistics.median(ratios):.2f} ({spread}) | {unit} |"


def header(versions: dict[str, Any]) -> str:
    """Return the line that says when, how and on what."""
    facts = {**versions, "cpu": platform.processor() or platform.machine()}
    day = time.strftime("%Y-%m-%d", time.gmtime())
    how = f"{day}, seed 0, one thread, processor seconds, medians of {ROUNDS} interleaved rounds"
    return f"{how}\n{', '.join(f'{k} {v}' for k, v in facts.items())}"
