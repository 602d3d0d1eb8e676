"""`python -m sac_kernel COMMAND` and `sac-kernel COMMAND`: find the command, run it, return the exit status."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from typing import TYPE_CHECKING, NamedTuple

from sac_kernel import __version__
from sac_kernel.cli import ending
from sac_kernel.core.printable import log_to

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)


class Command(NamedTuple):
    """Module of a command, with its functions `add_options` and `run`, and a one-line summary."""

    module: str
    summary: str
    takes_more: bool = False


COMMANDS = {
    "build": Command("build", "bundle notebook and datasets; publish, follow and fetch a run on Kaggle"),
    "rehearse": Command("rehearse", "build, then run the notebook here as Kaggle would"),
    "download": Command("download", "fetch bars from Dukascopy or HistData.com into files that --data reads"),
    "doctor": Command("doctor", "check Python, disk, the Kaggle client, login, quota and datasets"),
    "train": Command("train", "train and evaluate agents on processed bars"),
    "evaluate": Command("evaluate", "evaluate a saved agent: table and verdict"),
    "walk-forward": Command("walk_forward", "retrain agents fold by fold and report on one page"),
    "null": Command("null", "refit the whole pipeline on copies without a signal: a p value, and its power"),
    "judge": Command("judge", "judge somebody's policy or fills: same engine, costs, baselines, verdict"),
    "sweep": Command("sweep", "train a grid of agents, seeds, folds and settings"),
    "decide": Command("decide", "print what a saved agent would hold from the next open on"),
    "paper": Command("paper", "trade on paper with a saved agent"),
    "export": Command("export", "write a saved agent as ONNX"),
    "retrain": Command("retrain", "append new bars, train a candidate, promote it if it is better", True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    status
        0: done; 2: an error, with its message in the last line; 130, 143: stopped by Ctrl-C or SIGTERM. `sweep`,
        `build` and `retrain` have further ones.
    """
    log_to(sys.stdout)
    return ending.run(lambda: _run(arguments), logger.error)


def _run(arguments: Sequence[str] | None) -> int:
    # argparse cannot parse positional arguments on both sides of --, so what follows it is removed first.
    own, more = cut_at_dashes(list(sys.argv[1:] if arguments is None else arguments))
    parser = make_parser(own)
    args = parser.parse_args(own)
    if more and not COMMANDS[args.command].takes_more:
        parser.error(f"{args.command} takes no arguments after --")
    args.words, args.more = own[1:], more
    if getattr(args, "features", None):
        from sac_kernel.features.own import OwnFeatures  # pandas: the list of commands loads none

        OwnFeatures.load(args.features)  # saved agents find it by its hash
    if getattr(args, "series", None):
        from sac_kernel.features.checks import read_series

        read_series(args.series)  # saved agents find them by their names
    status: int = args.run(args)
    return status


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; only the command named by the arguments has its options."""
    parser = argparse.ArgumentParser(
        prog="sac-kernel",
        description="Soft Actor-Critic trading agents: bars in, a verdict after costs out.",
        epilog="`sac-kernel COMMAND --help` shows the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sac-kernel {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.summary, allow_abbrev=False)
        if name in arguments[:1]:
            module = importlib.import_module(f"sac_kernel.cli.{command.module}")
            module.add_options(sub)
            sub.set_defaults(run=module.run)
    return parser


def cut_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after the first `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]
