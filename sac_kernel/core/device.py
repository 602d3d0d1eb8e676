"""The device that a run computes on, checked by one real operation, and its thread count."""

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
        For any other word.
    DeviceError
        If no CUDA device is available, or its first operation fails.
    """
    import torch  # the ground layer must import without the framework

    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        msg = f"device must be auto, cpu, cuda or cuda:N, got {device!r}"
        raise ConfigError(msg)
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        msg = (
            f"device={device!r} needs a CUDA device, and torch {torch.__version__} sees none. "
            "Turn the accelerator on, or use device='auto'."
        )
        raise DeviceError(msg)
    chosen = torch.device("cuda" if device == "auto" else device)
    try:
        torch.ones(8, device=chosen).sum().item()
    except (RuntimeError, AssertionError) as err:
        msg = (
            f"The first operation on {chosen} failed: {err}. This torch may lack kernels for this GPU: "
            "set machine_shape NvidiaTeslaT4, or use device='cpu'."
        )
        raise DeviceError(msg) from err
    return chosen


def device_names(device: str) -> tuple[str, ...]:
    """Return the names of the devices that jobs may use at the same time.

    'auto' and 'cuda' give every CUDA device ('auto' without one: the CPU); any other name gives itself.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device in ("auto", "cuda") and count > 0:
        return tuple(f"cuda:{i}" for i in range(count))
    return ("cpu",) if device == "auto" else (device,)


def describe_device(device: torch.device) -> str:
    """Return 'cpu' and its cores, or the GPU's name, memory, compute capability and count."""
    import torch

    if device.type == "cpu":
        return f"cpu ({os.cpu_count()} cores)"
    facts = torch.cuda.get_device_properties(device)
    memory = facts.total_memory / 2**30
    count = torch.cuda.device_count()
    return f"{device}: {facts.name}, {memory:.0f} GiB, sm_{facts.major}{facts.minor}, {count} in all"


def set_threads(count: int | None = None) -> int:
    """Set and return torch's thread count: `count`, or OMP_NUM_THREADS, or 1.

    The default recipe's matrices are so small that a second thread halves its speed (docs/speed.md). The last
    bits of a run depend on the count.
    """
    import torch

    if count is None:
        variable = os.environ.get("OMP_NUM_THREADS", "")
        count = int(variable) if variable.isdigit() else 1
    torch.set_num_threads(count)
    return count
