"""Identities of policies: an agent in one of its forms, a baseline, a bound or random trading.

Labels are made from these parts and never parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sac_kernel.core import strings

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """Kind of policy. A bound knows the future; random trading repeats the agent's at other times."""

    AGENT = "agent"
    BASELINE = "baseline"
    BOUND = "bound"
    RANDOM = "random"


class Form(StrEnum):
    """State of an agent, or a combination of its seeds.

    In order: the last update; the best on validation data; one account on the seeds' mean action; a saved agent of
    any other name; the agent as it is. Over folds: one seed, the mean of the seeds' accounts, one account on
    their mean target.
    """

    FINAL = "final"
    BEST = "best"
    ENSEMBLE = "ensemble"
    FILE = "file"
    CURRENT = "current"
    FOLD_SEED = "fold_seed"
    FOLD_MEAN = "fold_mean"
    FOLD_ENSEMBLE = "fold_ensemble"


@dataclass(frozen=True)
class PolicyId:
    """Identity of a policy in results.

    Attributes
    ----------
    name : of all but agents; of the file for `Form.FILE`
    agent_id, form : of an agent
    seed : of one training, if known
    seeds : how many are combined
    """

    kind: Kind
    name: str = ""
    agent_id: int | None = None
    form: Form | None = None
    seed: int | None = None
    seeds: int = 1

    @property
    def is_agent(self) -> bool:
        """Whether it is an agent."""
        return self.kind is Kind.AGENT

    @property
    def label(self) -> str:
        """Return its name in tables and figures."""
        if self.form is None:
            return self.name
        parts = {"agent_id": self.agent_id, "name": self.name, "seed": self.seed, "seeds": self.seeds}
        return strings.AGENT_LABELS[self.form].format(**parts)

    def facts(self) -> dict[str, Any]:
        """Return the parts as plain values."""
        return {"kind": self.kind.value, "agent_id": self.agent_id, "form": self.form and self.form.value}


def agent(
    agent_id: int, form: Form = Form.CURRENT, *, name: str = "", seed: int | None = None, seeds: int = 1
) -> PolicyId:
    """Return an agent in one of its forms."""
    return PolicyId(Kind.AGENT, name, agent_id, form, seed, seeds)


def from_plain(values: Mapping[str, Any]) -> PolicyId:
    """Return the policy of a `dataclasses.asdict`, possibly read from JSON."""
    form = values["form"]
    return PolicyId(**{**values, "kind": Kind(values["kind"]), "form": form and Form(form)})


def named(policy: PolicyId | str) -> PolicyId:
    """Return a policy; a string names a baseline."""
    return PolicyId(Kind.BASELINE, policy) if isinstance(policy, str) else policy


def agent_file(agent_id: int, form: Form) -> str:
    """Return the name of an agent's file: 'agent_1_final.pt'."""
    return f"agent_{agent_id}_{form}.pt"


def of_file(agent_id: int, name: str) -> PolicyId:
    """Return the policy of a saved agent, its form by the name of its file."""
    form = next((form for form in (Form.FINAL, Form.BEST) if name == agent_file(agent_id, form)), Form.FILE)
    return agent(agent_id, form, name=name)
