"""Which policy a result is of: an agent in one of its forms, a baseline, a bound or random trading.

A label is made from these parts and never read back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sac_kernel.core import strings

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """What a policy is. A bound knows the future; random trading is the agent's own, at other times."""

    AGENT = "agent"
    BASELINE = "baseline"
    BOUND = "bound"
    RANDOM = "random"


class Form(StrEnum):
    """Which state of an agent acts, or what is made of several seeds.

    The last update or the best on validation data; one account on the seeds' mean action; a saved agent of any other
    name; the agent as it is now. Over folds: one seed, the mean of the seeds' accounts, one account on their mean
    target.
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
    """What identifies a policy in results.

    Attributes
    ----------
    name : of a policy that is no agent; of the file for `Form.FILE`
    agent_id, form : of an agent
    seed : of one training, where it is known
    seeds : how many are joined
    """

    kind: Kind
    name: str = ""
    agent_id: int | None = None
    form: Form | None = None
    seed: int | None = None
    seeds: int = 1

    @property
    def is_agent(self) -> bool:
        """Whether it was learnt."""
        return self.kind is Kind.AGENT

    @property
    def label(self) -> str:
        """Return what tables and figures call it."""
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
    """Return a policy from what `dataclasses.asdict` made of one, and JSON of that."""
    form = values["form"]
    return PolicyId(**{**values, "kind": Kind(values["kind"]), "form": form and Form(form)})


def named(policy: PolicyId | str) -> PolicyId:
    """Return a policy; a plain name is that of a rule, a baseline."""
    return PolicyId(Kind.BASELINE, policy) if isinstance(policy, str) else policy


def agent_file(agent_id: int, form: Form) -> str:
    """Return the name of an agent's file: 'agent_1_final.pt'."""
    return f"agent_{agent_id}_{form}.pt"


def of_file(agent_id: int, name: str) -> PolicyId:
    """Return the policy of a saved agent, its form by the names that `agent_file` gives."""
    form = next((form for form in (Form.FINAL, Form.BEST) if name == agent_file(agent_id, form)), Form.FILE)
    return agent(agent_id, form, name=name)
