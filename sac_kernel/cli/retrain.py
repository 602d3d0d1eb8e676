"""Append new bars, train a candidate, compare it with the model in use, and promote it if it is better.

Arguments after `--` go to build_kernel.py. The exit status is 3 if the candidate is not promoted.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from sac_kernel.cli import options, settings
from sac_kernel.core import interrupts, locks, paths
from sac_kernel.core.checkout import find_checkout
from sac_kernel.core.config import require
from sac_kernel.core.errors import ConfigError
from sac_kernel.live import retrain
from sac_kernel.live.model_store import ModelStore
from sac_kernel.prices.processed_file import read_processed

logger = logging.getLogger(__name__)

REJECTED = 3
"""Exit status if the candidate is not promoted."""
_WAIT_S = 120.0  # for a build that writes the same bars


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__, parameters=True)
    options.add(parser, "bars", help="new bars: a file or a folder of instruments")
    parser.add_argument("older", nargs="?", type=Path, help=argparse.SUPPRESS)  # BARS
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--kaggle", action="store_true", help="train on Kaggle and fetch the result")
    where.add_argument("--rehearse", action="store_true", help="train here (the default)")
    parser.add_argument(
        "--warm-start", action="store_true", help="start from the weights of the model in use"
    )
    options.add(parser, "agents", default=(1,), help="agent to train: 1 short-term, 2 medium, 3 swing")
    options.add(parser, "preset")
    options.add(parser, "config")
    options.add(parser, "set")
    options.add_features(parser)
    parser.add_argument(
        "--judge", type=Path, metavar="FILE", help="only compare this model with the one in use"
    )
    parser.add_argument("--rollback", metavar="WHY", help="return to the model before the one in use")
    options.add(parser, "clock", help="time zone of the new bars; needed if they do not show it")
    options.add(
        parser, "data", default=paths.LOCAL_DATA, help="processed bars so far; the new ones are added"
    )
    parser.add_argument(
        "--models", type=Path, default=retrain.MODELS, metavar="DIR", help="folder of the models in use"
    )
    options.older(parser, "agents", "--agent-id")


def run(args: argparse.Namespace) -> int:
    """Retrain, judge or roll back; one command at a time uses a folder of models."""
    with locks.hold(args.models):
        return _run(args, ModelStore(args.models))


def _run(args: argparse.Namespace, store: ModelStore) -> int:
    if args.rollback is not None:
        logger.info("rolled back to %s", store.roll_back(args.rollback).path)
        return 0
    if args.judge:
        return 0 if retrain.judge(args.judge, read_processed(args.data), store) else REJECTED
    path = args.bars or args.older
    if path is None:
        msg = "retrain needs --bars, --judge or --rollback."
        raise ConfigError(msg)
    require(len(args.agents) == 1, "retrain", "--agents must name one agent", args.agents)
    given = settings.parameters(args).items()
    set_here = [item for item in given if item[0] not in ("features_file", "features_hash", "series_files")]
    more = [part for item in set_here for part in ("--set", "=".join(map(_text, item)))]
    if args.features:
        more += ["--features", str(args.features.resolve())]
    for path in args.series:
        more += ["--series", str(path.resolve())]
    find_checkout()  # before the bars are changed
    with locks.hold(args.data.parent, wait_s=_WAIT_S):
        data = retrain.with_new_bars(path, args.clock, args.data, store)
    interrupts.advise("The bars are added. The same command goes on with the training.")
    traded = data.traded
    logger.info("data      %s, through %s", args.data, data.test[traded].index[-1])
    start = store.current() if args.warm_start else None
    candidate = retrain.train(
        start, args.agents[0], args.data, data, store, kaggle=args.kaggle, more=[*more, *args.more]
    )
    promoted = retrain.judge(candidate, data, store)
    retrain.finish(store)
    return 0 if promoted else REJECTED


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
