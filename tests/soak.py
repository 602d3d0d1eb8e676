"""Two million environment steps in one process: memory stays flat and no file appears but the outputs.

python -m tests.soak --steps 2000000        # `make soak`

The trainer itself, with few updates so that it takes minutes: sixty accounts, a validation each episode,
checkpoints and states as always. Memory is read every hundredth of the way; the slope is a straight line
fitted to the second half, when every buffer is full and every cache filled.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np

from sac_kernel.agent.config import SACConfig
from sac_kernel.core import packages
from sac_kernel.core.clock import Deadline
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_data

NUM_ENVS, EPISODE = 60, 20_000 * 3
MAX_SLOPE_MB = 4.0
"""MB per million environment steps that are taken for flat: a leak of four bytes a step."""


def memory_mb():
    """Return the resident memory of this process in MB; its peak where the system tells no more."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    import resource

    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    )


def open_files():
    """Return how many files this process holds open; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


class Sampling(Deadline):
    """A clock that never runs out and reads memory at every n-th vector step."""

    def __init__(self, every):
        super().__init__()
        self.every, self.calls = every, 0
        self.samples = []

    def passed(self, reserve_s=0.0):
        if self.calls % self.every == 0:
            self.samples.append((self.calls * NUM_ENVS, memory_mb(), open_files()))
        self.calls += 1
        return super().passed(reserve_s)


def soak(steps, folder, episode=EPISODE):
    """Train for `steps`; return (env steps, MB, open files) along the way, the slope in MB per million steps."""
    h5 = Path(folder) / "processed_data.h5"
    write_processed(make_data(2400), h5)
    out = Path(folder) / "out"
    clock = Sampling(max(1, steps // NUM_ENVS // 100))
    trainer = KaggleTrainer(
        h5,
        out,
        num_episodes=-(-steps // episode),
        eval_frequency=1,
        checkpoint_frequency=1,
        device="cpu",
        num_envs=NUM_ENVS,
        sac_config=SACConfig(
            hidden_dims=(32, 32), buffer_capacity=50_000, warmup_steps=1_000, utd_ratio=0.002
        ),
        env_config=TradingEnvConfig(episode_lengths=(episode,), horizon=500),
        deadline=clock,
    )
    trainer.train()
    samples = np.array(clock.samples)
    late = samples[samples[:, 0] >= samples[-1, 0] / 2]
    slope = float(np.polyfit(late[:, 0] / 1e6, late[:, 1], 1)[0])
    return samples, slope, trainer, expected_files(trainer)


def expected_files(trainer):
    """Return files that are there and should not be, and that should be there and are not."""
    episodes = range(1, trainer.config.num_episodes + 1)
    expected = {f"checkpoints/agent_1_ep{k}.pt" for k in episodes}
    expected |= {f"checkpoints/metrics_ep{k}.json" for k in episodes}
    expected |= {"agent_1_best.pt", "agent_1_final.pt", "logs/training_stats.json", "logs/training_stats.npz"}
    expected |= {"logs/progress.csv"}
    expected |= {f"state/{name}" for name in ("state.json", "job.json", "trainer_a.state", "trainer_b.state")}
    expected |= {"trials.csv"}
    found = {p.relative_to(trainer.folder).as_posix() for p in trainer.folder.rglob("*") if p.is_file()}
    return sorted(expected ^ found)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2_000_000)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began, cpu = time.perf_counter(), time.process_time()
    say = sys.stdout.write
    with tempfile.TemporaryDirectory() as folder:
        samples, slope, trainer, wrong = soak(args.steps, folder)
        for row in samples[:: max(1, len(samples) // 10)]:
            say(f"step {row[0]:>9,.0f}  {row[1]:7.1f} MB  {row[2]:.0f} open files\n")
        say(f"{trainer.learning.steps:,} env steps, {trainer.agent.updates:,} updates, ")
        say(f"{len(trainer.stats['updates'])} validations\n")
        say(f"slope of the second half: {slope:+.2f} MB per million steps (flat is below {MAX_SLOPE_MB})\n")
        say(f"files beyond or short of the outputs: {wrong or 'none'}\n")
    say(
        f"{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} CPU s, {packages.versions()}\n"
    )
    return int(slope > MAX_SLOPE_MB or bool(wrong) or samples[-1, 2] > samples[len(samples) // 2, 2])


if __name__ == "__main__":
    raise SystemExit(main())
