"""Which device a run computes on, proven by one real operation, and how many threads it uses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sac_kernel.core.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import torch


def resolve_device(device: str) -> torch.device:
    """Return the torch device for 'auto', 'cpu', 'cuda' or 'cuda:N' after one real operation on it.

    Raises
    ------
    ConfigError
        If the word is none of these.
    DeviceError
        If CUDA is asked for and absent, or its first kernel fails.
    """
    import torch  # the ground layer must import without the framework

    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        msg = f"device.resolve_device: device must be auto, cpu, cuda or cuda:N, got {device!r}"
        raise ConfigError(msg)
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        msg = (
            f"device.resolve_device: {device} needs a CUDA device and a CUDA build of torch, found none "
            f"(torch {torch.__version__}); use device='auto', or turn the accelerator on"
        )
        raise DeviceError(msg)
    chosen = torch.device("cuda" if device == "auto" else device)
    try:
        torch.ones(8, device=chosen).sum().item()
    except (RuntimeError, AssertionError) as err:
        msg = (
            f"device.resolve_device: a first operation on {chosen} is required to work, found: {err}; "
            "this torch may lack kernels for this GPU (set machine_shape NvidiaTeslaT4), or use device='cpu'"
        )
        raise DeviceError(msg) from err
    return chosen


def device_names(device: str) -> tuple[str, ...]:
    """Return the names of the devices that jobs may use at the same time.

    'auto' and 'cuda' are every CUDA device there is ('auto' without one: the CPU); any other word is itself.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device in ("auto", "cuda") and count > 0:
        return tuple(f"cuda:{i}" for i in range(count))
    return ("cpu",) if device == "auto" else (device,)


def describe_device(device: torch.device) -> str:
    """Return 'cpu', or the GPU's name, memory, compute capability and how many there are."""
    import torch

    if device.type == "cpu":
        return f"cpu ({os.cpu_count()} cores)"
    facts = torch.cuda.get_device_properties(device)
    memory = facts.total_memory / 2**30
    count = torch.cuda.device_count()
    return f"{device}: {facts.name}, {memory:.0f} GiB, sm_{facts.major}{facts.minor}, {count} in all"


def set_threads(count: int | None = None) -> int:
    """Set and return torch's thread count: `count`, or OMP_NUM_THREADS, or 1.

    The default recipe's products are so small that a second thread halves its speed (docs/speed.md), and a
    run's bits depend on the count.
    """
    import torch

    if count is None:
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        count = int(wanted) if wanted.isdigit() else 1
    torch.set_num_threads(count)
    return count
