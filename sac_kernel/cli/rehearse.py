"""Build, then run the very notebook here as Kaggle would: in a folder laid out alike, without a network.

The same as `build --rehearse`, with the same options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sac_kernel.cli import build, options

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command the options of `build`."""
    build.add_options(parser)
    options.describe(parser, __doc__, parameters=True)


def run(args: argparse.Namespace) -> int:
    """Rehearse."""
    return build.run_build_kernel([*args.words, "--rehearse"])
