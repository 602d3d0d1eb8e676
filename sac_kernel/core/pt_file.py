"""A `.pt` file read by a closed interpreter: a file decides values, never what is called.

The 25 pickle opcodes below are all that `torch.save` writes for tensors and plain values. They are counted as they
are interpreted, and memory for numbers is taken only when the whole structure, and then every checksum, is right.
Source: pickle protocol 2 (`pickletools`), torch's archive format.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MAX_STRUCTURE_BYTES = 1 << 25  # names, lists and numbers, without tensors
MAX_OPCODES = 2_000_000
MAX_CONTAINERS = 200_000
MAX_TENSORS = 20_000
MAX_DEPTH = 32
MAX_MEMBER_BYTES = 1 << 20  # of the list of members, and of all members that hold no numbers

_DTYPES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Bool": "bool",
}
_STORAGES = {f"torch\n{name}Storage": dtype for name, dtype in _DTYPES.items()}
_TENSOR, _HOOKS = "torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict"
_NAMES = {_TENSOR, _HOOKS, *_STORAGES}


class _Name:
    """A global that a structure names; only this reader makes one."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Storage:
    """Numbers of one member: a type and a tensor whose memory is filled last."""

    def __init__(self, dtype: Any, member: zipfile.ZipInfo, numbers: Any) -> None:  # noqa: ANN401
        self.dtype, self.member, self.numbers = dtype, member, numbers


def read(path: Path) -> Any:  # noqa: ANN401
    """Return the value of a `.pt` of tensors and plain values, on the CPU.

    Raises
    ------
    ValueError, OSError, zipfile.BadZipFile, RuntimeError, ...
        If the file is damaged or holds anything else; the caller names the file.
    """
    with path.open("rb") as stream:
        n_bytes = stream.seek(0, 2)
        _check_directory(stream, n_bytes)
        with zipfile.ZipFile(stream) as archive:
            structure, members = _members(archive, n_bytes)
            reader = _Reader(archive.read(structure), members, n_bytes)
            value = reader.value()
            _check_size(value, n_bytes)
            others = [m for m in members.values() if m.filename not in reader.storages]
            if sum(m.file_size for m in others) > MAX_MEMBER_BYTES + structure.file_size:
                msg = "members that no tensor uses"
                raise ValueError(msg)
            if damaged := archive.testzip():
                msg = f"wrong checksum of {damaged}"
                raise ValueError(msg)
            for storage in reader.storages.values():
                _fill(archive, storage)
    return value


def _check_directory(stream: Any, n_bytes: int) -> None:  # noqa: ANN401
    """Raise ValueError unless the archive ends as torch ends it, with a short list of members."""
    stream.seek(max(0, n_bytes - 98))
    tail = stream.read(98).rjust(98, b"\0")
    if tail[76:80] != b"PK\x05\x06":
        msg = "not a complete archive"
        raise ValueError(msg)
    (size,) = struct.unpack_from("<I", tail, 88)
    if tail[56:60] == b"PK\x06\x07":  # the record of large archives, which torch always writes
        (size,) = struct.unpack_from("<Q", tail, 40)
    if size > MAX_MEMBER_BYTES:
        msg = f"a list of members of {size:,} bytes"
        raise ValueError(msg)


def _members(archive: zipfile.ZipFile, n_bytes: int) -> tuple[zipfile.ZipInfo, dict[str, zipfile.ZipInfo]]:
    """Return the structure's member and all members by name, uncompressed and no larger than the file."""
    listed = archive.infolist()
    members = {m.filename: m for m in listed}
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in listed):
        msg = "compressed contents, which torch does not write"
        raise ValueError(msg)
    if len(members) < len(listed) or sum(m.file_size for m in listed) > n_bytes:
        msg = "two members of one name, or contents larger than the file"
        raise ValueError(msg)
    structures = [m for m in listed if m.filename.endswith("/data.pkl")]
    if len(structures) != 1 or structures[0].file_size > MAX_STRUCTURE_BYTES:
        msg = f"{len(structures)} data.pkl of {sum(m.file_size for m in structures):,} bytes"
        raise ValueError(msg)
    folder = structures[0].filename.removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    if order and (order.file_size > 8 or archive.read(order) != sys.byteorder.encode()):
        msg = f"numbers that are not {sys.byteorder}-endian"
        raise ValueError(msg)
    return structures[0], members


def _fill(archive: zipfile.ZipFile, storage: _Storage) -> None:
    target, at = memoryview(storage.numbers.numpy()), 0
    with archive.open(storage.member) as source:
        while at < len(target):
            block = source.read(1 << 20)
            if not block:
                msg = f"{storage.member.filename} is shorter than listed"
                raise ValueError(msg)
            target[at : at + len(block)] = block
            at += len(block)


class _Reader:
    """Interprets one structure; `storages` are the members that its tensors use."""

    def __init__(self, code: bytes, members: dict[str, zipfile.ZipInfo], n_bytes: int) -> None:
        import torch  # the ground layer must import without the framework

        self._torch, self._code, self._members, self._left = torch, code, members, n_bytes
        self._folder = next(n for n in members if n.endswith("/data.pkl")).removesuffix("data.pkl")
        self.storages: dict[str, _Storage] = {}
        self._tensors = 0

    def value(self) -> Any:  # noqa: ANN401, C901, PLR0912, PLR0915  # one branch an opcode, the frequent ones first
        """Return the value that the structure describes; ValueError, LookupError or TypeError if it is another."""
        code, at, stack, marks, memo = self._code, 0, [], [], []  # type: ignore[var-annotated]
        containers = 0
        unpack, append = struct.unpack_from, stack.append
        for _ in range(MAX_OPCODES):
            op = code[at]
            at += 1
            if op == 0x47:  # BINFLOAT
                append(unpack(">d", code, at)[0])
                at += 8
            elif op == 0x4B:  # BININT1
                append(code[at])
                at += 1
            elif op in (0x71, 0x72):  # BINPUT, LONG_BINPUT
                size = 1 if op == 0x71 else 4
                if int.from_bytes(_cut(code, at, size), "little") != len(memo):
                    msg = "a memo out of order"
                    raise ValueError(msg)
                memo.append(stack[-1])
                at += size
            elif op in (0x68, 0x6A):  # BINGET, LONG_BINGET
                size = 1 if op == 0x68 else 4
                append(memo[int.from_bytes(_cut(code, at, size), "little")])
                at += size
            elif op == 0x58:  # BINUNICODE
                size = int.from_bytes(_cut(code, at, 4), "little")
                append(_cut(code, at + 4, size).decode())
                at += 4 + size
            elif op == 0x28:  # MARK
                marks.append(len(stack))
            elif op in (0x4A, 0x4D):  # BININT, BININT2
                size = 4 if op == 0x4A else 2
                append(int.from_bytes(_cut(code, at, size), "little", signed=size == 4))
                at += size
            elif op == 0x8A:  # LONG1
                append(int.from_bytes(_cut(code, at + 1, code[at]), "little", signed=True))
                at += 1 + code[at]
            elif op in (0x4E, 0x88, 0x89):  # NONE, NEWTRUE, NEWFALSE
                append(None if op == 0x4E else op == 0x88)
            elif op in (0x7D, 0x5D, 0x29, 0x74, 0x85, 0x86, 0x87):  # dictionaries, lists, tuples
                containers += 1
                if containers > MAX_CONTAINERS:
                    break
                if op in (0x7D, 0x5D):  # EMPTY_DICT, EMPTY_LIST
                    append({} if op == 0x7D else [])
                else:  # EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
                    size = op - 0x84 if op > 0x84 else 0
                    start = marks.pop() if op == 0x74 else _start(stack, size, marks)
                    stack[start:] = [tuple(stack[start:])]
            elif op in (0x61, 0x65):  # APPEND, APPENDS
                start = _start(stack, 1, marks) if op == 0x61 else marks.pop()
                _of(list, stack[start - 1]).extend(stack[start:])
                del stack[start:]
            elif op in (0x73, 0x75):  # SETITEM, SETITEMS
                start = _start(stack, 2, marks) if op == 0x73 else marks.pop()
                target, items = _of(dict, stack[start - 1]), stack[start:]
                for key, item in zip(items[::2], items[1::2], strict=True):
                    if type(key) not in (int, bool, float):  # a tuple of tuples could take for ever to hash
                        _of(str, key)
                    target[key] = item
                del stack[start:]
            elif op == 0x63:  # GLOBAL
                end = code.index(b"\n", code.index(b"\n", at, at + 200) + 1, at + 200)
                name = code[at:end].decode()
                if name not in _NAMES:
                    msg = f"it contains code: {name!r}"
                    raise ValueError(msg)
                append(_Name(name))
                at = end + 1
            elif op == 0x51:  # BINPERSID
                append(self._storage(_of(tuple, stack.pop())))
            elif op == 0x52:  # REDUCE
                arguments = _of(tuple, stack.pop())
                append(self._made(_of(_Name, stack.pop()).name, arguments))
            elif op == 0x80:  # PROTO
                at += 1
            elif op == 0x2E and len(stack) == 1 and not marks:  # STOP
                return stack[0]
            else:
                msg = f"it contains code: opcode 0x{op:02x}"
                raise ValueError(msg)
        msg = f"over {MAX_OPCODES:,} values or {MAX_CONTAINERS:,} lists"
        raise ValueError(msg)

    def _storage(self, described: tuple[Any, ...]) -> _Storage:
        """Return the numbers of ('storage', type, name, place, count); their memory is not touched yet."""
        kind, dtype, name, _, count = described
        member = self._members[f"{self._folder}data/{_of(str, name)}"]
        dtype = getattr(self._torch, _STORAGES[_of(_Name, dtype).name])
        if kind != "storage" or _of(int, count) * dtype.itemsize != member.file_size:
            msg = f"{count} numbers for {member.file_size:,} bytes"
            raise ValueError(msg)
        if member.filename not in self.storages:
            numbers = self._torch.empty(member.file_size, dtype=self._torch.uint8)
            self.storages[member.filename] = _Storage(dtype, member, numbers)
        if (storage := self.storages[member.filename]).dtype != dtype:
            msg = f"{member.filename} of two types"
            raise ValueError(msg)
        return storage

    def _made(self, name: str, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """Return what a structure calls for: a tensor, or its empty hooks."""
        if name == _HOOKS and not arguments:
            return {}
        if name != _TENSOR:
            msg = f"it contains code: {name!r} called"
            raise ValueError(msg)
        storage, offset, shape, strides, requires_grad, hooks = arguments
        self._tensors += 1
        if self._tensors > MAX_TENSORS or requires_grad is not False or hooks:
            msg = f"over {MAX_TENSORS:,} tensors, or one with a gradient"
            raise ValueError(msg)
        shape, strides = _of(tuple, shape), _of(tuple, strides)
        numbers = _of(_Storage, storage).numbers.view(storage.dtype)
        sizes = (offset, *shape, *strides)
        if len(shape) != len(strides) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in sizes):
            msg = f"a tensor of shape {shape!r:.80}"
            raise ValueError(msg)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= len(numbers):
            msg = f"a tensor of shape {shape!r:.80} in {len(numbers):,} numbers"
            raise ValueError(msg)
        return self._torch.as_strided(numbers, shape, strides, offset)


def _start(stack: list[Any], size: int, marks: list[int]) -> int:
    """Return where the last `size` values begin; they must lie above the last mark."""
    start = len(stack) - size
    if start < (marks[-1] if marks else 0):
        msg = "values are missing"
        raise ValueError(msg)
    return start


def _cut(code: bytes, at: int, size: int) -> bytes:
    if at + size > len(code):
        msg = "the structure is cut off"
        raise ValueError(msg)
    return code[at : at + size]


def _of(kind: type, value: Any) -> Any:  # noqa: ANN401
    if type(value) is not kind:
        msg = f"it contains code: {type(value).__name__} where {kind.__name__} belongs"
        raise ValueError(msg)
    return value


def _check_size(content: Any, n_bytes: int) -> None:  # noqa: ANN401
    """Raise ValueError unless `content` is plain values and at most `n_bytes` of tensors.

    Every reference counts, so a structure that repeats itself is rejected by its size.
    """
    import torch

    plain = (str, int, float, bool, type(None))
    left, items, stack = n_bytes, 0, [(iter((content,)), 0)]
    while stack:
        values, depth = stack[-1]
        value = next(values, stack)
        if value is stack:
            stack.pop()
            continue
        items += 1
        if isinstance(value, torch.Tensor):
            left -= value.numel() * value.element_size()
        elif isinstance(value, dict | list | tuple):
            items += len(value)
            stack.append((iter(value.values() if isinstance(value, dict) else value), depth + 1))
        elif type(value) not in plain:
            msg = f"it contains a {type(value).__name__}"
            raise ValueError(msg)
        if left < 0 or items > MAX_OPCODES or depth > MAX_DEPTH:
            msg = f"over {n_bytes:,} bytes of tensors, {MAX_OPCODES:,} values or {MAX_DEPTH} levels"
            raise ValueError(msg)
