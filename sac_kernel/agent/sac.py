"""Soft Actor-Critic: the agent, and the loop that feeds it from any Box env.

The agent knows arrays and widths; it never imports data, features or an env.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from sac_kernel import __version__
from sac_kernel.agent.config import SACConfig as SACConfig  # the guide's users import it from here
from sac_kernel.agent.cuda_graph import CapturedUpdate
from sac_kernel.agent.networks import Networks
from sac_kernel.agent.replay import Batch, ReplayBuffer
from sac_kernel.agent.update import UPDATE_METRICS, Learner, Schedule
from sac_kernel.core import files
from sac_kernel.core.config import difference, from_flat, require, to_flat
from sac_kernel.core.device import resolve_device
from sac_kernel.core.errors import CheckpointError, ConfigError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    FeatureArray = NDArray[np.float32]

logger = logging.getLogger(__name__)

AGENT_SCHEMA = 1
WIDTH_FIELDS = ("state_dim", "action_dim", "hidden_dims")


class SACAgent:
    """A Soft Actor-Critic agent.

    Parameters
    ----------
    config : widths and hyper-parameters
    agent_id : 1, 2 or 3; a label that names files and presets
    device : 'auto', 'cpu', 'cuda' or 'cuda:N'
    seed : of weights, exploration and replay

    Attributes
    ----------
    context : plain values that travel with the saved agent (features, env, data hash)
    updates : gradient updates so far
    batch_size : transitions an update; the config's, halved whenever a GPU's memory ran out
    """

    def __init__(
        self, config: SACConfig | None = None, agent_id: int = 1, device: str = "auto", seed: int = 0
    ) -> None:
        self.config = config or SACConfig()
        self.agent_id = agent_id
        self.device = resolve_device(device)
        self.context: dict[str, Any] = {}
        self.updates = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets = _networks(self.config)
        self.nets = nets.to(self.device)
        self.learner = Learner(self.nets, self.config.learning_rate)
        captured = self.config.cuda_graph and self.device.type == "cuda"
        self._captured = CapturedUpdate(self.learner) if captured else None
        self.batch_size = self.config.batch_size
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        self.metrics_sum = torch.zeros(len(UPDATE_METRICS), device=self.device)
        self._buffer: ReplayBuffer | None = None
        self._schedule = self._make_schedule()

    @property
    def buffer(self) -> ReplayBuffer:
        """Return the replay ring, allocated when first used."""
        if self._buffer is None:
            c = self.config
            self._buffer = ReplayBuffer(c.buffer_capacity, c.state_dim, c.action_dim, self.device)
        return self._buffer

    def select_action(self, state: Any, evaluate: bool = False) -> FeatureArray:  # noqa: ANN401
        """Return actions in [-1, 1] for one state (S,) -> (A,) or a batch (B, S) -> (B, A).

        Parameters
        ----------
        state : float array; its width must be `config.state_dim`
        evaluate : True is deterministic: tanh of the mean of the averaged actor; False samples
        """
        obs = torch.as_tensor(np.asarray(state, np.float32), device=self.device)
        self.check_width(obs.shape[-1])
        with torch.inference_mode():
            if evaluate:
                action = self.nets.average.greedy(obs)
            else:
                shape = (*obs.shape[:-1], self.config.action_dim)
                noise = torch.randn(shape, generator=self.generator, device=self.device)
                action = self.nets.actor.explore(obs, noise)
        result: FeatureArray = action.cpu().numpy()
        return result

    def check_width(self, width: int) -> None:
        """Raise CheckpointError, naming what is seen, unless a state of this width is what the agent knows."""
        if width != self.config.state_dim:
            names = self.context.get("observation_names", [])
            hint = f" ({', '.join(names)})" if names else ""
            msg = (
                f"SACAgent.select_action: a state of width {self.config.state_dim}{hint} is required, found "
                f"{width}; build the env from the features this agent was trained on"
            )
            raise CheckpointError(msg)

    def update(self) -> None:
        """Do one gradient update from the replay ring; its metrics are added to `metrics_sum`.

        Where the GPU's memory does not suffice, the batch is halved for good and the update done again.
        """
        while True:
            try:
                self._update()
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                torch.cuda.empty_cache()  # does nothing where CUDA was never used
                logger.warning(
                    "%s: out of memory in update %d; the batch is halved to %d transitions from here on",
                    self.device, self.updates + 1, self.batch_size,
                )  # fmt: skip
            else:
                return

    @torch.inference_mode()
    def _update(self) -> None:
        c = self.config
        batch = self.buffer.sample(self.batch_size, self.generator)
        shape = (2, self.batch_size, c.action_dim)
        noise = torch.randn(shape, generator=self.generator, device=self.device)
        self._schedule.average_weight.fill_(c.average_weight(self.updates))
        self._schedule.target_entropy.fill_(c.entropy_target(self.updates))
        self.metrics_sum += (self._captured or self.learner).update(batch, noise, self._schedule)
        self.updates += 1

    def pop_metrics(self, updates: int) -> dict[str, float | None]:
        """Return the mean of `UPDATE_METRICS` over the last `updates` and start a new sum.

        Raises
        ------
        NonFiniteError
            If one of them is not finite, naming it; nothing is saved after that.
        """
        total = self.metrics_sum.tolist()
        self.metrics_sum.zero_()
        if updates == 0:
            return dict.fromkeys(UPDATE_METRICS)
        means = {name: value / updates for name, value in zip(UPDATE_METRICS, total, strict=True)}
        for name, value in means.items():
            if not math.isfinite(value):
                msg = (
                    f"SACAgent: finite training metrics are required, found {name} = {value} at update "
                    f"{self.updates}; lower learning_rate or reward_scale; the last checkpoint is intact"
                )
                raise NonFiniteError(msg, name)
        return dict(means)

    def learn(self, env: Any, env_steps: int, seed: int = 0) -> SACAgent:  # noqa: ANN401
        """Train on any Gymnasium Env or VectorEnv (SAME_STEP) with Box spaces for `env_steps` transitions."""
        loop = Interaction(self, as_vector_env(env), seed)
        while loop.env_steps < env_steps:
            loop.advance()
        self.pop_metrics(self.updates)
        self.check_finite()
        return self

    def check_finite(self) -> None:
        """Raise NonFiniteError if a learnt number, a moment or a metric is not finite, naming the first.

        It reads the device, so it stands before everything that is saved or judged, and in no update: a loss or
        a gradient that is not finite makes its weights so, and they stay so.
        """
        for name, tensor in _named(self._learnt()):
            if not torch.isfinite(tensor).all():
                msg = (
                    f"SACAgent: finite numbers are required, found NaN or infinity in {name} at update "
                    f"{self.updates}: the update diverged; lower learning_rate or reward_scale; nothing was saved "
                    "since, the last good state is intact"
                )
                raise NonFiniteError(msg, name)

    def save(self, path: str | Path) -> None:
        """Write the agent atomically: weights, config and context, without optimisers or replay.

        Equal content is equal bytes, whatever the file's name.
        """
        files.write_bytes(Path(path), files.pt_bytes(self.content()))

    def content(self) -> dict[str, Any]:
        """Return what `save` writes: tensors and plain values only, every number finite."""
        self.check_finite()
        return {
            "schema": AGENT_SCHEMA,
            "agent_id": self.agent_id,
            "code_version": __version__,
            "updates": self.updates,
            "config": to_flat(self.config),
            **self.context,
            "weights": _cpu_copy(self.nets.state_dict()),
        }

    def load(self, path: str | Path) -> None:
        """Fill this agent from a saved one, or raise CheckpointError with the difference."""
        path = Path(path)
        content = _checked(files.read_pt(path), path)
        saved, here = content["config"], to_flat(self.config)
        lines = difference({k: saved[k] for k in WIDTH_FIELDS}, {k: here[k] for k in WIDTH_FIELDS})
        names = content.get("observation_names"), self.context.get("observation_names")
        if None not in names and names[0] != names[1]:
            lines += difference({"observation": names[0]}, {"observation": names[1]})
        if lines:
            msg = f"{path}: an agent of this shape is required; {'; '.join(lines)}; or use SACAgent.from_checkpoint"
            raise CheckpointError(msg)
        self._fill(content, path)

    def load_weights(self, path: str | Path) -> None:
        """Take over a saved agent's weights, as `load` does; context, updates, optimisers and replay stay."""
        context, updates = self.context, self.updates
        self.load(path)
        self.context, self.updates = context, updates

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto") -> SACAgent:
        """Return the saved agent with its own config, ready to act."""
        path = Path(path)
        content = _checked(files.read_pt(path), path)
        try:
            config = from_flat(SACConfig, content["config"], f"{path}: config")
        except ConfigError as err:
            msg = f"{path}: a config of this version is required, found: {err}"
            raise CheckpointError(msg) from err
        # Before memory is taken for it: a config may claim any width, the file holds what it holds.
        with torch.device("meta"):
            layers = len(config.hidden_dims)
            nets = _networks(config) if layers <= len(content["weights"]) else nn.Module()
        _check_like(content["weights"], nets.state_dict(), f"{path}: weights")
        agent = cls(config, int(content["agent_id"]), device)
        agent._fill(content, path)
        return agent

    def training_state(self) -> dict[str, Any]:
        """Return everything that learning depends on: what continues this agent bit for bit."""
        self.check_finite()
        counts = {"updates": self.updates, "batch_size": self.batch_size}
        return {**self._learnt(), **counts, "buffer": self.buffer.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `training_state`.

        Raises
        ------
        CheckpointError
            If a part is of another shape or not finite; it is named, and this agent is of no use any more.
        """
        for name, own in self._learnt().items():
            _check_like(state[name], own, f"SACAgent.restore: {name}")
        self.nets.load_state_dict(state["weights"])
        self.learner.restore(state["learner"])
        self.generator.set_state(state["generator"])
        self.metrics_sum.copy_(state["metrics_sum"])
        self.updates = int(state["updates"])
        self.batch_size = int(state["batch_size"])
        self.buffer.restore(state["buffer"])

    def _learnt(self) -> dict[str, Any]:
        return {
            "weights": _cpu_copy(self.nets.state_dict()),
            "learner": _cpu_copy(self.learner.state()),
            "generator": self.generator.get_state(),
            "metrics_sum": self.metrics_sum.cpu().clone(),
        }

    def _fill(self, content: Mapping[str, Any], path: Path) -> None:
        weights = content["weights"]
        _check_like(weights, self.nets.state_dict(), f"{path}: weights")
        self.nets.load_state_dict(weights)
        fixed = {"schema", "agent_id", "code_version", "updates", "config", "weights"}
        self.context = {k: v for k, v in content.items() if k not in fixed}
        self.updates = int(content["updates"])

    def _make_schedule(self) -> Schedule:
        c = self.config
        values = (c.gamma, c.tau, c.entropy_target(0), c.reward_scale or 1.0, 1.0 - c.average_decay)
        return Schedule(*(torch.tensor(v, device=self.device) for v in values))


class Interaction:
    """The off-policy loop: act in a vector env, store transitions, do the updates they are owed.

    The fraction of an update is carried over, so their number is `utd_ratio` times the transitions whatever
    the number of envs; those owed for the warm-up follow right after it.

    Attributes
    ----------
    env_steps : single-environment transitions so far
    owed : updates due, the fraction included
    """

    def __init__(self, agent: SACAgent, env: Any, seed: int) -> None:  # noqa: ANN401
        self.agent, self.env = agent, env
        self.env_steps, self.owed = 0, 0.0
        self.abs_action = 0.0  # mean |action| of the last vector step
        space = env.single_action_space
        for found, name in ((env.single_observation_space, "state_dim"), (space, "action_dim")):
            required = (
                f"{name} = {getattr(agent.config, name)} (SACConfig) must be the width of the env's space"
            )
            require(found.shape == (getattr(agent.config, name),), "SACAgent.learn", required, found.shape[0])
        capacity = agent.config.buffer_capacity
        require(env.num_envs <= capacity, "SACAgent.learn", "num_envs must fit buffer_capacity", env.num_envs)
        self._low, self._span = space.low, (space.high - space.low) / 2.0
        self.rng = np.random.default_rng(seed + 2)
        self.obs, _ = env.reset(seed=seed)

    def advance(self) -> NDArray[np.float64]:
        """Do one vector step and the updates due; return the rewards, shape (num_envs,), unscaled."""
        agent, env = self.agent, self.env
        c, n = agent.config, env.num_envs
        if self.env_steps < c.warmup_steps:
            action = self.rng.uniform(-1.0, 1.0, (n, c.action_dim)).astype(np.float32)
        else:
            action = agent.select_action(self.obs)
        self.abs_action = float(np.abs(action).mean())
        if not math.isfinite(self.abs_action):
            name = "action"
            raise self._not_finite(name)
        obs, reward, terminated, truncated, infos = env.step(self._low + (action + 1.0) * self._span)
        next_obs = _before_reset(obs, terminated | truncated, infos)
        values = (self.obs, action, reward, terminated, next_obs)
        try:
            agent.buffer.add(Batch(*(torch.as_tensor(np.asarray(v, np.float32)) for v in values)))
        except NonFiniteError as err:
            raise self._not_finite(err.tensor) from err
        self.obs = obs
        self.env_steps += n
        self.owed += n * c.utd_ratio
        while self.env_steps >= c.warmup_steps and self.owed >= 1.0:
            agent.update()
            self.owed -= 1.0
        return np.asarray(reward, np.float64)

    def _not_finite(self, name: str) -> NonFiniteError:
        """Return the error for a step that was stopped: with its number, the tensor and the likely cause."""
        cause = "the env made it: look at its prices and features there"
        if name == "action" and np.isfinite(self.obs).all():
            cause = "the policy's weights are too large: lower learning_rate or reward_scale"
            try:
                self.agent.check_finite()
            except NonFiniteError as err:
                cause = str(err)
        elif name == "action":
            name = "obs"
        msg = (
            f"Interaction.advance: finite numbers are required, found NaN or infinity in {name} at environment "
            f"step {self.env_steps}; {cause}; nothing of this step was stored, the last good state is intact"
        )
        return NonFiniteError(msg, name)


def as_vector_env(env: Any) -> Any:  # noqa: ANN401
    """Return a SAME_STEP vector env: `env` itself, or a single env wrapped; Box spaces are required."""
    mode = gym.vector.AutoresetMode.SAME_STEP
    if not isinstance(env, gym.vector.VectorEnv):
        single = env
        env = gym.vector.SyncVectorEnv([lambda: single], autoreset_mode=mode)
    elif env.metadata.get("autoreset_mode") != mode:
        found = env.metadata.get("autoreset_mode")
        msg = f"SACAgent.learn: a vector env with autoreset SAME_STEP is required, found {found}"
        raise ConfigError(msg)
    for name in ("single_observation_space", "single_action_space"):
        space = getattr(env, name)
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            msg = f"SACAgent.learn: {name} must be a one-dimensional Box, got {space}"
            raise ConfigError(msg)
    if not env.single_action_space.is_bounded():
        msg = f"SACAgent.learn: a bounded action space is required, got {env.single_action_space}"
        raise ConfigError(msg)
    return env


def _before_reset(obs: Any, done: Any, infos: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return next observations with the last one of each finished episode put back."""
    if not done.any():
        return obs
    next_obs = np.array(obs)
    for i in np.flatnonzero(done):
        next_obs[i] = infos["final_obs"][i]
    return next_obs


def _cpu_copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors cloned to the CPU, sharing nothing."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _networks(config: SACConfig) -> Networks:
    return Networks(config.state_dim, config.action_dim, config.hidden_dims, config.initial_alpha)


def _named(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401
    """Yield the path and tensor of every floating-point tensor in nested dictionaries."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _named(inner, f"{prefix}.{name}" if prefix else name)
    elif value.is_floating_point():
        yield prefix, value


def _check_like(saved: Any, own: Any, where: str) -> None:  # noqa: ANN401
    """Raise CheckpointError unless `saved` has the names, shapes and types of `own`, every number finite."""
    found = required = ""
    if isinstance(own, dict):
        names = set(saved) if isinstance(saved, dict) else set()
        if names == own.keys():
            for name, inner in own.items():
                _check_like(saved[name], inner, f"{where}.{name}")
        else:
            lacking, extra = (sorted(map(str, s))[:3] for s in (own.keys() - names, names - own.keys()))
            required, found = f"{len(own)} names", f"without {lacking}, with {extra}"
    elif not isinstance(saved, Tensor) or (saved.shape, saved.dtype) != (own.shape, own.dtype):
        required = f"{tuple(own.shape)} {own.dtype}"
        found = f"{tuple(saved.shape)} {saved.dtype}" if isinstance(saved, Tensor) else type(saved).__name__
    elif not torch.isfinite(saved).all():
        required, found = "finite numbers", "NaN or infinity"
    if required:
        msg = f"{where}: {required} required, found {found}; use an earlier file, or the config it was made with"
        raise CheckpointError(msg)


_CONTENT_TYPES = {"schema": int, "agent_id": int, "updates": int, "config": dict, "weights": dict}


def _checked(content: dict[str, Any], path: Path) -> dict[str, Any]:
    missing = [name for name, kind in _CONTENT_TYPES.items() if type(content.get(name)) is not kind]
    if missing:
        msg = (
            f"{path}: a saved agent with {', '.join(missing)} of the right type is required, found "
            f"{', '.join(map(str, list(content)[:6]))}; the file is not one of this package's agents"
        )
        raise CheckpointError(msg)
    if content["schema"] != AGENT_SCHEMA:
        msg = f"{path}: agent schema {AGENT_SCHEMA} is required, found {content['schema']!r}"
        raise CheckpointError(msg)
    return content
