"""Refit the whole pipeline on copies of the bars without a signal; say whether it did better on the real ones.

Finished runs are not repeated, so you can stop the command at any time and repeat it.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.cli import options
from sac_kernel.core import home_strings, locks, paths, strings
from sac_kernel.experiment import pipeline_null
from sac_kernel.experiment.fold_jobs import Settings
from sac_kernel.stats.verdict import NULL_LEVEL

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    options.add(parser, "data")
    options.add(parser, "output", default=Path("outputs/null"))
    options.add(parser, "agents", default=(1, 2, 3))
    options.add(parser, "seeds", default=(0,))
    options.add(parser, "folds", default=4)
    options.add(parser, "test-days")
    parser.add_argument("--copies", type=int, default=39, metavar="N", help="copies without a signal")
    parser.add_argument(
        "--power", type=int, default=0, metavar="N", help="copies of each of 4 planted strengths; 0: no power"
    )
    parser.add_argument("--updates", type=int, default=0, help="updates per training (default: 3,000)")
    options.add(parser, "workers", help="processes, of one thread each")


def run(args: argparse.Namespace) -> int:
    """Run what has no result; print p value and power."""
    logging.getLogger("sac_kernel.features.pipeline").setLevel(logging.WARNING)
    settings = Settings(
        h5_path=str(args.data or paths.find_input(paths.DATA_FILE)),
        agents=args.agents,
        seeds=args.seeds,
        folds=args.folds,
        tiers=("base",),
        updates=args.updates,
        test_days=args.test_days,
        val_days=0,
    )
    with locks.hold(args.output):
        summary = pipeline_null.run(settings, args.output, args.copies, args.power, args.workers)
    found, power = summary["null"], summary["power"]
    for name, value in found["statistic"].items():
        label, copies = home_strings.NULL_STATISTICS[name], np.array(found["values"][name], np.float64)
        if found["p_values"][name] is None:
            logger.info("%s", home_strings.NULL_NO_VALUE.format(name=label))
        else:
            low, high = (
                (math.nan, math.nan) if np.isnan(copies).all() else (np.nanmin(copies), np.nanmax(copies))
            )
            line = home_strings.NULL_STATISTIC
            p = found["p_values"][name]
            logger.info("%s", line.format(name=label, value=value, low=low, high=high, p=p))
    logger.info("%s", found["sentence"])
    logger.info("%s", home_strings.NULL_GATE.format(**found["gate"]))
    logger.info("%s", strings.NULL_NOT_TESTED)
    if power:
        for row in power["rows"]:
            logger.info("%s", home_strings.NULL_POWER_ROW.format(**row))
        if power["level"] > NULL_LEVEL:
            least = found["least_p"]
            logger.info("%s", home_strings.NULL_POWER_LEVEL.format(level=NULL_LEVEL, least=least))
        logger.info("%s", power["sentence"])
    logger.info("summary: %s", args.output / pipeline_null.SUMMARY)
    return 0
