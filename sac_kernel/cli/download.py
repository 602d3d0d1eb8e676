"""Download bars from Dukascopy or HistData.com into CSV files that `--data` reads.

Files that arrived are kept in a cache, so an interrupted download continues where it was. Both providers serve their
data for your own research. The exit status is 2 if an input is refused or the provider cannot be reached.
"""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel.cli import options
from sac_kernel.core.errors import InputNotFoundError
from sac_kernel.prices.ingest import download
from sac_kernel.prices.ingest.bar_csv import write_bars
from sac_kernel.prices.pipeline import DataConfig, day_of

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    parser.add_argument(
        "--provider",
        choices=download.PROVIDERS,
        default="dukascopy",
        help="dukascopy asks for one file an hour, histdata for one a month",
    )
    parser.add_argument(
        "--instruments",
        type=options.words,
        default=download.INSTRUMENTS,
        metavar="EURUSD,...",
        help="what to fetch",
    )
    parser.add_argument("--first-day", default="2012-01-01", metavar="DAY", help="first day, UTC")
    parser.add_argument("--last-day", default="", metavar="DAY", help="last day UTC (default: two days ago)")
    parser.add_argument("--bar-minutes", type=int, default=5, metavar="N", help="length of the bars")
    options.add(parser, "price-side", choices=("bid", "ask"), default="bid", help="bid or ask")
    options.add(parser, "output", default=Path("data/downloads"), help="folder of the CSV files")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(DataConfig.download_cache),
        metavar="DIR",
        help="folder of what arrived",
    )


def run(args: argparse.Namespace) -> int:
    """Fetch one instrument after another and write a file for each."""
    latest = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
    order = download.Download(
        args.provider,
        day_of(args.first_day, "--first-day") or latest,
        day_of(args.last_day, "--last-day") or latest,
        args.cache,
        args.price_side,
        60 * args.bar_minutes,
    )
    written = 0
    for name in args.instruments:
        table = download.fetch(order, name)
        if table is None:
            logger.info("%s: %s has no bars for these days", name, args.provider)
            continue
        path = args.output / f"{name}_M{args.bar_minutes}_{args.price_side.upper()}.csv"
        write_bars(table.bars, path)
        written += 1
        logger.info("%s: %s bars, %s", name, f"{len(table.bars):,}", path)
        for note in table.notes:
            logger.info("          %s", note)
    if not written:
        msg = f"{args.provider} has no bars of {', '.join(args.instruments)} for these days. Choose others."
        raise InputNotFoundError(msg)
    logger.info("next      python build_kernel.py --data %s", args.output)
    return 0
