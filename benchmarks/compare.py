"""`make bench`: this project beside its peers, in one run, as ratios.

Peers come from PyPI and are used as shipped. The market's part alone, with more rows: benchmarks.market.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch

from benchmarks import market, timing
from sac_kernel import runtime
from sac_kernel.replay_buffer import Batch
from sac_kernel.sac_agent import SACAgent, SACConfig

if TYPE_CHECKING:
    from collections.abc import Callable

STATE_DIM, BATCH = 30, 256


def our_update() -> Callable[[], int]:
    """Return a unit of work: ten gradient updates of our agent, replay sampling included."""
    agent = SACAgent(SACConfig(state_dim=STATE_DIM, batch_size=BATCH, buffer_capacity=50_000), device="cpu")
    g = torch.Generator().manual_seed(0)
    n = 50_000
    agent.buffer.add(
        Batch(
            torch.randn(n, STATE_DIM, generator=g), torch.rand(n, 1, generator=g) * 2 - 1,
            torch.randn(n, generator=g), torch.zeros(n), torch.randn(n, STATE_DIM, generator=g),
        )
    )  # fmt: skip

    def step() -> int:
        for _ in range(10):
            agent.update()
        return 10

    return step


def sb3_update() -> Callable[[], int]:
    """Return a unit of work: ten gradient updates of Stable-Baselines3's SAC as shipped."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    class Random(gym.Env):
        observation_space = gym.spaces.Box(-5, 5, (STATE_DIM,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:  # noqa: ARG002
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:  # noqa: ARG002
            return self.observation_space.sample(), 0.0, False, False, {}

    model = SAC(
        "MlpPolicy", Random(), batch_size=BATCH, buffer_size=50_000, learning_starts=50_000, device="cpu"
    )
    model.learn(2_000)
    model.set_logger(Logger(folder=None, output_formats=[]))

    def step() -> int:
        model.train(gradient_steps=10, batch_size=BATCH)
        return 10

    return step


def main() -> int:
    """Print the table as Markdown, with versions and the date."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    runtime.set_threads(1)
    print(timing.header(runtime.versions()))
    print(f"peers: gym-anytrading 2.0.0, gym-trading-env 0.3.5, stable-baselines3 2.9.2\n\n{timing.HEAD}")
    for row in market.rows():
        print(row)
    title = f"SAC update, batch {BATCH}, 256x256 / Stable-Baselines3"
    print(timing.compare(title, our_update(), sb3_update(), "updates/s"))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    raise SystemExit(main())
