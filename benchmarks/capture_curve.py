"""How much of the optimum is captured from so many bars at such a signal: exact SAC beside ridge + band.

python -m benchmarks.capture_curve                    prints docs/learning.md's table
python -m benchmarks.capture_curve --figure build/capture_curve.png
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from matplotlib.figure import Figure

from benchmarks.exact_markets import Learning, learn
from sac_kernel.core import files, packages
from sac_kernel.core.device import set_threads
from sac_kernel.market.known_answer import MARKETS, Judge, KnownAnswerMarket
from sac_kernel.report import plots

Shares = dict[float, list[float]]
"""Information coefficient -> one share for each length."""

BARS = (30_000, 100_000, 1_000_000)
SIGNALS = (0.02, 0.05, 0.1)


def market_of(ic: float) -> KnownAnswerMarket:
    """Return M11 at another information coefficient, its cost two of them, its name kept."""
    noise = (1.0 - ic * ic) ** 0.5
    return dataclasses.replace(MARKETS["M11"], ic=ic, cost=2.0 * ic, noise=noise)


def figure(bars: tuple[int, ...], agent: Shares, ridge: Shares) -> Figure:
    """Return captured shares of the optimum against bars: agent solid, ridge + band dashed, a colour a signal."""
    drawn = Figure(figsize=(9.0, 4.0), layout="constrained")
    ax = drawn.subplots()
    for (ic, shares), color in zip(agent.items(), (plots.BLUE, plots.ORANGE, plots.GREEN), strict=False):
        ax.plot(bars, shares, color=color, marker="o", label=f"agent, IC {ic:g}")
        ax.plot(bars, ridge[ic], color=color, linestyle="--", label=f"ridge + band, IC {ic:g}")
    ax.set(xscale="log", xlabel="Bars of the one path", ylabel="Captured share of the optimum")
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.02)
    ax.legend(ncols=len(agent))
    return drawn


def main() -> None:
    """Print one row a length, SAC / ridge at each signal."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capture_curve", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=3_000)
    parser.add_argument("--bars", default=",".join(map(str, BARS)))
    parser.add_argument("--ic", default=",".join(map(str, SIGNALS)))
    parser.add_argument("--figure", type=Path, default=Path("build/capture_curve.png"))
    args = parser.parse_args()
    set_threads(1)
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, one thread; {packages.versions()}; {args}")
    bars, signals = (
        tuple(kind(v) for v in text.split(",")) for kind, text in ((int, args.bars), (float, args.ic))
    )
    agent, ridge = ({ic: list[float]() for ic in signals} for _ in range(2))
    lines = [
        "| bars | " + " | ".join(f"IC {ic:g}: exact SAC / ridge + band" for ic in signals) + " |",
        "|---" * (1 + len(signals)) + "|",
    ]
    for n in bars:
        cells = []
        for ic in signals:
            market = market_of(ic)
            judge = Judge(market, bars=300, n=256)
            rows = [learn(market, seed, Learning(args.updates, n), judge) for seed in range(args.seeds)]
            each = " ".join(f"{row.captured:.3f}/{row.bound:.3f}" for row in rows)
            print(f"IC {ic:g}, {n:,} bars: {each}", flush=True)
            agent[ic].append(statistics.median(row.captured for row in rows))
            ridge[ic].append(statistics.median(row.bound for row in rows))
            cells.append(f"{agent[ic][-1]:.3f} / {ridge[ic][-1]:.3f}")
        lines.append(f"| {n:,} | {' | '.join(cells)} |")
    print("\n".join(lines))
    files.write_bytes(args.figure, plots.to_png(figure(bars, agent, ridge)))


if __name__ == "__main__":
    main()
