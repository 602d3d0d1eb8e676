"""Evaluate a saved agent on processed bars: the table and verdict of the report.

The verdict is corrected for the trials in trials.csv beside the model and those of the same data in other folders.
Several models, the seeds of one agent, are evaluated as one whose target is their mean.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sac_kernel.backtest.judgement import evaluate_checkpoint
from sac_kernel.cli import options
from sac_kernel.core import paths
from sac_kernel.live import model_store
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.report import terminal
from sac_kernel.stats import ledgers, trials

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    options.add(parser, "model", action="append", required=True)
    options.add(parser, "data")
    options.add(parser, "costs", default="")
    options.add_features(parser)
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="part of the bars")


def run(args: argparse.Namespace) -> int:
    """Print the table and the verdict."""
    models = [model_store.resolve(path) for path in args.model]
    data = read_processed(args.data or paths.find_input(paths.DATA_FILE))
    one = models[0] if len(models) == 1 else models
    with ledgers.joined(models[0].parent / trials.NAME, data.content_hash) as ledger:
        _, judgement = evaluate_checkpoint(one, data, args.split, trials_path=ledger, costs=args.costs)
    logger.info("%s\n%s", terminal.text_table(judgement.rows), judgement.verdict["sentence"])
    return 0
