"""The replay ring: dense, on one device, behind `sample(generator) -> Batch`, the only thing the agent sees."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sac_kernel.core.errors import CheckpointError, NonFiniteError


class Batch(NamedTuple):
    """Transitions; B rows each. `terminated` is 1 only where the MDP ended: a time limit bootstraps."""

    obs: Tensor  # (B, S)
    action: Tensor  # (B, A)
    reward: Tensor  # (B,)
    terminated: Tensor  # (B,)
    next_obs: Tensor  # (B, S), before any reset


class ReplayBuffer:
    """A ring of the last `capacity` transitions, float32.

    Parameters
    ----------
    capacity : transitions kept; the oldest are overwritten
    state_dim, action_dim : widths S and A
    device : where the ring lives and batches come from
    """

    def __init__(self, capacity: int, state_dim: int, action_dim: int, device: torch.device) -> None:
        self.capacity = capacity
        # One row a transition, so that a batch is one gather and not five.
        self._widths = (state_dim, action_dim, 1, 1, state_dim)
        self._rows = torch.zeros(capacity, sum(self._widths), device=device)
        self._ring = self._fields(self._rows)
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Batch) -> None:
        """Append n transitions, n <= capacity; a number that is not finite never gets in."""
        n = len(batch.reward)
        packed = torch.cat([value.reshape(n, -1).to(self._rows.dtype) for value in batch], dim=1)
        if not torch.isfinite(packed).all():
            name = next(k for k, v in self._fields(packed)._asdict().items() if not v.isfinite().all())
            msg = f"replay_buffer.add: finite values are required, found NaN or infinity in {name}"
            raise NonFiniteError(msg, name)
        before_end = min(n, self.capacity - self._next)
        self._rows[self._next : self._next + before_end] = packed[:before_end].to(self._rows.device)
        if before_end < n:
            self._rows[: n - before_end] = packed[before_end:].to(self._rows.device)
        self._next = (self._next + n) % self.capacity
        self._size = min(self._size + n, self.capacity)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return `batch_size` transitions drawn uniformly with replacement, never by reward."""
        device = self._rows.device
        rows = torch.randint(self._size, (batch_size,), generator=generator, device=device)
        return self._fields(self._rows.index_select(0, rows))

    def state(self) -> dict[str, Any]:
        """Return the filled rows and the write position, on the CPU."""
        rows = {name: ring[: self._size].cpu().clone() for name, ring in self._ring._asdict().items()}
        return {"rows": rows, "next": self._next, "capacity": self.capacity}

    def restore(self, state: dict[str, Any]) -> None:
        """Fill this ring from `state`; another capacity or width is refused."""
        if state["capacity"] != self.capacity:
            msg = (
                f"replay_buffer: capacity {self.capacity} is required, found {state['capacity']} in the state"
            )
            raise CheckpointError(msg)
        size, position = len(state["rows"]["reward"]), int(state["next"])
        whole = size == self.capacity or (size < self.capacity and position == size)
        if not whole or not 0 <= position < self.capacity:
            msg = f"replay_buffer: a ring filled up to its write position is required, found {size} rows, {position}"
            raise CheckpointError(msg)
        for name, ring in self._ring._asdict().items():
            rows = state["rows"][name]
            if rows.shape != (size, *ring.shape[1:]) or rows.dtype != ring.dtype:
                msg = (
                    f"replay_buffer: {size} rows of {name}, width {tuple(ring.shape[1:])}, are required, found "
                    f"{tuple(rows.shape)} {rows.dtype}"
                )
                raise CheckpointError(msg)
            if not torch.isfinite(rows).all():
                msg = (
                    f"replay_buffer: finite values are required, found NaN or infinity in {name} of the state"
                )
                raise CheckpointError(msg)
            ring[:size] = rows.to(ring.device)
        self._size, self._next = size, position

    def _fields(self, rows: Tensor) -> Batch:
        """Return views of packed rows."""
        obs, action, reward, terminated, next_obs = rows.split_with_sizes(self._widths, dim=1)
        return Batch(obs, action, reward.squeeze(1), terminated.squeeze(1), next_obs)
