"""The full training state on disk: an interrupted run continues from it bit for bit.

Two state files take turns. `state.json`, written last, names the newest with its hash, so a kill at any moment
leaves one intact. Each state also has its own facts and checksums, for use if that index is damaged. Suffixes
avoid .pt and .zip, which a Kaggle dataset may unpack.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel import __version__
from sac_kernel.core import files, paths
from sac_kernel.core.config import difference
from sac_kernel.core.errors import CheckpointError, InputNotFoundError, SacKernelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

STATE_SCHEMA = 2
STATE_FOLDER = "state"
INDEX_FILE = "state.json"
EXPORT_INDEX = "state_index.json"
"""Names the states of a finished session, one per job, in the flat state dataset."""

FOLDS_FILE = "folds.state"
"""A zip of the finished jobs of a walk-forward; a dataset would unpack one called .zip."""

_SLOTS = ("trainer_a.state", "trainer_b.state")
_PROGRESS = ("env_steps", "episodes", "finished")
"""Facts that only grow along a run: they tell which state is newer."""
_START_NEW = "To start a new run, set resume='never' (--fresh)."


def save_state(
    folder: Path, state: Mapping[str, Any], facts: Mapping[str, Any], last: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write a training state and make it the newest; return its entry in the index.

    Parameters
    ----------
    folder : the output folder's `state/`
    state : tensors and plain values
    facts : readable without loading the state: identities, env steps, episodes, whether it is finished
    last : the entry that the last call of this process returned: it is intact and not hashed again
    """
    # Never overwrite the newest intact state, which need not be the newest listed.
    newest = last or next((entry for entry in _slots(folder)[0] if _is_intact(folder, entry)), None)
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
    """Return the newest intact state and its facts, with a warning if it is not the newest listed.

    A damaged state falls back to the one before; a damaged or missing index to the newest state beside it.

    Raises
    ------
    CheckpointError
        If there is no intact state, or it has another schema.
    """
    slots, wrong = _slots(folder)
    if slots and wrong:
        logger.warning("The index is unusable (%s). Using the newest state with valid checksums.", wrong)
    for entry in slots:
        path = folder / entry["file"]
        if _is_intact(folder, entry):
            return _opened(path, entry)
        logger.warning("%s is missing or damaged. Trying the state before it.", path)
    msg = f"{folder} has no intact training state, {len(slots)} listed. {_START_NEW}"
    raise CheckpointError(msg)


def newest_intact(folder: Path) -> dict[str, Any] | None:
    """Return the index entry of the newest intact state, None where there is none."""
    return next((entry for entry in _listed(folder) if _is_intact(folder, entry)), None)


def exported_facts(index: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of every exported state by job."""
    return {job: dict(entry["facts"]) for job, entry in _exported(index).items()}


def load_exported(index: Path, job: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a job's exported state and its facts after checking its hash."""
    entry = _exported(index)[job]
    path = index.parent / entry["file"]
    if not _is_intact(index.parent, entry):  # a copy of the index may lie in another dataset than the state
        try:
            path = paths.find_input(path.name, paths.paths().input_root or index.parent, [entry["sha256"]])
        except InputNotFoundError as err:
            msg = f"{path} is missing or is not the state that {index.name} lists. {err}"
            raise CheckpointError(msg) from err
    return _opened(path, entry)


@contextlib.contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Turn any error of reading a state into a CheckpointError. Do not use a half-restored object."""
    try:
        yield
    except SacKernelError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as err:
        reason = (str(err).splitlines() or [""])[0][:200]
        msg = f"{folder} is damaged or from another version ({type(err).__name__}: {reason}). {_START_NEW}"
        raise CheckpointError(msg) from err


def check_identity(saved: Mapping[str, Any], here: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError naming every difference of the learning identity."""
    lines = difference(_flat(saved), _flat(here))
    if lines:
        msg = (
            f"{where}: the state has other data or learning settings: {'; '.join(lines[:5])}"
            f"{' and more' if len(lines) > 5 else ''}. To continue, set them back. {_START_NEW}"
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
    import torch  # facts are read without PyTorch

    return {"accounts": torch.from_numpy(state["accounts"].copy()), "rng": rng_to_text(state["rng"])}


def env_from_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the argument of `TradingVectorEnv.restore`."""
    return {"accounts": state["accounts"].numpy(), "rng": json.loads(state["rng"])}


def _opened(path: Path, entry: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a state and its own facts, or those of the index if it has none."""
    state = files.read_pt(path)
    with restoring(path):
        if state["schema"] != STATE_SCHEMA:
            msg = f"{path} has state schema {state['schema']!r}, not {STATE_SCHEMA}. {_START_NEW}"
            raise CheckpointError(msg)
        return state, dict(json.loads(state.pop("facts")) if "facts" in state else entry["facts"])


def _is_intact(folder: Path, entry: Mapping[str, Any]) -> bool:
    path = folder / entry["file"]
    return path.is_file() and files.file_sha256(path) == entry["sha256"]


def _slots(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the states of a folder, the newest first, and the error in its index, if any."""
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
            msg = f"{path} lists {entry['file'][:80]!r}, not {' or '.join(_SLOTS)}. Do not use this state."
            raise CheckpointError(msg)
    return list(slots)


def _unlisted(folder: Path) -> list[dict[str, Any]]:
    """Return the states with valid checksums, whatever the index says, the newest first."""
    states: list[tuple[Any, ...]] = []
    for path in (folder / name for name in _SLOTS if (folder / name).is_file()):
        with contextlib.suppress(CheckpointError), restoring(path):
            _, facts = _opened(path, {})
            entry = {"file": path.name, "sha256": files.file_sha256(path), "facts": facts}
            states.append((*(int(facts[name]) for name in _PROGRESS), path.name, entry))
    return [entry for *_, entry in sorted(states, reverse=True)]


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
            f"{where}: an entry has no valid {', '.join(lacking)}: {str(entry)[:80]!r}. Fetch the file again."
        )
        raise CheckpointError(msg)


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        (f"{section}.{name}" if isinstance(value, dict) else section): item
        for section, value in identity.items()
        for name, item in (value.items() if isinstance(value, dict) else [("", value)])
    }
