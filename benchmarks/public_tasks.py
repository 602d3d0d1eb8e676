"""Final return and training time on public tasks: this project, Stable-Baselines3 and SBX.

python -m benchmarks.public_tasks                                     three tasks, 50,000 steps, seeds 0-2
python -m benchmarks.public_tasks --tasks Pendulum-v1 --steps 8000    a shorter one

All run as shipped: nets (256, 256), batch 256, learning rate 3e-4, 100 random steps, one update a step,
a first temperature of 1 and a target entropy of -1 an action. `ours-market` is this project's preset, made for
markets, in everything but the 100 random steps. Gamma is .99. A return is the mean of ten greedy episodes of a
fresh env, started from seeds 1000 to 1009; seconds are of training alone, from the learner's construction on,
compilation included.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from benchmarks import jobs, learners

if TYPE_CHECKING:
    from benchmarks.learners import Learner

TASKS = ("Pendulum-v1", "HalfCheetah-v5", "Hopper-v5")
GAMMA = 0.99
LOOKS = 5
EPISODES, FIRST_EPISODE_SEED = 10, 1_000
VARIANTS: dict[str, tuple[str, learners.Settings]] = {
    "ours": ("ours", {"textbook": True}),
    "sb3": ("sb3", {}),
    "sbx": ("sbx", {}),
    "ours-market": ("ours", {"warmup_steps": 100}),
}
TITLES = {**learners.TITLES, "ours-market": "this project, `SACConfig.for_market`"}


def greedy_return(task: str, learner: Learner) -> float:
    """Return the mean undiscounted return of ten greedy episodes."""
    env, returns = gym.make(task), []
    for episode in range(EPISODES):
        obs, _ = env.reset(seed=FIRST_EPISODE_SEED + episode)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(learner.act(np.asarray(obs, np.float32)))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return statistics.fmean(returns)


def measure(job: dict[str, Any]) -> None:
    """Train one learner on one task and print a row at every look, the last one at the end."""
    task, total = job["task"], job["total"]
    name, settings = VARIANTS[job["learner"]][0], job["settings"]
    env = gym.make(task)
    clock = jobs.Clock()
    trained = learners.build(name, env, settings, GAMMA, job["seed"])

    def report(steps: int) -> None:
        cpu_s, wall_s = clock.pause()
        found = {"return": round(greedy_return(task, trained), 2), "cpu_s": round(cpu_s, 1)}
        print(json.dumps({**job, "steps": steps, **found, "wall_s": round(wall_s, 1)}), flush=True)
        clock.go_on()

    def on_step(steps: int) -> bool:
        if steps < total and steps % (total // LOOKS) == 0:
            report(steps)
        return True

    trained.learn(total, on_step)
    report(total)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the Markdown table: per task and learner the runs' last rows."""
    lines = [
        "| task | learner | steps | final return, mean (each seed) | processor s of training, median | wall s |",
        "|---|---|---|---|---|---|",
    ]
    for task, learner in dict.fromkeys((row["task"], row["learner"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["learner"]) == (task, learner)]
        returns = [row["return"] for row in mine]
        cpu_s, wall_s = (statistics.median(row[name] for row in mine) for name in ("cpu_s", "wall_s"))
        lines.append(
            f"| {task} | {TITLES[learner]} | {min(row['steps'] for row in mine):,} | {statistics.fmean(returns):,.1f} "
            f"({', '.join(f'{value:,.1f}' for value in returns)}) | {cpu_s:.0f} | {wall_s:.0f} |"
        )
    return lines


def main() -> int:
    """Run what the results file lacks and print the table as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.public_tasks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, comma-separated")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--learners", default=",".join(VARIANTS))
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/public_tasks.jsonl"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        jobs.pin()
        measure(json.loads(args.job))
        return 0
    wanted = [
        {
            "task": task,
            "total": args.steps,
            "seed": seed,
            "learner": learner,
            "settings": VARIANTS[learner][1],
        }
        for task in args.tasks.split(",")
        for seed in range(args.seeds)
        for learner in args.learners.split(",")
    ]

    def say(row: dict[str, Any]) -> str:
        return f"{row['task']} seed {row['seed']} {row['learner']}: {row['return']} at {row['steps']:,}"

    rows = jobs.run_missing("benchmarks.public_tasks", wanted, args.results, say, steps=args.steps)
    print("\n".join(("", jobs.header(), "", *table(rows))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
