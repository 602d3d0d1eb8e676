"""A training of either learner, one piece at a time, and the rule that chooses among its agents.

`KaggleTrainer` and the folds of a walk-forward drive the same classes: `advance` learns, `take_row` gives the
statistics since the last row, `state` and `restore` continue bit for bit.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.agent.config import EXACT, GAUSSIAN
from sac_kernel.agent.exact import ExactTraining, faster_device
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.sac import Interaction, SACAgent
from sac_kernel.backtest import policies, runner
from sac_kernel.core.errors import CheckpointError, NonFiniteError
from sac_kernel.experiment import checkpoint, stretches
from sac_kernel.experiment.exact_problem import exact_problem
from sac_kernel.experiment.run_config import DEFAULT_NUM_ENVS, EXACT_UPDATES
from sac_kernel.market import training
from sac_kernel.market.envs import TradingVectorEnv

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from sac_kernel.agent.config import SACConfig
    from sac_kernel.agent.exact_rewards import ExactProblem
    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.market.account import TradingEnvConfig

logger = logging.getLogger(__name__)

SELECTION_WINDOW = 3
"""`best` is the agent with the highest mean of this many evaluations in a row: one lucky pass must not win."""

_PARTIAL_TYPES = {"steps": int, "reward": float, "abs_action": float, "updates": int}
AT_ONCE = 10  # updates of exact SAC between two looks at the clock
_ROTATION = (math.sqrt(5.0) - 1.0) / 2.0  # windows of successive rows spread evenly over the train rows
_MEASURED_ROWS = 256


def make(  # noqa: PLR0913  # what a training is made of
    bars: pd.DataFrame,
    features: pd.DataFrame,
    env_config: TradingEnvConfig,
    config: SACConfig | ExactConfig,
    agent_id: int,
    seed: int,
    device: str = "cpu",
    num_envs: int | None = None,
    *,
    blocks: bool = False,
    compare: bool = False,
) -> ExactLearning | GaussianLearning:
    """Return the training of an agent on the train rows, before its first update.

    Parameters
    ----------
    bars, features : of the train rows; holes between stretches of them are not learnt across by exact SAC, nor by
        Gaussian SAC with `blocks`
    env_config : the account as the learner observes it (`learner.account_of`)
    config : of exact SAC or of Gaussian SAC, which decides the learner
    compare : time exact SAC on the CPU too, and train on the faster of the two
    num_envs : parallel accounts of Gaussian SAC; None is the largest divisor of the episode length up to 60
    """
    if isinstance(config, ExactConfig):
        return ExactLearning(bars, features, env_config, config, agent_id, seed, device, compare=compare)
    return GaussianLearning(
        bars, features, env_config, config, agent_id, seed, device, num_envs, blocks=blocks
    )


class GaussianLearning:
    """Gaussian SAC in parallel accounts.

    Attributes
    ----------
    agent : the agent as it is now
    market, env_config, config : what it learns on; widths and reward scale are set
    forecast_facts : figures of the return forecast, empty without one
    device : where it trains
    episode_steps : environment steps of an episode
    """

    learner = GAUSSIAN

    def __init__(  # noqa: PLR0913  # as of `make`
        self,
        bars: pd.DataFrame,
        features: pd.DataFrame,
        env_config: TradingEnvConfig,
        config: SACConfig,
        agent_id: int,
        seed: int,
        device: str,
        num_envs: int | None,
        *,
        blocks: bool,
    ) -> None:
        self.env_config, self.episode_steps, self.device = env_config, env_config.episode_length, device
        self.market, self.forecast_facts = training.build_training_market(bars, features, env_config)
        width, scale = (
            len(self.market.observation_names),
            config.reward_scale or training.reward_scale(self.market),
        )
        self.config = dataclasses.replace(config, state_dim=width, action_dim=1, reward_scale=scale)
        self.agent = SACAgent(self.config, agent_id, device, seed)
        accounts = num_envs or accounts_of(env_config)
        self.env: Any = (
            stretches.block_env(self.market, env_config, accounts)
            if blocks
            else TradingVectorEnv(self.market, env_config, accounts)
        )
        self.loop = Interaction(self.agent, self.env, seed)
        self._partial: dict[str, Any] = {"steps": 0, "reward": 0.0, "abs_action": 0.0, "updates": 0}

    @property
    def updates(self) -> int:
        """Return updates done."""
        return self.agent.updates

    @property
    def steps(self) -> int:
        """Return environment steps done."""
        return self.loop.env_steps

    @property
    def episode_over(self) -> bool:
        """Whether the steps of an episode were done since the last row."""
        return bool(self._partial["steps"] >= self.episode_steps)

    def advance(self) -> None:
        """Do one step of every account, and the updates due."""
        rewards = self.loop.advance()
        self._partial["steps"] += self.env.num_envs
        self._partial["reward"] += float(rewards.sum())
        self._partial["abs_action"] += self.loop.abs_action

    def advance_to(self, updates: int) -> None:
        """Learn until so many updates are done."""
        while self.updates < updates:
            self.advance()

    def take_row(self) -> dict[str, Any]:
        """Return the statistics since the last row (docs/monitoring.md)."""
        p = self._partial
        updates = self.updates - p["updates"]
        means = self.agent.pop_metrics(updates)
        self._partial = {"steps": 0, "reward": 0.0, "abs_action": 0.0, "updates": self.updates}
        return {
            "episode_rewards": p["reward"],
            "episode_lengths": p["steps"],
            "actor_losses": means["actor_loss"],
            "critic_losses": means["critic_loss"],
            "alpha_values": means["alpha"],
            "entropies": means["entropy"],
            "q_values": means["q_mean"],
            "mean_abs_actions": p["abs_action"] / p["steps"] * self.env.num_envs if p["steps"] else None,
            "updates": updates,
        }

    def begin(self, path: Path | None) -> None:
        """Begin with the weights of a saved agent, where one is named."""
        if path:
            _check_learner(path, self.learner)
            self.agent.load_weights(path)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs; the accounts too, unless the train rows lie in blocks."""
        return {
            "agent": self.agent.training_state(),
            "env": checkpoint.env_to_plain(self.env.state()),
            "env_steps": self.loop.env_steps,
            "owed": self.loop.owed,
            "loop_rng": checkpoint.rng_to_text(self.loop.rng.bit_generator.state),
            "partial": self._partial,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same settings, bit for bit."""
        self.agent.restore(state["agent"])
        self.loop.obs = self.env.restore(checkpoint.env_from_plain(state["env"]))
        self.loop.env_steps, self.loop.owed = int(state["env_steps"]), float(state["owed"])
        self.loop.rng = checkpoint.rng_from_text(state["loop_rng"])
        self._partial = dict(state["partial"])
        if {name: type(value) for name, value in self._partial.items()} != _PARTIAL_TYPES:
            raise KeyError(*self._partial)


class ExactLearning:
    """Exact SAC on the decisions of the train rows; attributes as of `GaussianLearning`.

    `steps` are decisions drawn. Rewards of its rows are the log growth of a greedy pass over a window of train
    decisions, on realised prices.
    """

    learner = EXACT

    def __init__(  # noqa: PLR0913  # as of `make`
        self,
        bars: pd.DataFrame,
        features: pd.DataFrame,
        env_config: TradingEnvConfig,
        config: ExactConfig,
        agent_id: int,
        seed: int,
        device: str = "cpu",
        *,
        compare: bool = False,
    ) -> None:
        self.env_config, self.config, self.seed = env_config, config, seed
        self.episode_steps = EXACT_UPDATES * config.batch_size
        plain = dataclasses.replace(env_config, reward="log_return")
        self.market, _ = training.build_training_market(bars, features, plain)
        forecast, self.forecast_facts = None, dict[str, Any]()
        if env_config.reward == "denoised":
            forecast, self.forecast_facts = training.forecast_of_decisions(
                self.market, features, config.gamma
            )
        self.problem: ExactProblem = exact_problem(self.market, plain, config.positions, forecast)
        candidates = list(dict.fromkeys(("cpu", device))) if compare else [device]
        self.device, rates = faster_device([self.problem], [config], [seed], candidates)
        if rates:
            texts = ", ".join(f"{name} {rate:,.0f} updates/s" for name, rate in rates.items())
            logger.info("Exact SAC trains on %s: %s", self.device, texts)
        self._windows = stretches.of(self.market)
        self._training, self._member = ExactTraining([self.problem], [config], [seed], self.device), 0
        self._given = self._training.policy(0)
        self.agent = SACAgent.of_policy(self._given, agent_id, seed)
        self._rows, self._partial = 0, {"updates": 0, "loss": 0.0}

    @property
    def updates(self) -> int:
        """Return updates done."""
        return self._training.updates

    @property
    def steps(self) -> int:
        """Return decisions drawn."""
        return self.updates * self.config.batch_size

    @property
    def episode_over(self) -> bool:
        """Whether the updates of an episode were done since the last row."""
        return self._partial["updates"] >= EXACT_UPDATES

    def advance(self, updates: int = AT_ONCE) -> None:
        """Do some updates."""
        self.note(updates, float(self._training.run(updates)[self._member]))

    def advance_to(self, updates: int) -> None:
        """Learn until so many updates are done."""
        while self.updates < updates:
            self.advance(min(AT_ONCE, updates - self.updates))

    def join(self, together: ExactTraining, member: int) -> None:
        """Take part in the training of a population, which then does the updates, from here on."""
        self._training, self._member = together, member

    def note(self, updates: int, loss: float) -> None:
        """Enter updates that were done, and act by what they left.

        Raises
        ------
        NonFiniteError
            If the training has diverged.
        """
        if not math.isfinite(loss):
            msg = (
                f"Training diverged: the fit error of agent {self.agent.agent_id}, seed {self.seed}, is {loss} at "
                f"update {self.updates}. Lower sac_learning_rate. The last saved state is intact."
            )
            raise NonFiniteError(msg, "critic_loss")
        self._partial = {
            "updates": self._partial["updates"] + updates,
            "loss": self._partial["loss"] + updates * loss,
        }
        self._act()

    def take_row(self) -> dict[str, Any]:
        """Return the statistics since the last row (docs/monitoring.md)."""
        updates, fit = self._partial["updates"], self._partial["loss"]
        greedy = self._window_pass()
        means = self._training.metrics(self._member, _MEASURED_ROWS)
        self._rows, self._partial = self._rows + 1, {"updates": 0, "loss": 0.0}
        return {
            "episode_rewards": greedy.log_growth,
            "episode_lengths": len(greedy.equity),
            "actor_losses": -means["value"],
            "critic_losses": fit / updates if updates else None,
            "alpha_values": self.config.alpha,
            "entropies": means["entropy"],
            "q_values": means["q"],
            "mean_abs_actions": float(np.abs(greedy.action).mean()),
            "updates": updates,
        }

    def begin(self, path: Path | None) -> None:
        """Begin with the weights of a saved agent: the one that is named, or was loaded into `agent`."""
        context = self.agent.context
        if path:
            _check_learner(path, self.learner)
            self.agent.load(path)
        policy = self.agent.exact
        if policy is not self._given:
            if policy is None or (policy.inputs, policy.config.positions, policy.config.hidden_dims) != (
                self._given.inputs, self.config.positions, self.config.hidden_dims,
            ):  # fmt: skip
                msg = (
                    "The loaded agent cannot be trained on: its learner, inputs or widths are not those of this run. "
                    "Train with its settings, or do not load it."
                )
                raise CheckpointError(msg)
            self._training.begin(self._member, policy)
            self.agent.context = context
            self._act()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the networks and moments, under a megabyte."""
        partial = {**self._partial, "rows": self._rows}
        return {"exact": self._training.state(), "env_steps": self.steps, "partial": partial}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same settings, bit for bit."""
        self._training.restore(state["exact"])
        saved = state["partial"]
        self._rows = int(saved["rows"])
        self._partial = {"updates": int(saved["updates"]), "loss": float(saved["loss"])}
        self._act()

    def _act(self) -> None:
        self._given = self._training.policy(self._member)
        self.agent.take_policy(self._given)

    def _window_pass(self) -> EpisodeResult:
        """Return the greedy pass over this row's window of an episode's decisions."""
        bars = self.env_config.episode_length * self.market.interval_bars
        rows = np.array([end - start for start, end in self._windows])
        place = int((self._rows * _ROTATION) % 1.0 * rows.sum())
        block = int(np.searchsorted(np.cumsum(rows), place, side="right"))
        start, end = self._windows[block]
        first = max(min(start + place - int(rows[:block].sum()), end - 1 - bars), start)
        window = stretches.part(self.market, first, min(first + bars + 1, end))
        equity = self.env_config.initial_equity
        return runner.run_policy(window, runner.greedy_policy(self.agent), equity, policies.agent(1), "base")


class Selection:
    """The best agent on the validation rows: the highest mean of the last `SELECTION_WINDOW` evaluations.

    Attributes
    ----------
    best : its content (`SACAgent.content`), None before the first evaluation of a trained agent
    score : its mean log growth a decision
    """

    def __init__(self) -> None:
        self._scores: list[float] = []
        self.score: float | None = None
        self.best: dict[str, Any] | None = None

    def look(self, agent: SACAgent, result: EpisodeResult) -> dict[str, Any] | None:
        """Enter an evaluation; return the agent's content if it is the best so far.

        An untrained agent is flat and would win on many markets by doing nothing: it is not entered.
        """
        if agent.updates == 0:
            return None
        self._scores = [*self._scores, result.log_growth / len(result.equity)][-SELECTION_WINDOW:]
        score = float(np.mean(self._scores))
        if self.score is not None and score <= self.score:
            return None
        self.score, self.best = score, agent.content()
        return self.best

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"scores": self._scores, "best_score": self.score, "best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._scores, self.score, self.best = list(state["scores"]), state["best_score"], state["best"]


def accounts_of(env_config: TradingEnvConfig) -> int:
    """Return the largest number of parallel accounts up to 60 that divides the episode length."""
    return max(n for n in range(1, DEFAULT_NUM_ENVS + 1) if env_config.episode_length % n == 0)


def _check_learner(path: Path, learner: str) -> None:
    """Raise CheckpointError unless a saved agent is of this learner."""
    saved = SACAgent.from_checkpoint(path, "cpu").learner_name
    if saved != learner:
        msg = f"{path} holds an agent of {saved} SAC, but this run trains {learner} SAC. Set learner={saved}."
        raise CheckpointError(msg)


def episode_line(episode: int, total: int, values: Mapping[str, Any]) -> str:
    """Return the line of the log on a finished episode."""
    line = f"episode {episode}/{total}: reward {values['episode_rewards']:+.4f}"
    if values["critic_losses"] is not None:
        line += (
            f", critic loss {values['critic_losses']:.3f}, actor loss {values['actor_losses']:+.3f}"
            f", alpha {values['alpha_values']:.4f}, entropy {values['entropies']:+.2f}"
        )
    if values["eval_rewards"] is not None:
        line += f" | validation reward {values['eval_rewards']:+.4f}"
    return line
