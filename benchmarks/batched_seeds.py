"""Would K seeds in one process, their weights stacked, beat K processes? `python -m benchmarks.batched_seeds`.

The heart of an update, forward, backward and Adam of the default twin critics (64 x 64, batch 256), in processor
time of one thread: of K seeds stacked (`torch.baddbmm`) and of one seed alone, which is what each of K processes
pays. Rounds are interleaved. A ratio above 1 says that the stack is cheaper a seed.
"""

from __future__ import annotations

import itertools

from benchmarks.timing import compare, header  # before torch: it sets the thread count

# ruff: isort: split
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name

from sac_kernel import runtime
from sac_kernel.networks import TwinCritic

WIDTH, HIDDEN, BATCH = 42, (64, 64), 256
UPDATES = 20


class Stacked:
    """The twin critics of K seeds: 2 K networks, one matrix product a layer."""

    def __init__(self, seeds: int) -> None:
        sizes = (WIDTH + 1, *HIDDEN, 1)
        self.layers = [
            (
                torch.randn(2 * seeds, i, o).div(i**0.5).requires_grad_(),
                torch.zeros(2 * seeds, 1, o, requires_grad=True),
            )
            for i, o in itertools.pairwise(sizes)
        ]
        self.optimiser = torch.optim.Adam([p for layer in self.layers for p in layer], lr=3e-4, foreach=True)
        self.x = torch.randn(seeds, BATCH, WIDTH + 1).repeat_interleave(2, 0)
        self.target = torch.randn(seeds, BATCH, 1).repeat_interleave(2, 0)
        self.seeds = seeds

    def update(self) -> int:
        """Do some updates of all seeds; return how many (update, seed) were done."""
        for _ in range(UPDATES):
            h = self.x
            for weight, bias in self.layers[:-1]:
                h = torch.relu(torch.baddbmm(bias, h, weight))
            weight, bias = self.layers[-1]
            loss = F.mse_loss(torch.baddbmm(bias, h, weight), self.target)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return UPDATES * self.seeds


class Alone:
    """The twin critics of one seed, as the agent has them."""

    def __init__(self) -> None:
        self.nets = TwinCritic(WIDTH, 1, HIDDEN)
        self.optimiser = torch.optim.Adam(self.nets.parameters(), lr=3e-4, foreach=True)
        self.obs, self.action = torch.randn(BATCH, WIDTH), torch.randn(BATCH, 1)
        self.target = torch.randn(BATCH)

    def update(self) -> int:
        """Do some updates; return how many."""
        for _ in range(UPDATES):
            q1, q2 = self.nets(self.obs, self.action)
            loss = F.mse_loss(q1, self.target) + F.mse_loss(q2, self.target)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return UPDATES


def main() -> None:
    """Measure and print one row a K."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(header(runtime.versions()))
    print(
        "| | stacked | each alone | ratio (range) | unit |\n|---|---|---|---|---|\n"
        + "\n".join(
            compare(
                f"{k} seed{'s' if k > 1 else ''}",
                Stacked(k).update,
                Alone().update,
                "updates of a seed/CPU s",
            )
            for k in (1, 2, 4, 8, 16)
        )
    )


if __name__ == "__main__":
    main()
