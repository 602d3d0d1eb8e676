"""Stretches of train rows between holes, and the vector env whose accounts never cross one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from sac_kernel.core.errors import DataError
from sac_kernel.market.envs import TradingVectorEnv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.market.market import Market


def of(market: Market) -> list[tuple[int, int]]:
    """Return (first row, row after the last) of each stretch with features that has two bars or more."""
    edges = np.flatnonzero(np.diff(market.open_time.to_numpy("datetime64[ns]")) > market.hole) + 1
    bounds = zip([0, *edges], [*edges, len(market.bars)], strict=True)
    return [(s, int(b)) for a, b in bounds if b - (s := max(int(a), market.first_bar)) > 1]


def block_env(market: Market, config: TradingEnvConfig, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return the vector env over a market with holes: accounts are shared out, and no episode crosses a hole.

    Stretches shorter than the horizon are not trained on.
    """
    found = of(market)
    stretches = [(a, b) for a, b in found if b - 1 - a >= config.horizon_bars]
    if not stretches:
        longest = max((b - 1 - a for a, b in found), default=0)
        msg = (
            f"The horizon needs {config.horizon_bars} train bars without a gap, but the longest stretch has "
            f"{longest}. Make the folds longer or the horizon shorter."
        )
        raise DataError(msg)
    lengths = np.array([b - a for a, b in stretches])
    shares = _shares(num_envs, lengths)
    envs = [
        TradingVectorEnv(part(market, *where), config, int(n))
        for where, n in zip(stretches, shares, strict=True)
        if n
    ]
    return envs[0] if len(envs) == 1 else BlockVectorEnv(envs)


class BlockVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Vector envs over different stretches of one market, as one."""

    metadata = TradingVectorEnv.metadata

    def __init__(self, envs: Sequence[TradingVectorEnv]) -> None:
        self.envs = list(envs)
        self.num_envs = sum(env.num_envs for env in envs)
        self.single_observation_space = envs[0].single_observation_space
        self.single_action_space = envs[0].single_action_space
        self._cuts = np.cumsum([env.num_envs for env in envs])[:-1]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Start all accounts; each stretch draws its own starts."""
        seeds = [None if seed is None else 1000 * i + seed for i in range(len(self.envs))]
        obs = [env.reset(seed=s, options=options)[0] for env, s in zip(self.envs, seeds, strict=True)]
        return np.concatenate(obs), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Step every account; `final_obs` is given where one ended."""
        parts = [
            env.step(a) for env, a in zip(self.envs, np.split(np.asarray(actions), self._cuts), strict=True)
        ]
        obs, rewards, terminated, truncated = (np.concatenate([part[i] for part in parts]) for i in range(4))
        infos: dict[str, Any] = {}
        if (terminated | truncated).any():
            final = np.concatenate([part[4].get("final_obs", part[0]) for part in parts])
            infos = {"final_obs": final, "_final_obs": terminated | truncated}
        return obs, rewards, terminated, truncated, infos


def _shares(total: int, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return accounts a stretch, in proportion to its bars, by largest remainder."""
    exact = total * lengths / lengths.sum()
    out = np.floor(exact).astype(np.int64)
    out[np.argsort(out - exact, kind="stable")[: total - out.sum()]] += 1
    return out


def part(market: Market, start: int, end: int) -> Market:
    """Return the rows start to end - 1 of a market, all of them with features."""
    expected = market.return_forecast
    return dataclasses.replace(
        market,
        bars=market.bars[start:end],
        minutes=market.minutes[start:end],
        observed=market.observed[start:end],
        first_bar=0,
        open_time=market.open_time[start:end],
        return_forecast=None if expected is None else expected[start:end],
    )
