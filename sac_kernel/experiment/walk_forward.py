"""A walk-forward: refit and judge every agent, seed, fold and cost tier, on one page.

A job is one training. Finished jobs are not repeated (`job_pool`), so the command may be stopped at any time and
run again. Every validated checkpoint at base cost enters `trials.csv` in the output folder.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from sac_kernel.core import files, strings
from sac_kernel.core.errors import SacKernelError
from sac_kernel.experiment import fold_jobs, job_pool, ray_pool, walk_forward_report
from sac_kernel.report import page
from sac_kernel.report.tables import results_table
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from sac_kernel.experiment.fold_jobs import Settings
    from sac_kernel.experiment.walk_forward_report import Collected

logger = logging.getLogger(__name__)

JOBS = "jobs"
RESULTS = "results.csv"


def run(
    settings: Settings, folder: Path, workers: int = 1, command: str = "", address: str = ""
) -> dict[str, Any]:
    """Run what is not finished, then write report.html, figures/, summary.json, results.md and results.csv.

    Parameters
    ----------
    folder : the output folder; its jobs/ has one folder per job
    workers : processes of the pool on this machine, one thread each
    address : of a Ray cluster that runs the jobs instead (`ray_pool.at`)
    command : shown on the page as the way to run it again

    Raises
    ------
    SacKernelError
        If a job has no result: it failed, or the run was stopped. Finished jobs are kept.
    """
    outcomes = job_pool.run(
        [fold_jobs.pool_job(settings, job) for job in settings.jobs],
        fold_jobs.run_pool_job,
        folder / JOBS,
        inputs=settings.inputs,
        workers=workers,
        pool=ray_pool.at(address),
    )
    finished = [fold_jobs.load(folder / JOBS / o.name / fold_jobs.FILE) for o in outcomes if o.result]
    trials.append(folder / trials.NAME, [t for result in finished for t in result.trials])
    missing = [o for o in outcomes if not o.result]
    if missing:
        first = missing[0]
        msg = (
            f"{len(missing)} of {len(outcomes)} jobs have no result. First: {first.job['label']}: {first.failure} "
            f"(log: {folder / JOBS / first.name / job_pool.LOG}). Run the same command again to continue."
        )
        raise SacKernelError(msg)
    collected = walk_forward_report.collect(settings, finished)
    ledger = trials.read(folder / trials.NAME, fold_jobs.opened(settings.h5_path).content_hash) or []
    summary = walk_forward_report.summary(collected, ledger, command)
    files.write_json(folder / "summary.json", summary)
    files.write_text(folder / "results.md", _markdown(summary))
    files.write_text(folder / RESULTS, _csv(_csv_rows(collected)))
    page.write_report(folder, summary, walk_forward_report.figures(collected, summary))
    return summary


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(shown: Mapping[str, Any]) -> str:
    """Return the page as Markdown, without figures."""
    headline, facts = shown["verdict"], shown["run"]
    lines = [f"    {shown['next_command']}", "", f"**{headline['word']}.** {headline['sentence']}", ""]
    lines += [f"- {note}" for note in headline["notes"]]
    plain = {k: v for k, v in facts.items() if k != "versions"}
    lines += ["", ", ".join(f"{k} {_cell(v)}" for k, v in plain.items())]
    lines += [", ".join(f"{k} {v}" for k, v in facts["versions"].items()), ""]
    rows = results_table(shown["table"])
    tables = [
        {
            "title": strings.RESULTS,
            "note": "",
            "columns": list(rows.columns),
            "rows": rows.to_numpy().tolist(),
        }
    ]
    for table in [*tables, *shown["tables"]]:
        lines += [f"## {table['title']}", "", *([table["note"], ""] if table["note"] else [])]
        lines += [_line(table["columns"]), _line(["---"] * len(table["columns"]))]
        lines += [_line(map(_cell, row)) for row in table["rows"]] + [""]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _csv_rows(collected: Collected) -> list[dict[str, Any]]:
    """Return the rows of results.csv, one per job and policy."""
    return [
        {
            "agent": r.job.agent_id or "baseline",
            "seed": r.job.seed,
            "fold": r.job.fold,
            "test_first": walk_forward_report.span(result)[0],
            "test_last": walk_forward_report.span(result)[1],
            "updates": r.facts.get("updates"),
            "cpu_s": round(r.facts["cpu_s"], 1),
            "policy": result.name,
            "tier": result.tier,
            **result.figures(),
        }
        for r in collected.jobs
        for result in r.passes
    ]
