"""Files that are whole or absent: atomic writes, strict JSON, hashes, the manifest of an output folder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sac_kernel.errors import CheckpointError

END_MARKER = "complete"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary, temporary.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new name beside `path`; what was written there takes its place, or vanishes on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends atomically."""
    write_bytes(path, text.encode("utf-8"))


def strict_json(value: object) -> str:
    """Return JSON text with sorted keys; NaN and infinity become null, NumPy scalars plain numbers."""
    return json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)


def write_json(path: Path, value: object) -> None:
    """Write strict JSON atomically."""
    write_text(path, strict_json(value) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read JSON; a damaged file is a CheckpointError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as err:
        msg = f"{path}: valid JSON required, found: {err}; delete the file or fetch it again"
        raise CheckpointError(msg) from err


def sha256(content: bytes) -> str:
    """Return the hex SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_hash(value: object) -> str:
    """Return the SHA-256 of a plain value's strict JSON."""
    return sha256(strict_json(value).encode())


def pt_bytes(content: Mapping[str, Any]) -> bytes:
    """Return `torch.save`'s bytes of tensors and plain values: equal content gives equal bytes.

    It is serialised to memory, because the archive's inner names follow a file's name otherwise.
    """
    import torch  # the ground layer must import without the framework

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def read_pt(path: str | Path) -> dict[str, Any]:
    """Read a `.pt` of tensors and plain values onto the CPU; code in it is refused (`weights_only`).

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, or holds anything but tensors and plain values.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        msg = f"{path}: a saved agent or state is required, found no file; check the path, or fetch it"
        raise CheckpointError(msg)
    if not zipfile.is_zipfile(path):  # torch would try it as a bare pickle
        msg = (
            f"{path}: a file of tensors and plain values is required, found no whole archive; fetch it again"
        )
        raise CheckpointError(msg)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        OSError,
        TypeError,
    ) as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        msg = f"{path}: a file of tensors and plain values is required, found: {reason[:200]}; fetch it again"
        raise CheckpointError(msg) from err
    if not isinstance(content, dict):
        msg = f"{path}: a dictionary is required, found {type(content).__name__}"
        raise CheckpointError(msg)
    return content


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a deflated zip without times: equal members give equal bytes."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
        for member in sorted(members):
            info = zipfile.ZipInfo(member, _ZIP_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, members[member])


def write_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays as an uncompressed .npz, without times."""
    members = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
        members[f"{name}.npy"] = buffer.getvalue()
    write_zip(path, members)


def write_manifest(folder: Path, names: Iterable[str], facts: Mapping[str, object]) -> None:
    """Write `manifest.json`: size and SHA-256 of each named file, `facts`, and the end marker."""
    listing = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in sorted(names)
    }
    write_json(folder / "manifest.json", {**facts, "files": listing, "end": END_MARKER})


def verify_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of `folder` after checking every file that it lists.

    Raises
    ------
    CheckpointError
        If the manifest is absent or unfinished, or a file is absent or differs; at most three are named.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        msg = f"{path}: a manifest is required, found none; the run did not finish or was not fetched whole"
        raise CheckpointError(msg)
    manifest: dict[str, Any] = read_json(path)
    if manifest.get("end") != END_MARKER:
        msg = f"{path}: the end marker {END_MARKER!r} is required, found {manifest.get('end')!r}; fetch again"
        raise CheckpointError(msg)
    wrong = [
        name
        for name, entry in manifest["files"].items()
        if not (folder / name).is_file() or file_sha256(folder / name) != entry["sha256"]
    ]
    if wrong:
        msg = (
            f"{folder}: {len(wrong)} of {len(manifest['files'])} files are absent or differ from the "
            f"manifest, first {', '.join(wrong[:3])}; fetch them again"
        )
        raise CheckpointError(msg)
    return manifest


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
