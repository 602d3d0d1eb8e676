"""How fast the agent learns, beside Stable-Baselines3, SBX and the bare matrix products of one update.

python -m benchmarks.agent                      updates/s; processor seconds, one thread
python -m benchmarks.agent --threads 2          the same by the wall clock
python -m benchmarks.agent --memory             resident memory with a million transitions and bars
python -m benchmarks.agent --guide FOLDER       100 episodes on the bars of FOLDER, default settings

Peers come from PyPI and are used through their own `train`. All of a table is one run: a round is one window of
each in turn.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import itertools
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import timing  # before torch: it sets the thread count

# ruff: isort: split
import gymnasium as gym
import numpy as np
import torch

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.replay import Batch
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import runner
from sac_kernel.core import packages
from sac_kernel.core.device import set_threads
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingVectorEnv
from sac_kernel.market.market import prepare_market

if TYPE_CHECKING:
    from collections.abc import Callable

STATE_DIM, CAPACITY, UPDATES = 30, 100_000, 10
BATCHES = (256, 512, 1024)
WIDE = (256, 256)
"""Stable-Baselines3's and SBX's nets as shipped."""

NOT_HAD = (
    "CleanRL and LeanRL are scripts in repositories and no package; torchrl has the losses of SAC and no agent; "
    "FinRL trains Stable-Baselines3's SAC: none of the four is timed here."
)


class Noise(gym.Env[Any, Any]):
    """Observations of noise, no reward: what an update costs does not depend on what it learns."""

    observation_space = gym.spaces.Box(-5, 5, (STATE_DIM,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:  # noqa: ARG002
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:  # noqa: ARG002
        return self.observation_space.sample(), 0.0, False, False, {}


def noise(n: int, state_dim: int = STATE_DIM) -> Batch:
    """Return n transitions of noise."""
    g = torch.Generator().manual_seed(0)
    obs, next_obs = torch.randn(2, n, state_dim, generator=g)
    action = 2 * torch.rand(n, 1, generator=g) - 1
    return Batch(obs, action, torch.randn(n, generator=g), torch.zeros(n), next_obs)


def ours(batch: int, hidden_dims: tuple[int, ...] | None = None) -> Callable[[], int]:
    """Return a unit of work: ten updates of this project's agent, replay sampling and averages included."""
    wide = {"hidden_dims": hidden_dims} if hidden_dims else {}
    config = SACConfig.for_market(state_dim=STATE_DIM, batch_size=batch, buffer_capacity=CAPACITY, **wide)
    agent = SACAgent(config, device="cpu")
    agent.buffer.add(noise(CAPACITY))

    def work() -> int:
        for _ in range(UPDATES):
            agent.update()
        return UPDATES

    return work


def peer(name: str, batch: int) -> Callable[[], int]:
    """Return a unit of work: ten times one update of a peer's SAC as shipped, one a step as in its `learn`."""
    if name == "sb3":
        from stable_baselines3 import SAC
    else:
        from sbx import SAC
    from stable_baselines3.common.logger import Logger

    model = SAC(
        "MlpPolicy", Noise(), batch_size=batch, buffer_size=CAPACITY, learning_starts=CAPACITY, device="cpu"
    )
    model.learn(2_000)
    model.set_logger(Logger(folder=None, output_formats=[]))
    # Filled as ours is: rows of noise.
    buffer, rows = model.replay_buffer, noise(CAPACITY)
    buffer.observations[:, 0], buffer.next_observations[:, 0] = rows.obs.numpy(), rows.next_obs.numpy()
    buffer.actions[:, 0], buffer.rewards[:, 0] = rows.action.numpy(), rows.reward.numpy()
    buffer.full = True

    def work() -> int:
        for _ in range(UPDATES):
            model.train(gradient_steps=1, batch_size=batch)
        return UPDATES

    return work


Shape = tuple[int, int, int, str]
"""Rows, inner width and columns of a product, and which side is stored transposed: 'left', 'right' or ''."""


def product_shapes(batch: int, hidden_dims: tuple[int, ...]) -> list[Shape]:
    """Return the matrix products that one update needs."""
    actor, critic = ((i, *hidden_dims, o) for i, o in ((STATE_DIM, 2), (STATE_DIM + 1, 1)))
    # The policy at s and s'; for each twin target, value and the value of the policy's action.
    groups = [_forward(batch, actor), _forward(batch, actor), _weights(batch, actor), _inputs(batch, actor)]
    for _ in range(2):
        groups += [_forward(batch, critic)] * 3
        groups += [_weights(batch, critic), _inputs(batch, critic)]
        groups += [_inputs(batch, critic), [(batch, hidden_dims[0], 1, "")]]  # from the value to the action
    return [shape for group in groups for shape in group]


def products(batch: int, hidden_dims: tuple[int, ...] = WIDE) -> Callable[[], int]:
    """Return a unit of work: the products of ten updates, into memory that is there, and nothing else."""
    calls = [_product(*shape) for shape in product_shapes(batch, hidden_dims)]

    def work() -> int:
        for _ in range(UPDATES):
            for call in calls:
                call()
        return UPDATES

    return work


def _product(rows: int, inner: int, columns: int, transposed: str) -> Callable[[], object]:
    a = torch.randn(inner, rows).t() if transposed == "left" else torch.randn(rows, inner)
    b = torch.randn(columns, inner).t() if transposed == "right" else torch.randn(inner, columns)
    return functools.partial(torch.mm, a, b, out=torch.empty(rows, columns))


def _forward(batch: int, widths: tuple[int, ...]) -> list[Shape]:
    return [(batch, i, o, "right") for i, o in itertools.pairwise(widths)]


def _weights(batch: int, widths: tuple[int, ...]) -> list[Shape]:
    return [(o, batch, i, "left") for i, o in itertools.pairwise(widths)]


def _inputs(batch: int, widths: tuple[int, ...]) -> list[Shape]:
    return [(batch, o, i, "") for i, o in itertools.pairwise(widths[1:])]


def speed(threads: int, rounds: int) -> None:
    """Print updates/s of all sides."""
    print(
        "| nets, batch | this project | Stable-Baselines3 | SBX | matrix products | to SB3 | to SBX | to products |"
    )
    print("|---|---|---|---|---|---|---|---|")
    clock = time.process_time if threads == 1 else time.perf_counter
    for title, batch, hidden in [(f"256x256, {b}", b, WIDE) for b in BATCHES] + [
        ("default recipe", 256, None)
    ]:
        works = {
            "ours": ours(batch, hidden),
            "sb3": peer("sb3", batch),
            "sbx": peer("sbx", batch),
            "products": products(batch, hidden or SACConfig.for_market().hidden_dims),
        }
        rates = timing.interleaved(works, rounds, clock)
        medians = [f"{statistics.median(r):,.1f}" for r in rates.values()]
        ratios = [timing.ratio(rates["ours"], rates[other]) for other in ("sb3", "sbx", "products")]
        print("|", " | ".join((title, *medians, *ratios)), "|", flush=True)


def peak_mb() -> float:
    """Return the most resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def memory() -> None:
    """Print peak memory beyond the framework's, with a million transitions and a million bars in use."""
    from benchmarks.market import synthetic
    from sac_kernel.agent.sac import Interaction

    def train(n: int, *, keep: bool) -> int:
        config, frames = TradingEnvConfig(), synthetic(n)
        market = prepare_market(*frames, config, close_at_end=False)
        if not keep:
            del frames
        env = TradingVectorEnv(market, config, 60)
        width = env.single_observation_space.shape[0]
        agent = SACAgent(
            SACConfig.for_market(state_dim=width, buffer_capacity=n, warmup_steps=60), device="cpu"
        )
        loop = Interaction(agent, env, 0)
        for _ in range(100):  # in parts: the noise itself is not to be counted
            agent.buffer.add(noise(n // 100, width))
        for _ in range(3):
            loop.advance()
        return width

    n = 1_000_000
    train(10_000, keep=True)  # what the framework allocates once
    before = peak_mb()
    width = train(n, keep=False)
    without = peak_mb()
    train(n, keep=True)
    print(
        f"peak memory of the framework and a run on 10,000 bars: {before:.0f} MB; with {n:,} bars laid out as a"
    )
    print(
        f"market, {n:,} transitions of state {width}, training: +{without - before:.0f} MB; the frames that the"
    )
    print(f"market was made of kept beside it: +{peak_mb() - before:.0f} MB")


def guide(folder: Path, episodes: int) -> None:
    """Train as the guide does on the bars of a folder and print time, updates and the share of gradient work."""
    from sac_kernel.prices.ingest.writer import write_processed
    from sac_kernel.prices.pipeline import DataConfig, DataPipeline

    logging.getLogger("sac_kernel").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        data = DataPipeline(DataConfig(source="files", path=str(folder), price_side="bid")).build()
        path = Path(scratch) / "processed_data.h5"
        write_processed(data, path)
        trainer = KaggleTrainer(path, Path(scratch) / "out", num_episodes=episodes, device="cpu")
        started = time.perf_counter(), time.process_time()
        trainer.prepare()
        prepared = time.perf_counter(), time.process_time()
        _compile_engine(trainer)
        compiled = time.perf_counter(), time.process_time()
        spent = [0.0, 0.0]
        update = trainer.agent.update

        def timed() -> None:
            wall, cpu = time.perf_counter(), time.process_time()
            update()
            spent[0] += time.perf_counter() - wall
            spent[1] += time.process_time() - cpu

        trainer.agent.update = timed  # type: ignore[method-assign]  # a stopwatch around it
        trainer.train()
        done = time.perf_counter(), time.process_time()
        trained = [b - a for a, b in zip(compiled, done, strict=True)]
        agent, bars = trainer.agent, len(data.train[trainer.instrument])
        print(f"{len(data.train)} instruments, {bars:,} train bars, state {agent.width}, batch "
              f"{agent.config.batch_size}, threads {torch.get_num_threads()}; {trainer.learning.steps:,} transitions, "
              f"{agent.updates:,} updates")  # fmt: skip
        print("| | wall s | processor s |\n|---|---|---|")
        rows = {
            "data, features, market": [b - a for a, b in zip(started, prepared, strict=True)],
            "compiling the engine, once an installation": [
                b - a for a, b in zip(prepared, compiled, strict=True)
            ],
            "training, validation and checkpoints included": trained,
            "of it gradient updates, their batches drawn": spent,
        }
        for name, (wall, cpu) in rows.items():
            print(f"| {name} | {wall:.0f} | {cpu:.0f} |")
        shares = [f"{1 - part / whole:.1%}" for part, whole in zip(spent, trained, strict=True)]
        print(f"| not gradient work | {shares[0]} | {shares[1]} |")


def _compile_engine(trainer: KaggleTrainer) -> None:
    """Step a spare account and do one pass over the validation split: what a new installation compiles at first use."""
    env = TradingVectorEnv(trainer.train_market, trainer.env_config, 1)
    env.reset(seed=0)
    env.step(np.zeros((1, 1), np.float32))
    runner.validate(trainer.agent, trainer.val_market, trainer.env_config.initial_equity)


def main() -> int:
    """Print what was asked for as Markdown, with versions and the date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=timing.ROUNDS)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--guide", type=Path, metavar="FOLDER")
    parser.add_argument("--episodes", type=int, default=100, help="of --guide")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    set_threads(args.threads)
    print(timing.header(packages.versions(), args.threads, args.rounds))
    if args.memory:
        memory()
    elif args.guide:
        guide(args.guide, args.episodes)
    else:
        print(f"peers: stable-baselines3 {_version('stable-baselines3')}, sbx-rl {_version('sbx-rl')}, "
              f"jax {_version('jax')}. {NOT_HAD}\n")  # fmt: skip
        _share_processors(args.threads)
        speed(args.threads, args.rounds)
    return 0


def _share_processors(threads: int) -> None:
    """Leave this process as many processors as threads: XLA starts a thread for each it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _version(name: str) -> str:
    return importlib.metadata.version(name)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    raise SystemExit(main())
