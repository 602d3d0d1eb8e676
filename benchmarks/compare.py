"""`make bench`: this project beside its peers, in one run, as ratios.

Each figure is the median of interleaved rounds in processor seconds of one thread, so a busy neighbour
slows both sides alike. Peers come from PyPI and are used as shipped.
"""

from __future__ import annotations

import logging
import os
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"

import gymnasium as gym
import numpy as np
import torch

from sac_kernel import bar_engine, runtime
from sac_kernel.bar_engine import Acc
from sac_kernel.data_pipeline import DataConfig, DataPipeline
from sac_kernel.feature_engineering import FeaturePipeline
from sac_kernel.replay_buffer import Batch
from sac_kernel.sac_agent import SACAgent, SACConfig
from sac_kernel.trading_env import TradingEnvConfig, TradingEnvironment, prepare_market

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
WINDOW_S = 1.5
STATE_DIM, BATCH = 30, 256


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


def market() -> tuple[Any, Any, TradingEnvConfig]:
    """Return bars, features and config of the embedded sample's train split."""
    data = DataPipeline(DataConfig()).build()
    features = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)[0]
    return (
        data.train["EURUSD"],
        features,
        TradingEnvConfig(horizon=1000, stop_loss_bps=50, take_profit_bps=100),
    )


def batched_engine(num_envs: int) -> Callable[[], int]:
    """Return a unit of work: one step of `num_envs` accounts with all costs, SL/TP and margin."""
    bars, features, config = market()
    m = prepare_market(bars, features, config, close_at_end=False)
    states, rng = np.zeros((num_envs, len(Acc))), np.random.default_rng(0)
    rewards, obs = np.zeros(num_envs), np.zeros((num_envs, len(m.observation_names)), np.float32)
    actions = rng.uniform(-1, 1, num_envs)

    def reset() -> None:
        for i in range(num_envs):
            bar_engine.reset(states[i], m.bars, m.par, m.first_bar, 10**6, 1e5, 0.0)

    def step() -> int:
        if states[0, Acc.TRUNCATED] > 0:
            reset()
        bar_engine.step_many(states, m.bars, m.par, m.observed, actions, rewards, obs)
        return num_envs

    reset()
    return step


def single_env(env: Any) -> Callable[[], int]:
    """Return a unit of work: 100 random steps of a Gymnasium env."""
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    actions = rng.integers(0, 2, 100) if discrete else rng.uniform(-1, 1, (100, 1)).astype(np.float32)

    def step() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return len(actions)

    return step


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
    import gym_anytrading  # noqa: F401  # registers its envs

    runtime.set_threads(1)
    bars, features, config = market()
    anytrading = gym.make("forex-v0", disable_env_checker=True).unwrapped
    facts = {**runtime.versions(), "cpu": platform.processor() or platform.machine()}
    rows = [
        compare("batched engine, 4,096 accounts", batched_engine(4096), single_env(anytrading), "steps/s"),
        compare(
            "single env with full info", single_env(TradingEnvironment(bars, features, config)),
            single_env(anytrading), "steps/s",
        ),
        compare(f"SAC update, batch {BATCH}, 256x256", our_update(), sb3_update(), "updates/s"),
    ]  # fmt: skip
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, one thread, processor seconds, medians of {ROUNDS} rounds"
    )
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    print("peers: gym-anytrading 2.0.0 (forex-v0, unwrapped), stable-baselines3 2.9.2\n")
    print("| | this project | peer | ratio (range) | unit |\n|---|---|---|---|---|")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    raise SystemExit(main())
