"""Markets with and without a planted signal through the walk-forward of a run: how often the verdict is right.

    python -m benchmarks.planted_folds --markets 5

Each market is six years of hourly bars. A run has 8 folds (four years of test days), three seeds, base costs and the
pipeline's null with 39 copies: what a build of own bars plans, with two seeds and two cost tiers less. Finished markets
are not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.planted_market import planted_data
from sac_kernel.core import files, packages
from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.stats.verdict import Word, upper_bound

STRENGTHS = (0.0, 0.05, 0.10)
FOLDS, SEEDS, COPIES = 8, (0, 1, 2), 39


def run_market(ic: float, seed: int, folder: Path) -> dict[str, Any]:
    """Return what a run says about one market, from its file if it is finished."""
    path = folder / f"ic_{ic:g}_seed_{seed}.json"
    if path.is_file():
        return dict(files.read_json(path))
    started_s, cpu_s = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        bars = Path(scratch) / "bars.h5"
        write_processed(planted_data(ic, seed, folds=FOLDS), bars)
        run = run_jobs(
            RunConfig(
                h5_path=str(bars),
                output_dir=str(Path(scratch) / "out"),
                folds=FOLDS,
                seeds=SEEDS,
                tiers=("base",),
                null_copies=COPIES,
                device="cpu",
            )
        )
    verdict, walk = run.summary["verdict"], run.summary["walk_forward"]
    keys = ("word", "days", "annual_frac", "low_frac", "high_frac", "dsr")
    found = {key: verdict.get(key) for key in keys}
    found |= {
        "ic": ic,
        "seed": seed,
        "p_null": verdict["null"]["p_value"],
        "copies": verdict["null"]["copies"],
    }
    found |= {
        "wall_s": time.monotonic() - started_s,
        "cpu_s": time.process_time() - cpu_s + walk["cpu_s_in_all"],
    }
    files.write_json(path, found | {"versions": packages.versions()})
    return found


def line(found: dict[str, Any]) -> str:
    """Return one row of the table."""
    p = found["p_null"]
    cells = (
        f"{found['ic']:.2f}", found["seed"], found["word"], found["days"],
        *(f"{100 * found[key]:.1f}" for key in ("annual_frac", "low_frac", "high_frac")),
        "no trade" if p is None else f"{p:.3f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run what is not finished and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markets", type=int, default=5, help="of each strength")
    parser.add_argument("--first", type=int, default=0, help="seed of the first market")
    parser.add_argument(
        "--strengths", type=json.loads, default=list(STRENGTHS), help="a list, such as [0, 0.05]"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/prove/planted_folds"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(
        "| IC | seed | verdict | days | net a year [%] | from | to | p of the null |\n|---|---|---|---|---|---|---|---|"
    )
    for ic in args.strengths:
        rows = []
        for seed in range(args.first, args.first + args.markets):
            rows.append(run_market(ic, seed, args.folder))
            print(line(rows[-1]), flush=True)
        edges = sum(Word(row["word"]).is_edge for row in rows)
        bound = f", at most {upper_bound(edges, len(rows)):.0%} with 95 % confidence" if ic == 0 else ""
        print(f"IC {ic:g}: {edges} of {len(rows)} called an edge{bound}", flush=True)


if __name__ == "__main__":
    main()
