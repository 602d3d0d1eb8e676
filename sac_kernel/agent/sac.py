"""The agent, of either learner, and the interaction of Gaussian SAC with any Box env.

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
from sac_kernel.agent.config import EXACT, GAUSSIAN, MAX_WIDTH
from sac_kernel.agent.config import SACConfig as SACConfig  # users of the manual guide import it from here
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_policy import EXACT_INPUTS, ExactPolicy, exact_size
from sac_kernel.agent.networks import Networks
from sac_kernel.agent.replay import Batch, ReplayBuffer
from sac_kernel.agent.update import UPDATE_METRICS, SACUpdate, Schedule
from sac_kernel.core import files
from sac_kernel.core.config import difference, from_flat, require, to_flat
from sac_kernel.core.device import resolve_device
from sac_kernel.core.errors import CheckpointError, ConfigError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    FeatureArray = NDArray[np.float32]

logger = logging.getLogger(__name__)

AGENT_SCHEMA = 2
_SCHEMAS = (1, AGENT_SCHEMA)
"""Readable: schema 1 holds Gaussian agents alone and says no learner."""

WIDTH_FIELDS = ("state_dim", "action_dim", "hidden_dims")


class SACAgent:
    """A Soft Actor-Critic agent: Gaussian, which learns by `update` and `learn`, or exact, from `of_policy` or a file.

    Parameters
    ----------
    config : widths and hyper-parameters of a Gaussian agent
    agent_id : 1, 2 or 3; a label that names files and presets
    device : 'auto', 'cpu', 'cuda' or 'cuda:N'
    seed : of weights, exploration and replay

    Attributes
    ----------
    context : plain values that travel with the saved agent (features, env, data hash)
    exact : the policy of exact SAC, None for a Gaussian agent; `config` is then an `ExactConfig`
    updates : gradient updates so far
    batch_size : transitions per update; starts as the config's and is halved when a GPU runs out of memory
    """

    def __init__(
        self, config: SACConfig | None = None, agent_id: int = 1, device: str = "auto", seed: int = 0
    ) -> None:
        self.config: Any = config or SACConfig()  # of either learner
        self.exact: ExactPolicy | None = None
        self.agent_id = agent_id
        self.device = resolve_device(device)
        self.context: dict[str, Any] = {}
        self.updates = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets = _networks(self.config)
        self.nets = nets.to(self.device)
        self.learner = SACUpdate(self.nets, self.config.learning_rate)
        self.batch_size = self.config.batch_size
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        self.metrics_sum = torch.zeros(len(UPDATE_METRICS), device=self.device)
        self._buffer: ReplayBuffer | None = None
        self._schedule = self._make_schedule()

    @classmethod
    def of_policy(cls, policy: ExactPolicy, agent_id: int = 1, seed: int = 0) -> SACAgent:
        """Return the agent that acts by a policy of exact SAC, on the CPU."""
        agent = cls.__new__(cls)
        agent.agent_id, agent.context = agent_id, {}
        agent.generator = torch.Generator().manual_seed(seed + 1)
        agent.take_policy(policy)
        return agent

    def take_policy(self, policy: ExactPolicy) -> None:
        """Act by a policy of exact SAC from here on."""
        self.exact, self.config, self.updates = policy, policy.config, policy.updates
        self.device = torch.device("cpu")

    @property
    def learner_name(self) -> str:
        """Return 'exact' or 'gaussian'."""
        return EXACT if self.exact else GAUSSIAN

    @property
    def width(self) -> int:
        """Return the width of an observation."""
        return self.exact.inputs + len(EXACT_INPUTS) if self.exact else int(self.config.state_dim)

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
        state : float array; its width must be `width`. For an exact agent the last three numbers are `EXACT_INPUTS`
        evaluate : True is deterministic: tanh of the mean of the averaged actor, or the exact policy's best target;
            False samples
        """
        if self.exact:
            return self._exact_action(np.asarray(state, np.float32), evaluate=evaluate)
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
        """Raise CheckpointError unless a state of this width fits; the message names its numbers."""
        if width != self.width:
            names = self.context.get("observation_names", [])
            hint = f" ({', '.join(names)})" if names else ""
            msg = (
                f"The agent needs a state of width {self.width}{hint}, got {width}. "
                "Build the env from the features that the agent was trained on."
            )
            raise CheckpointError(msg)

    def check_exact_inputs(self, cost: Any, can_fill: Any) -> None:  # noqa: ANN401  # numbers or arrays
        """Raise CheckpointError unless these inputs are a cost and a flag, as another account's are not."""
        if not (
            np.all(np.greater(cost, 0.0)) and np.all((np.equal(can_fill, 0.0)) | (np.equal(can_fill, 1.0)))
        ):
            msg = (
                f"The last three numbers of a state must be {', '.join(EXACT_INPUTS)}. Make the environment with the "
                'agent\'s own account: TradingEnvConfig(**agent.context["env"]).'
            )
            raise CheckpointError(msg)

    def _exact_action(self, obs: FeatureArray, *, evaluate: bool) -> FeatureArray:
        assert self.exact
        self.check_width(obs.shape[-1])
        rows = obs.reshape(-1, obs.shape[-1])
        features, (cost, can_fill, held) = rows[:, : -len(EXACT_INPUTS)], rows[:, -len(EXACT_INPUTS) :].T
        self.check_exact_inputs(cost, can_fill)
        if evaluate:
            target = self.exact.target(features, held, cost, can_fill > 0.0)
        else:
            target = self.exact.sample(features, held, cost, can_fill > 0.0, self.generator)
        return target.astype(np.float32).reshape(*obs.shape[:-1], 1)

    def update(self) -> None:
        """Do one gradient update from the replay buffer and add its metrics to `metrics_sum`.

        If the GPU runs out of memory, the batch is halved permanently and the update is repeated.
        """
        while True:
            try:
                self._update()
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                torch.cuda.empty_cache()  # does nothing if CUDA was never used
                logger.warning(
                    "%s ran out of memory in update %d. The batch is halved to %d transitions.",
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
        self.metrics_sum += self.learner.update(batch, noise, self._schedule)
        self.updates += 1

    def pop_metrics(self, updates: int) -> dict[str, float | None]:
        """Return the mean of `UPDATE_METRICS` over the last `updates` and start a new sum.

        Raises
        ------
        NonFiniteError
            If one of them is not finite; the message names it.
        """
        total = self.metrics_sum.tolist()
        self.metrics_sum.zero_()
        if updates == 0:
            return dict.fromkeys(UPDATE_METRICS)
        means = {name: value / updates for name, value in zip(UPDATE_METRICS, total, strict=True)}
        for name, value in means.items():
            if not math.isfinite(value):
                msg = (
                    f"Training diverged: {name} is {value} at update {self.updates}. "
                    "Lower learning_rate or reward_scale. The last checkpoint is intact."
                )
                raise NonFiniteError(msg, name)
        return dict(means)

    def learn(self, env: Any, env_steps: int, seed: int = 0) -> SACAgent:  # noqa: ANN401
        """Train on any Gymnasium Env or VectorEnv (SAME_STEP) with Box spaces for `env_steps` transitions."""
        if self.exact:
            msg = (
                "An exact agent does not learn by steps in an environment. Train it with KaggleTrainer or train_exact, "
                "or make a Gaussian agent with SACAgent(SACConfig(...))."
            )
            raise ConfigError(msg)
        loop = Interaction(self, as_vector_env(env), seed)
        while loop.env_steps < env_steps:
            loop.advance()
        self.pop_metrics(self.updates)
        self.check_finite()
        return self

    def check_finite(self) -> None:
        """Raise NonFiniteError if a weight, a moment or a metric is not finite; the message names the first.

        It reads the device, so it runs before saving and judging, not in updates: a loss or gradient that is not
        finite leaves weights that are not finite either.
        """
        learnt = {"weights": self.exact.weights} if self.exact else self._learnt()
        for name, tensor in _named(learnt):
            if not torch.isfinite(tensor).all():
                msg = (
                    f"Training diverged: {name} holds NaN or infinity at update {self.updates}. "
                    "Lower learning_rate or reward_scale. The last saved state is intact."
                )
                raise NonFiniteError(msg, name)

    def save(self, path: str | Path) -> None:
        """Write the agent atomically: weights, config and context, without optimisers or replay.

        Equal content gives equal bytes, whatever the file's name.
        """
        files.write_bytes(Path(path), files.pt_bytes(self.content()))

    def content(self) -> dict[str, Any]:
        """Return what `save` writes: tensors and plain values, all of them finite."""
        self.check_finite()
        return {
            "schema": AGENT_SCHEMA,
            "learner": self.learner_name,
            "agent_id": self.agent_id,
            "code_version": __version__,
            "updates": self.updates,
            "config": to_flat(self.config),
            **self.context,
            "weights": {"exact": self.exact.weights.clone()}
            if self.exact
            else _cpu_copy(self.nets.state_dict()),
            **({"scale": self.exact.scale, "inputs": self.exact.inputs} if self.exact else {}),
        }

    def load(self, path: str | Path) -> None:
        """Fill this agent from a saved one; it becomes the file's learner.

        Raises
        ------
        CheckpointError
            If the file is no agent, or a Gaussian one of other widths; the message has the difference.
        """
        path = Path(path)
        content = _checked(files.read_pt(path), path)
        if content["learner"] == EXACT or self.exact:
            loaded = SACAgent.from_checkpoint(path, device=str(self.device))
            _warn_of_widths(path, self, loaded)
            self.__dict__.update(loaded.__dict__)
            return
        saved, here = content["config"], to_flat(self.config)
        lines = difference({k: saved[k] for k in WIDTH_FIELDS}, {k: here[k] for k in WIDTH_FIELDS})
        names = content.get("observation_names"), self.context.get("observation_names")
        if None not in names and names[0] != names[1]:
            lines += difference({"observation": names[0]}, {"observation": names[1]})
        if lines:
            msg = f"{path} does not fit this agent: {'; '.join(lines)}. Use SACAgent.from_checkpoint."
            raise CheckpointError(msg)
        self._fill(content, path)

    def load_weights(self, path: str | Path) -> None:
        """Load a saved agent's weights alone; context, updates, optimisers and replay stay."""
        context, updates = self.context, self.updates
        self.load(path)
        self.context, self.updates = context, updates

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto") -> SACAgent:
        """Return the saved agent with its own config, ready to act."""
        return cls.from_content(files.read_pt(Path(path)), Path(path), device)

    @classmethod
    def from_content(cls, content: dict[str, Any], path: Path = Path(), device: str = "auto") -> SACAgent:
        """Return the agent of what `content` returned; `path` is named in errors."""
        content = _checked(content, path)
        exact = content["learner"] == EXACT
        try:
            config: Any = from_flat(ExactConfig if exact else SACConfig, content["config"], "config")
        except ConfigError as err:
            msg = f"{path} does not fit this version of the package. Its {err}"
            raise CheckpointError(msg) from err
        if exact:
            agent = cls.of_policy(_policy_of(content, config, path), int(content["agent_id"]))
            agent.context = _context_of(content)
            return agent
        # Checked before memory is allocated, because a config may claim any width.
        with torch.device("meta"):
            layers = len(config.hidden_dims)
            nets = _networks(config) if layers <= len(content["weights"]) else nn.Module()
        _check_like(content["weights"], nets.state_dict(), f"{path}: weights")
        agent = cls(config, int(content["agent_id"]), device)
        agent._fill(content, path)
        return agent

    def training_state(self) -> dict[str, Any]:
        """Return everything that learning depends on; it continues this agent bit for bit."""
        self.check_finite()
        counts = {"updates": self.updates, "batch_size": self.batch_size}
        return {**self._learnt(), **counts, "buffer": self.buffer.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `training_state`.

        Raises
        ------
        CheckpointError
            If a part has another shape or is not finite; the message names it, and this agent is unusable.
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
        self.context = _context_of(content)
        self.updates = int(content["updates"])

    def _make_schedule(self) -> Schedule:
        c = self.config
        values = (c.gamma, c.tau, c.entropy_target(0), c.reward_scale or 1.0, 1.0 - c.average_decay)
        return Schedule(*(torch.tensor(v, device=self.device) for v in values))


class Interaction:
    """The off-policy loop: act in a vector env, store transitions, do the updates that are due.

    Fractions of an update are carried over, so there are `utd_ratio` updates per transition for any number of
    envs; those of the warm-up follow right after it.

    Attributes
    ----------
    env_steps : single-environment transitions so far
    owed : updates due, fractions included
    """

    def __init__(self, agent: SACAgent, env: Any, seed: int) -> None:  # noqa: ANN401
        self.agent, self.env = agent, env
        self.env_steps, self.owed = 0, 0.0
        self.abs_action = 0.0  # mean |action| of the last vector step
        space = env.single_action_space
        for box, name in ((env.single_observation_space, "state_dim"), (space, "action_dim")):
            required = (
                f"{name} = {getattr(agent.config, name)} (SACConfig) must be the width of the env's space"
            )
            require(box.shape == (getattr(agent.config, name),), "SACAgent.learn", required, box.shape[0])
        capacity, n = agent.config.buffer_capacity, env.num_envs
        require(n <= capacity, "SACAgent.learn", f"num_envs must be <= buffer_capacity ({capacity})", n)
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
        """Return the error of a stopped step, with its number, the tensor and the likely cause."""
        cause = "It comes from the env: check its prices and features there."
        if name == "action" and np.isfinite(self.obs).all():
            cause = "The policy's weights are too large. Lower learning_rate or reward_scale."
            try:
                self.agent.check_finite()
            except NonFiniteError as err:
                cause = str(err)
        elif name == "action":
            name = "obs"
        msg = (
            f"{name} holds NaN or infinity at environment step {self.env_steps}. {cause} "
            "Nothing of this step was stored; the last good state is intact."
        )
        return NonFiniteError(msg, name)


def as_vector_env(env: Any) -> Any:  # noqa: ANN401
    """Return a SAME_STEP vector env: `env` itself, or a single env wrapped; spaces must be Boxes."""
    mode = gym.vector.AutoresetMode.SAME_STEP
    if not isinstance(env, gym.vector.VectorEnv):
        single = env
        env = gym.vector.SyncVectorEnv([lambda: single], autoreset_mode=mode)
    elif env.metadata.get("autoreset_mode") != mode:
        msg = f"SACAgent.learn: autoreset_mode must be SAME_STEP, got {env.metadata.get('autoreset_mode')}"
        raise ConfigError(msg)
    for name in ("single_observation_space", "single_action_space"):
        space = getattr(env, name)
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            msg = f"SACAgent.learn: {name} must be a one-dimensional Box, got {space}"
            raise ConfigError(msg)
    if not env.single_action_space.is_bounded():
        msg = f"SACAgent.learn: the action space must be bounded, got {env.single_action_space}"
        raise ConfigError(msg)
    return env


def _before_reset(obs: Any, done: Any, infos: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return next observations, with the last one of each episode that ended."""
    if not done.any():
        return obs
    next_obs = np.array(obs)
    for i in np.flatnonzero(done):
        next_obs[i] = infos["final_obs"][i]
    return next_obs


def _cpu_copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return clones of the tensors on the CPU."""
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
    """Raise CheckpointError unless `saved` is finite and has the names, shapes and types of `own`."""
    fault = ""
    if isinstance(own, dict):
        names = set(saved) if isinstance(saved, dict) else set()
        if names == own.keys():
            for name, inner in own.items():
                _check_like(saved[name], inner, f"{where}.{name}")
        else:
            lacking, extra = (sorted(map(str, s))[:3] for s in (own.keys() - names, names - own.keys()))
            fault = f"does not fit: missing {lacking}, unknown {extra}"
    elif not isinstance(saved, Tensor) or (saved.shape, saved.dtype) != (own.shape, own.dtype):
        kind = f"{tuple(saved.shape)} {saved.dtype}" if isinstance(saved, Tensor) else type(saved).__name__
        fault = f"must be {tuple(own.shape)} {own.dtype}, got {kind}"
    elif not torch.isfinite(saved).all():
        fault = "must be finite, got NaN or infinity"
    if fault:
        msg = f"{where} {fault}. Use an earlier file, or the config that it was made with."
        raise CheckpointError(msg)


_CONTENT_TYPES = {"schema": int, "agent_id": int, "updates": int, "config": dict, "weights": dict}
_FIXED = {*_CONTENT_TYPES, "code_version", "learner", "scale", "inputs"}


def _context_of(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in content.items() if k not in _FIXED}


def _policy_of(content: Mapping[str, Any], config: ExactConfig, path: Path) -> ExactPolicy:
    """Return the exact policy of a file, checked before memory is taken."""
    inputs: Any = content.get("inputs")
    scale: Any = content.get("scale")
    fits = type(inputs) is int and 0 < inputs <= MAX_WIDTH and type(scale) is float and 0 < scale < math.inf
    if not fits or max(*config.hidden_dims, config.positions) > MAX_WIDTH:
        msg = f"{path} is damaged: inputs {inputs!r}, scale {scale!r}, config {content['config']}. Use an earlier file."
        raise CheckpointError(msg)
    weights = content["weights"].get("exact")
    like = torch.empty(exact_size(inputs, config), device="meta")
    _check_like(weights, like, f"{path}: weights")
    return ExactPolicy(config, weights, inputs, scale, int(content["updates"]))


def _warn_of_widths(path: Path, own: SACAgent, loaded: SACAgent) -> None:
    """Log one warning if a file's learner or widths are not those that the agent was made with."""
    here = {"learner": own.learner_name, "state_dim": own.width, "hidden_dims": list(own.config.hidden_dims)}
    saved = {
        "learner": loaded.learner_name,
        "state_dim": loaded.width,
        "hidden_dims": list(loaded.config.hidden_dims),
    }
    if lines := difference(saved, here):
        logger.warning("%s decides what this agent is: %s.", path, "; ".join(lines))


def _checked(content: dict[str, Any], path: Path) -> dict[str, Any]:
    missing = [name for name, kind in _CONTENT_TYPES.items() if type(content.get(name)) is not kind]
    if missing:
        msg = (
            f"{path} is not an agent of this package: {', '.join(missing)} is missing or of the wrong type. "
            f"It has {', '.join(map(str, list(content)[:6])) or 'nothing'}."
        )
        raise CheckpointError(msg)
    if content["schema"] not in _SCHEMAS:
        msg = f"{path} has agent schema {content['schema']!r}, but this version reads schemas {_SCHEMAS}."
        raise CheckpointError(msg)
    learner = content.setdefault("learner", GAUSSIAN)
    if learner not in (GAUSSIAN, EXACT):
        msg = f"{path} holds an agent of learner {learner!r}. This version knows {GAUSSIAN} and {EXACT}."
        raise CheckpointError(msg)
    return content
