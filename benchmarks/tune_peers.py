"""The search behind benchmarks/peers.toml: the same budget and the same search space for every learner.

python -m benchmarks.tune_peers        20 trials each of this project, Stable-Baselines3 and SBX, about 15 minutes

Trial 0 is the learner as shipped; the others are draws of `learners.draw`, the same ones for every learner.
A trial trains on M4 for five processor seconds; the four best do so again for twenty. Evaluation is not
counted, compilation neither: the clock starts after the first 100 vector steps, which hold the warm-up. The
score is the captured share of the optimum, held within [0, 1], averaged over the second half of the time: it
rewards speed and level. The best of the four is what `time_to_mark` uses, on seeds that the search has not
seen.
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

MARKET, SEED = "M4", 100
RUNGS = ((20, 5.0), (4, 20.0))
"""Trials and processor seconds each: successive halving, the same for every learner."""
LOOKS = 10
FREE_STEPS = 100 * NUM_ENVS


def trials(count: int) -> list[learners.Settings]:
    """Return the settings of all trials: as shipped, then draws."""
    rng = random.Random(SEED)
    return [{}, *(learners.draw(rng) for _ in range(count - 1))]


def score(curve: Curve, budget_s: float) -> float:
    """Return the mean share over the budget's second half, within [0, 1], straight lines between evaluations."""
    seconds, shares = np.transpose([(0.0, 0.0), *curve])
    grid = np.linspace(0.5, 1.0, 241) * budget_s
    return float(np.interp(grid, seconds, np.clip(shares, 0.0, 1.0)).mean())


def measure(trial: dict[str, Any]) -> dict[str, Any]:
    """Return one trial's row."""
    budget_s = trial["budget_s"]
    limits = Limits(None, budget_s, budget_s / LOOKS, FREE_STEPS)
    curve, _ = train_curve(trial["learner"], MARKET, SEED, trial["settings"], limits)
    shares = [[round(seconds, 1), round(share, 3)] for seconds, share in curve]
    return {**trial, "score": round(score(curve, budget_s), 4), "curve": shares}


def search(learner: str, journal: jobs.Journal) -> list[dict[str, Any]]:
    """Run the trials of one learner that the journal lacks; return the rows of the last rung, best first."""
    chosen = list(enumerate(trials(RUNGS[0][0])))
    for count, budget_s in RUNGS:
        wanted = [
            {"learner": learner, "trial": trial, "settings": settings, "budget_s": budget_s}
            for trial, settings in chosen[:count]
        ]
        missing = [trial for trial in wanted if not journal.find(**trial)]
        for row in jobs.run_alone("benchmarks.tune_peers", {"trials": missing}) if missing else ():
            journal.add(row)
            print(f"  {learner} trial {row['trial']}, {budget_s:.0f} s: {row['score']}", flush=True)
        rows = sorted((journal.find(**trial)[-1] for trial in wanted), key=lambda row: -row["score"])
        chosen = [(row["trial"], row["settings"]) for row in rows]
    return rows


def toml(rows: list[dict[str, Any]], note: str) -> str:
    """Return benchmarks/peers.toml: for each learner its best settings and score, and all its trials."""
    lines = [f"# By `python -m benchmarks.tune_peers`: {note}"]
    lines.append(f"# {MARKET}, seed {SEED}; trial 0 is as shipped; scores are shares of the optimum.")
    for learner in dict.fromkeys(row["learner"] for row in rows):
        mine = [row for row in rows if row["learner"] == learner]
        best = max(mine, key=lambda row: (row["budget_s"], row["score"]))
        lines += ["", f"[{learner}]", f"score = {best['score']}", f"trial = {best['trial']}", "trials = ["]
        lines += [
            f"    {{ trial = {row['trial']}, budget_s = {row['budget_s']}, score = {row['score']}, "
            f"settings = {_inline(row['settings'])} }},"
            for row in mine
        ]
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
        search(learner, journal)
    rows = [row for name in learners.LEARNERS for row in journal.find(learner=name)]
    text = toml(rows, jobs.header())
    tomllib.loads(text)
    SETTINGS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
