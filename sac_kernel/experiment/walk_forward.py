"""A walk-forward: every agent, seed, fold and cost tier, refitted, judged, on one page.

A job is one training; a finished one is not run again (`job_pool`), so the command may be stopped at any time and
called again. Every validated checkpoint at base cost enters `trials.csv` in the output folder.
"""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files
from sac_kernel.core.errors import SacKernelError
from sac_kernel.experiment import fold_jobs, job_pool, walk_forward_report
from sac_kernel.report import page
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sac_kernel.experiment.fold_jobs import Settings

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
