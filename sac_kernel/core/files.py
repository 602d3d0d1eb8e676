"""Atomic writes, strict JSON, hashes, and the manifest of an output folder.

Input files are untrusted. They are data, never code; their size is checked before memory is allocated, and
the names in them cannot leave their folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import struct
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sac_kernel.core import pt_file
from sac_kernel.core.errors import CheckpointError, StorageError

_MAX_NAME, _MAX_PART = 1024, 255  # of a path's characters, of the bytes of each part
END_MARKER = "complete"
MAX_JSON_BYTES = 1 << 26
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the new one, never a part.

    Raises
    ------
    StorageError
        If it cannot be written; the old file is intact.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; its file replaces `path` at the end and is deleted on any error.

    It is flushed to disk before it is renamed, so a power failure leaves the old file or the new one too.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as err:
        with contextlib.suppress(OSError):  # report the first error only
            temporary.unlink(missing_ok=True)
        if isinstance(err, OSError) and not isinstance(err, StorageError):
            msg = (
                f"Cannot write {path}: {err.strerror or err}. The previous file is intact. "
                "Free space or choose another output folder, then run again."
            )
            raise StorageError(msg) from err
        raise


def sweep_temporaries(folder: Path) -> list[Path]:
    """Delete temporary files that a killed process left in `folder` and below; return their paths.

    No other process may be writing to the folder.
    """
    left = [p for p in folder.rglob(".*.tmp") if _TEMPORARY.fullmatch(p.name) and p.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return left


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
    """Read strict JSON; raise CheckpointError for a damaged or huge file."""
    try:
        n_bytes = path.stat().st_size
        if n_bytes > MAX_JSON_BYTES:
            msg = f"{n_bytes:,} bytes, at most {MAX_JSON_BYTES:,} are allowed"
            raise ValueError(msg)  # caught below
        return json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as err:  # ValueError: of JSON, UTF-8 and numbers too long
        reason = str(err)[:200] or type(err).__name__
        msg = f"Cannot read {path} as JSON: {reason}. Delete the file or fetch it again."
        raise CheckpointError(msg) from err


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise CheckpointError for anything else."""
    value = read_json(path)
    if not isinstance(value, dict):
        msg = f"{path} must hold a JSON object, got {type(value).__name__}. Fetch the file again."
        raise CheckpointError(msg)
    return value


def inside(folder: Path, name: object, where: str) -> Path:
    """Return `folder / name`; raise CheckpointError if `name`, read from a file, leads out of the folder.

    Absolute names, `..`, drives and backslashes do so on some system, a symbolic link on this one.
    """
    text = name if isinstance(name, str) else ""
    parts = PurePosixPath(text).parts
    plain = (
        parts
        and ".." not in parts
        and not text.startswith("/")
        and not re.search(r"[\\:\0\ud800-\udfff]", text)
    )
    plain = plain and len(text) <= _MAX_NAME and max(len(part.encode()) for part in parts) <= _MAX_PART
    path = folder.joinpath(*parts)
    if not plain or not path.resolve().is_relative_to(folder.resolve()):
        msg = f"{where}: {str(name)[:80]!r} is not a file name inside {folder}. Do not use this file."
        raise CheckpointError(msg)
    return path


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

    It is serialised to memory, because the archive's inner names depend on the file's name otherwise.
    """
    import torch  # the ground layer must import without the framework

    buffer = io.BytesIO()
    torch.save(_unshared(dict(content)), buffer)
    return buffer.getvalue()


def _unshared(value: Any) -> Any:  # noqa: ANN401
    """Return plain values in containers of their own, equal strings as one object: pickle writes what is shared."""
    if isinstance(value, dict):
        return {_unshared(k): _unshared(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_unshared, value))
    return sys.intern(value) if type(value) is str else value


def read_pt(path: str | Path) -> dict[str, Any]:
    """Read a `.pt` of tensors and plain values onto the CPU.

    `core.pt_file` interprets it: a file can call nothing and takes no more memory than its size.

    Raises
    ------
    CheckpointError
        If the file is missing, fails its checksums, unpacks to more than its size, or holds anything but
        tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"There is no saved agent or state at {path}. Check the path, or fetch the file."
        raise CheckpointError(msg)
    try:
        content = pt_file.read(path)
    # What zip and torch raise on unexpected bytes, memory included
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, LookupError,
            OSError, TypeError, AttributeError, OverflowError, MemoryError, struct.error) as err:  # fmt: skip
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        msg = f"{path} is not a file of tensors and plain values: {reason[:200]}. Fetch it again."
        raise CheckpointError(msg) from err
    if not isinstance(content, dict):
        msg = f"{path} must hold a dictionary, got {type(content).__name__}. Fetch it again."
        raise CheckpointError(msg)
    return content


def _refuse_constant(name: str) -> None:
    msg = f"{name} is not strict JSON"
    raise ValueError(msg)


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
        If the manifest is missing, incomplete or names files elsewhere, or a file is missing or differs; at
        most three are named.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        msg = f"There is no {path}: the run did not finish, or was not fetched completely."
        raise CheckpointError(msg)
    manifest = read_object(path)
    if manifest.get("end") != END_MARKER:
        msg = f"{path} must end with {END_MARKER!r}, got {manifest.get('end')!r}. Fetch it again."
        raise CheckpointError(msg)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
        msg = f"{path} must list each file's size and hash, got {str(listed)[:80]}. Fetch it again."
        raise CheckpointError(msg)
    wrong = [
        name for name, entry in listed.items() if not _is_as_listed(inside(folder, name, str(path)), entry)
    ]
    if wrong:
        msg = (
            f"{folder}: {len(wrong)} of {len(listed)} files are missing or differ from the manifest: "
            f"{', '.join(wrong[:3])}{' ...' if wrong[3:] else ''}. Fetch them again."
        )
        raise CheckpointError(msg)
    return manifest


def _is_as_listed(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and file_sha256(path) == entry.get("sha256")


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
