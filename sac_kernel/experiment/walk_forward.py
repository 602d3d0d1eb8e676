"""Walk-forward from the command line: every agent, seed, fold and cost tier, refitted, judged, on one page.

    python -m sac_kernel.walk_forward --h5-path data/processed/processed_data.h5 --output outputs/walk_forward

A job is one training; a finished one is not run again (`job_pool`), so the command may be stopped at any time and
called again. Every validated checkpoint at base cost enters `trials.csv` in the output folder.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files, paths
from sac_kernel.core.errors import SacKernelError
from sac_kernel.experiment import fold_jobs, job_pool, walk_forward_report
from sac_kernel.experiment.fold_jobs import Settings
from sac_kernel.experiment.run_config import preset_of
from sac_kernel.report import page
from sac_kernel.report.tables import text_table
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

JOBS = "jobs"
RESULTS = "results.csv"


def run(
    settings: Settings, folder: Path, workers: int = 1, command: str = "", address: str = ""
) -> dict[str, Any]:
    """Run what is not finished, then write report.html, figures/, summary.json, results.md and results.csv.

    Parameters
    ----------
    folder : the output folder; jobs/ in it holds a folder a job
    workers, address : of `job_pool.run`; each process has one thread
    command : shown on the page as the way to run it again

    Raises
    ------
    SacKernelError
        If a job has no result: it failed, or the run was stopped. What is finished stays.
    """
    outcomes = job_pool.run(
        [fold_jobs.pool_job(settings, job) for job in settings.jobs],
        fold_jobs.run_pool_job,
        folder / JOBS,
        inputs={fold_jobs.BARS: Path(settings.h5_path)},
        workers=workers,
        address=address,
    )
    finished = [fold_jobs.load(folder / JOBS / o.name / fold_jobs.FILE) for o in outcomes if o.result]
    trials.append(folder / trials.NAME, [t for result in finished for t in result.trials])
    missing = [o for o in outcomes if not o.result]
    if missing:
        first = missing[0]
        msg = (
            f"walk_forward: a result of each of {len(outcomes)} jobs is required, found {len(missing)} without: "
            f"{first.job['label']}: {first.failure} ({folder / JOBS / first.name / job_pool.LOG}); the same command "
            "runs what is missing"
        )
        raise SacKernelError(msg)
    collected = walk_forward_report.collect(settings, finished)
    ledger = trials.read(folder / trials.NAME) or []
    shown = walk_forward_report.summary(collected, ledger, command)
    files.write_json(folder / "summary.json", shown)
    files.write_text(folder / "results.md", walk_forward_report.markdown(shown))
    files.write_text(folder / RESULTS, _csv(walk_forward_report.csv_rows(collected)))
    page.write_report(folder, shown, walk_forward_report.figures(collected, shown))
    return shown


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a walk-forward from the command line; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("sac_kernel.feature_engineering").setLevel(logging.WARNING)  # once a job is too often
    args = _parser().parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        settings = Settings(
            h5_path=str(args.h5_path or paths.find_input(paths.DATA_FILE)),
            agents=args.agents,
            seeds=args.seeds,
            folds=args.folds,
            tiers=args.tiers,
            updates=args.updates,
            evaluations=args.evaluations,
            test_days=args.test_days,
            val_days=args.val_days,
            purge_days=args.purge_days,
            env=dataclasses.replace(preset_of(1).env_config, reward=args.reward),
        )
        command = " ".join(("python -m sac_kernel.walk_forward", *given))
        shown = run(settings, args.output, args.workers, command, args.address)
    except SacKernelError as err:
        logger.error("%s: %s", type(err).__name__, err)  # the message says it all
        return 2
    logger.info("%s", text_table(shown["table"]))
    for agent_id, one in shown["verdicts"].items():
        logger.info("agent %s: %s", agent_id, one["sentence"])
    logger.info("report: %s", args.output / "report.html")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sac_kernel.walk_forward",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--h5-path", type=Path, help="processed_data.h5; found by itself if left out")
    parser.add_argument("--output", type=Path, default=Path("outputs/walk_forward"))
    parser.add_argument("--agents", type=_numbers, default=(1, 2, 3), help="such as 1,2,3")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument(
        "--tiers", type=lambda text: tuple(text.split(",")), default=("raw", "base", "retail")
    )
    parser.add_argument("--updates", type=int, default=5_000, help="gradient updates of a training")
    parser.add_argument("--evaluations", type=int, default=5, help="on the validation days, each a trial")
    parser.add_argument("--test-days", type=int, default=60, help="trading days of a fold")
    parser.add_argument("--val-days", type=int, default=40)
    parser.add_argument("--purge-days", type=int, default=5, help="left out between the parts of a fold")
    parser.add_argument("--reward", default="denoised", help="denoised (docs/learning.md), or log_return")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--address", default="", help="of a Ray cluster: auto, or ray://HOST:10001")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
