"""Candidates for agent 2's auxiliary task on M11, from raw and from denoised rewards: docs/learning.md.

python -m benchmarks.auxiliary --seeds 2
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.levers import next_features_head, next_return_head
from sac_kernel.core import packages
from sac_kernel.core.device import set_threads
from sac_kernel.experiment.proof import PATH_BARS, Setting, prove
from sac_kernel.market.known_answer import MARKETS, Paths

MARKET = MARKETS["M11"]
CLUSTERS, LATENT = 8, 8


def settings(rewards: str, updates: int) -> dict[str, Setting]:
    """Return the candidates by name."""
    plain = Setting(updates, rewards, {}, lambda line: print(line, flush=True))
    spread = MARKET.ic if rewards == "denoised" else 1.0
    return {
        "none": plain,
        "expected return as an input": plain._replace(forecast=True),
        "next-return head": plain._replace(agent=next_return_head(MARKET.cost, spread)),
        "next-features head": plain._replace(agent=next_features_head(MARKET.state_dim - 1)),
    }


def clusters_share(path: Paths, seed: int = 0) -> tuple[float, float]:
    """Return the shares of the true expected return's variance that latents and their clusters explain.

    Latents are the best linear autoencoder's (principal components), clusters k-means on them.
    """
    x, truth = path.features[:-1, 0], path.mean[:, 0]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    latent = x @ np.linalg.eigh(x.T @ x)[1][:, -LATENT:]
    fit = np.linalg.lstsq(latent, truth, rcond=None)[0]
    centres = latent[np.random.default_rng(seed).choice(len(latent), CLUSTERS, replace=False)]
    for _ in range(30):
        nearest = ((latent[:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)
        centres = np.stack([latent[nearest == k].mean(axis=0) for k in range(CLUSTERS)])
    means = np.array([truth[nearest == k].mean() for k in range(CLUSTERS)])
    shares = (1.0 - np.square(truth - guess).mean() / truth.var() for guess in (latent @ fit, means[nearest]))
    return tuple(float(share) for share in shares)  # type: ignore[return-value]  # two


def main() -> None:
    """Print one row a candidate and reward."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.auxiliary", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--rewards", default="raw,denoised")
    parser.add_argument("--only", default="", help="candidates whose name contains this")
    args = parser.parse_args()
    set_threads(1)
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, one thread; {packages.versions()}; {args}")
    path = MARKET.simulate(PATH_BARS // 10, 1, np.random.default_rng(1_000))
    shares = clusters_share(path)
    print(
        f"autoencoder, {LATENT} latents: {shares[0]:.3f} of the signal's variance; {CLUSTERS} clusters: {shares[1]:.3f}"
    )
    lines = ["| task | rewards | captured, each seed | best on the way |", "|---|---|---|---|"]
    for rewards in args.rewards.split(","):
        for name, setting in settings(rewards, args.updates).items():
            if args.only in name:
                rows = prove("M11", range(args.seeds), setting).rows
                finals = ", ".join(f"{row.final:.3f}" for row in rows)
                best = statistics.median(row.best for row in rows)
                lines.append(f"| {name} | {rewards} | {finals} | {best:.3f} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
