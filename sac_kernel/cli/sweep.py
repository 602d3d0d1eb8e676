"""Train a grid of agents, seeds, folds and settings; write one table.

`--set NAME=VALUE,VALUE` varies a parameter. Finished jobs are not run again. The exit status is 1 if a job fails.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel.cli import options, settings
from sac_kernel.core import locks, paths
from sac_kernel.core.device import device_names
from sac_kernel.experiment import ray_pool, sweep
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.stats import ledgers

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__, parameters=True)
    options.add(parser, "data")
    options.add(parser, "output", default=Path("sweep"), help="folder of results.csv, trials.csv, jobs/")
    options.add(parser, "agents", default=(1,))
    options.add(parser, "seeds", default=(0,))
    options.add(parser, "preset")
    options.add(parser, "config")
    options.add(
        parser, "set", metavar="NAME=V,V", help="a parameter (listed below) and the values to try; repeatable"
    )
    options.add(parser, "costs")
    options.add(parser, "folds", default=0, help="walk-forward folds; 0: the splits of the file")
    options.add(parser, "test-days")
    options.add(parser, "val-days")
    options.add(parser, "device", default="auto", help="auto: all GPUs, one process each")
    options.add(parser, "workers")
    options.add(parser, "address")
    options.older(parser, "data", "--h5-path")


def run(args: argparse.Namespace) -> int:
    """Run the jobs without a result; write the table."""
    with locks.hold(args.output):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    grid, args.set = args.set, []
    runs = sweep.grid(args.agents, args.seeds, grid, settings.parameters(args, env_costs="costs"))
    path = args.data or paths.find_input(paths.DATA_FILE)
    data = {"all": path}
    if args.folds:
        folder = args.output / sweep.FOLDS
        files = sweep.write_folds(read_processed(path), folder, args.folds, args.test_days, args.val_days)
        data = {file.stem: file for file in files}
    devices = device_names(args.device)
    with ledgers.shared(args.output, read_processed(path).content_hash):
        outcomes = sweep.run_sweep(
            runs, data, args.output, devices=devices, workers=args.workers, pool=ray_pool.at(args.address)
        )
    missing = sum(o.result is None for o in outcomes)
    logger.info("%d jobs, %d without a result; table: %s", len(outcomes), missing, args.output / sweep.TABLE)
    return 1 if missing else 0
