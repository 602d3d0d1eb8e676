"""Retraining: append new bars, rebuild, train a candidate, compare it with the model in use, promote the better.

The model in use is that of `models/current.json`; the first candidate is promoted without a comparison. Training
needs a clone of the project and calls build_kernel.py of the clone around the current folder.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sac_kernel.core import files, interrupts, locks
from sac_kernel.core.checkout import find_checkout
from sac_kernel.core.errors import ConfigError, DataError, SacKernelError
from sac_kernel.core.homes import DEFAULT_NAME, Home
from sac_kernel.experiment import checkpoint
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.live import promotion
from sac_kernel.live.model_store import InUse, ModelStore
from sac_kernel.prices.bars import SPREAD, Bars, spec_for, with_spread
from sac_kernel.prices.ingest import formats
from sac_kernel.prices.ingest.panel import write_tables
from sac_kernel.prices.ingest.suspect import suspects
from sac_kernel.prices.ingest.tables import BarTable, join
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.prices.processed_file import read_processed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sac_kernel.live.model_store import InUse, ModelStore
    from sac_kernel.prices.processed_file import ProcessedData

logger = logging.getLogger(__name__)

MODELS = Path("models")
PENDING = "pending.json"
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
    # what was accepted at the build is accepted again
    accepted = any(suspects(data.whole(name)) for name in names)
    config = DataConfig(instrument=data.traded, accept_outliers=accepted)
    write_tables(iter(tables), config, target, data.spec)
    return read_processed(target)


def with_new_bars(path: Path, clock: str | None, target: Path, store: ModelStore) -> ProcessedData:
    """Append the new bars to the processed file `target` and return it; a retraining cut short has done so already.

    `pending.json` in the folder of models records what is under way until `finish`.
    """
    data, bars = read_processed(target), _hash_of_files(path)
    pending = _pending(store)
    if pending.get("bars") == bars and data.content_hash != pending.get("before"):
        logger.info("the bars of %s were added before: going on", path)
        return data
    files.write_json(store.folder / PENDING, {"bars": bars, "before": data.content_hash})
    try:
        return append_bars(data, path, clock, target)
    except SacKernelError:
        finish(store)
        raise


def finish(store: ModelStore) -> None:
    """Record that no retraining is under way."""
    (store.folder / PENDING).unlink(missing_ok=True)


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


def train(  # noqa: PLR0913  # what, on what, where
    current: InUse | None,
    agent_id: int,
    file: Path,
    data: ProcessedData,
    store: ModelStore,
    *,
    kaggle: bool,
    more: Sequence[str],
) -> Path:
    """Build and train, on Kaggle or here; return the path of the candidate.

    A training of these bars that was interrupted goes on; a finished one is not repeated.

    Parameters
    ----------
    current : the model whose weights the run starts from; None starts from scratch
    file, data : the processed file to train on, and its content
    store : whose `pending.json` tells of an interrupted retraining
    more : further arguments for build_kernel.py

    Raises
    ------
    InputNotFoundError
        If the current folder is not in a clone of the project.
    SacKernelError
        If build_kernel.py fails, or leaves an agent of other bars.
    """
    checkout = find_checkout()
    home = Home(checkout, _name_in(more))
    folder = home.outputs if kaggle else home.rehearsal / "working"
    candidate = folder / f"agent_{agent_id}_final.pt"
    again = _pending(store)
    if again.get("trained") and _trained_on(folder, data) == "complete":
        return candidate
    going_on = bool(again.get("training")) and _trained_on(folder, data) != ""
    files.write_json(store.folder / PENDING, {**again, "training": True})
    command = [sys.executable, str(checkout / "build_kernel.py"), *([] if going_on else ["--fresh"])]
    command.append("--until-done" if kaggle else "--rehearse")
    if file.resolve() != home.data.resolve():
        command += ["--data", str(file.resolve())]
    settings = [f"agent_ids=[{agent_id}]"]
    if current is not None:
        settings.append(f'warm_start="{current.sha256}"')
    command += [part for setting in settings for part in ("--set", setting)]
    with locks.hold(home.build):
        home.warm_start.unlink(missing_ok=True)
        if current is not None:
            files.write_bytes(home.warm_start, current.path.read_bytes())
    status = interrupts.forward(subprocess.Popen([*command, *more], cwd=checkout, text=True))  # noqa: S603  # ours
    if status != 0:
        msg = f"build_kernel.py failed with status {status}. Its own message is above."
        raise SacKernelError(msg)
    if _trained_on(folder, data) != "complete":
        msg = (
            f"{folder} holds no finished agent of the bars in {file}. Another command has used it: run again."
        )
        raise SacKernelError(msg)
    files.write_json(store.folder / PENDING, {**_pending(store), "trained": True})
    return candidate


def _pending(store: ModelStore) -> dict[str, Any]:
    path = store.folder / PENDING
    return files.read_object(path) if path.is_file() else {}


def _trained_on(folder: Path, data: ProcessedData) -> str:
    """Return 'complete' or 'cut' for a run on these bars, '' if the folder holds none."""
    path = folder / "manifest.json"
    manifest = files.read_object(path) if path.is_file() else {}
    if manifest.get("data_hash") == data.content_hash:
        return str(manifest.get("status"))
    facts = checkpoint.newest_facts(folder / checkpoint.STATE_FOLDER)
    return "cut" if facts and facts["learning"].get("data_hash") == data.content_hash else ""


def _hash_of_files(path: Path) -> str:
    listed = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return files.content_hash([files.file_sha256(p) for p in listed if p.is_file()])


def _name_in(more: Sequence[str]) -> str:
    """Return the name of the run that arguments for build_kernel.py give."""
    given = [after for word, after in itertools.pairwise(more) if word == "--name"]
    given += [word.partition("=")[2] for word in more if word.startswith("--name=")]
    return given[-1] if given else DEFAULT_NAME


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
    spec = spec_for(known)
    added = with_spread(new.with_spread_column(), spec) if SPREAD in known else new.bars
    new = dataclasses.replace(new, bars=Bars(added, spec=known.spec))
    old = BarTable(known, data.source, data.clock)
    return dataclasses.replace(join([old, new], name), source=f"{data.source.split(' + ')[0]} + {new.source}")
