"""Retraining: append new bars, rebuild, train a candidate, compare it with the model in use, promote the better.

The model in use is that of `models/current.json`; the first candidate is promoted without a comparison. Training
needs a clone of the project and calls build_kernel.py of the clone around the current folder.
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
from sac_kernel.core.checkout import find_checkout
from sac_kernel.core.errors import ConfigError, DataError, SacKernelError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.live import promotion
from sac_kernel.live.model_store import InUse, ModelStore
from sac_kernel.prices.ingest import formats
from sac_kernel.prices.ingest.panel import write_tables
from sac_kernel.prices.ingest.tables import BarTable, join
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.prices.processed_file import read_processed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sac_kernel.live.model_store import InUse, ModelStore
    from sac_kernel.prices.processed_file import ProcessedData

logger = logging.getLogger(__name__)

MODELS = Path("models")
MAX_GAP = pd.Timedelta(days=4)
"""Longest gap between the last known bar and the first new one: a long weekend."""


def append_bars(data: ProcessedData, path: Path, clock: str | None, target: Path) -> ProcessedData:
    """Write and return a processed file of the bars of `data` and the new ones of a file or folder, split again.

    Bars of the same time must be equal. New bars may also fill holes, such as the embargoes of the earlier split.

    Raises
    ------
    DataError
        If an instrument has no new bars, or its bars differ from the known ones or begin after a gap.
    """
    names = sorted(data.train, key=lambda name: (name != data.traded, name))
    paths_of = formats.find_files(path) if path.is_dir() else {names[0]: [path]}
    missing = [name for name in names if name not in paths_of]
    if missing:
        msg = f"{path} has no bars of {', '.join(missing)}. New bars of {', '.join(names)} are needed."
        raise DataError(msg)
    tables = []
    for name in names:
        new = formats.read_instrument(paths_of[name], data.price_side, clock, name, data.bar_seconds)
        tables.append((name, _joined(data, name, new)))
    write_tables(iter(tables), DataConfig(instrument=data.traded), target, data.spec)
    return read_processed(target)


def judge(candidate: Path, data: ProcessedData, store: ModelStore) -> bool:
    """Promote or reject a candidate by the rule, record the decision, and return whether it was promoted.

    The first model is promoted without a comparison.
    """
    until, current = data.test[data.traded].index[-1].isoformat(), store.current()
    for path in (candidate, current.path) if current else (candidate,):
        if (name := FeaturePipeline.from_checkpoint(path).instrument) != data.traded:
            msg = f"{path} is a model of {name}, but the bars are of {data.traded}."
            raise ConfigError(msg)
    if current is None:
        store.promote(candidate, until, {"why": "the first model", "data_hash": data.content_hash})
        logger.info("promoted %s: the first model", candidate)
        return True
    if current.sha256 == files.file_sha256(candidate):
        msg = f"{candidate} is the model that is already in use."
        raise ConfigError(msg)
    result = promotion.compare(candidate, current.path, data, current.judged_until)
    facts = {"why": result.reason, "data_hash": data.content_hash, "figures": result.plain()}
    if result.promote:
        store.promote(candidate, until, facts)
    else:
        store.reject(candidate, facts)
    logger.info("%s %s: %s", "promoted" if result.promote else "rejected", candidate, result.reason)
    logger.info(
        "          %d days since %s: candidate %+.1f %% a year (compound), in use %+.1f %%%s; evidence e = %.2f",
        result.days, current.judged_until,
        100 * result.candidate_frac, 100 * result.in_use_frac, f"; drift: {result.drift}" if result.drift else "",
        result.evidence,
    )  # fmt: skip
    return result.promote


def train(current: InUse | None, agent_id: int, data: Path, *, kaggle: bool, more: Sequence[str]) -> Path:
    """Build and train, on Kaggle or here; return the path of the candidate.

    Parameters
    ----------
    current : the model whose weights the run starts from; None starts from scratch
    data : the processed file to train on
    more : further arguments for build_kernel.py

    Raises
    ------
    InputNotFoundError
        If the current folder is not in a clone of the project.
    SacKernelError
        If build_kernel.py fails.
    """
    checkout = find_checkout()
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
        msg = f"build_kernel.py failed with status {status}. Its own message is above."
        raise SacKernelError(msg)
    folder = checkout / "outputs" if kaggle else checkout / "build" / "rehearsal" / "working"
    return folder / f"agent_{agent_id}_final.pt"


def _joined(data: ProcessedData, name: str, new: BarTable) -> BarTable:
    known = data.whole(name)
    first, last = new.bars.index[0], new.bars.index[-1]
    if last <= known.index[-1]:
        msg = (
            f"{new.source} has no new bars of {name}: its last one opens at {last}, the last known one at "
            f"{known.index[-1]}."
        )
        raise DataError(msg)
    if first > known.index[-1] + MAX_GAP:
        msg = (
            f"{new.source} leaves a gap: its first bar of {name} opens at {first}, the last known one at "
            f"{known.index[-1]}. Add the bars between, or pass the whole export."
        )
        raise DataError(msg)
    old = BarTable(known, data.source, data.clock)
    return dataclasses.replace(join([old, new], name), source=f"{data.source.split(' + ')[0]} + {new.source}")
