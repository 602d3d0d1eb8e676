"""How long one live decision takes, in milliseconds: python -m benchmarks.decide [--bars 4000].

Ten instruments of synthetic 5-minute bars, the regime filter on, every bar a decision: features, market row,
observation, policy and explanation, one bar at a time. Wall and processor time of the same calls.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from sac_kernel.core import packages
from sac_kernel.core.device import set_threads
from sac_kernel.features.pipeline import INSTRUMENTS
from sac_kernel.live.decide import Decider, account
from sac_kernel.market.account import TradingEnvConfig
from tests.conftest import make_bars
from tests.use_models import save_agent

if TYPE_CHECKING:
    import pandas as pd

HISTORY = 6000


def feed(instruments: tuple[str, ...], n: int) -> dict[str, pd.DataFrame]:
    """Return n + HISTORY bars of each instrument."""
    return {name: make_bars(n + HISTORY, seed=i, bar_seconds=300) for i, name in enumerate(instruments)}


def latencies(instruments: tuple[str, ...], agent_id: int, n: int) -> np.ndarray:
    """Return wall and processor milliseconds of each decision, shape (n, 2)."""
    bars = feed(instruments, n)
    history = {name: part.iloc[:HISTORY] for name, part in bars.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.pt"
        save_agent(path, history, agent_id, TradingEnvConfig(volatility_target=0.1, atr_risk=0.02), (64, 64))
        decider = Decider.from_checkpoint(path, price_side="bid")
    decider.follow(history)
    state, out = account(equity=1e5, units=5e4, entry_price=1.1, bars_held=7), np.empty((n, 2))
    for i in range(n):
        now = {name: part.iloc[HISTORY + i : HISTORY + i + 1] for name, part in bars.items()}
        wall, cpu = time.perf_counter(), time.process_time()
        decider.decide(now, state)
        out[i] = time.perf_counter() - wall, time.process_time() - cpu
    return 1e3 * out[20:]  # the first calls compile


def main() -> int:
    """Print the distribution for one instrument and for ten."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decide", description=__doc__)
    parser.add_argument("--bars", type=int, default=4000)
    args = parser.parse_args()
    set_threads(1)
    facts = ", ".join(f"{k} {v}" for k, v in packages.versions().items())
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, seed 0, one thread; {facts}")
    print(f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "")
    print("\n| instruments | agent | time | median [ms] | 90 % | 99 % | 99.9 % | largest |")
    print("|---|---|---|---|---|---|---|---|")
    for names, agent_id in ((("EURUSD",), 1), (INSTRUMENTS, 1), (INSTRUMENTS, 3)):
        found = latencies(names, agent_id, args.bars)
        for kind, values in zip(("wall", "processor"), found.T, strict=True):
            figures = " | ".join(f"{x:.2f}" for x in np.quantile(values, [0.5, 0.9, 0.99, 0.999, 1.0]))
            print(f"| {len(names)} | {agent_id} | {kind} | {figures} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
