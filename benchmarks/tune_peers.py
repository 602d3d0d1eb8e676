"""The search behind benchmarks/peers.toml: the same budget and the same search space for every learner.

python -m benchmarks.tune_peers        20 trials each of this project, Stable-Baselines3 and SBX, about 15 minutes

Trial 0 is the learner as shipped; the others are draws of `learners.draw`, the same ones for every learner.
A trial trains on M4 for ten processor seconds, evaluation excluded, and compilation too: the clock starts
after the first 100 vector steps, which hold the warm-up. Its score is the captured share of the optimum, held
within [0, 1], averaged over the second half of that time: it rewards speed and level. The best trial's
settings are what `time_to_mark` uses, on seeds that the search has not seen.
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
from benchmarks.time_to_mark import NUM_ENVS, SETTINGS, Curve, Limits, train_curve

MARKET, SEED, TRIALS = "M4", 100, 20
BUDGET_S, EVERY_S, FREE_STEPS = 10.0, 1.0, 100 * NUM_ENVS


def trials(count: int) -> list[learners.Settings]:
    """Return the settings of all trials: as shipped, then draws."""
    rng = random.Random(SEED)
    return [{}, *(learners.draw(rng) for _ in range(count - 1))]


def score(curve: Curve, budget_s: float = BUDGET_S) -> float:
    """Return the mean share over the budget's second half, within [0, 1], straight lines between evaluations."""
    seconds, shares = np.transpose([(0.0, 0.0), *curve])
    grid = np.linspace(0.5, 1.0, 241) * budget_s
    return float(np.interp(grid, seconds, np.clip(shares, 0.0, 1.0)).mean())


def measure(trial: dict[str, Any]) -> dict[str, Any]:
    """Return one trial's row."""
    limits = Limits(None, BUDGET_S, EVERY_S, FREE_STEPS)
    curve, _ = train_curve(trial["learner"], MARKET, SEED, trial["settings"], limits)
    return {**trial, "score": round(score(curve), 4), "curve": [[round(a, 1), round(b, 3)] for a, b in curve]}


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
        for trial in json.loads(args.job)["trials"]:
            print(json.dumps(measure(trial)), flush=True)
        return 0
    journal = jobs.Journal(args.results)
    for learner in args.learners.split(","):
        drawn = enumerate(trials(args.trials))
        wanted = [{"learner": learner, "trial": i, "settings": settings} for i, settings in drawn]
        missing = [trial for trial in wanted if not journal.find(**trial)]
        for row in jobs.run_alone("benchmarks.tune_peers", {"trials": missing}):
            journal.add(row)
            print(f"  {learner} trial {row['trial']}: {row['score']}", flush=True)
    rows = [row for name in learners.LEARNERS for row in journal.find(learner=name)]
    text = toml(rows, jobs.header())
    tomllib.loads(text)
    SETTINGS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
