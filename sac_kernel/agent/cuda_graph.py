"""The update as one captured CUDA graph, used only after it has reproduced the eager update.

At these widths a GPU waits for the processor to start each of some hundred operations; a graph starts them all
at once. If the capture fails or its result differs, a warning says so and updates stay eager.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sac_kernel.agent.replay import Batch
from sac_kernel.agent.update import SACUpdate, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Eager updates first: in them libraries initialise themselves, which a capture forbids."""

RTOL, ATOL = 1e-4, 1e-6
"""Tolerance between graph and eager update: only the order of float32 sums may differ."""


class _Captured(NamedTuple):
    inputs: list[Tensor]
    metrics: Tensor
    replay: Callable[[], None]


def capture_on_cuda(work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Return the tensor that `work` writes, and the call that repeats the work."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        metrics = work()
    return metrics, graph.replay


class CapturedUpdate:
    """`SACUpdate.update` with the same arguments and results; after the first few, each is one graph.

    Parameters
    ----------
    learner : its update is captured
    capture : how to capture; tests without a GPU pass their own
    """

    def __init__(self, learner: SACUpdate, capture: Capture = capture_on_cuda) -> None:
        self._learner, self._capture = learner, capture
        self._eager_left = WARM_UP
        self._captured: _Captured | None = None
        self.refused = False

    def update(self, batch: Batch, noise: Tensor, schedule: Schedule) -> Tensor:
        """Do one update; the metrics returned are overwritten by the next."""
        if self.refused or self._eager_left > 0:
            self._eager_left -= 1
            return self._learner.update(batch, noise, schedule)
        given = [*batch, noise, *schedule]
        if self._captured is None or self._captured.inputs[0].shape != batch.obs.shape:
            return self._prove(given)
        for own, value in zip(self._captured.inputs, given, strict=True):
            own.copy_(value)
        self._captured.replay()
        return self._captured.metrics

    def _prove(self, given: list[Tensor]) -> Tensor:
        """Do one update eagerly and, from the same state, as a new graph; keep the graph if the results agree."""
        vectors = self._learner.vectors()
        before = [v.clone() for v in vectors]
        expected = _update(self._learner, given)
        after = [v.clone() for v in vectors]
        _restore(vectors, before)
        inputs = [v.clone() for v in given]
        try:
            metrics, replay = self._capture(lambda: _update(self._learner, inputs))
            replay()
            pairs = list(zip([*vectors, metrics], [*after, expected], strict=True))
            gap = max(float((a - b).abs().max()) for a, b in pairs)
            same = all(torch.allclose(a, b, RTOL, ATOL) for a, b in pairs)
        except RuntimeError as err:
            logger.warning("The update could not be captured as a CUDA graph (%s). Updates stay eager.", err)
            same = False
        else:
            if same:
                logger.info("Updates use a CUDA graph, which equals the eager update within %.1e.", gap)
                self._captured = _Captured(inputs, metrics, replay)
            else:
                logger.warning(
                    "The CUDA graph differs from the eager update by %.1e. Updates stay eager.", gap
                )
        self.refused = not same
        _restore(vectors, after)
        return expected


def _update(learner: SACUpdate, given: list[Tensor]) -> Tensor:
    return learner.update(Batch(*given[:5]), given[5], Schedule(*given[6:]))


def _restore(vectors: list[Tensor], values: list[Tensor]) -> None:
    for vector, value in zip(vectors, values, strict=True):
        vector.copy_(value)
