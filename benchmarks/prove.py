"""`make prove`: agents on markets whose optimum is known; what is measured: `benchmarks.proof`.

python -m benchmarks.prove                       every market by exact SAC, 5 seeds, 3,000 updates
python -m benchmarks.prove --learner gaussian    the same by Gaussian SAC, 10,000 updates
python -m benchmarks.prove --markets M4 --seeds 2
python -m benchmarks.prove --markets M11,M11-02 --learner gaussian --updates 40000
python -m benchmarks.prove --short               M0, M2 and M11 with fewer updates and looser marks
python -m benchmarks.prove --markets M5 --rewards raw --set weight_decay=1.0     an ablation
"""

from __future__ import annotations

import argparse
import ast
import os
import time
import typing
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.proof import TABLE_HEAD, Setting, prove, prove_short
from sac_kernel.agent.config import EXACT, GAUSSIAN, SACConfig
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.core import files, packages
from sac_kernel.core.config import check_names, typed
from sac_kernel.core.device import set_threads
from sac_kernel.experiment.planted_edge import policy_figure
from sac_kernel.market.known_answer_kinds import ALL_MARKETS
from sac_kernel.report import plots

WITH_BAND = tuple(
    name for name, market in ALL_MARKETS.items() if market.cost and market.ic and market.inputs == 1
)
"""Markets whose policy can be drawn over predictor and position."""


UPDATES = {EXACT: 3_000, GAUSSIAN: 10_000}
MARKS = {
    "M1": 0.99, "M2": 0.99, "M3": 0.99, "M4": 0.99, "M8": 0.96, "M9": 0.99, "M10": 0.99, "M11": 1.00, "M11-02": 1.08,
    "M12": 0.955, "M13": 0.90,
}  # fmt: skip
"""Of exact SAC; M11 and M11-02 in shares of ridge + band of the same path. The other markets have their own."""


def changes_of(pairs: list[str], config: type = SACConfig) -> dict[str, typing.Any]:
    """Return fields of a learner's settings from 'name=value' texts."""
    hints = typing.get_type_hints(config)
    found = {name: ast.literal_eval(text) for name, text in (pair.split("=", 1) for pair in pairs)}
    check_names("--set", found, hints)
    return {name: typed("--set", name, value, hints[name]) for name, value in found.items()}


def main() -> int:
    """Print the table as Markdown with settings, versions and date; the exit status is 0 if all marks are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prove", description=__doc__.splitlines()[0])
    parser.add_argument("--markets", default=",".join(ALL_MARKETS), help="names, comma-separated")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--learner", choices=tuple(UPDATES), default=EXACT)
    parser.add_argument("--updates", type=int, help="default: 3,000 exact, 10,000 gaussian")
    parser.add_argument("--rewards", choices=("denoised", "raw"), default="denoised")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of ExactConfig or SACConfig"
    )
    parser.add_argument("--forecast", action="store_true", help="the agent sees what agent 2 sees")
    parser.add_argument("--every", type=int, default=1, help="bars between decisions")
    parser.add_argument("--short", action="store_true", help="three markets, one seed, looser marks")
    parser.add_argument(
        "--output", type=Path, default=Path("build/prove"), help="folder of the policy figures"
    )
    args = parser.parse_args()
    warnings.simplefilter("error")
    set_threads(1)
    check_names("--markets", args.markets.split(","), ALL_MARKETS)
    changes = changes_of(args.set, ExactConfig if args.learner == EXACT else SACConfig)
    if args.learner == EXACT and (args.forecast or args.every != 1):
        parser.error("--forecast and --every need --learner gaussian")
    others = {"forecast": args.forecast, "every": args.every, "learner": args.learner}
    updates = args.updates or UPDATES[args.learner]
    setting = Setting(updates, args.rewards, changes, lambda line: print(line, flush=True), **others)
    facts = ", ".join(f"{k} {v}" for k, v in packages.versions().items())
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, one thread; {facts}")
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    usual = Setting._field_defaults
    changed = {**changes, **{k: v for k, v in others.items() if v != usual[k]}} or "nothing"
    print(f"seeds {seeds[0]}-{seeds[-1]}, {updates} updates, rewards {args.rewards}, changed: {changed}")
    if args.short:
        proven = prove_short(setting.log)
    else:
        marks = MARKS if args.learner == EXACT else {}
        proven = {
            name: prove(ALL_MARKETS[name], seeds, setting, marks.get(name))
            for name in args.markets.split(",")
        }
    print("\n".join(("", TABLE_HEAD, *(each.line for each in proven.values()))))
    for name in [name for name in proven if name in WITH_BAND]:
        path = args.output / f"policy_{name}.png"
        files.write_bytes(path, plots.to_png(policy_figure(ALL_MARKETS[name], proven[name].policy)))
        print(f"policy of seed {seeds[0]}: {path}")
    return 0 if all(each.passed for each in proven.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
