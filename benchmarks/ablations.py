"""What each ingredient that is not in plain SAC brings, and levers that were tried and left out, on M11.

python -m benchmarks.ablations --seeds 2
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.levers import (
    ClampedLogStd,
    FixedHorizon,
    RandomMeanHead,
    WeightDecay,
    relabelled,
    warm_start,
)
from sac_kernel.agent.config import SACConfig
from sac_kernel.core import packages
from sac_kernel.core.device import set_threads
from sac_kernel.experiment.proof import PATH_BARS, Setting, prove
from sac_kernel.experiment.run_config import UTD_RATIO
from sac_kernel.market.known_answer import MARKETS, Judge, Optimum

MARKET = MARKETS["M11"]
MEMBERS = 3
OWED = int(SACConfig.warmup_steps * UTD_RATIO)
"""Updates that follow the warm-up at once."""
INTERVALS = (2, 5, 10)


def settings(updates: int) -> dict[str, Setting]:
    """Return what is changed, by name."""
    plain = Setting(updates, "denoised", {}, lambda line: print(line, flush=True))

    def changed(**fields: object) -> Setting:
        return plain._replace(changes=fields)

    return {
        "default": plain,
        "raw rewards": plain._replace(rewards="raw"),
        "reward scale 1 / sd(return)": changed(reward_scale=1.0),
        "initial alpha 1": changed(initial_alpha=1.0),
        "initial alpha .1": changed(initial_alpha=0.1),
        "target entropy -1 throughout": changed(final_target_entropy=-1.0),
        "target entropy -2.5 throughout": changed(target_entropy=-2.5),
        "last actor, no average": changed(average_decay=0.0),
        "mean head not at zero": plain._replace(agent=RandomMeanHead),
        "half of a batch relabelled": plain._replace(agent=relabelled(MARKET.cost)),
        "weight decay 1e-2": plain._replace(agent=WeightDecay),
        "width 256": changed(hidden_dims=(256, 256)),
        "width 32": changed(hidden_dims=(32, 32)),
        "learning rate 1e-3": changed(learning_rate=1e-3),
        "average over a horizon of 1,000 from the start": plain._replace(agent=FixedHorizon),
        "log standard deviation clamped": plain._replace(agent=ClampedLogStd),
        "warm start, actor and critics learn at once": plain._replace(agent=warm_start(MARKET, PATH_BARS, 0)),
        "warm start, critics first": plain._replace(agent=warm_start(MARKET, PATH_BARS, OWED)),
        **{f"decides every {k} bars": plain._replace(every=k) for k in INTERVALS},
    }


def ensemble(updates: int) -> tuple[list[float], float]:
    """Return the captures of `MEMBERS` agents of the first path, and that of their mean action."""
    judge, rows, policies = Judge(MARKET, bars=300, n=256), [], []
    for seed in range(MEMBERS):
        setting = settings(updates)["default"]._replace(path_seed=0)
        proven = prove("M11", range(seed, seed + 1), setting)
        policies.append(proven.policy)
        rows.append(proven.rows[0].final)
    mean = judge.result(lambda obs: np.mean([policy(obs) for policy in policies], axis=0))
    return rows, judge.capture(mean)


def clones(seeds: int) -> str:
    """Return the row of warm started agents that have not learnt yet."""
    judge, kind, config = Judge(MARKET, bars=300, n=256), warm_start(MARKET, PATH_BARS, 0), SACConfig
    agents = [kind(config(state_dim=MARKET.state_dim), device="cpu", seed=seed) for seed in range(seeds)]
    results = [judge.result(lambda obs, a=agent: a.select_action(obs, evaluate=True)) for agent in agents]
    finals = ", ".join(f"{judge.capture(result):.3f}" for result in results)
    turnover = statistics.median(judge.turnover_ratio(result) for result in results)
    return f"| warm start, right after the cloning | {finals} | {turnover:.2f} x | |"


def held(every: int) -> str:
    """Return the row of the best policy that knows the market and decides every so many bars."""
    bars = np.arange(every)
    fields = {
        "ic": MARKET.ic * (MARKET.rho**bars).sum(),
        "rho": MARKET.rho**every,
        "gamma": MARKET.gamma**every,
    }
    optimum = Optimum(dataclasses.replace(MARKET, **fields))
    judge = Judge(MARKET, bars=300, n=256)
    result = judge.result(lambda obs: optimum.act(obs[:, 0], obs[:, -1]), every)
    turnover = judge.turnover_ratio(result)
    return f"| decides every {every} bars: the optimum | {judge.capture(result):.3f} | {turnover:.2f} x | |"


def main() -> None:
    """Print one row a change."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    args = parser.parse_args()
    set_threads(1)
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, one thread; {packages.versions()}; {args}; {PATH_BARS} bars"
    )
    lines = ["| change | captured, each seed | turnover | best on the way |", "|---|---|---|---|"]
    for name, setting in settings(args.updates).items():
        if args.only in name:
            print(name, flush=True)
            rows = prove("M11", range(args.seeds), setting).rows
            finals = ", ".join(f"{row.final:.3f}" for row in rows)
            turnover, best = (
                statistics.median(getattr(row, key) for row in rows) for key in ("turnover", "best")
            )
            lines.append(f"| {name} | {finals} | {turnover:.2f} x | {best:.3f} |")
    if args.only in "ensemble":
        finals, mean = ensemble(args.updates)
        each = ", ".join(f"{final:.3f}" for final in finals)
        lines.append(f"| mean action of {MEMBERS} seeds on one path ({each}) | {mean:.3f} | | |")
    if args.only in "warm start, right after the cloning":
        lines.append(clones(args.seeds))
    lines += [held(k) for k in INTERVALS if args.only in f"decides every {k} bars: the optimum"]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
