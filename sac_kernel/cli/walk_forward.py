"""Retrain each agent, seed, fold and cost tier, evaluate them on the joined test days, write one page.

Finished jobs are not run again, so you can stop the command at any time and repeat it.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path

from sac_kernel.cli import options, settings
from sac_kernel.core import locks, paths
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment import fold_jobs, walk_forward
from sac_kernel.experiment.fold_jobs import Settings
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.report import terminal
from sac_kernel.stats import ledgers

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__, parameters=True)
    options.add(parser, "data")
    options.add(parser, "output", default=Path("outputs/walk_forward"))
    options.add(parser, "agents", default=(1, 2, 3))
    options.add(parser, "seeds", default=(0, 1, 2))
    options.add(parser, "folds", default=4)
    options.add(parser, "tiers", default=tuple(COST_TIERS))
    parser.add_argument(
        "--updates", type=int, default=0, help="updates per training (default: 3,000 exact, 5,000 Gaussian)"
    )
    parser.add_argument(
        "--evaluations", type=int, default=5, help="validations per training; each counts as a trial"
    )
    options.add(parser, "test-days")
    options.add(parser, "val-days")
    parser.add_argument("--purge-days", type=int, default=5, help="days left out between the parts of a fold")
    options.add(parser, "workers", help="processes, of one thread each")
    options.add(parser, "address")
    options.add(parser, "config", help="file of learner and parameters that begin with sac_, exact_ or env_")
    options.add(parser, "set", help="learner, or a parameter of sac_, exact_ or env_ (below); repeatable")
    options.add(parser, "costs")
    options.older(parser, "data", "--h5-path")
    options.older_settings(parser, reward="env_reward")
    parser.add_argument(
        "--seed-count", type=_first, dest="seeds", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    parser.set_defaults(preset=None)


def run(args: argparse.Namespace) -> int:
    """Run the jobs without a result; print the table and the verdicts."""
    logging.getLogger("sac_kernel.features.pipeline").setLevel(
        logging.WARNING
    )  # one line per job is too much
    values = settings.parameters(args, env_costs="costs")
    prefixes = ("sac_", "exact_", "env_")
    own = [name for name in values if not name.startswith(prefixes) and name != "learner"]
    if own:
        msg = (
            f"walk-forward cannot set {', '.join(own)}; it takes learner and parameters that begin with "
            "sac_, exact_ or env_. See --help."
        )
        raise ConfigError(msg)
    run_settings = Settings(
        h5_path=str(args.data or paths.find_input(paths.DATA_FILE)),
        agents=args.agents,
        seeds=args.seeds,
        folds=args.folds,
        tiers=args.tiers,
        updates=args.updates,
        evaluations=args.evaluations,
        test_days=args.test_days,
        val_days=args.val_days,
        purge_days=args.purge_days,
        config=RunConfig.from_flat(values, "walk-forward"),
    )
    command = shlex.join(("python", "-m", "sac_kernel", "walk-forward", *args.words))
    data_hash = fold_jobs.opened(run_settings.h5_path).content_hash
    with locks.hold(args.output), ledgers.shared(args.output, data_hash):
        summary = walk_forward.run(run_settings, args.output, args.workers, command, args.address)
    logger.info("%s", terminal.text_table(summary["table"]))
    for agent_id, verdict in summary["verdicts"].items():
        logger.info("agent %s: %s", agent_id, verdict["sentence"])
    logger.info("report: %s", args.output / "report.html")
    return 0


def _first(text: str) -> tuple[int, ...]:
    """Return the seeds 0 to N - 1."""
    return tuple(range(int(text)))
