"""Makes inputs read-only and the network unreachable inside a pushed kernel.

The runner copies this file as `sitecustomize.py` in front of the kernel's path, so it imports the
standard library only. An audit hook sees every file opened and every connection made by Python
code, whatever the user's rights; the runner's comparison of the inputs afterwards sees the rest.

Runs of one test session share what numba has compiled, as long as the package's files are the same: each
run writes the package anew, which would cost ten seconds of compiling a run.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.abc
import importlib.util
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

_PACKAGE = "sac_kernel"

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Which arguments of an event are paths that it changes.
_CHANGES = {
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.utime": (0,),
}
_ROOT = os.path.realpath(os.environ.get("SAC_INPUT_ROOT", os.devnull))


def _refuse_write(path: object) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    where = os.path.realpath(os.fsdecode(path))
    if where == _ROOT or where.startswith(_ROOT + os.sep):
        raise OSError(errno.EROFS, "Read-only file system", os.fsdecode(path))


def _loopback(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host or ""
    own = name in ("", "localhost", socket.gethostname())
    return own or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(host: str | bytes) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return True


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        if isinstance(args[2], int) and args[2] & _WRITE_FLAGS:
            _refuse_write(args[0])
    elif event in _CHANGES:
        for position in _CHANGES[event]:
            _refuse_write(args[position])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if not (_loopback(args[0]) or _is_address(args[0])):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    elif (
        event in ("socket.connect", "socket.sendto")
        and isinstance(args[1], tuple)
        and not _loopback(args[1][0])
    ):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")


sys.addaudithook(_hook)


class _ShareCompiled(importlib.abc.MetaPathFinder):
    """Gives numba a cache whose place follows from the content of the package, once numba is imported."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> Any:
        if fullname != "numba.core.caching":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec
        assert spec.loader
        execute = spec.loader.exec_module

        def then_add(module: Any) -> None:
            execute(module)
            module.CacheImpl._locator_classes.insert(0, _locator(module, self._folder))

        spec.loader.exec_module = then_add  # type: ignore[method-assign]
        return spec


def _locator(caching: Any, folder: str) -> type:
    digests: dict[Path, str] = {}

    def digest_of(root: Path) -> str:
        if root not in digests:
            content = hashlib.sha256()
            for path in sorted(root.rglob("*.py")):
                content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
            digests[root] = content.hexdigest()
        return digests[root]

    class ByContent(caching._SourceFileBackedLocatorMixin, caching._CacheLocator):  # type: ignore[misc]
        def __init__(self, function: Any, file: str) -> None:
            path = Path(file).resolve()
            root = next(parent for parent in path.parents if parent.name == _PACKAGE)
            self._digest = digest_of(root)
            self._lineno = function.__code__.co_firstlineno
            self._py_file = file
            self._place = Path(folder) / self._digest / path.relative_to(root).parent

        def get_cache_path(self) -> str:
            return str(self._place)

        def get_source_stamp(self) -> str:
            return self._digest

        @classmethod
        def from_function(cls, function: Any, file: str) -> Any:
            return super().from_function(function, file) if _PACKAGE in Path(file).parts else None

    return ByContent


if "SAC_TESTS_COMPILED" in os.environ:
    sys.meta_path.insert(0, _ShareCompiled(os.environ["SAC_TESTS_COMPILED"]))
