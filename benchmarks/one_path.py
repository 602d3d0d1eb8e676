"""What agents make of one finite path (M11): Stable-Baselines3, SBX and this project, tuned and as `make prove` has it.

python -m benchmarks.one_path                                  all of them, realised and denoised rewards
python -m benchmarks.one_path --learners sb3 --rewards raw     one of them

Tuned are the settings that the committed search found on M4 (benchmarks/peers.toml). Path, accounts and seeds are
those of `proof`, and rewards are in units of `reward_spread`, as this project's agent has them. Denoised rewards are
this project's; a peer by itself has the realised ones.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.wrappers.vector import TransformReward

from benchmarks import jobs, learners
from benchmarks.proof import EVALUATIONS, Setting, prepare, prove
from benchmarks.time_to_mark import settings_of
from sac_kernel.market.known_answer import MARKETS, Judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

MARKET = MARKETS["M11"]
REWARDS = ("raw", "denoised")
DEFAULT = "ours-default"
TITLES = {**learners.TITLES, "ours": "this project, tuned", DEFAULT: "this project, default"}


def _divided(spread: float, reward: FloatArray) -> FloatArray:
    return reward / spread


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Return one run's row: the captured share at ten looks, the reference of its path."""
    setting = Setting(job["updates"], job["rewards"], {}, lambda _: None)
    if job["learner"] == DEFAULT:
        found = prove(MARKET, range(job["seed"], job["seed"] + 1), setting).rows[0]
        return {**job, "final": round(found.final, 4), "best": round(found.best, 4),
                "reference": round(found.reference, 4)}  # fmt: skip
    judge = Judge(MARKET, bars=300, n=256)
    task = prepare(MARKET, job["seed"], setting, judge)
    env = TransformReward(task.env, functools.partial(_divided, task.spread))
    peer = learners.build(job["learner"], env, job["settings"], MARKET.gamma, job["seed"])
    a_step = job["settings"].get("updates_per_step", 1)
    every = job["updates"] // a_step // EVALUATIONS * task.env.num_envs
    captures: list[float] = []

    def on_step(env_steps: int) -> bool:
        if env_steps % every == 0:
            result = judge.result(lambda obs: peer.act(obs.astype(np.float32)))
            captures.append(round(judge.capture(result), 4))
        return True

    peer.learn(every * EVALUATIONS, on_step)
    return {**job, "final": captures[-1], "best": max(captures), "reference": round(task.reference, 4),
            "curve": captures}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the Markdown table of all rows."""
    lines = [
        "| rewards | learner | captured, median (each seed) | best look, median | final / ridge + band |",
        "|---|---|---|---|---|",
    ]
    for rewards, learner in dict.fromkeys((row["rewards"], row["learner"]) for row in rows):
        mine = [row for row in rows if (row["rewards"], row["learner"]) == (rewards, learner)]
        finals = [row["final"] for row in mine]
        best = statistics.median(row["best"] for row in mine)
        share = statistics.median(row["final"] / row["reference"] for row in mine)
        lines.append(
            f"| {rewards} | {TITLES[learner]} | {statistics.median(finals):.3f} "
            f"({', '.join(f'{final:.3f}' for final in finals)}) | {best:.3f} | {share:.2f} |"
        )
    return lines


def main() -> int:
    """Run what the results file lacks and print the table as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.one_path", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--learners", default=",".join((DEFAULT, *learners.LEARNERS)), help="names, comma-separated"
    )
    parser.add_argument("--rewards", default=",".join(REWARDS), help="kinds, comma-separated")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/one_path.jsonl"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        jobs.pin()
        print(json.dumps(measure(json.loads(args.job))), flush=True)
        return 0
    settings = settings_of("tuned") | {DEFAULT: {}}
    wanted = [
        {
            "learner": learner,
            "rewards": rewards,
            "seed": seed,
            "updates": args.updates,
            "settings": settings[learner],
        }
        for rewards in args.rewards.split(",")
        for seed in range(args.seeds)
        for learner in args.learners.split(",")
    ]

    def say(row: dict[str, Any]) -> str:
        return f"{row['rewards']} seed {row['seed']} {row['learner']}: {row['final']}"

    rows = jobs.run_missing("benchmarks.one_path", wanted, args.results, say)
    print("\n".join(("", jobs.header(), f"M11, {args.updates:,} updates", "", *table(rows))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
