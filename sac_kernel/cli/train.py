"""Train agents on processed bars, evaluate them on the test split, write agents, report and logs.

There is one job for each agent and seed, and no time limit unless time_budget_h is set. An interrupted run resumes. A
finished one starts over and moves its outputs to previous/.
"""

from __future__ import annotations

import argparse
import logging

from sac_kernel.cli import options, settings
from sac_kernel.cli.build_checks import data_hashes
from sac_kernel.core import locks
from sac_kernel.core.clock import Deadline
from sac_kernel.core.device import resolve_device
from sac_kernel.experiment.instruments_run import run_instruments
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.stats import ledgers

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__, parameters=True)
    options.add(parser, "data")
    options.add(parser, "output", help="output folder (default: ./outputs; /kaggle/working on Kaggle)")
    options.add_run_options(parser)
    options.add(parser, "costs")
    options.add(parser, "device", help=f"{options.SHARED['device']['help']} (default: auto)")
    options.older(parser, "data", "--h5-path")
    options.older(parser, "output", "--output-dir")
    options.older(parser, "agents", "--agent-id")
    options.older(parser, "seeds", "--seed")
    options.older_settings(
        parser,
        num_episodes="num_episodes",
        eval_frequency="eval_frequency",
        checkpoint_frequency="checkpoint_frequency",
        resume="resume",
    )
    parser.add_argument("--time-budget-s", type=float, default=float("inf"), help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Train, and print the verdict."""
    values = settings.parameters(
        args,
        h5_path="data",
        output_dir="output",
        agent_ids="agents",
        seeds="seeds",
        device="device",
        env_costs="costs",
    )
    config = RunConfig.from_flat(values, "train")
    budget_s = config.time_budget_h * 3600.0 if "time_budget_h" in values else args.time_budget_s
    resolve_device(config.device)  # before minutes of reading
    data = read_processed(config.data_file)
    hashes = data_hashes(data, config.instruments)
    with locks.hold(config.top_folder), ledgers.shared(config.top_folder, *hashes):
        if len(config.jobs) > 1 or config.folds or config.instruments:
            summary = run_instruments(config, Deadline(budget_s)).summary
        else:
            trainer = KaggleTrainer.of_run(config, config.jobs[0], Deadline(budget_s))
            trainer.run_training()
            summary = trainer.summary
    logger.info("%s\nreport: %s", summary["verdict"]["sentence"], config.top_folder / "report.html")
    return 0
