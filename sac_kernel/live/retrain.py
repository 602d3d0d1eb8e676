"""New bars in, a new model out if it proves better: append, rebuild, train, compare, promote or not.

The model in use is that of `models/current.json`; the first candidate of all becomes it without a comparison. Training
needs a clone of the project: it calls build_kernel.py of the one that the current folder lies in.
"""

from __future__ import annotations

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
    from collections.abc import Sequence

    from sac_kernel.live.model_store import InUse, ModelStore
    from sac_kernel.prices.processed_file import ProcessedData

logger = logging.getLogger(__name__)

MODELS = Path("models")
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


def train(current: InUse | None, agent_id: int, data: Path, *, kaggle: bool, more: Sequence[str]) -> Path:
    """Build, and train on Kaggle or here; return the candidate.

    Parameters
    ----------
    current : whose weights the run starts from; None starts from scratch
    data : the processed file to train on
    more : arguments for build_kernel.py

    Raises
    ------
    InputNotFoundError
        If the current folder lies in no clone of the project.
    SacKernelError
        If build_kernel.py ended badly.
    """
    checkout = paths.find_checkout()
    weights = checkout / "build" / paths.WARM_START
    weights.unlink(missing_ok=True)
    command = [sys.executable, str(checkout / "build_kernel.py"), "--fresh"]
    command.append("--until-done" if kaggle else "--rehearse")
    if data.resolve() != (checkout / paths.LOCAL_DATA).resolve():
        command += ["--data", str(data.resolve())]
    settings = [f"agent_ids=[{agent_id}]"]
    if current is not None:
        files.write_bytes(weights, current.path.read_bytes())
        settings.append(f'warm_start="{current.sha256}"')
    command += [part for setting in settings for part in ("--set", setting)]
    status = subprocess.run([*command, *more], cwd=checkout, check=False).returncode  # noqa: S603  # our own program
    if status != 0:
        msg = f"retrain: build_kernel.py ended with status {status}; its own message is above"
        raise SacKernelError(msg)
    folder = checkout / "outputs" if kaggle else checkout / "build" / "rehearsal" / "working"
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
