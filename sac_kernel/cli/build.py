"""Bundle the package into one Kaggle notebook, stage its datasets, and run it here or on Kaggle.

Without options it builds from data/processed/processed_data.h5, or from the embedded sample, and publishes if there
are Kaggle credentials. The exit status is 1 if a run on Kaggle fails, 2 if an input is refused.
"""

from __future__ import annotations

import argparse
import importlib.util

from sac_kernel.cli import options
from sac_kernel.core import packages
from sac_kernel.core.checkout import find_checkout
from sac_kernel.core.errors import ConfigError
from sac_kernel.core.homes import DEFAULT_NAME
from sac_kernel.prices.pipeline import DataConfig


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__, parameters=True)
    options.add_source(
        parser, metavar="PATH", help="bars: a file, a folder of instruments, or a processed .h5"
    )
    parser.add_argument(
        "--embargo-hours",
        type=float,
        default=DataConfig.embargo_hours,
        metavar="H",
        help="hours of bars left out after each boundary between train, validation and test",
    )
    options.add_run_options(parser)
    options.add(
        parser, "output", help="folder for fetched files (default: outputs/ of the clone, or outputs/NAME/)"
    )
    parser.add_argument(
        "--name",
        default=DEFAULT_NAME,
        help="name of the run: begins those of kernel and datasets, and keeps its files apart",
    )
    parser.add_argument("--rehearse", action="store_true", help="run the notebook here as Kaggle would")
    _add_kaggle_options(parser)


def _add_kaggle_options(parser: argparse.ArgumentParser) -> None:
    kaggle = parser.add_argument_group("on Kaggle")
    flags = {
        "fresh": "start over instead of resuming, here or on Kaggle",
        "push": "publish, push and start the run on Kaggle",
        "follow": "show the run's log until it ends, then fetch it",
        "fetch": "download the outputs and check every hash",
        "resume": "publish the fetched state and push the next session",
        "until-done": "run session after session, within the quota, until training is complete",
        "probe": "stage a diagnostic kernel for questions that only Kaggle can answer",
        "stop": "delete the kernel and its run, after asking",
        "allow-public": "publish into a dataset even if everybody can read it",
        "yes": "with --stop: do not ask",
    }
    for name, text in flags.items():
        kaggle.add_argument(f"--{name}", action="store_true", help=text)
    kaggle.add_argument(
        "--accelerator", default="NvidiaTeslaT4", metavar="NAME", help="NvidiaTeslaT4 (two T4s) or none"
    )
    kaggle.add_argument("--poll-s", type=float, default=30.0, help=argparse.SUPPRESS)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of build_kernel.py itself."""
    parser = argparse.ArgumentParser(prog="build_kernel.py", allow_abbrev=False)
    add_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run build_kernel.py of the current clone."""
    return run_build_kernel(args.words)


def run_build_kernel(arguments: list[str]) -> int:
    """Call build_kernel.py of the clone around the current folder."""
    checkout = find_checkout()
    if packages.import_root() != checkout:
        msg = f"This command uses {packages.import_root()}. In {checkout}, call `python build_kernel.py`."
        raise ConfigError(msg)
    script = checkout / "build_kernel.py"
    spec = importlib.util.spec_from_file_location("build_kernel", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    status: int = module.main(arguments)
    return status
