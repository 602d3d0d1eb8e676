"""What the platform allows: limits, texts, settings, and the error that carries an HTTP status."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SOURCE_LIMIT_BYTES = 1_000_000
MAX_GPU_RUNS = 2
GPU_SHAPE = "NvidiaTeslaT4"
MAX_CPU_RUNS = 2  # runs that execute at once here; further CPU runs wait as QUEUED
OUTPUT_FILE_LIMIT = 500
DEFAULT_PAGE, MAX_PAGE = 20, 200

GPU_LIMIT_TEXT = f"Maximum batch GPU session count of {MAX_GPU_RUNS} reached."
QUOTA_TEXT = "You have used all of your weekly GPU quota."
SOURCE_LIMIT_TEXT = "kernel source must be less than 1 megabytes"
KERNEL_DENIED_TEXT = "Permission 'kernels.get' was denied"
TIME_LIMIT_TEXT = "Your notebook was stopped because it exceeded the max allowed execution duration."
MEMORY_TEXT = "Your notebook tried to allocate more memory than is available."
ERROR_TEXT = "Your notebook ended with an error."
INPUT_CHANGED_TEXT = "Your notebook wrote to its read-only inputs."
STOPPED_TEXT = "Your notebook was stopped."


class RpcError(Exception):
    """An answer with an HTTP status of 400 or more and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Rules:
    """Settings of one local platform; durations in seconds."""

    username: str = "tester"
    key: str = "0123456789abcdef0123456789abcdef"
    token: str = "KGAT_local_token_for_tests"
    mount_scheme: Literal["datasets", "flat"] = "datasets"
    """datasets: input/datasets/OWNER/SLUG; flat: input/SLUG."""
    dataset_delay_s: float = 0.0
    """Processing time of a dataset version before it is READY."""
    queue_delay_s: float = 0.0
    """Time a pushed kernel stays QUEUED before it runs."""
    session_limit_s: float = 12 * 3600.0
    gpu_quota_s: float = 30 * 3600.0
    without_quota: Literal["refuse", "cpu"] = "refuse"
    """A GPU push after the quota is used up: an error in the body, or a run on the CPU."""
    newest_client: str = ""
    """Client version the platform announces in a header; a newer one makes the client warn."""
    archive_layout: Literal["folder", "root", "whole"] = "folder"
    """x.zip appears as x/, or unpacked at the root when it is the only file, or stays x.zip."""
    tags: frozenset[str] = field(default_factory=frozenset)
    """Keywords that exist; all others are answered as invalid tags."""

    def __post_init__(self) -> None:
        choices = {
            "mount_scheme": ("datasets", "flat"),
            "without_quota": ("refuse", "cpu"),
            "archive_layout": ("folder", "root", "whole"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                msg = f"Rules: {name} must be one of {allowed}, got {getattr(self, name)!r}"
                raise ValueError(msg)


def page(items: list[object], body: dict[str, object]) -> tuple[list[object], str]:
    """Return the page of `items` that a request asks for, and the token of the next page or ''."""
    size = min(int(str(body.get("pageSize") or DEFAULT_PAGE)), MAX_PAGE)
    start = int(str(body.get("pageToken") or 0))
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""
