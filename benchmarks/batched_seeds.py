"""Would K seeds in one process, their weights stacked, beat K processes? `python -m benchmarks.batched_seeds`.

The heart of an update, forward, backward and Adam of the default twin critics (64 x 64, batch 256), by the agent's
own written-out passes, which take any number of stacked networks: 2 K of them against 2, as each of K processes has
them. Processor time of one thread, rounds interleaved. A ratio above 1 says that the stack is cheaper a seed.
"""

from __future__ import annotations

from benchmarks.timing import compare, header  # before torch: it sets the thread count

# ruff: isort: split
import torch

from sac_kernel.agent import update as sac_update
from sac_kernel.agent.networks import Critic
from sac_kernel.core import packages

WIDTH, HIDDEN, BATCH = 42, (64, 64), 256
UPDATES = 20


class Critics:
    """The twin critics of K seeds: 2 K networks, one matrix product a layer."""

    def __init__(self, seeds: int) -> None:
        self.seeds, self.step, self.rate = seeds, torch.zeros(()), torch.tensor(3e-4)
        self.learner = sac_update._Learner([Critic(WIDTH, 1, HIDDEN) for _ in range(2 * seeds)])
        self.x = torch.randn(seeds, BATCH, WIDTH + 1).repeat_interleave(2, 0)
        self.target = torch.randn(seeds, BATCH, 1).repeat_interleave(2, 0)

    @torch.inference_mode()
    def update(self) -> int:
        """Do some updates of all seeds; return how many (update, seed) were done."""
        for _ in range(UPDATES):
            seen = self.learner.forward(self.x)
            self.learner.backward(seen, (seen[-1] - self.target) / BATCH)
            self.step += 1
            self.learner.descend(self.step, self.rate)
        return UPDATES * self.seeds


def main() -> None:
    """Measure and print one row a K."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(header(packages.versions()))
    print(
        "| | stacked | each alone | ratio (range) | unit |\n|---|---|---|---|---|\n"
        + "\n".join(
            compare(
                f"{k} seed{'s' if k > 1 else ''}",
                Critics(k).update,
                Critics(1).update,
                "updates of a seed/CPU s",
            )
            for k in (1, 2, 4, 8, 16)
        )
    )


if __name__ == "__main__":
    main()
