"""Judge a policy or fills that were not trained here: same engine, costs, baselines, ledger and verdict page.

policy.py defines target(observations) -> exposure in [-1, 1] for each row; fills.csv lists time, side, size and price.
Every version of the file that was judged counts as a trial.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel.cli import options
from sac_kernel.core import locks, paths
from sac_kernel.core.errors import ConfigError, InputNotFoundError
from sac_kernel.experiment import judged
from sac_kernel.experiment.judged_fills import judged_fills
from sac_kernel.experiment.judged_policy import judged_policy
from sac_kernel.prices.ingest.questions import MissingFactsError
from sac_kernel.prices.ingest.whole import read_whole
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.report import terminal
from sac_kernel.stats import ledgers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from sac_kernel.prices.ingest.whole import WholeBars

logger = logging.getLogger(__name__)

_TABLES = (".csv", ".txt", ".tsv")
_ROWS = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="policy.py, or a table of fills (.csv, .txt)")
    options.add_source(
        parser,
        metavar="PATH",
        help="bars: a file, a folder of instruments, or a processed .h5 (default: found automatically)",
    )
    parser.add_argument("--from", default="", metavar="TIME", help="judge bars from this UTC time on")
    parser.add_argument("--until", default="", metavar="TIME", help="judge bars before this UTC time")
    parser.add_argument(
        "--fills-clock",
        default="",
        metavar="ZONE",
        help="time zone of fills without a UTC offset (default: that of --clock)",
    )
    parser.add_argument(
        "--equity",
        type=float,
        metavar="X",
        help="account before the first fill, in the quote currency (default: the largest notional held)",
    )
    options.add(parser, "output", help="output folder, with the ledger (default: outputs/judge_NAME)")
    options.older(parser, "output", "--output-dir")


def run(args: argparse.Namespace) -> int:
    """Judge, print the table and the verdict."""
    path: Path = args.file
    if not path.is_file():
        msg = f"There is no file {path}. Pass a policy.py or a table of fills."
        raise InputNotFoundError(msg)
    is_policy = path.suffix.lower() == ".py"
    if not is_policy and path.suffix.lower() not in _TABLES:
        msg = f"{path} must be a policy (.py) or a text table of fills ({', '.join(_TABLES)})."
        raise ConfigError(msg)
    if is_policy and (args.fills_clock or args.equity is not None):
        msg = f"--fills-clock and --equity belong to fills, but {path} is a policy. Leave them out."
        raise ConfigError(msg)
    folder = args.output or Path("outputs") / f"judge_{path.stem}"
    judged.check_not_overwritten(path, folder)
    start, end = judged.moment(vars(args)["from"], "--from"), judged.moment(args.until, "--until")
    command = shlex.join(("python", "-m", "sac_kernel", "judge", *args.words))
    whole = _read(args)
    whole = whole.until(end) if end is not None else whole
    bars = judged.rows_between(whole.own, start, end)
    for line in whole.facts(bars.index)["costs"]:
        logger.info("%s", line)
    with locks.hold(folder), ledgers.shared(folder, whole.content_hash):
        if is_policy:
            subject = judged_policy(path, whole, bars)
        else:
            subject = judged_fills(
                path,
                whole,
                bars,
                clock=args.fills_clock,
                other_clock=args.clock or "",
                equity=args.equity,
                start=start,
                end=end,
            )
        for text in (subject.how, *subject.notes):
            logger.info("%s", text)
        for table in subject.tables:
            _say(table)
        summary = judged.run(subject, whole, bars, folder, command)
    verdict = summary["verdict"]
    logger.info("%s\n%s: %s", terminal.text_table(summary["table"]), verdict["word"], verdict["sentence"])
    logger.info("report: %s", folder / "report.html")
    return 0


def _say(table: Mapping[str, Any]) -> None:
    """Print the first rows of a table of the report."""
    logger.info("%s", table["title"])
    for row in table["rows"][:_ROWS]:
        logger.info("  %s", "  ".join(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row))
    if len(table["rows"]) > _ROWS:
        logger.info("  ...")


def _read(args: argparse.Namespace) -> WholeBars:
    path = args.data or paths.find_input(paths.DATA_FILE)
    given = {name: getattr(args, name) for name in options.SOURCE}
    try:
        return read_whole(DataConfig(source=options.source_of(path), path=str(path), **given))
    except MissingFactsError as err:
        raise err.for_command(["python", "-m", "sac_kernel", "judge", *args.words]) from None
