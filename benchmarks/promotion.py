"""How often the promotion rule replaces the model in use: python -m benchmarks.promotion [--sets 1000].

Both models earn independent normal daily returns of 8 % volatility a year around a common part of the same size, so
their difference has 11 %. The candidate's true Sharpe ratio of the difference is given; 0 is a candidate that is as
good as the one in use.
"""

from __future__ import annotations

import argparse
import math
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from sac_kernel.core import packages
from sac_kernel.live import promotion
from sac_kernel.stats.verdict import upper_bound

DAYS = (60, 130, 260)
SHARPES = (-2.0, 0.0, 2.0, 4.0)
DAILY = 0.08 / math.sqrt(260)


def promoted(days: int, sharpe: float, sets: int, *, drifted: bool, seed: int = 0) -> int:
    """Return how many of `sets` candidates are promoted."""
    rng, count = np.random.default_rng(seed), 0
    edge = sharpe * math.sqrt(2.0) * DAILY / math.sqrt(260)
    for _ in range(sets):
        common, ours, theirs = rng.normal(0.0, DAILY, (3, days))
        count += promotion.decide(common + theirs + edge, common + ours, drifted=drifted)[0]
    return count


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promotion", description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    args = parser.parse_args()
    facts = ", ".join(f"{k} {v}" for k, v in packages.versions().items())
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, seed 0, {args.sets} sets of each; {facts}\n")
    print(
        "| Sharpe ratio of the difference | days | drift | promoted [%] | upper 95 % bound [%] |\n|---|---|---|---|---|"
    )
    for sharpe in SHARPES:
        for days in DAYS:
            for drifted in (False, True):
                n = promoted(days, sharpe, args.sets, drifted=drifted)
                bound = upper_bound(n, args.sets)
                print(
                    f"| {sharpe:g} | {days} | {'yes' if drifted else 'no'} | {n / args.sets:.1%} | {bound:.1%} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
