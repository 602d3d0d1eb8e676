"""The update as one captured CUDA graph, used only after it has given what the eager update gives.

At these widths a GPU waits for the processor to start each of some hundred operations; a graph starts them all
at once. A graph that does not capture, or differs, is dropped with a warning and the eager update goes on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sac_kernel.agent.replay import Batch
from sac_kernel.agent.update import Learner, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Eager updates first: libraries set themselves up in them, which a capture forbids."""

RTOL, ATOL = 1e-4, 1e-6
"""How near the graph must come to the eager update: the order of float32 sums may differ, nothing else."""


class _Captured(NamedTuple):
    inputs: list[Tensor]
    metrics: Tensor
    replay: Callable[[], None]


def capture_on_cuda(work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Return the tensor that `work` will write and the call that does the work."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        metrics = work()
    return metrics, graph.replay


class CapturedUpdate:
    """`Learner.update` with the same arguments and results; after the first few, each is one graph.

    Parameters
    ----------
    learner : whose update is captured
    capture : how; another one is for tests without a GPU
    """

    def __init__(self, learner: Learner, capture: Capture = capture_on_cuda) -> None:
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
        """Do one update eagerly and, from the same state, as a new graph; go on with what may be trusted."""
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
            logger.warning("no CUDA graph: it could not be captured (%s); updates stay eager", err)
            same = False
        else:
            if same:
                logger.info("CUDA graph: equal to the eager update within %.1e; used from now on", gap)
                self._captured = _Captured(inputs, metrics, replay)
            else:
                logger.warning(
                    "no CUDA graph: it differs from the eager update by %.1e; updates stay eager", gap
                )
        self.refused = not same
        _restore(vectors, after)
        return expected


def _update(learner: Learner, given: list[Tensor]) -> Tensor:
    return learner.update(Batch(*given[:5]), given[5], Schedule(*given[6:]))


def _restore(vectors: list[Tensor], values: list[Tensor]) -> None:
    for vector, value in zip(vectors, values, strict=True):
        vector.copy_(value)
