"""Start, serve, drain, end: the life of router processes. The only place that touches uvloop, signals and forks."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator

import uvloop

from trimtab_router import admin, listening, server, service, settings, tls, workers

log = logging.getLogger("trimtab.router")

PortBusyError = listening.PortBusyError
bind = listening.bind

_BACKLOG = 4096
_HANDSHAKE_SECONDS = 10.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of options in glibc's malloc.h."""
_KEPT_BYTES = 8 << 20
_MAPPED_BYTES = 4 << 20


@contextlib.asynccontextmanager
async def running(
    options: settings.Settings, sockets: tuple[socket.socket, socket.socket]
) -> AsyncIterator[service.Service]:
    """A router that serves on two bound sockets (clients, admin) for as long as the context lasts."""
    loop = asyncio.get_running_loop()
    router = service.Service(options, loop, clock=time.monotonic, wall_clock=time.time)  # noqa: TID251 (the edge)
    admin_side = admin.Admin(router)
    router.tables.look()
    certificate = None
    if options.tls_certificate is not None and options.tls_key is not None:
        certificate = tls.Certificate(options.tls_certificate, options.tls_key)
    listeners = [
        await loop.create_server(
            lambda: server.ClientConnection(router),
            sock=sockets[0],
            backlog=_BACKLOG,
            ssl=certificate.context if certificate is not None else None,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if certificate is not None else None,
        ),
        await loop.create_server(lambda: server.ClientConnection(admin_side), sock=sockets[1]),
    ]
    steps = [loop.create_task(router.tables.watch(options.poll_seconds)), loop.create_task(router.tick())]
    steps += [loop.create_task(sink.run()) for sink in router.sinks]
    if certificate is not None:
        steps.append(loop.create_task(certificate.watch(options.poll_seconds)))
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


def keep_memory() -> None:
    """Have the C library keep some freed memory instead of giving it back at once.

    By default each body over 128 KiB is mapped anew, and its pages faulted in one by one, which costs several times
    as much as all that is done with it. At most ``_KEPT_BYTES`` are kept. Other C libraries know no such option.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _check_tls(options: settings.Settings) -> None:
    """Before anything is started, and in every worker's stead."""
    if options.tls_certificate is not None and options.tls_key is not None:
        tls.Certificate(options.tls_certificate, options.tls_key)
    if options.upstream_ca is not None:
        tls.asking(options.upstream_ca)


def serve(options: settings.Settings) -> int:
    """Run until SIGTERM or SIGINT, then drain; returns the exit code.

    Raises:
        PortBusyError: if a port can't be had.
        tls.FilesError: if a certificate, key or list of authorities can't be used.
    """
    keep_memory()
    _check_tls(options)
    if options.workers > 1:
        return workers.Crew(options, _work).serve()
    sockets = (bind(options.host, options.port), bind(options.admin_address, options.admin_port))
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


def _work(options: settings.Settings, sockets: tuple[socket.socket, socket.socket], parent: int) -> int:
    """What one of several workers does."""
    return uvloop.run(_serve(options, sockets, parent))
