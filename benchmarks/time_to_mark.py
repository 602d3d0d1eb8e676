"""Training time until a mark is reached for good: this project, Stable-Baselines3 and SBX on the same markets.

python -m benchmarks.time_to_mark                              M4 and M5, tuned, 5 seeds
python -m benchmarks.time_to_mark --how shipped --markets M4   each learner's own defaults
python -m benchmarks.time_to_mark --how same --markets M4      the peers with this project's defaults

Every learner trains on the same simulator with realised rewards: 64 accounts of `MarketVectorEnv`, gamma of
the market; the peers get it as a VecEnv. Counted are processor seconds of training alone, from the learner's
construction on, compilation included and evaluation excluded, to the first of three evaluations in a row at
or above the mark. An evaluation, one a second of training, is the greedy policy's captured share of the
optimum on fresh paths. A run that does not get there counts as the cap. Learners take turns, seed by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import jobs, learners
from sac_kernel.agent.config import SACConfig
from sac_kernel.market.known_answer import Judge
from sac_kernel.market.known_answer_envs import MarketVectorEnv
from sac_kernel.market.known_answer_kinds import ALL_MARKETS

NUM_ENVS = 64
IN_A_ROW = 3
EVERY_S = 1.0
CAP_S = 300.0
MARKS = {"M4": 0.85, "M5": 0.75}
HOW = {
    "tuned": "tuned (benchmarks/peers.toml)",
    "shipped": "as shipped",
    "same": "the peers with this project's nets, temperature and the middle of its target entropies",
}
SETTINGS = Path(__file__).with_name("peers.toml")


class Limits(NamedTuple):
    """When a run looks and ends."""

    mark: float | None  # captured share at which it may end; None goes on to the cap
    cap_s: float = CAP_S  # processor seconds of training
    every_s: float = EVERY_S  # of training between two evaluations
    free_steps: int = 0  # transitions before the clock starts; for a search, so that compilation is not in it


Curve = list[tuple[float, float]]  # (processor seconds of training, captured share)


def time_to_mark(curve: Curve, mark: float, cap_s: float = CAP_S) -> float:
    """Return the seconds of the first of three evaluations in a row at or above `mark`; `cap_s` if there is none."""
    for i in range(len(curve) - IN_A_ROW + 1):
        row = curve[i : i + IN_A_ROW]
        if row[-1][0] > cap_s:
            break
        if all(share >= mark for _, share in row):
            return row[0][0]
    return cap_s


def train_curve(
    learner: str, market: str, seed: int, settings: learners.Settings, limits: Limits
) -> tuple[Curve, float]:
    """Train one learner on one market; return its curve and the wall seconds of training."""
    env, judge = MarketVectorEnv(ALL_MARKETS[market], NUM_ENVS), Judge(ALL_MARKETS[market], bars=200, n=256)
    clock = jobs.Clock()
    trained = learners.build(learner, env, settings, ALL_MARKETS[market].gamma, seed)
    curve: Curve = []
    due_s = limits.every_s

    def policy(obs: Any) -> Any:
        return trained.act(obs.astype(np.float32))

    def on_step(env_steps: int) -> bool:
        nonlocal clock, due_s
        if env_steps <= limits.free_steps:
            clock = jobs.Clock()
        if clock.cpu_s() < due_s:
            return True
        cpu_s, _ = clock.pause()
        curve.append((cpu_s, judge.capture(judge.result(policy))))
        due_s = (cpu_s // limits.every_s + 1.0) * limits.every_s
        found = limits.mark is not None and time_to_mark(curve, limits.mark, limits.cap_s) < limits.cap_s
        clock.go_on()
        return not found and cpu_s < limits.cap_s

    trained.learn(2**60, on_step)
    return curve, clock.pause()[1]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Return one run's row."""
    mark = MARKS[job["market"]]
    curve, wall_s = train_curve(job["learner"], job["market"], job["seed"], job["settings"], Limits(mark))
    shares = [[round(seconds, 2), round(share, 4)] for seconds, share in curve]
    return {
        **job,
        "seconds": round(time_to_mark(curve, mark), 2),
        "wall_s": round(wall_s, 2),
        "curve": shares,
    }


def settings_of(how: str) -> dict[str, learners.Settings]:
    """Return the settings of every learner that has some."""
    if how == "tuned":
        if not SETTINGS.exists():
            msg = (
                f"{SETTINGS}: tuned settings are required, found no file; run python -m benchmarks.tune_peers"
            )
            raise FileNotFoundError(msg)
        found = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
        return {learner: entry["settings"] for learner, entry in found.items()}
    if how == "shipped":
        return {learner: {} for learner in learners.LEARNERS}
    ours = SACConfig.for_market()
    peer = {
        "initial_alpha": ours.initial_alpha,
        "target_entropy": (ours.entropy_target(0) + ours.entropy_target(ours.schedule_updates)) / 2.0,
        "width": ours.hidden_dims[0],
    }
    return {learner: {} if learner == "ours" else peer for learner in learners.LEARNERS}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the Markdown table of all rows."""
    lines = [
        "| market, mark | learner | processor s, median (range) | missed | x this project | wall s of a run |",
        "|---|---|---|---|---|---|",
    ]
    for market in dict.fromkeys(row["market"] for row in rows):
        ours = None
        for learner in learners.LEARNERS:
            mine = [row for row in rows if (row["market"], row["learner"]) == (market, learner)]
            if not mine:
                continue
            seconds = sorted(row["seconds"] for row in mine)
            median = statistics.median(seconds)
            ours = median if learner == "ours" else ours
            missed = sum(s >= CAP_S for s in seconds)
            ratio = f"{median / ours:.2f}" if ours else ""
            wall = statistics.median(row["wall_s"] for row in mine)
            lines.append(
                f"| {market}, {MARKS[market]} | {learners.TITLES[learner]} | {median:.1f} ({seconds[0]:.1f}-"
                f"{seconds[-1]:.1f}) | {missed} of {len(mine)} | {ratio} | {wall:.0f} |"
            )
    return lines


def main() -> int:
    """Run what the results file lacks and print the table as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_mark", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--markets", default=",".join(MARKS), help="names, comma-separated")
    parser.add_argument("--learners", help="names, comma-separated; without it all that have settings")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--how", choices=tuple(HOW), default="tuned", help="what the learners are set to")
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/time_to_mark.jsonl"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        jobs.pin()
        print(json.dumps(measure(json.loads(args.job))), flush=True)
        return 0
    settings = settings_of(args.how)
    names = (
        args.learners.split(",")
        if args.learners
        else [name for name in learners.LEARNERS if name in settings]
    )
    wanted = [
        {"learner": learner, "market": market, "seed": seed, "settings": settings[learner]}
        for market in args.markets.split(",")
        for seed in range(args.seeds)
        for learner in names
    ]

    def say(row: dict[str, Any]) -> str:
        return f"{row['market']} seed {row['seed']} {row['learner']}: {row['seconds']} s"

    rows = jobs.run_missing("benchmarks.time_to_mark", wanted, args.results, say)
    print("\n".join(("", jobs.header(), f"{HOW[args.how]}, seeds 0-{args.seeds - 1}", "", *table(rows))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
