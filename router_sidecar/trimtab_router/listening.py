"""Sockets to listen on, and a clear word if one can't be had."""

from __future__ import annotations

import errno
import socket


class PortBusyError(Exception):
    """A port that the router should listen on can't be had; the message names it."""


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound TCP socket.

    Args:
        host: name or address.
        port: 0 takes any free one.
        shared: several processes may bind it and share its connections.

    Raises:
        PortBusyError: if the address can't be had, with the reason.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        bound = socket.socket(family, kind)
    except OSError as error:
        raise PortBusyError(f"can't listen on {host}: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        why = (
            "already in use; choose another or stop what holds it"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise PortBusyError(f"port {port} on {host} is {why}") from error
    return bound
