"""New bars in, a new model out if it proves better: append, rebuild, train, compare, promote or not.

python -m sac_kernel.retrain bars/ --kaggle          train on Kaggle, session after session
python -m sac_kernel.retrain bars/ --rehearse        train here
python -m sac_kernel.retrain --judge outputs/agent_1_final.pt
python -m sac_kernel.retrain --rollback "lost 3 % in a week"

What follows `--` goes to build_kernel.py: `-- --set num_episodes=500`. The model in use is that of
`models/current.json`; the first candidate of all becomes it without a comparison.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sac_kernel.core import files, paths
from sac_kernel.core.errors import ConfigError, DataError, SacKernelError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.live import promotion
from sac_kernel.live.model_store import InUse, ModelStore
from sac_kernel.prices.bars import BarTable
from sac_kernel.prices.ingest import formats
from sac_kernel.prices.ingest.panel import write_tables
from sac_kernel.prices.ingest.tables import join
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.prices.processed_file import read_processed

if TYPE_CHECKING:
    from sac_kernel.prices.processed_file import ProcessedData

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
MAX_GAP = pd.Timedelta(days=4)
"""Between the last bar there is and the first new one: a long weekend, no more."""


def append_bars(data: ProcessedData, path: Path, clock: str | None, target: Path) -> ProcessedData:
    """Write a processed file of all bars of `data` and the new ones of a file or folder, split anew.

    A bar that both have must be the same. New bars may also fill holes, such as the embargoes of the earlier split.

    Raises
    ------
    DataError
        If bars of an instrument are missing, differ from those known, bring nothing new, or begin after a gap.
    """
    names = sorted(data.train, key=lambda name: (name != data.traded, name))
    found = formats.find_files(path) if path.is_dir() else {names[0]: [path]}
    missing = [name for name in names if name not in found]
    if missing:
        msg = f"{path}: new bars of {', '.join(names)} are required, found none of {', '.join(missing)}"
        raise DataError(msg)
    tables = []
    for name in names:
        new = formats.read_instrument(found[name], data.price_side, clock, name, data.bar_seconds)
        tables.append((name, _joined(data, name, new)))
    write_tables(iter(tables), DataConfig(instrument=data.traded), target)
    return read_processed(target)


def judge(candidate: Path, data: ProcessedData, store: ModelStore) -> bool:
    """Promote a candidate if the rule says so, and write down what was decided; return whether it was.

    The first model of all is promoted as it is: there is nothing to compare it with.
    """
    until, current = data.test[data.traded].index[-1].isoformat(), store.current()
    for path in (candidate, current.path) if current else (candidate,):
        if (name := FeaturePipeline.from_checkpoint(path).instrument) != data.traded:
            msg = f"{path}: a model of {data.traded}, which the bars trade, is required, found one of {name}"
            raise ConfigError(msg)
    if current is None:
        store.promote(candidate, until, {"why": "the first model", "data_hash": data.content_hash})
        logger.info("promoted %s: the first model", candidate)
        return True
    if current.sha256 == files.file_sha256(candidate):
        msg = f"{candidate}: a model other than the one in use is required, found the same"
        raise ConfigError(msg)
    found = promotion.compare(candidate, current.path, data, current.judged_until)
    facts = {"why": found.reason, "data_hash": data.content_hash, "figures": found.plain()}
    if found.promote:
        store.promote(candidate, until, facts)
    else:
        store.reject(candidate, facts)
    logger.info("%s %s: %s", "promoted" if found.promote else "rejected", candidate, found.reason)
    logger.info(
        "          %d days since %s: candidate %+.1f %% a year, in use %+.1f %%%s", found.days, current.judged_until,
        100 * found.candidate_frac, 100 * found.in_use_frac, f"; drift: {found.drift}" if found.drift else "",
    )  # fmt: skip
    return found.promote


def train(current: InUse | None, agent_id: int, *, kaggle: bool, more: list[str]) -> Path:
    """Build, and train on Kaggle or here; return the candidate.

    Parameters
    ----------
    current : whose weights the run starts from; None starts from scratch
    more : arguments for build_kernel.py
    """
    weights = ROOT / "build" / paths.WARM_START
    weights.unlink(missing_ok=True)
    settings = [f"agent_ids=[{agent_id}]"]
    if current is not None:
        files.write_bytes(weights, current.path.read_bytes())
        settings.append(f'warm_start="{current.sha256}"')
    command = [
        sys.executable,
        str(ROOT / "build_kernel.py"),
        "--fresh",
        "--until-done" if kaggle else "--rehearse",
    ]
    command += [part for setting in settings for part in ("--set", setting)]
    status = subprocess.run([*command, *more], cwd=ROOT, check=False).returncode  # noqa: S603  # our own program
    if status != 0:
        msg = f"retrain: a run that ends well is required, found exit status {status} of build_kernel.py; see above"
        raise SacKernelError(msg)
    folder = ROOT / "outputs" if kaggle else ROOT / "build" / "rehearsal" / "working"
    return folder / f"agent_{agent_id}_final.pt"


def _joined(data: ProcessedData, name: str, new: BarTable) -> BarTable:
    known = data.whole(name)
    first, last = new.bars.index[0], new.bars.index[-1]
    if last <= known.index[-1]:
        msg = f"{new.source}: bars of {name} after {known.index[-1]} are required, found the last at {last}"
        raise DataError(msg)
    if first > known.index[-1] + MAX_GAP:
        msg = (
            f"{new.source}: bars of {name} from {known.index[-1]} on are required, found the first at {first}; "
            "give those between, or the whole export"
        )
        raise DataError(msg)
    old = BarTable(known, data.source, data.clock)
    return dataclasses.replace(join([old, new], name), source=f"{data.source.split(' + ')[0]} + {new.source}")


def cut_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return what stands before and after the first `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def main(arguments: list[str] | None = None) -> int:
    """Retrain, judge or roll back from the command line; the exit status is 3 for a rejected candidate."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    # argparse ends all positionals with the first run of them, so what follows -- is taken off before.
    own, more = cut_at_dashes(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(own)
    store = ModelStore(args.models)
    try:
        if args.rollback is not None:
            before = store.roll_back(args.rollback)
            logger.info("rolled back to %s", before.path)
            return 0
        if args.judge:
            return 0 if judge(args.judge, read_processed(args.data), store) else 3
        if args.bars is None:
            msg = "retrain: new bars, --judge or --rollback is required, found none of them"
            raise ConfigError(msg)
        data = append_bars(read_processed(args.data), args.bars, args.clock, args.data)
        logger.info("data      %s, now up to %s", args.data, data.test[data.traded].index[-1])
        start = store.current() if args.warm_start else None
        candidate = train(start, args.agent_id, kaggle=args.kaggle, more=more)
        return 0 if judge(candidate, data, store) else 3
    except SacKernelError as err:
        logger.error("%s: %s", type(err).__name__, err)  # the message says it all
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sac_kernel.retrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bars", nargs="?", type=Path, help="new bars: a file, or a folder of instruments")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--kaggle", action="store_true", help="train on Kaggle, and fetch")
    where.add_argument("--rehearse", action="store_true", help="train here (the default)")
    parser.add_argument(
        "--warm-start", action="store_true", help="start from the weights of the model in use"
    )
    parser.add_argument("--agent-id", type=int, default=1, help="1 short-term, 2 medium, 3 swing")
    parser.add_argument(
        "--judge", type=Path, metavar="PT", help="only compare this model with the one in use"
    )
    parser.add_argument("--rollback", metavar="WHY", help="return to the model before the one in use")
    parser.add_argument("--clock", help="of the new bars, if they do not prove it")
    parser.add_argument(
        "--data", type=Path, default=ROOT / paths.LOCAL_DATA, metavar="H5", help="bars so far"
    )
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="models in use")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
