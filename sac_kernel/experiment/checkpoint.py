"""The full training state on disk: what a run that was cut goes on from, bit for bit.

Two state files take turns and `state.json`, written last, names the newest with its hash, so a kill at any
moment leaves one that is whole. Each state carries its facts and checksums too: it is of use where that index is
damaged. Suffixes avoid .pt and .zip, which a Kaggle dataset may unpack.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel import __version__
from sac_kernel.core import files
from sac_kernel.core.config import difference
from sac_kernel.core.errors import CheckpointError, SacKernelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

STATE_SCHEMA = 2
STATE_FOLDER = "state"
INDEX_FILE = "state.json"
EXPORT_INDEX = "state_index.json"
"""Names the states of a finished session, one a job, as they travel in the state dataset: flat."""

_SLOTS = ("trainer_a.state", "trainer_b.state")
_PROGRESS = ("env_steps", "episodes", "finished")
"""Facts that only grow along a run: which of two states is the newer."""


def save_state(
    folder: Path, state: Mapping[str, Any], facts: Mapping[str, Any], last: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write a training state and make it the newest; return its entry in the index.

    Parameters
    ----------
    folder : the output folder's `state/`
    state : tensors and plain values
    facts : what a reader may know without loading it: identities, env steps, episodes, whether it is finished
    last : the entry that the last call returned, if this process made it: known to be whole, it is not hashed again
    """
    # Never the newest whole one's place: after a fall-back that is not the newest listed.
    newest = last or next((entry for entry in _slots(folder)[0] if _is_whole(folder, entry)), None)
    name = _SLOTS[1 - _SLOTS.index(newest["file"])] if newest else _SLOTS[0]
    content = files.pt_bytes({"schema": STATE_SCHEMA, "facts": files.strict_json(facts), **state})
    files.write_bytes(folder / name, content)
    entry = {"file": name, "sha256": files.sha256(content), "facts": dict(facts)}
    index = {
        "schema": STATE_SCHEMA,
        "code_version": __version__,
        "slots": [entry, newest] if newest else [entry],
    }
    files.write_json(folder / INDEX_FILE, index)
    return entry


def newest_facts(folder: Path) -> dict[str, Any] | None:
    """Return the facts of the newest state, or None where there is no state."""
    slots, _ = _slots(folder)
    return dict(slots[0]["facts"]) if slots else None


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the newest whole state and its facts, saying so where that is a fall-back.

    A torn state falls back to the one before; a damaged or absent index to the newest of the states beside it.

    Raises
    ------
    CheckpointError
        If there is none, none is whole, or its schema is another.
    """
    slots, wrong = _slots(folder)
    if slots and wrong:
        logger.warning("%s; falling back to the newest state that is whole by its own checksums", wrong)
    for entry in slots:
        path = folder / entry["file"]
        if _is_whole(folder, entry):
            return _opened(path, entry)
        logger.warning("%s is absent or damaged; falling back to the state before it", path)
    msg = (
        f"{folder}: a whole training state is required, found {len(slots)} listed and none intact; start anew"
    )
    raise CheckpointError(msg)


def export_states(jobs: Mapping[str, Path], target: Path) -> dict[str, Any]:
    """Copy the newest whole state of each job (name -> state folder) flat into `target`; return the index."""
    entries: dict[str, Any] = {}
    for job, folder in jobs.items():
        whole = [e for e in _listed(folder) if _is_whole(folder, e)]
        if not whole:
            msg = f"{folder}: a whole training state of {job} is required, found none; fetch the run again"
            raise CheckpointError(msg)
        name = f"{job}.state"
        files.write_bytes(target / name, (folder / whole[0]["file"]).read_bytes())
        entries[job] = {**whole[0], "file": name}
    index = {"schema": STATE_SCHEMA, "jobs": entries}
    files.write_json(target / EXPORT_INDEX, index)
    return index


def exported_facts(index: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of every exported state by job."""
    return {job: dict(entry["facts"]) for job, entry in _exported(index).items()}


def load_exported(index: Path, job: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a job's exported state and its facts after checking its hash."""
    entry = _exported(index)[job]
    path = index.parent / entry["file"]
    if not _is_whole(index.parent, entry):
        msg = f"{path}: the state named by {index.name} is required, found none or another; publish it again"
        raise CheckpointError(msg)
    return _opened(path, entry)


@contextlib.contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Turn whatever a state of another shape makes of its reader into one error; use no half-restored object."""
    try:
        yield
    except SacKernelError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as err:
        reason = (str(err).splitlines() or [""])[0][:200]
        msg = (
            f"{folder}: a training state of this version is required, found {type(err).__name__}: {reason}; "
            "start anew with resume='never' (--fresh)"
        )
        raise CheckpointError(msg) from err


def check_identity(saved: Mapping[str, Any], here: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError naming every difference of the learning identity."""
    lines = difference(_flat(saved), _flat(here))
    if lines:
        msg = (
            f"{where}: the state must come from the same data and learning settings; {'; '.join(lines[:5])}"
            f"{' and more' if len(lines) > 5 else ''}; "
            "set them back, or start anew with resume='never' (--fresh)"
        )
        raise CheckpointError(msg)


def rng_to_text(generator_state: Mapping[str, Any]) -> str:
    """Return a NumPy generator's state as JSON text: its integers exceed 64 bits."""
    return json.dumps(generator_state)


def rng_from_text(text: str) -> np.random.Generator:
    """Return the generator with that state."""
    generator = np.random.default_rng()
    generator.bit_generator.state = json.loads(text)
    return generator


def env_to_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a vector env's state as tensors and plain values."""
    import torch  # states are staged and their facts read without the framework

    return {"accounts": torch.from_numpy(state["accounts"].copy()), "rng": rng_to_text(state["rng"])}


def env_from_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `TradingVectorEnv.restore` takes."""
    return {"accounts": state["accounts"].numpy(), "rng": json.loads(state["rng"])}


def _opened(path: Path, entry: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a state and its facts: its own, which no damage to an index reaches, where it has them."""
    state = files.read_pt(path)
    with restoring(path):
        if state["schema"] != STATE_SCHEMA:
            msg = f"{path}: state schema {STATE_SCHEMA} is required, found {state['schema']!r}; start anew"
            raise CheckpointError(msg)
        return state, dict(json.loads(state.pop("facts")) if "facts" in state else entry["facts"])


def _is_whole(folder: Path, entry: Mapping[str, Any]) -> bool:
    path = folder / entry["file"]
    return path.is_file() and files.file_sha256(path) == entry["sha256"]


def _slots(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the states of a folder, the newest first, and what is wrong with its index, if anything."""
    wrong: CheckpointError | None = None
    try:
        if slots := _listed(folder):
            return slots, ""
    except CheckpointError as err:
        wrong = err
    slots = _unlisted(folder)
    if wrong and not slots:
        raise wrong
    return slots, str(wrong or f"{folder / INDEX_FILE} lists no state")


def _listed(folder: Path) -> list[dict[str, Any]]:
    """Return the states that the index of a folder lists, the newest first."""
    path = folder / INDEX_FILE
    index = files.read_object(path) if path.is_file() else {"slots": []}
    slots = index.get("slots")
    if not isinstance(slots, list) or len(slots) > len(_SLOTS):
        slots = [None]
    for entry in slots:
        _check_entry(entry, path)
        if entry["file"] not in _SLOTS:
            msg = f"{path}: {' or '.join(_SLOTS)} is required, found {entry['file'][:80]!r}; do not use this state"
            raise CheckpointError(msg)
    return list(slots)


def _unlisted(folder: Path) -> list[dict[str, Any]]:
    """Return the states that are whole by themselves, whatever an index says, the newest first."""
    found: list[tuple[Any, ...]] = []
    for path in (folder / name for name in _SLOTS if (folder / name).is_file()):
        with contextlib.suppress(CheckpointError), restoring(path):
            _, facts = _opened(path, {})
            entry = {"file": path.name, "sha256": files.file_sha256(path), "facts": facts}
            found.append((*(int(facts[name]) for name in _PROGRESS), path.name, entry))
    return [entry for *_, entry in sorted(found, reverse=True)]


def _exported(index: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a state dataset's index by job."""
    jobs = files.read_object(index).get("jobs")
    if not isinstance(jobs, dict):
        jobs = {"": None}
    for entry in jobs.values():
        _check_entry(entry, index)
        files.inside(index.parent, entry["file"], str(index))
    return dict(jobs)


def _check_entry(entry: object, where: Path) -> None:
    kinds = {"file": str, "sha256": str, "facts": dict}
    lacking = [
        k for k, kind in kinds.items() if not isinstance(entry, dict) or not isinstance(entry.get(k), kind)
    ]
    if lacking:
        msg = (
            f"{where}: {', '.join(lacking)} of each state required, found {str(entry)[:80]!r}; fetch it again"
        )
        raise CheckpointError(msg)


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        (f"{section}.{name}" if isinstance(value, dict) else section): item
        for section, value in identity.items()
        for name, item in (value.items() if isinstance(value, dict) else [("", value)])
    }
