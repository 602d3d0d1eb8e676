"""Walk-forward from the command line: every agent, seed, fold and cost tier, refitted, judged, on one page.

    python -m sac_kernel.walk_forward --h5-path data/processed/processed_data.h5 --output outputs/walk_forward

A job is one training; a finished job's file is not run again, so the command may be stopped at any time and
called again. Every validated checkpoint at base cost enters `trials.csv` in the output folder.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import logging
import multiprocessing
import sys
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel import files, fold_jobs, report, runtime, trials, walk_forward_report
from sac_kernel.config import difference
from sac_kernel.errors import DataError, SacKernelError
from sac_kernel.fold_jobs import Settings
from sac_kernel.run_config import preset_of
from sac_kernel.runtime import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sac_kernel.fold_jobs import Job

logger = logging.getLogger(__name__)

JOBS = "jobs"
RESULTS = "results.csv"


def run(settings: Settings, folder: Path, workers: int = 1, command: str = "") -> dict[str, Any]:
    """Run what is not finished, then write report.html, figures/, summary.json, results.md and results.csv.

    Parameters
    ----------
    folder : the output folder; jobs/ in it holds a file a finished job
    workers : processes, of one thread each
    command : shown on the page as the way to run it again

    Raises
    ------
    DataError
        If a finished job in the folder was run with other settings or data: another folder is needed.
    """
    waiting = [job for job in settings.jobs if not _is_finished(folder, settings, job)]
    total = len(settings.jobs)
    logger.info("%d jobs, %d of them finished; %d process(es)", total, total - len(waiting), workers)
    progress = Progress(logger, "jobs", total, total - len(waiting))
    for done, job in enumerate(_run_jobs(settings, folder, waiting, workers), total - len(waiting) + 1):
        trials.append(folder / trials.NAME, fold_jobs.load(_path(folder, job)).trials)
        progress.update(done, f"| {job.name}")
    progress.close()
    collected = walk_forward_report.collect(
        settings, [fold_jobs.load(_path(folder, j)) for j in settings.jobs]
    )
    trials.append(folder / trials.NAME, [t for result in collected.jobs for t in result.trials])
    ledger = trials.read(folder / trials.NAME) or []
    shown = walk_forward_report.summary(collected, ledger, command)
    files.write_json(folder / "summary.json", shown)
    files.write_text(folder / "results.md", walk_forward_report.markdown(shown))
    files.write_text(folder / RESULTS, _csv(walk_forward_report.csv_rows(collected)))
    report.write_report(folder, shown, walk_forward_report.figures(collected, shown))
    return shown


def _path(folder: Path, job: Job) -> Path:
    return folder / JOBS / f"{job.name}.npz"


def _is_finished(folder: Path, settings: Settings, job: Job) -> bool:
    path = _path(folder, job)
    if not path.is_file():
        return False
    saved, here = fold_jobs.load(path).facts["identity"], settings.identity(job)
    lines = difference(_flat(saved), _flat(here))
    if lines:
        msg = (
            f"{path}: a job of the same settings and data is required, {'; '.join(lines[:3])}; "
            "set them back, or choose another --output"
        )
        raise DataError(msg)
    return True


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    parts = {name: value for name, value in identity.items() if not isinstance(value, dict)}
    for name in ("sac", "env"):
        parts |= {f"{name}_{key}": value for key, value in identity[name].items()}
    return parts


def _run_jobs(settings: Settings, folder: Path, jobs: Sequence[Job], workers: int) -> Iterator[Job]:
    """Yield each job as it is finished."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            fold_jobs.run_job(settings, job, _path(folder, job))
            yield job
        return
    spawn = multiprocessing.get_context("spawn")  # the same on every system; torch and fork do not mix
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=spawn) as pool:
        running = {pool.submit(fold_jobs.run_job, settings, job, _path(folder, job)): job for job in jobs}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    future.result()
                    yield job
        except BrokenProcessPool as err:
            msg = (
                f"walk_forward: processes that live to the end of their job are required, found one that ended before "
                f"{job.name} was finished (out of memory?); call again with fewer --workers: what is finished stays"
            )
            raise SacKernelError(msg) from err
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what runs ends, and counts; the rest waits for the next call
            raise


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
            h5_path=str(args.h5_path or runtime.find_input(runtime.DATA_FILE)),
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
        shown = run(settings, args.output, args.workers, command)
    except SacKernelError as err:
        logger.error("%s: %s", type(err).__name__, err)  # the message says it all
        return 2
    logger.info("%s", report.text_table(shown["table"]))
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
    parser.add_argument("--tiers", type=lambda text: tuple(text.split(",")), default=("raw", "base", "spec"))
    parser.add_argument("--updates", type=int, default=5_000, help="gradient updates of a training")
    parser.add_argument("--evaluations", type=int, default=5, help="on the validation days, each a trial")
    parser.add_argument("--test-days", type=int, default=60, help="trading days of a fold")
    parser.add_argument("--val-days", type=int, default=40)
    parser.add_argument("--purge-days", type=int, default=5, help="left out between the parts of a fold")
    parser.add_argument("--reward", default="expected", help="expected (docs/learning.md), or log_return")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
