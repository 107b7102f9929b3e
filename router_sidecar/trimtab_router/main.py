"""Start, serve, drain, end: the life of router processes. The only place that touches uvloop, signals and forks."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator

import uvloop

from trimtab_router import admin, server, service, settings

log = logging.getLogger("trimtab.router")

_BACKLOG = 4096
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of options in glibc's malloc.h."""
_KEPT_BYTES = 8 << 20
_MAPPED_BYTES = 4 << 20


class PortBusyError(Exception):
    """A port that the router should listen on can't be had; the message names it."""


@contextlib.asynccontextmanager
async def running(
    options: settings.Settings, sockets: tuple[socket.socket, socket.socket]
) -> AsyncIterator[service.Service]:
    """A router that serves on two bound sockets (clients, admin) for as long as the context lasts."""
    loop = asyncio.get_running_loop()
    router = service.Service(options, loop, clock=time.monotonic, wall_clock=time.time)  # noqa: TID251 (the edge)
    admin_side = admin.Admin(router)
    router.tables.look()
    listeners = [
        await loop.create_server(lambda: server.ClientConnection(router), sock=sockets[0], backlog=_BACKLOG),
        await loop.create_server(lambda: server.ClientConnection(admin_side), sock=sockets[1]),
    ]
    steps = [loop.create_task(router.tables.watch(options.poll_seconds)), loop.create_task(router.tick())]
    try:
        yield router
        listeners[0].close()
        await router.drain(options.drain_seconds)
        await router.close()
    finally:
        for step in steps:
            step.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
        for listener in listeners:
            listener.close()
        for connection in (*router.connections, *admin_side.connections):
            connection.abort()


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


def keep_memory() -> None:
    """Have the C library keep some freed memory instead of giving it back at once.

    By default each body over 128 KiB is mapped anew, and its pages faulted in one by one, which costs several times
    as much as all that is done with it. At most ``_KEPT_BYTES`` are kept. Other C libraries know no such option.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def serve(options: settings.Settings) -> int:
    """Run until SIGTERM or SIGINT, then drain; returns the exit code.

    Raises:
        PortBusyError: if a port can't be had.
    """
    keep_memory()
    if options.workers > 1:
        return _serve_workers(options)
    sockets = (bind(options.host, options.port), bind(options.host, options.admin_port))
    return uvloop.run(_serve(options, sockets))


async def _serve(
    options: settings.Settings, sockets: tuple[socket.socket, socket.socket], parent: int | None = None
) -> int:
    """Serve until a signal comes, or until nobody holds the other end of ``parent``, a pipe, any more."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent is not None:
        loop.add_reader(parent, stop.set)
    async with running(options, sockets):
        log.info("router listens on %s:%d, admin on %d", options.host, options.port, options.admin_port)
        await stop.wait()
        if parent is not None:
            loop.remove_reader(parent)
        log.info("draining for up to %g s", options.drain_seconds)
    return 0


def _serve_workers(options: settings.Settings) -> int:
    """One process for each worker, all on one port; the kernel spreads connections over them.

    All ports are bound before the first fork, so that a busy one ends the start as a whole. Workers hold a pipe
    of their parent: should it be killed, they drain and end too.
    """
    workers = []
    for index in range(options.workers):
        admin_port = options.admin_port + index if options.admin_port else 0
        mine = dataclasses.replace(options, workers=1, processes=options.workers, admin_port=admin_port)
        workers.append((mine, bind(options.host, options.port, shared=True), bind(options.host, admin_port)))
    reading, writing = os.pipe()
    children: list[int] = []
    for mine, *sockets in workers:
        child = os.fork()
        if child == 0:
            os.close(writing)
            for other, *unused in workers:
                for each in unused if other is not mine else ():
                    each.close()
            os._exit(uvloop.run(_serve(mine, (sockets[0], sockets[1]), reading)))
        children.append(child)
    os.close(reading)
    for _, *sockets in workers:
        for each in sockets:
            each.close()

    def forward(number: int, _frame: object) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
