"""Files that are whole or absent: atomic writes, strict JSON, hashes, the manifest of an output folder.

What is read may come from anyone: it is data, never code, its size is known before memory is taken for it,
and its names stay inside the folder that they are about.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import pickletools
import re
import uuid
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sac_kernel.core.errors import CheckpointError, StorageError

END_MARKER = "complete"
MAX_JSON_BYTES = 1 << 26
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_PT_GLOBALS = re.compile(r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_tensor_v2")
_PT_STRUCTURE_BYTES = 1 << 26  # of names, lists and numbers, tensors apart
_PT_MAX_ITEMS = 2_000_000
_PT_MAX_DEPTH = 32


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the new one, never a part.

    Raises
    ------
    StorageError
        If it cannot be written; the old file is as it was.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new name beside `path`; what was written there takes its place, or vanishes on any error.

    It is on the disk before it has the name, so that a loss of power leaves the old file or the new one too.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as err:
        with contextlib.suppress(OSError):  # a disk that cannot be written says so once
            temporary.unlink(missing_ok=True)
        if isinstance(err, OSError) and not isinstance(err, StorageError):
            msg = (
                f"{path}: a folder with room that can be written is required, found: {err.strerror or err}; free "
                "space or choose another output folder, then run again; what was there before is intact"
            )
            raise StorageError(msg) from err
        raise


def sweep_temporaries(folder: Path) -> list[Path]:
    """Remove what a killed process left half-written in `folder` and below; return what was removed.

    Only for a folder that no other process is writing to.
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
    """Read strict JSON; a damaged or huge file is a CheckpointError that names it."""
    try:
        n_bytes = path.stat().st_size
        if n_bytes > MAX_JSON_BYTES:
            msg = f"at most {MAX_JSON_BYTES:,} bytes, not {n_bytes:,}"
            raise ValueError(msg)  # one message for all that is wrong with a file
        return json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as err:  # ValueError: of JSON, UTF-8 and numbers too long
        reason = str(err)[:200] or type(err).__name__
        msg = f"{path}: valid JSON required, found: {reason}; delete the file or fetch it again"
        raise CheckpointError(msg) from err


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; anything else is a CheckpointError."""
    value = read_json(path)
    if not isinstance(value, dict):
        msg = f"{path}: a JSON object is required, found {type(value).__name__}; fetch the file again"
        raise CheckpointError(msg)
    return value


def inside(folder: Path, name: object, where: str) -> Path:
    """Return `folder / name` for a name from a file; one that leads elsewhere is refused.

    Absolute names, `..`, drives and backslashes lead elsewhere on some system, a symbolic link on this one.
    """
    text = name if isinstance(name, str) else ""
    parts = PurePosixPath(text).parts
    plain = parts and ".." not in parts and not text.startswith("/") and not re.search(r"[\\:\0]", text)
    path = folder.joinpath(*parts)
    if not plain or not path.resolve().is_relative_to(folder.resolve()):
        msg = f"{where}: a file name inside {folder} is required, found {str(name)[:80]!r}; do not use this file"
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

    It is serialised to memory, because the archive's inner names follow a file's name otherwise.
    """
    import torch  # the ground layer must import without the framework

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def read_pt(path: str | Path) -> dict[str, Any]:
    """Read a `.pt` of tensors and plain values onto the CPU.

    The file cannot run code: only the constructors of tensors are accepted, and torch's own `weights_only`
    stands behind. It cannot take more memory than it has bytes: shapes are read and added up first, without
    the numbers.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged (by its checksums), larger inside than outside, or holds anything but
        tensors and plain values.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        msg = f"{path}: a saved agent or state is required, found no file; check the path, or fetch it"
        raise CheckpointError(msg)
    try:
        with warnings.catch_warnings():  # what torch or NumPy deprecate in themselves is no fault of the file
            warnings.simplefilter("ignore", DeprecationWarning)
            _check_archive(path)
            shapes = torch.load(path, map_location="meta", weights_only=True)
            _check_plain(shapes, path.stat().st_size)
            content = torch.load(path, map_location="cpu", weights_only=True)
    # What zip, pickle and torch say of bytes that they did not expect, memory and recursion included
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, LookupError,
            OSError, TypeError, AttributeError, OverflowError, MemoryError, AssertionError) as err:  # fmt: skip
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        msg = f"{path}: a file of tensors and plain values is required, found: {reason[:200]}; fetch it again"
        raise CheckpointError(msg) from err
    if not isinstance(content, dict):
        msg = f"{path}: a dictionary is required, found {type(content).__name__}"
        raise CheckpointError(msg)
    return content


def _check_archive(path: Path) -> None:
    """Raise ValueError unless the archive is as torch writes it: stored, not packed, with tensors only."""
    if not zipfile.is_zipfile(path):  # torch would try it as a bare pickle
        msg = "no whole archive"
        raise ValueError(msg)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
            msg = "packed contents, which torch does not write"
            raise ValueError(msg)
        if sum(m.file_size for m in members) > path.stat().st_size:
            msg = "more inside the archive than the file has bytes"
            raise ValueError(msg)
        if damaged := archive.testzip():  # torch does not look
            msg = f"another checksum of {damaged}"
            raise ValueError(msg)
        structures = [m for m in members if m.filename.endswith("/data.pkl")]
        if len(structures) != 1 or structures[0].file_size > _PT_STRUCTURE_BYTES:
            msg = f"{len(structures)} structures of {sum(m.file_size for m in structures):,} bytes"
            raise ValueError(msg)
        structure = archive.read(structures[0])
    for opcode, argument, _ in pickletools.genops(structure):
        named = opcode.name == "GLOBAL" and _PT_GLOBALS.fullmatch(str(argument))
        if opcode.name in _PT_CODE and not named:
            msg = f"code: {opcode.name} {argument or ''}"
            raise ValueError(msg)


_PT_CODE = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")


def _check_plain(content: object, n_bytes: int) -> None:
    """Raise ValueError unless `content` is tensors and plain values, of no more tensor bytes than `n_bytes`.

    Counted along every path, so that a structure that refers to itself many times over is refused by its size.
    """
    import torch

    left, stack, items = n_bytes, [(content, 0)], 0
    while stack:
        value, depth = stack.pop()
        items += 1
        if type(value) is torch.Tensor and value.layout is torch.strided:
            left -= value.numel() * value.element_size()
        elif isinstance(value, dict | list | tuple):
            inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            stack += [(item, depth + 1) for item in inner]
        elif not isinstance(value, str | int | float | bool | None):
            msg = f"a {type(value).__name__}"
            raise ValueError(msg)  # told like the rest
        if left < 0 or items + len(stack) > _PT_MAX_ITEMS or depth > _PT_MAX_DEPTH:
            msg = (
                f"more than {n_bytes:,} bytes of tensors, {_PT_MAX_ITEMS:,} values or {_PT_MAX_DEPTH} levels"
            )
            raise ValueError(msg)


def _refuse_constant(name: str) -> None:
    msg = f"{name}, which strict JSON does not have"
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
        If the manifest is absent, unfinished or names files elsewhere, or a file is absent or differs; at most
        three are named.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        msg = f"{path}: a manifest is required, found none; the run did not finish or was not fetched whole"
        raise CheckpointError(msg)
    manifest = read_object(path)
    if manifest.get("end") != END_MARKER:
        msg = f"{path}: the end marker {END_MARKER!r} is required, found {manifest.get('end')!r}; fetch again"
        raise CheckpointError(msg)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
        msg = f"{path}: size and hash of each file are required, found {str(listed)[:80]}; fetch again"
        raise CheckpointError(msg)
    wrong = [
        name for name, entry in listed.items() if not _is_as_listed(inside(folder, name, str(path)), entry)
    ]
    if wrong:
        msg = (
            f"{folder}: {len(wrong)} of {len(listed)} files are absent or differ from the "
            f"manifest, first {', '.join(wrong[:3])}; fetch them again"
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
