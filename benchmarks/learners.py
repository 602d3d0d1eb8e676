"""This project, Stable-Baselines3 and SBX behind one interface: the same settings, the same envs, own loops.

A setting says the same to each of them; a setting that is left out is the learner's own default ("as shipped").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import Interaction, SACAgent, as_vector_env

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Settings = dict[str, Any]
    OnStep = Callable[[int], bool]

LEARNERS = ("ours", "sb3", "sbx")
TITLES = {"ours": "this project", "sb3": "Stable-Baselines3", "sbx": "SBX"}


def draw(rng: random.Random) -> Settings:
    """Return settings drawn at random: the one search space of all learners.

    Returns
    -------
    learning_rate : of all Adams; log-uniform
    batch_size : transitions an update
    tau : Polyak weight of the online critic
    initial_alpha : temperature at the start; log-uniform
    target_entropy : nats an action dimension, from the first update to the last; uniform
    updates_per_step : gradient updates a vector step
    width : of both hidden layers of every net
    """
    return {
        "learning_rate": round(10 ** rng.uniform(-4.0, -2.5), 6),
        "batch_size": rng.choice((64, 128, 256, 512)),
        "tau": rng.choice((0.005, 0.01, 0.02, 0.05)),
        "initial_alpha": round(10 ** rng.uniform(-2.3, 0.0), 4),
        "target_entropy": round(rng.uniform(-4.0, -0.5), 2),
        "updates_per_step": rng.choice((1, 2, 4)),
        "width": rng.choice((64, 128, 256)),
    }


def our_fields(settings: Settings, num_envs: int, action_dim: int) -> dict[str, Any]:
    """Return the fields of `SACConfig` that say the same as `settings`."""
    fields = {name: settings[name] for name in ("learning_rate", "batch_size", "tau") if name in settings}
    if "initial_alpha" in settings:
        fields["initial_alpha"] = settings["initial_alpha"]
    if "target_entropy" in settings:  # constant, as the peers know no other
        nats = settings["target_entropy"] * action_dim
        fields.update(target_entropy=nats, final_target_entropy=nats)
    if "width" in settings:
        fields["hidden_dims"] = (settings["width"],) * 2
    if "warmup_steps" in settings:
        fields["warmup_steps"] = settings["warmup_steps"]
    return {**fields, "utd_ratio": settings.get("updates_per_step", 1) / num_envs}


def peer_arguments(settings: Settings, action_dim: int) -> dict[str, Any]:
    """Return the arguments of both peers' SAC that say the same as `settings`."""
    names = {
        "learning_rate": "learning_rate", "batch_size": "batch_size", "tau": "tau",
        "updates_per_step": "gradient_steps", "warmup_steps": "learning_starts",
    }  # fmt: skip
    arguments = {peer: settings[name] for name, peer in names.items() if name in settings}
    if "initial_alpha" in settings:
        arguments["ent_coef"] = f"auto_{settings['initial_alpha']}"
    if "target_entropy" in settings:
        arguments["target_entropy"] = settings["target_entropy"] * action_dim
    if "width" in settings:
        arguments["policy_kwargs"] = {"net_arch": [settings["width"]] * 2}
    return arguments


class Learner(Protocol):
    """What a benchmark asks of a learner."""

    def learn(self, env_steps: int, on_step: OnStep) -> None:
        """Train for `env_steps` transitions, or until `on_step` (transitions so far) returns False."""

    def act(self, obs: Any) -> Any:
        """Return greedy actions in the env's units for observations (n, S)."""


class Ours:
    """This project's agent: `SACAgent.learn`, with a look after every vector step."""

    def __init__(self, env: Any, settings: Settings, gamma: float, seed: int) -> None:
        self._env, self._seed = as_vector_env(env), seed
        space = self._env.single_action_space
        fields = our_fields(settings, self._env.num_envs, space.shape[0])
        width = self._env.single_observation_space.shape[0]
        made = SACConfig if settings.get("textbook") else SACConfig.for_market
        config = made(state_dim=width, action_dim=space.shape[0], gamma=gamma, **fields)
        self.agent = SACAgent(config, device="cpu", seed=seed)
        self._low, self._span = space.low, (space.high - space.low) / 2.0

    def learn(self, env_steps: int, on_step: OnStep) -> None:
        """Train; the same updates as `SACAgent.learn`, bit for bit."""
        loop = Interaction(self.agent, self._env, self._seed)
        while loop.env_steps < env_steps:
            loop.advance()
            if not on_step(loop.env_steps):
                break
        self.agent.pop_metrics(self.agent.updates)

    def act(self, obs: Any) -> Any:
        """Return greedy actions."""
        return self._low + (self.agent.select_action(obs, evaluate=True) + 1.0) * self._span


class Peer:
    """Stable-Baselines3's or SBX's SAC through its own `learn` and a callback."""

    def __init__(self, name: str, env: Any, settings: Settings, gamma: float, seed: int) -> None:
        if name == "sb3":
            from stable_baselines3 import SAC
        else:
            from sbx import SAC
        if isinstance(env, gym.vector.VectorEnv):
            from benchmarks.sb3_env import MarketVecEnv

            env = MarketVecEnv(env)
        arguments = peer_arguments(settings, env.action_space.shape[0])
        self._model = SAC("MlpPolicy", env, gamma=gamma, seed=seed, device="cpu", **arguments)

    def learn(self, env_steps: int, on_step: OnStep) -> None:
        """Train."""
        from stable_baselines3.common.callbacks import BaseCallback

        class Look(BaseCallback):
            def _on_step(self) -> bool:
                return on_step(self.num_timesteps)

        self._model.learn(env_steps, callback=Look(), log_interval=None)

    def act(self, obs: Any) -> Any:
        """Return greedy actions."""
        return self._model.predict(obs, deterministic=True)[0]


def build(name: str, env: Any, settings: Settings, gamma: float, seed: int) -> Learner:
    """Return one of `LEARNERS` on a market or a single Gymnasium env."""
    if name == "ours":
        return Ours(env, settings, gamma, seed)
    return Peer(name, env, settings, gamma, seed)
