"""Trade on paper: a saved agent on a feed of bars, filled by the backtest's engine, with a crash-safe journal.

Without --speed the file is watched as it grows. With it, N bars a second are replayed, or all at full speed if N is 0.
`paper.html` in the journal's folder shows the account and reloads itself. A file called KILL there closes the
position at the next open and keeps the account flat for good. Ctrl-C stops; the same command continues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sac_kernel.cli import options
from sac_kernel.core import interrupts
from sac_kernel.core.paths import LOCAL_DATA
from sac_kernel.live import paper

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    options.add(parser, "model", required=True)
    options.add(parser, "bars", required=True)
    options.add(parser, "journal", required=True)
    options.add(parser, "data", default=LOCAL_DATA, help="processed bars before those of --bars")
    parser.add_argument(
        "--speed", type=float, metavar="N", help="replay N bars a second; 0: as fast as possible"
    )
    options.add(parser, "price-side", help="bid, ask or mid: the prices of --bars (default: that of --data)")
    options.add(parser, "clock")
    options.add(parser, "cost-tier")
    options.add(parser, "costs", default="")
    options.add_features(parser)
    parser.add_argument("--equity", type=float, default=100_000.0, help="initial equity, account currency")
    for name in paper.LIMITS:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(
            option, type=float, metavar="FRAC", help="fraction of equity (default: the agent's own)"
        )
    options.older(parser, "data", "--history")


def run(args: argparse.Namespace) -> int:
    """Follow the feed until it ends or is interrupted."""
    interrupts.advise("The same command continues from here.")
    opened = paper.open_session(args)
    with opened.session.journal:
        paper.follow(opened, args.speed)
    return 0
