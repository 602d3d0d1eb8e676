"""The whole pipeline where there is nothing to find: train, judge, count how often it says edge.

    python -m benchmarks.null_markets [--markets 120] [--episodes 4] [--seed 0] [--reward expected] [--workers 1]

Each market is a random walk of hourly bid bars with EURUSD's volatility; features, training, selection and
verdict are those of a real run at base cost. The rate belongs to this learner at this budget, both printed.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import logging
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.agent.config import SACConfig
from sac_kernel.backtest import policies
from sac_kernel.backtest.judgement import Judgement, judge
from sac_kernel.core.device import set_threads
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.stats import trials, verdict
from sac_kernel.stats.verdict import TrialCount

if TYPE_CHECKING:
    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.prices.processed_file import ProcessedData

BARS, BAR_S, HOURLY_SD = 9000, 3600, 1e-3
HIDDEN, UTD = (64, 64), 0.25


def random_walk(seed: int) -> ProcessedData:
    """Return a driftless market of `BARS` hourly bars without weekends, in three splits."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2017-01-02", periods=2 * BARS, freq="h", tz="UTC", name="open_time_utc")
    local = pd.DatetimeIndex(times.tz_convert("America/New_York").tz_localize(None)) + pd.Timedelta(hours=7)
    times = times[local.day_of_week < 5][:BARS].as_unit("ns")
    inner = 1.1 * np.exp(np.cumsum(rng.normal(0, HOURLY_SD / np.sqrt(12), (BARS * 12)))).reshape(BARS, 12)
    close = inner[:, -1]
    opened = np.concatenate(([1.1], close[:-1]))
    high, low = np.maximum(inner.max(axis=1), opened), np.minimum(inner.min(axis=1), opened)
    frame = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, index=times)
    bars = Bars(frame, side="bid", seconds=BAR_S, instrument="EURUSD")
    return split_table(BarTable(bars, "random walk", "UTC"), DataConfig())


def judged(seed: int, episodes: int, reward: str) -> Judgement:
    """Train an agent on one market and judge it, every validation pass counted as a trial."""
    data = random_walk(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_processed(data, folder / "processed_data.h5")
        config = SACConfig.for_market(hidden_dims=HIDDEN, utd_ratio=UTD)
        env = dataclasses.replace(
            RunConfig(learner="gaussian").env_config(1), episode_lengths=(3000,), horizon=1000, reward=reward
        )
        trainer = KaggleTrainer(
            folder / "processed_data.h5", folder / "out", episodes, 1, episodes, 1, "cpu", seed, config, env
        )
        job = trainer.train()
        ledger = trials.read(trainer.folder / trials.NAME)
    counted = trials.count(ledger) if ledger else TrialCount(episodes, float(episodes))
    test = data.test[data.traded], trainer.features["test"]
    return judge({policies.agent(1): job.final}, *test, env, 300, counted=counted)


def outcome(seed: int, episodes: int, reward: str) -> tuple[str, EpisodeResult]:
    """Return the verdict's word and the agent's pass at base cost, in a process of one thread."""
    logging.disable(logging.INFO)
    set_threads(1)
    judgement = judged(seed, episodes, reward)
    return judgement.verdict["word"], judgement.results["base"][0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--markets", type=int, default=120)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reward", default="denoised", help="log_return is the harder case: it trades more")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    args = parser.parse_args()
    started, words, traded, gross = time.monotonic(), collections.Counter[str](), 0, []
    seeds = [1000 * args.seed + i for i in range(args.markets)]
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        for i, (word, base) in enumerate(
            pool.map(outcome, seeds, *([value] * args.markets for value in (args.episodes, args.reward)))
        ):
            words[word] += 1
            traded += base.turnover > 0
            gross.append(base.log_growth + base.cost_paid[-1] / base.start_equity)
            print(i, word, f"net {base.log_growth:+.4f}, turnover {base.turnover:.1f}", flush=True)
    edges = words[verdict.EDGE_WITHOUT_NULL]
    mean, error = np.mean(gross), np.std(gross, ddof=1) / np.sqrt(len(gross))
    print(
        f"\n{args.markets} random walks, seed {args.seed}: SAC {HIDDEN}, {args.episodes} x 3,000 steps, UTD {UTD}, "
        f"reward {args.reward}"
    )
    print(f"edge {edges}, not shown {words[verdict.NOT_SHOWN]}, none {words[verdict.NONE]}; {traded} traded")
    print(f"upper 95 % bound of the rate of edges: {verdict.upper_bound(edges, args.markets):.1%} (exact)")
    print(f"mean growth before costs {mean:+.4f}, standard error {error:.4f}")
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
