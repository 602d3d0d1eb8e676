"""A guard that blocks the network in a rehearsal: the kernel must work without internet."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


def block_network() -> None:
    """Make every connection of this process except loopback fail with an OSError."""
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:  # noqa: ANN401
        _refuse_remote(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:  # noqa: ANN401
        _refuse_remote(self.family, address)
        return connect_ex(self, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if host not in (None, "", b"") and not _is_loopback(str(host)):
            _refuse(str(host))
        return resolve(host, *args, **kwargs)

    socket.socket.connect = guarded_connect  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = guarded_connect_ex  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = guarded_resolve


def _refuse_remote(family: int, address: Any) -> None:  # noqa: ANN401
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
        _refuse(str(address[0]))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(host: str) -> None:
    msg = f"network blocked in this run: connection to {host} refused; the kernel must work without internet"
    raise OSError(msg)
