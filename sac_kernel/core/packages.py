"""Versions of packages, the code's hash, and wheels of packages that the image lacks."""

from __future__ import annotations

import ast
import atexit
import functools
import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import shutil
import sys
import tempfile
import tokenize
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel import inlined_files
from sac_kernel.core import files, paths
from sac_kernel.core.errors import InputNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

_unpacked: list[str] = []  # folders of wheels, which worker processes need too


def add_wheels(expect_files: Iterable[str]) -> dict[str, str]:
    """Make packages that the image lacks importable from the mounted wheels that the notebook names.

    Returns package -> 'installed', 'from a wheel' or why it is missing. It needs no internet and no pip: a
    wheel for this Python is unpacked into a temporary folder at the end of sys.path.

    Parameters
    ----------
    expect_files : entries 'NAME SHA256'; wheels are used only if they have that hash
    """
    root, status = paths.paths().input_root, dict[str, str]()
    names = [entry.rpartition(" ") for entry in expect_files if ".whl " in entry]
    for name, _, digest in names if root else []:
        package, _, tag = name.split("-")[:3]
        if importlib.util.find_spec(package):
            status.setdefault(package, "installed")
        elif tag == f"cp{sys.version_info.major}{sys.version_info.minor}":
            try:
                status[package] = _unpack_wheel(paths.find_input(name, root, [digest]))
            except InputNotFoundError as err:
                status[package] = str(err)
        else:
            status.setdefault(package, f"no wheel for Python {platform.python_version()}")
    return status


def versions() -> dict[str, str]:
    """Return Python, platform and package versions of this process, for headers and checkpoints."""
    names = ("numpy", "pandas", "h5py", "gymnasium", "numba", "matplotlib")
    packages = {"torch": _torch_version(), **{name: importlib.metadata.version(name) for name in names}}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def import_root() -> Path:
    """Return the folder that holds the package: what a worker process needs on its path."""
    return Path(__file__).resolve().parents[2]


def worker_path() -> str:
    """Return PYTHONPATH of a worker process: the package, then the unpacked wheels."""
    return os.pathsep.join([str(import_root()), *_unpacked])


_FOR_CHECKERS = re.compile(
    r"^if TYPE_CHECKING:\n(?:(?:    .*)?\n)+|  # (?:noqa|type: ignore|fmt: skip|pragma).*$", re.MULTILINE
)
_INDENT = 4


@functools.lru_cache(maxsize=256)
def bundled(source: str) -> str:
    """Return a module as the notebook carries it, which has room for 900 kB; applied twice it changes nothing more.

    LF line ends, indented by two, without what only type checkers and linters read, and the first
    paragraph of each public docstring: the code dataset and the repository have them whole.
    """
    text = _FOR_CHECKERS.sub("", source.replace("\r\n", "\n"))
    if text.count("TYPE_CHECKING") == 1:
        text = text.replace("from typing import TYPE_CHECKING\n", "").replace(
            "import TYPE_CHECKING, ", "import "
        )
    lines, gone = text.split("\n"), set[int]()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) or not ast.get_docstring(node):
            continue
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            continue  # its attributes are the help of the parameters cell
        first, last = node.body[0].lineno - 1, (node.body[0].end_lineno or 0) - 1
        if getattr(node, "name", "").startswith("_") and len(node.body) > 1:
            gone |= set(range(first, last + 1))
            continue
        blank = next((i for i in range(first, last) if not lines[i].strip()), last)
        if blank < last:
            lines[blank - 1] += '"""'
            gone |= set(range(blank, last + 1))
    text = "\n".join(line for i, line in enumerate(lines) if i not in gone)
    return re.sub(r"\n{3,}", "\n\n", _indented_by_two(text))


def _indented_by_two(text: str) -> str:
    """Return a module that is indented by four with half of it; strings of several lines but docstrings stay."""
    lines, kept, starts = text.split("\n"), set[int](), list[int]()
    statement = True  # whether a string here would be a docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[token.type]
        if name == "FSTRING_START":
            starts.append(token.start[0])
        elif name == "FSTRING_END":
            kept |= set(range(starts.pop(), token.end[0]))
        elif name == "STRING" and not statement:
            kept |= set(range(token.start[0], token.end[0]))
        statement = name in {"NEWLINE", "INDENT", "DEDENT", "NL", "COMMENT"} and (
            statement or name == "NEWLINE"
        )
    margins = [len(line) - len(line.lstrip(" ")) for line in lines]
    code = [m for i, m in enumerate(margins) if m and lines[i].strip() and i not in kept]
    if min(code, default=0) < _INDENT:
        return text
    return "\n".join(line if i in kept else line[margins[i] // 2 :] for i, line in enumerate(lines))


def code_hash() -> str:
    """Return the SHA-256 of the package's inlined files, in order, as they are `bundled`."""
    folder = Path(__file__).resolve().parents[1]
    texts = {name: bundled((folder / name).read_bytes().decode("utf-8")) for name in inlined_files()}
    return files.content_hash({name: files.sha256(text.encode()) for name, text in texts.items()})


def _torch_version() -> str:
    """Return torch's version with its build (2.13.0+cpu) if torch is loaded, else the package's.

    The metadata of torch's wheels on PyPI lacks the build, which does not justify loading torch.
    """
    loaded = sys.modules.get("torch")
    return str(loaded.__version__) if loaded else importlib.metadata.version("torch")


def _unpack_wheel(path: Path) -> str:
    folder = tempfile.mkdtemp(prefix="sac_wheel_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as wheel:
        wheel.extractall(folder)
    sys.path.append(folder)
    _unpacked.append(folder)
    importlib.invalidate_caches()
    return "from a wheel"
