"""A market of known answer as the VecEnv of Stable-Baselines3, which SBX takes too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

if TYPE_CHECKING:
    from sac_kernel.market.known_answer_envs import MarketVectorEnv


class MarketVecEnv(VecEnv):
    """The same accounts, paths and rewards as `MarketVectorEnv`.

    The last observation of a truncated episode travels in the infos; both peers bootstrap from it.
    """

    def __init__(self, market: MarketVectorEnv) -> None:
        self._market, self._actions = market, None
        super().__init__(market.num_envs, market.single_observation_space, market.single_action_space)

    def reset(self) -> Any:
        """Return the first observations, from the seed that `seed` set."""
        return self._market.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: Any) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Trade and return (observations, rewards, done, infos)."""
        obs, reward, _, truncated, last = self._market.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(truncated):
            infos[i] = {"terminal_observation": last["final_obs"][i], "TimeLimit.truncated": True}
        return obs, reward.astype(np.float32), truncated, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the market, None where it has no such, for each account."""
        return [getattr(self._market, attr_name, None)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ARG002
        """Refuse: accounts have nothing of their own to set."""
        msg = f"MarketVecEnv.set_attr: accounts of a market have no attributes of their own, got {attr_name}"
        raise AttributeError(msg)

    def env_method(self, method_name: str, *_args: Any, **_kwargs: Any) -> list[Any]:
        """Refuse: accounts have no methods of their own."""
        msg = f"MarketVecEnv.env_method: accounts of a market have no methods of their own, got {method_name}"
        raise AttributeError(msg)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        """Return False for each account."""
        return [False] * len(list(self._get_indices(indices)))
