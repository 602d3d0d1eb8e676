"""`python -m benchmarks.market`: the account engine beside two public trading envs, as ratios of steps/s.

Peers come from PyPI and are used as shipped: gym-anytrading 2.0.0 (forex-v0, unwrapped; no costs in the
reward, no SL/TP, no margin) and gym-trading-env 0.3.5 (fees and interest on, unwrapped). Our side always has
all costs, SL/TP and margin on.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pandas as pd

from benchmarks import timing
from sac_kernel.core import packages
from sac_kernel.core.device import set_threads
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment, TradingVectorEnv
from sac_kernel.market.market import prepare_market
from sac_kernel.market.records import Account, Trace, blank, new_table
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.pipeline import DataConfig, DataPipeline

if TYPE_CHECKING:
    from collections.abc import Callable

NUM_ENVS = 4096
HORIZON = 1000
CONFIG = TradingEnvConfig(horizon=HORIZON, stop_loss_bps=50, take_profit_bps=100)
SIZES = (10_000, 100_000, 1_000_000)


def sample() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return bars and features of the embedded sample's train split."""
    data = DataPipeline(DataConfig()).build()
    features = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)[0]
    return data.train[data.traded], features


def batched_engine(bars: pd.DataFrame, features: pd.DataFrame, *, hold: bool) -> Callable[[], int]:
    """Return a unit of work: one step of all accounts, observations written, from random bars.

    `hold` keeps the targets; else each step brings a new one to each account, so each step trades.
    """
    m = prepare_market(bars, features, CONFIG, close_at_end=False)
    rng = np.random.default_rng(0)
    accounts, rewards = new_table(Account, NUM_ENVS), np.zeros(NUM_ENVS)
    obs = np.zeros((NUM_ENVS, len(m.observation_names)), np.float32)
    targets = rng.uniform(-1, 1, (1 if hold else 16, NUM_ENVS))
    left = 0

    def step() -> int:
        nonlocal left
        if left == 0:
            left = HORIZON
            for i, t in enumerate(rng.integers(m.first_bar, len(m.bars) - HORIZON - 1, NUM_ENVS)):
                engine.reset(accounts[i], m.bars, m.terms, t, HORIZON + 1, 1e5, 0.0)
        left -= 1
        wanted = targets[left % len(targets)]
        engine.step_many(accounts, m.bars, m.minutes, m.terms, m.observed, wanted, rewards, obs)
        return NUM_ENVS

    return step


def vector_env(bars: pd.DataFrame, features: pd.DataFrame) -> Callable[[], int]:
    """Return a unit of work: one step of the vector env, autoreset included."""
    env = TradingVectorEnv(prepare_market(bars, features, CONFIG, close_at_end=False), CONFIG, NUM_ENVS)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (16, NUM_ENVS, 1)).astype(np.float32)
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        env.step(actions[count % 16])
        return NUM_ENVS

    return step


def single_env(env: Any) -> Callable[[], int]:
    """Return a unit of work: 100 random steps of a Gymnasium env."""
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    n = int(env.action_space.n) if discrete else 0
    actions = rng.integers(0, n, 100) if discrete else rng.uniform(-1, 1, (100, 1)).astype(np.float32)

    def step() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return len(actions)

    return step


def anytrading() -> Any:
    """Return gym-anytrading's forex env as shipped."""
    import gym_anytrading  # noqa: F401  # registers its envs

    return gym.make("forex-v0", disable_env_checker=True).unwrapped


def gym_trading_env(bars: pd.DataFrame, features: pd.DataFrame) -> Any:
    """Return Gym-Trading-Env over the same bars and features, fees and interest on."""
    from gym_trading_env.environments import TradingEnv

    frame = bars.join(features.add_prefix("feature_")).dropna()
    frame.index = frame.index.tz_localize(None)
    return TradingEnv(df=frame, positions=[-1, 0, 1], trading_fees=1e-4, borrow_interest_rate=1e-6, verbose=0)


def rows() -> list[str]:
    """Return the rows of the comparison."""
    bars, features = sample()
    other = single_env(anytrading())
    ours = TradingEnvironment(bars, features, CONFIG)
    table = [
        timing.compare(title, work, other, "steps/s")
        for title, work in (
            (f"engine, {NUM_ENVS:,} accounts, new target / gym-anytrading", batched_engine(bars, features, hold=False)),
            (f"engine, {NUM_ENVS:,} accounts, held target / gym-anytrading", batched_engine(bars, features, hold=True)),
            (f"vector env, {NUM_ENVS:,} accounts / gym-anytrading", vector_env(bars, features)),
            ("single env, full info / gym-anytrading", single_env(ours)),
        )
    ]  # fmt: skip
    try:
        peer = gym_trading_env(bars, features)
    except ImportError:
        return [*table, "| gym-trading-env is not installed | | | | |"]
    title = "single env, full info / Gym-Trading-Env"
    return [*table, timing.compare(title, single_env(ours), single_env(peer), "steps/s")]


def synthetic(n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return n five-minute bars of a random walk and 27 features of noise."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2010-01-04", periods=n, freq="5min", tz="UTC")
    close = 1.1 * np.exp(np.cumsum(rng.normal(0, 3e-4, n)))
    opened = np.concatenate(([1.1], close[:-1]))
    high, low = np.maximum(opened, close) * 1.0001, np.minimum(opened, close) * 0.9999
    bars = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, times)
    bars = Bars(bars, side="bid", seconds=300)
    features = rng.standard_normal((n, 27), np.float32)
    return bars, pd.DataFrame(features, times, [f"f{i}" for i in range(27)])


def seconds(work: Callable[[], Any]) -> float:
    """Return the median processor seconds of one call."""
    taken = []
    for _ in range(timing.ROUNDS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def size_row(n: int) -> str:
    """Return the row of one number of bars: layout, a whole pass, batched steps."""
    bars, features = synthetic(n)
    layout = seconds(lambda: prepare_market(bars, features, CONFIG, close_at_end=True))
    m = prepare_market(bars, features, CONFIG, close_at_end=True)
    targets, trace = np.random.default_rng(0).uniform(-1, 1, n - 1), new_table(Trace, n - 1)
    account = blank(Account)

    def one_pass() -> None:
        engine.reset(account, m.bars, m.terms, 0, n, 1e12, 0.0)
        engine.run_targets(account, m.bars, m.minutes, m.terms, 0.1 * targets, trace)

    whole = seconds(one_pass)
    work = batched_engine(bars, features, hold=False)
    work()
    batched = statistics.median(timing.rate(work) for _ in range(timing.ROUNDS))
    done = account.t + 1
    return f"| {n:,} | {layout / n * 1e9:,.0f} | {whole / done * 1e9:,.0f} | {batched:,.0f} |"


def main() -> int:
    """Print both tables as Markdown, with versions and the date."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    set_threads(1)
    print(timing.header(packages.versions()))
    print(f"\n{timing.HEAD}")
    for row in rows():
        print(row)
    print("\n| bars | layout, ns a bar | whole pass, ns a bar | batched, steps/s |\n|---|---|---|---|")
    for n in SIZES:
        print(size_row(n))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    raise SystemExit(main())
