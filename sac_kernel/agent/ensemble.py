"""Several agents as one: the mean of their actions, or of the values of exact ones.

Seeds of one training differ by chance alone. Under linear costs the mean of several policies keeps what they
agree on and cancels the rest (Dietterich 2000, doi:10.1007/3-540-45014-9_1), at K times the work. Exact agents share
one held target, so they are averaged before the target is chosen: the no-trade band is that of the mean W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.agent.exact_grid import greedy_target
from sac_kernel.agent.exact_policy import EXACT_INPUTS, ExactPolicy
from sac_kernel.agent.sac import SACAgent
from sac_kernel.core.config import difference, require, to_flat
from sac_kernel.core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_SHARED = ("features", "observation_names", "env", "data_hash")


class Ensemble:
    """The mean action of agents that see the same observation.

    Parameters
    ----------
    agents : at least one, on the CPU; settings, features, account and data must be equal
    names : of the agents, for error messages

    Attributes
    ----------
    agent_id, context, device : those of the first agent

    Raises
    ------
    CheckpointError
        If an agent differs from the first one; the message names it and the difference.
    """

    def __init__(self, agents: Sequence[SACAgent], names: Sequence[str] = ()) -> None:
        require(bool(agents), "Ensemble", "agents must not be empty", list(agents))
        self.agents = list(agents)
        first = self.agents[0]
        self.agent_id, self.context, self.device = first.agent_id, first.context, first.device
        names = names or [f"agent {i}" for i in range(len(agents))]
        for agent, name in zip(agents[1:], names[1:], strict=True):
            lines = difference({"learner": first.learner_name}, {"learner": agent.learner_name})
            lines += difference(_identity(first), _identity(agent))
            if lines:
                text = "; ".join(line[:100] for line in lines[:3])
                msg = f"{name} does not match {names[0]}: {text}. Leave it out of the ensemble."
                raise CheckpointError(msg)

    @classmethod
    def from_checkpoints(cls, paths: Sequence[Path]) -> Ensemble:
        """Return the ensemble of several `.pt` files."""
        agents = [SACAgent.from_checkpoint(path, device="cpu") for path in paths]
        return cls(agents, [str(path) for path in paths])

    def select_action(self, state: Any, evaluate: bool = False) -> NDArray[np.float32]:  # noqa: ANN401
        """Return the action in [-1, 1], for one state (S,) -> (A,) or a batch (B, S) -> (B, A)."""
        if self.agents[0].exact and evaluate:
            obs = np.asarray(state, np.float32)
            self.agents[0].check_width(obs.shape[-1])
            return exact_targets([agent.exact for agent in self.agents if agent.exact], obs)
        actions = [agent.select_action(state, evaluate) for agent in self.agents]
        return np.mean(actions, axis=0, dtype=np.float32)


def exact_targets(policies: Sequence[ExactPolicy], obs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the target of the policies' mean W, (..., S) -> (..., 1)."""
    rows = obs.reshape(-1, obs.shape[-1])
    features, (cost, can_fill, held) = rows[:, : -len(EXACT_INPUTS)], rows[:, -len(EXACT_INPUTS) :].T
    values = np.mean([policy.values(features) for policy in policies], axis=0)
    target = greedy_target(values, policies[0].grid, held, cost, can_fill > 0.0)
    return target.astype(np.float32).reshape(*obs.shape[:-1], 1)


def _identity(agent: SACAgent) -> dict[str, Any]:
    shared = {k: v for k, v in agent.context.items() if k in _SHARED}
    nested = {f"{k}.{name}": v for k, d in shared.items() if isinstance(d, dict) for name, v in d.items()}
    plain = {k: v for k, v in shared.items() if not isinstance(v, dict)}
    return {
        **plain,
        **nested,
        "agent_id": agent.agent_id,
        **to_flat(agent.config),
    }
