"""Judge a saved agent on processed bars: the report's table and its verdict.

The trials that the verdict is corrected for are those of trials.csv beside the model. Several models of one agent's
seeds are judged as one: the mean of their targets.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sac_kernel.backtest.judgement import evaluate_file
from sac_kernel.cli import options
from sac_kernel.core import paths
from sac_kernel.live import model_store
from sac_kernel.report import tables

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    options.add(parser, "model", action="append", required=True)
    options.add(parser, "data")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="of the bars")


def run(args: argparse.Namespace) -> int:
    """Print the table and the verdict."""
    models = [model_store.resolve(path) for path in args.model]
    data = args.data or paths.find_input(paths.DATA_FILE)
    _, judgement = evaluate_file(models[0] if len(models) == 1 else models, data, args.split)
    logger.info("%s\n%s", tables.text_table(judgement.rows), judgement.verdict["sentence"])
    return 0
