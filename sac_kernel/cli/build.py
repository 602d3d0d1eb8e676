"""Bundle the package into one Kaggle notebook, stage its datasets, and rehearse the run here or do it on Kaggle.

Without an option it builds from data/processed/processed_data.h5, or from the embedded sample, and publishes where
there are Kaggle credentials. The status is 1 if a run on Kaggle ended badly, 2 if something was refused.
"""

from __future__ import annotations

import argparse
import importlib.util

from sac_kernel.cli import options
from sac_kernel.core import packages, paths
from sac_kernel.core.errors import ConfigError

DEFAULT_NAME = "sac-trading"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__, parameters=True)
    options.add(
        parser, "data", metavar="PATH", help="bars: a file, a folder of instruments, or a processed .h5"
    )
    options.add(parser, "price-side", help="what the prices of PATH are")
    options.add(parser, "clock", help="UTC, an IANA zone, histdata or mt-eet, if the files do not prove it")
    parser.add_argument(
        "--instrument",
        default="",
        metavar="NAME",
        help="the traded instrument; default: what PATH says, or EURUSD",
    )
    parser.add_argument(
        "--bar-minutes", type=int, default=0, metavar="N", help="make bars of this length; 0 leaves them"
    )
    options.add_run_options(parser)
    options.add(parser, "output", help="where fetched files go (default: outputs/ of the clone)")
    parser.add_argument("--name", default=DEFAULT_NAME, help="prefix of kernel and datasets on Kaggle")
    parser.add_argument("--rehearse", action="store_true", help="run the notebook here, as Kaggle would")
    _add_kaggle_options(parser)


def _add_kaggle_options(parser: argparse.ArgumentParser) -> None:
    kaggle = parser.add_argument_group("on Kaggle")
    flags = {
        "fresh": "start over, here or on Kaggle; never the default",
        "push": "publish, push and so start the run on Kaggle",
        "follow": "show the run's log until it ends, then fetch it",
        "fetch": "bring the outputs home, every hash checked",
        "resume": "publish the fetched state and push the next session",
        "until-done": "session after session, within the quota",
        "probe": "a diagnostic kernel for questions that only Kaggle can answer",
        "stop": "delete the kernel and its run; asks first",
        "yes": "with --stop: do not ask",
    }
    for name, text in flags.items():
        kaggle.add_argument(f"--{name}", action="store_true", help=text)
    kaggle.add_argument(
        "--accelerator", default="NvidiaTeslaT4", metavar="NAME", help="NvidiaTeslaT4 (two T4s), none"
    )
    kaggle.add_argument("--poll-s", type=float, default=30.0, help=argparse.SUPPRESS)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of build_kernel.py itself."""
    parser = argparse.ArgumentParser(prog="build_kernel.py", allow_abbrev=False)
    add_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what build_kernel.py of the current clone does."""
    return run_build_kernel(args.words)


def run_build_kernel(arguments: list[str]) -> int:
    """Call build_kernel.py of the clone that the current folder lies in."""
    checkout = paths.find_checkout()
    if packages.import_root() != checkout:
        msg = f"This is the package in {packages.import_root()}. In {checkout}, call `python build_kernel.py` instead."
        raise ConfigError(msg)
    script = checkout / "build_kernel.py"
    spec = importlib.util.spec_from_file_location("build_kernel", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    status: int = module.main(arguments)
    return status
