"""A grid of experiments: agents x seeds x folds x settings, one job each, all results in one table.

Every validated checkpoint of every job is a line in the ledger of trials, so that a verdict on the best of a
grid counts them all. Choose by the validation columns: a choice by the test columns leaves no test.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import io
import itertools
import logging
import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.backtest import policies, runner, validation
from sac_kernel.backtest.policies import Form
from sac_kernel.core import files, packages
from sac_kernel.core.config import check_names, require, typed
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment import checkpoint, job_pool, job_queue
from sac_kernel.experiment.run_config import PARAMETERS, RENAMED_PARAMETERS, RunConfig
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import ProcessedData, hash_splits, read_processed
from sac_kernel.stats import metrics, trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sac_kernel.experiment.job_pool import Outcome, Place
    from sac_kernel.prices.bars import BarsByInstrument

logger = logging.getLogger(__name__)

TABLE = "results.csv"
JOBS = "jobs"
FOLDS = "folds"

_OF_THE_GRID = ("agent_ids", "seeds", "h5_path", "output_dir", "device", "resume", "expect_data_hash")
"""Parameters of a run that the sweep fills in itself."""


# -- the grid


def grid(
    agents: Sequence[int],
    seeds: Sequence[int],
    settings: Sequence[str],
    base: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return the run parameters of every job, the last setting changing fastest.

    Parameters
    ----------
    agents, seeds : one job each
    settings : texts 'name=value,value...' of parameters; lists of values that are lists: 'name=[64,64],[32,32]'
    base : parameters of every job, which `settings` override

    Raises
    ------
    ConfigError
        For an unknown name (with the nearest), one that the grid fills in, a wrong type or value.
    """
    base = dict(base or {})
    names: list[str] = []
    values: list[list[Any]] = []
    for text in settings:
        name, several = _parse_setting(text)
        require(name not in names, "--set", f"{name} must be set once, with all its values", text)
        names.append(name)
        values.append(several)
    check_names("sweep", base, _free_parameters())
    runs = []
    for agent, seed, *chosen in itertools.product(agents, seeds, *values):
        run = {**base, **dict(zip(names, chosen, strict=True)), "agent_ids": [agent], "seeds": [seed]}
        flat = RunConfig.from_flat(run, "--set").flat()  # old names and values become the new ones
        runs.append({name: flat[name] for name in run})
    return runs


def _free_parameters() -> list[str]:
    return [name for name in PARAMETERS if name not in _OF_THE_GRID]


def _parse_setting(text: str) -> tuple[str, list[Any]]:
    name, equals, value = (part.strip() for part in text.partition("="))
    require(bool(equals and value), "--set", "a setting must be name=value,value...", text)
    name = RENAMED_PARAMETERS.get(name, name)
    check_names("--set", [name], _free_parameters())
    annotation = PARAMETERS[name].type
    parsed: Any = None
    if annotation is not str:
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError) as err:
            msg = f"--set: {name} needs values separated by commas, got {value!r}"
            raise ConfigError(msg) from err
    several = value.split(",") if annotation is str else parsed if isinstance(parsed, tuple) else [parsed]
    checked = [typed("--set", name, item, annotation) for item in several]
    return name, [list(item) if isinstance(item, tuple) else item for item in checked]


def write_folds(data: ProcessedData, folder: Path, folds: int, test_days: int, val_days: int) -> list[Path]:
    """Write one processed file for each walk-forward fold (`validation.walk_forward`, purged, expanding).

    The days are those of all three splits of `data`, by the traded instrument's bars.
    """
    bars: BarsByInstrument = {name: data.whole(name) for name in data.train}
    days = {name: validation.trading_days(frame) for name, frame in bars.items()}
    listed = np.unique(days[data.traded])
    paths = []
    for i, fold in enumerate(validation.walk_forward(len(listed), folds, test_days, val_days), 1):
        train, val, test = (
            {name: frame[np.isin(days[name], listed[block])] for name, frame in bars.items()}
            for block in (fold.train, fold.val, fold.test)
        )
        parts = {"train": train, "val": val, "test": test}
        digest = hash_splits(parts, data.traded)
        part = dataclasses.replace(data, train=train, val=val, test=test, content_hash=digest)
        paths.append(folder / f"fold_{i}.h5")
        write_processed(part, paths[-1])
    return paths


# -- one job


def train_and_judge(job: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
    """Train one job and return its row of the table, or None if it was stopped early.

    Agents, logs and lines of the ledger are kept. State and checkpoints are deleted once the job is finished:
    nothing continues a finished job, and a state is as large as the replay buffer.
    """
    run = {**job["run"], "h5_path": str(place.inputs[job["data"]]), "output_dir": str(place.folder)}
    config = RunConfig.from_flat({**run, "device": place.device, "expect_data_hash": job["data_hash"]})
    (one,) = config.jobs
    agent_id, trainer = one.agent_id, job_queue.job_trainer(config, one, place.deadline)
    trainer.progress = place.report
    finished = trainer.train()
    if finished.facts["status"] != "complete":
        return None
    agents = {Form.FINAL: finished.final, Form.BEST: finished.best}
    row = {name: finished.facts[name] for name in ("env_steps", "updates", "updates_per_s", "train_s")}
    for split in ("val", "test"):
        bars, features = trainer.data.splits[split][trainer.instrument], trainer.features[split]
        for tier in COST_TIERS:
            market = runner.market_of(bars, features, trainer.env_config, tier)
            for form, agent in agents.items():
                policy, act = policies.agent(agent_id, form), runner.greedy_policy(agent)
                start = trainer.env_config.initial_equity
                daily = runner.run_policy(market, act, start, policy, tier).daily_returns
                year = market.spec.days_a_year
                column = f"{split}_{form}_{tier}"
                row[f"{column}_annual_frac"] = metrics.annual_return(daily, year)
                row[f"{column}_sharpe_ann"] = metrics.sharpe_ann(daily, year)
    for name in (checkpoint.STATE_FOLDER, "checkpoints"):
        shutil.rmtree(place.folder / name, ignore_errors=True)
    return row


# -- all jobs


def run_sweep(
    runs: Sequence[Mapping[str, Any]],
    data: Mapping[str, Path],
    output: Path,
    **where: Any,  # noqa: ANN401  # of job_pool.run
) -> list[Outcome]:
    """Run every (run, data file) that has no result in `output` yet; write the table and the ledger.

    Parameters
    ----------
    runs : run parameters, as `grid` returns them
    data : label -> processed file; 'all', or a name for each fold
    output : jobs/, results.csv, trials.csv
    where : of `job_pool.run`: devices, workers, pool, deadline
    """
    code = packages.code_hash()
    hashes = {label: read_processed(path).content_hash for label, path in data.items()}
    jobs = [
        {"run": dict(run), "data": label, "data_hash": hashes[label], "code_hash": code}
        for label in data
        for run in runs
    ]
    outcomes = job_pool.run(jobs, train_and_judge, output / JOBS, inputs=data, **where)
    files.write_text(output / TABLE, table(outcomes))
    trials.merge(output / trials.NAME, [output / JOBS / o.name / trials.NAME for o in outcomes])
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as CSV, one row per job: settings first, then figures; empty where unknown."""
    settings = {name: None for o in outcomes for name in o.job["run"] if name not in ("agent_ids", "seeds")}
    figures = {name: None for o in outcomes for name in o.result or ()}
    head = ["job", "status", "agent_id", "seed", "data", *settings, *figures, "seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*head, "data_hash", "code_hash"], lineterminator="\n")
    writer.writeheader()
    for o in outcomes:
        run, facts = o.job["run"], {name: o.job[name] for name in ("data", "data_hash", "code_hash")}
        row = {"job": o.name, "status": o.failure or "finished", **facts, **(o.result or {})}
        row |= {name: run.get(name, "") for name in settings}
        row |= {"agent_id": run["agent_ids"][0], "seed": run["seeds"][0], "seconds": o.seconds}
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value
