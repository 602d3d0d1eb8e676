"""The grid of experiments: agents x seeds x folds x settings, each a job, all results in one table.

python -m sac_kernel.sweep --agents 1,2 --seeds 0,1 --set env_cost_tier=base,spec --output sweep
python -m sac_kernel.sweep --seeds 0,1,2 --folds 4 --set sac_gamma=.99,.995 --address auto --output sweep

Every validated checkpoint of every job is a line in the ledger of trials, so that a verdict on the best of a
grid knows how many there were. Choose by the validation columns: what was chosen by the test columns has no test.
"""

from __future__ import annotations

import argparse
import ast
import csv
import dataclasses
import io
import itertools
import logging
import math
import shutil
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.backtest import policies, runner, validation
from sac_kernel.backtest.policies import Form
from sac_kernel.core import files, packages
from sac_kernel.core import paths as run_paths
from sac_kernel.core.config import check_names, from_flat, require, typed
from sac_kernel.core.device import device_names
from sac_kernel.core.errors import ConfigError, SacKernelError
from sac_kernel.experiment import checkpoint, job_pool, job_queue
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.processed_file import ProcessedData, hash_splits, read_processed, write_processed
from sac_kernel.stats import metrics, trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sac_kernel.experiment.job_pool import Outcome, Place

logger = logging.getLogger(__name__)

TABLE = "results.csv"
JOBS = "jobs"
FOLDS = "folds"

_OF_THE_GRID = ("agent_ids", "seeds", "h5_path", "output_dir", "device", "resume", "expect_data_hash")
"""Parameters of a run that the sweep fills in itself."""


# -- the grid


def grid(agents: Sequence[int], seeds: Sequence[int], settings: Sequence[str]) -> list[dict[str, Any]]:
    """Return the run parameters of every job, the last setting changing fastest.

    Parameters
    ----------
    agents, seeds : one job each
    settings : texts 'name=value,value...' of `RunConfig`; lists of values that are lists: 'name=[64,64],[32,32]'

    Raises
    ------
    ConfigError
        For an unknown name (with the nearest), one that the grid fills in, a wrong type or value.
    """
    names: list[str] = []
    values: list[list[Any]] = []
    for text in settings:
        name, found = _parse_setting(text)
        require(name not in names, "--set", "every name once, with all its values", text)
        names.append(name)
        values.append(found)
    runs = []
    for agent, seed, *chosen in itertools.product(agents, seeds, *values):
        run = {**dict(zip(names, chosen, strict=True)), "agent_ids": [agent], "seeds": [seed]}
        from_flat(RunConfig, run, "--set")
        runs.append(run)
    return runs


def _parse_setting(text: str) -> tuple[str, list[Any]]:
    hints = typing.get_type_hints(RunConfig)
    name, equals, value = (part.strip() for part in text.partition("="))
    require(bool(equals and value), "--set", "name=value,value... is required", text)
    check_names("--set", [name], [known for known in hints if known not in _OF_THE_GRID])
    found: Any = None
    if hints[name] is not str:
        try:
            found = ast.literal_eval(value)
        except (ValueError, SyntaxError) as err:
            msg = f"--set: values of {name} separated by commas are required, got {value!r}"
            raise ConfigError(msg) from err
    several = value.split(",") if hints[name] is str else found if isinstance(found, tuple) else [found]
    checked = [typed("--set", name, item, hints[name]) for item in several]
    return name, [list(item) if isinstance(item, tuple) else item for item in checked]


def write_folds(data: ProcessedData, folder: Path, folds: int, test_days: int, val_days: int) -> list[Path]:
    """Write one processed file a walk-forward fold (`validation.walk_forward`, purged, expanding).

    The days are those of all three splits of `data`, by the traded instrument's bars.
    """
    splits = list(data.splits.values())
    bars = {name: pd.concat([split[name] for split in splits]) for name in data.train}
    for frame in bars.values():
        frame.attrs = {"bar_seconds": data.bar_seconds, "price_side": data.price_side}
    traded = "EURUSD" if "EURUSD" in bars else min(bars)
    days = {name: validation.trading_days(frame) for name, frame in bars.items()}
    listed = np.unique(days[traded])
    paths = []
    for i, fold in enumerate(validation.walk_forward(len(listed), folds, test_days, val_days), 1):
        train, val, test = (
            {name: frame[np.isin(days[name], listed[block])] for name, frame in bars.items()}
            for block in (fold.train, fold.val, fold.test)
        )
        parts = {"train": train, "val": val, "test": test}
        digest = hash_splits(parts, data.bar_seconds, data.price_side)
        part = dataclasses.replace(data, train=train, val=val, test=test, content_hash=digest)
        paths.append(folder / f"fold_{i}.h5")
        write_processed(part, paths[-1])
    return paths


# -- one job


def train_and_judge(job: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
    """Train one job and return its row of the table, or None if it was stopped before its end.

    Kept of it: the agents, logs and its lines of the ledger. Its state and checkpoints go once it is finished:
    nothing goes on from a job of a grid, and each state is as large as the replay buffer.
    """
    run = {**job["run"], "h5_path": str(place.inputs[job["data"]]), "output_dir": str(place.folder)}
    config = RunConfig(**run, device=place.device, expect_data_hash=job["data_hash"])
    ((agent_id, seed),) = config.jobs
    trainer = job_queue.job_trainer(config, agent_id, seed, place.deadline)
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
                column = f"{split}_{form}_{tier}"
                row[f"{column}_annual_frac"] = float(np.mean(daily)) * metrics.TRADING_DAYS_PER_YEAR
                row[f"{column}_sharpe_ann"] = metrics.sharpe_ann(daily)
    for name in (checkpoint.STATE_FOLDER, "checkpoints"):
        shutil.rmtree(place.folder / name, ignore_errors=True)
    return row


# -- the whole


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
    where : of `job_pool.run`: devices, workers, address, deadline
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
    """Return the outcomes as CSV, one row a job: settings that differ first, then figures; empty where unknown."""
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


def main(arguments: list[str] | None = None) -> int:
    """Run the grid of the command line; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    args = _parser().parse_args(arguments)
    try:
        runs = grid(args.agents, args.seeds, args.set)
        path = args.h5_path or run_paths.find_input(run_paths.DATA_FILE)
        data = {"all": path}
        if args.folds:
            paths = write_folds(
                read_processed(path), args.output / FOLDS, args.folds, args.test_days, args.val_days
            )
            data = {file.stem: file for file in paths}
        devices = device_names(args.device)
        outcomes = run_sweep(
            runs, data, args.output, devices=devices, workers=args.workers, address=args.address
        )
    except SacKernelError as err:
        logger.error("%s: %s", type(err).__name__, err)  # the message says it all
        return 2
    missing = sum(o.result is None for o in outcomes)
    logger.info("%d jobs, %d without a result; table: %s", len(outcomes), missing, args.output / TABLE)
    return 1 if missing else 0


def _integers(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sac_kernel.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--h5-path", type=Path, help="processed_data.h5; found by itself if left out")
    parser.add_argument("--output", type=Path, default=Path("sweep"), help="results.csv, trials.csv, jobs/")
    parser.add_argument("--agents", type=_integers, default=[1], metavar="1,2,3")
    parser.add_argument("--seeds", type=_integers, default=[0], metavar="0,1,...")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=V,V", help="a run parameter and its values"
    )
    parser.add_argument("--folds", type=int, default=0, help="walk-forward folds; 0: the file's own splits")
    parser.add_argument("--test-days", type=int, default=60, help="of a fold")
    parser.add_argument("--val-days", type=int, default=40, help="of a fold")
    parser.add_argument("--device", default="auto", help="auto: every GPU there is, one process each")
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine")
    parser.add_argument("--address", default="", help="of a Ray cluster: auto, or ray://HOST:10001")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
