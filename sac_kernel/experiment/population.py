"""Trainings of exact SAC side by side: one product a layer serves all of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from sac_kernel.agent.exact import ExactTraining
from sac_kernel.core.config import require
from sac_kernel.core.errors import NonFiniteError
from sac_kernel.experiment.fold_training import REPORTS, FoldTraining, preset_features
from sac_kernel.experiment.learning import AT_ONCE, ExactLearning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sac_kernel.experiment.fold_training import Recipe, Refit
    from sac_kernel.prices.bars import BarsByInstrument

logger = logging.getLogger(__name__)


class Population:
    """Trainings of exact SAC of equal widths, advanced side by side in chunks that the device's memory holds.

    Parameters
    ----------
    members : before their first update; each stays the training that it was, and equals itself alone
    device : where to train
    chunk : agents of a chunk at most; halved, and said, when a GPU runs out of memory

    Attributes
    ----------
    failures : members that diverged -> why; the others go on
    """

    def __init__(self, members: Sequence[ExactLearning], device: str = "cpu", chunk: int = 256) -> None:
        self.members, self.device, self.chunk = list(members), device, chunk
        self.failures: dict[ExactLearning, NonFiniteError] = {}
        self._parts: list[tuple[ExactTraining, list[ExactLearning]]] = []
        while not self._parts:
            try:
                self._parts = [self._part(at) for at in range(0, len(self.members), self.chunk)]
            except torch.cuda.OutOfMemoryError:
                if self.chunk == 1:
                    raise
                self.chunk //= 2
                torch.cuda.empty_cache()
                logger.warning("%s ran out of memory: %d agents at once from here on.", device, self.chunk)
        for together, part in self._parts:
            for place, member in enumerate(part):
                member.join(together, place)

    def _part(self, at: int) -> tuple[ExactTraining, list[ExactLearning]]:
        part = self.members[at : at + self.chunk]
        problems, configs = [m.problem for m in part], [m.config for m in part]
        together = ExactTraining(problems, configs, [m.seed for m in part], self.device)
        together.run(1)  # memory is taken by the first update; the next line starts over
        return ExactTraining(problems, configs, [m.seed for m in part], self.device), part

    def advance_to(self, updates: int) -> None:
        """Learn until every member has done so many updates."""
        for together, part in self._parts:
            while together.updates < updates:
                count = min(AT_ONCE, updates - together.updates)
                losses = together.run(count)
                for member, loss in zip(part, losses, strict=True):
                    if member not in self.failures:
                        try:
                            member.note(count, float(loss))
                        except NonFiniteError as err:
                            self.failures[member] = err
                            logger.warning("%s", err)


def fit_together(
    folds: Sequence[tuple[Sequence[BarsByInstrument], BarsByInstrument, Recipe]], instrument: str, device: str
) -> list[Refit | NonFiniteError]:
    """Train the exact agents of several folds, seeds and tiers side by side.

    Each equals the one of `fit_agent`; a training that diverges gives its error, and the others go on. Recipes must
    agree in updates and evaluations, and the agents in their widths.
    """
    trainings = [
        FoldTraining(preset_features(train, val, recipe, instrument), recipe) for train, val, recipe in folds
    ]
    members = [t.learning for t in trainings if isinstance(t.learning, ExactLearning)]
    same = len({(r.updates, r.evaluations) for _, _, r in folds}) == 1 and len(members) == len(trainings)
    require(
        same, "fit_together", "all recipes must be of exact SAC with equal updates and evaluations", "others"
    )
    together = Population(members, device)
    for report in range(1, REPORTS + 1):
        together.advance_to(trainings[0].updates_at(report))
        for training, member in zip(trainings, members, strict=True):
            if member not in together.failures:
                training.report(report)
    return [together.failures.get(m) or t.chosen() for t, m in zip(trainings, members, strict=True)]
