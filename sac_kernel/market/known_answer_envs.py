"""Markets with a known optimum as vector environments, for learners that act: Gaussian SAC and the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from sac_kernel.core.config import require

if TYPE_CHECKING:
    from sac_kernel.market.known_answer import Array, KnownAnswerMarket, Paths


class MarketVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """A market as a vector env: obs = (features, previous position), action = next position.

    Reward of a decision: action x sum of the returns until the next - cost x |action - previous position|. Every
    `horizon` bars all accounts are truncated (a time limit: bootstrap) and start flat on new paths.

    Parameters
    ----------
    market : what is traded
    num_envs : parallel accounts
    path : None simulates fresh paths; otherwise one path (n = 1) on which every account starts at a random bar
    returns : with `path`, what a unit of position earns, (T,); None is the realised return. A forecast of the
        return removes the noise from the reward and keeps its optimum
    every : bars between decisions, a divisor of `horizon`; the position is held between them
    """

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012  # gymnasium's own form

    def __init__(
        self,
        market: KnownAnswerMarket,
        num_envs: int = 60,
        horizon: int = 250,
        path: Paths | None = None,
        returns: Array | None = None,
        every: int = 1,
    ) -> None:
        require(
            horizon % every == 0, "MarketVectorEnv", f"horizon must be a multiple of every = {every}", horizon
        )
        self.market, self.num_envs, self.horizon, self.path = market, num_envs, horizon, path
        self._every = every
        if path is not None:
            bars = len(path.mean)
            require(bars >= horizon, "MarketVectorEnv", f"path must have >= {horizon} bars", bars)
            self._returns = path.returns[:, 0] if returns is None else np.asarray(returns, np.float64)
            length = len(self._returns)
            require(length == bars, "MarketVectorEnv", f"returns must be {bars} long", length)
        width = market.state_dim
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._rng = np.random.default_rng(0)
        self._position, self._t = np.zeros(num_envs), 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401, ARG002
        """Return the first observations; `seed` starts the generator anew."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._start()
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[Any, Array, Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Trade to `actions` (n, 1) at the close, earn the returns until the next decision."""
        target, end = np.asarray(actions, np.float64)[:, 0], self._t + self._every
        earned = self._earned[self._t : end].sum(axis=0)
        reward = target * earned - self.market.cost * np.abs(target - self._position)
        self._position, self._t = target, end
        obs, ended = self._observe(), np.full(self.num_envs, self._t == self.horizon)
        infos: dict[str, Any] = {}
        if ended[0]:
            infos = {"final_obs": obs, "_final_obs": ended}
            self._start()
            obs = self._observe()
        return obs, reward, np.zeros(self.num_envs, bool), ended, infos

    def _start(self) -> None:
        if self.path is None:
            paths = self.market.simulate(self.horizon, self.num_envs, self._rng)
            self._features, self._earned = paths.features, paths.returns
        else:
            first = self._rng.integers(0, len(self.path.mean) - self.horizon + 1, self.num_envs)
            bar = first + np.arange(self.horizon + 1)[:, None]
            self._features, self._earned = self.path.features[bar, 0], self._returns[bar[:-1]]
        self._position, self._t = np.zeros(self.num_envs), 0

    def _observe(self) -> Any:  # noqa: ANN401
        obs = np.concatenate((self._features[self._t], self._position[:, None]), axis=1)
        return obs.astype(np.float32)


class BanditVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """M0: one decision, the observation is s = +-1, the reward action x s; the optimum is s."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012  # gymnasium's own form

    def __init__(self, num_envs: int = 60) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._rng = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401, ARG002
        """Return the first signs; `seed` starts the generator anew."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        return self._draw(), {}

    def step(self, actions: Any) -> tuple[Any, Array, Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Return action x sign; every step is the last of its episode."""
        last, ended = self._sign, np.ones(self.num_envs, bool)
        reward = (np.asarray(actions, np.float64) * last)[:, 0]
        return self._draw(), reward, ended, ~ended, {"final_obs": last, "_final_obs": ended}

    def _draw(self) -> Any:  # noqa: ANN401
        self._sign = self._rng.choice([-1.0, 1.0], (self.num_envs, 1)).astype(np.float32)
        return self._sign
