"""Faults injected by script: a list of answers per place, each used for one call, in order."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

PLACES = frozenset(
    {
        "IntrospectToken",
        "StartBlobUpload",
        "GetDatasetStatus",
        "GetDataset",
        "GetDatasetMetadata",
        "CreateDataset",
        "CreateDatasetVersion",
        "CreateDatasetVersionById",
        "ListDatasetFiles",
        "DownloadDataset",
        "DeleteDataset",
        "SaveKernel",
        "GetKernel",
        "GetKernelSessionStatus",
        "ListKernelSessionOutput",
        "ListKernelFiles",
        "GetAcceleratorQuotaStatistics",
        "DeleteKernel",
        "blob",  # PUT of an uploaded file
        "output",  # GET of a kernel's output file
        "download",  # GET of a dataset's file or archive
        "logs",  # GET of the log stream
    }
)


@dataclass(frozen=True)
class Status:
    """Answer with this HTTP status; `retry_after` in seconds, `html` for an error page."""

    code: int
    message: str = ""
    retry_after: int | None = None
    html: bool = False


@dataclass(frozen=True)
class Body:
    """Answer 200 with this body and change nothing: body-level errors, scripted statuses."""

    body: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """Close the connection without an answer; with `processed` the request took effect before."""

    processed: bool = False


@dataclass(frozen=True)
class Partial:
    """Blob PUT: keep the first `n_bytes` and answer 503. File GET: send that many, then close."""

    n_bytes: int


@dataclass(frozen=True)
class Silence:
    """Say nothing for `seconds`, then close the connection."""

    seconds: float


class StaleReady(Body):
    """A dataset status that still describes the version before: ready."""

    def __init__(self) -> None:
        super().__init__({"status": "READY"})


class Expired(Status):
    """The answer of a signed file address after its end of life."""

    def __init__(self) -> None:
        super().__init__(403, "<Error><Code>ExpiredToken</Code></Error>", html=True)


@dataclass(frozen=True)
class PassThrough:
    """Answer as if no fault were set: puts a later fault on the n-th call."""


Fault = Status | Body | Drop | Partial | Silence | PassThrough


class FaultBook:
    """The faults still to come, per place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, deque[Fault]] = {}

    def add(self, where: str, answers: tuple[Fault, ...]) -> None:
        """Queue `answers` for the next calls at `where`, one of PLACES."""
        if where not in PLACES:
            msg = f"fault: where must be one of {', '.join(sorted(PLACES))}; got {where!r}"
            raise ValueError(msg)
        with self._lock:
            self._queues.setdefault(where, deque()).extend(answers)

    def take(self, where: str) -> Fault | None:
        """Return the next fault at `where`, None where there is none."""
        with self._lock:
            queue = self._queues.get(where)
            fault = queue.popleft() if queue else None
        return None if isinstance(fault, PassThrough) else fault

    def pending(self) -> dict[str, int]:
        """Return how many faults per place were not used yet."""
        with self._lock:
            return {where: len(queue) for where, queue in self._queues.items() if queue}

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._queues.clear()
