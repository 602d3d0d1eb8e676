"""Makes inputs read-only and the network unreachable inside a pushed kernel.

The runner copies this file as `sitecustomize.py` in front of the kernel's path, so it imports the
standard library only. An audit hook sees every file opened and every connection made by Python
code, whatever the user's rights; the runner's comparison of the inputs afterwards sees the rest.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from typing import Any

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
