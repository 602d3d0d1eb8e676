"""The search behind benchmarks/peers.toml: the same budget and the same search space for every learner.

python -m benchmarks.tune_peers        20 trials each of this project, Stable-Baselines3 and SBX, about 25 minutes

Trial 0 is the learner as shipped; the others are draws of `learners.draw`, the same ones for every learner.
A trial trains on M4 for a fixed number of processor seconds, compilation included, evaluation excluded. Its
score is the captured share of the optimum, held within [0, 1], averaged over the second half of that time:
it rewards speed and level. The best trial's settings are what `time_to_mark` uses, on seeds that the search
has not seen.
"""

from __future__ import annotations

import argparse
import json
import random
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import jobs, learners
from benchmarks.time_to_mark import SETTINGS, Curve, Limits, train_curve

MARKET, SEED, TRIALS = "M4", 100, 20
BUDGET_S, EVERY_S = 20.0, 2.0


def trials(count: int) -> list[learners.Settings]:
    """Return the settings of all trials: as shipped, then draws."""
    rng = random.Random(SEED)
    return [{}, *(learners.draw(rng) for _ in range(count - 1))]


def score(curve: Curve, budget_s: float = BUDGET_S) -> float:
    """Return the mean share over the budget's second half, within [0, 1], straight lines between evaluations."""
    seconds, shares = np.transpose([(0.0, 0.0), *curve])
    grid = np.linspace(0.5, 1.0, 241) * budget_s
    return float(np.interp(grid, seconds, np.clip(shares, 0.0, 1.0)).mean())


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Return one trial's row."""
    curve, _ = train_curve(job["learner"], MARKET, SEED, job["settings"], Limits(None, BUDGET_S, EVERY_S))
    return {**job, "score": round(score(curve), 4), "curve": [[round(a, 1), round(b, 3)] for a, b in curve]}


def toml(rows: list[dict[str, Any]], note: str) -> str:
    """Return benchmarks/peers.toml: for each learner its best settings, its score and all trials."""
    lines = [f"# By `python -m benchmarks.tune_peers`: {note}"]
    lines.append(f"# {MARKET}, seed {SEED}, {BUDGET_S:.0f} processor seconds a trial; trial 0 is as shipped.")
    for learner in dict.fromkeys(row["learner"] for row in rows):
        mine = [row for row in rows if row["learner"] == learner]
        best = max(mine, key=lambda row: row["score"])
        lines += ["", f"[{learner}]", f"score = {best['score']}", f"trial = {best['trial']}", "trials = ["]
        lines += [f"    {{ score = {r['score']}, settings = {_inline(r['settings'])} }}," for r in mine]
        lines += ["]", f"settings = {_inline(best['settings'])}"]
    return "\n".join(lines) + "\n"


def _inline(settings: learners.Settings) -> str:
    return (
        "{ " + ", ".join(f"{name} = {value}" for name, value in settings.items()) + " }" if settings else "{}"
    )


def main() -> int:
    """Run the trials that the results file lacks, then write the settings file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tune_peers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--learners", default=",".join(learners.LEARNERS))
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/tune_peers.jsonl"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        jobs.pin()
        print(json.dumps(measure(json.loads(args.job))), flush=True)
        return 0
    journal = jobs.Journal(args.results)
    for trial, settings in enumerate(trials(args.trials)):
        for learner in args.learners.split(","):
            job = {"learner": learner, "trial": trial, "settings": settings}
            if journal.find(**job):
                continue
            for row in jobs.run_alone("benchmarks.tune_peers", job):
                journal.add(row)
                print(f"  trial {trial} {learner}: {row['score']}", flush=True)
    rows = [row for name in learners.LEARNERS for row in journal.find(learner=name)]
    text = toml(rows, jobs.header())
    tomllib.loads(text)
    SETTINGS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
