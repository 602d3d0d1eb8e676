"""Print what a saved agent would hold from the next open on, as JSON.

The account begins with the first bar of --bars or, without --bars, with the test split of --data. All earlier bars are
history. Describe your account with --equity, --units, --entry-price, --bars-held and --last-target.
"""

from __future__ import annotations

import argparse
import json
import logging

import pandas as pd

from sac_kernel.cli import options
from sac_kernel.core import paths
from sac_kernel.live import model_store
from sac_kernel.live.decide import Decider, account
from sac_kernel.live.feed import BarFiles
from sac_kernel.live.paper import history_before
from sac_kernel.prices.processed_file import read_processed

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    options.add(parser, "model", required=True)
    options.add(parser, "bars", help="closed bars since the account began: a file or a folder")
    options.add(parser, "data", help="processed bars before those (default: found automatically)")
    options.add(parser, "price-side", help="bid, ask or mid: the prices of --bars (default: that of --data)")
    options.add(parser, "clock")
    options.add(parser, "cost-tier")
    options.add(parser, "costs", default="")
    options.add_features(parser)
    parser.add_argument("--equity", type=float, default=100_000.0, help="account currency")
    parser.add_argument("--units", type=float, default=0.0, help="base currency held, long positive")
    parser.add_argument("--entry-price", type=float, default=0.0, help="mean fill price of the position")
    parser.add_argument(
        "--bars-held", type=int, default=0, help="bars since the position was opened or reversed"
    )
    parser.add_argument(
        "--next-open",
        type=_utc,
        metavar="TIME",
        help="open of the next bar, UTC, where it is known and later than the calendar says: after a holiday",
    )
    parser.add_argument("--last-target", type=float, default=0.0, help="the last target that was filled")


def run(args: argparse.Namespace) -> int:
    """Print the decision."""
    data = read_processed(args.data or paths.find_input(paths.DATA_FILE), args.price_side)
    side = args.price_side or data.price_side
    decider = Decider.from_checkpoint(model_store.resolve(args.model), side, args.cost_tier, args.costs)
    name = decider.instrument
    if args.bars:
        bars = BarFiles(args.bars, name, decider.others, side, args.clock).read()
        decider.follow(history_before(data, bars, bars[name].index[0]))
    else:
        bars = data.test
        decider.follow({part: pd.concat([data.train[part], data.val[part]]) for part in data.train})
    state = account(args.equity, args.units, args.entry_price, args.bars_held, args.last_target)
    logger.info("%s", json.dumps(decider.decide(bars, state, args.next_open).plain(), indent=2))
    return 0


def _utc(text: str) -> pd.Timestamp:
    try:
        time = pd.Timestamp(text)
    except ValueError as err:
        msg = f"not a time such as 2026-12-01T22:00: {text!r}"
        raise argparse.ArgumentTypeError(msg) from err
    return time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
