"""
The process: when the port opens, what SIGTERM does, and faults that concern the listening socket.

Until the engine is ready the port is bound but does not listen, so a taken port is an error at once and clients are
refused, as they are by the real server while it loads. On SIGTERM with a shutdown timeout the server goes on to
listen and to answer /health with 200 while it refuses new requests: the real server does so too, and whoever routes
must know.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http import httptools_impl

from trimtab_sim.engine_sim import app, engine, faults, http_metrics, service, settings

_LINGER_SECONDS = 1
_MOMENT = 0.05


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling; this module decides what SIGTERM means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def make_service(
    config: settings.Settings, *, clock: Callable[[], float], wall: Callable[[], float]
) -> service.Service:
    """Return the state of one server; `clock` is monotonic seconds, `wall` the Unix time."""
    board = faults.Board(config.sim_seed)
    for fault in config.sim_fault:
        board.add(fault, clock())
    return service.Service(
        config=config,
        engine=engine.Engine(config, board, clock=clock, born=wall()),
        board=board,
        http=http_metrics.HttpMetrics(born=wall()),
        clock=clock,
        wall=wall,
        exit_process=os._exit,
    )


def bind(config: settings.Settings) -> socket.socket:
    """Return a socket bound to the configured address, not listening yet. Raises StartError."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((config.host, config.port))
    except OSError as error:
        bound.close()
        raise StartError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; choose another --port or --host"
        ) from error
    bound.setblocking(False)
    return bound


class Life:
    """One server from start to end."""

    def __init__(self, config: settings.Settings, bound: socket.socket) -> None:
        """Prepare to serve on a bound socket; needs a running event loop."""
        self._config = config
        self._bound = bound
        self._law = config.clock
        self._loop = asyncio.get_running_loop()
        self.shared = make_service(config, clock=time.monotonic, wall=time.time)  # noqa: TID251 - the process is the edge
        self.shared.on_faults = self._faults_changed
        self._told_to_stop = asyncio.Event()
        options = uvicorn.Config(
            app.build(self.shared),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="error",
            timeout_graceful_shutdown=_LINGER_SECONDS,
        )
        self._server = _Server(options)
        self._refusing = False
        self._port: int = bound.getsockname()[1]
        self._reopening: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Begin the end, as SIGTERM does; may be called again."""
        self._told_to_stop.set()

    async def run(self) -> None:
        """Wait for the start-up delay, serve, end after `stop`. Raises StartError if the port is taken after all."""
        if not await self._wait_for_start():
            self._bound.close()
            return
        serving = self._loop.create_task(self._server.serve(sockets=[self._bound]))
        while not self._server.started and not serving.done():  # noqa: ASYNC110 - uvicorn only sets a flag
            await asyncio.sleep(_MOMENT / 10)
        if not serving.done():
            self._faults_changed()
        stopping = self._loop.create_task(self._told_to_stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await self._wind_down()
        stopping.cancel()
        self._server.should_exit = True
        try:
            await serving
        except OSError as error:
            raise StartError(f"cannot listen on {self._config.host}:{self._config.port}: {error.strerror}") from error

    async def _wait_for_start(self) -> bool:
        """Return whether to serve; False if told to stop before."""
        delay: float | None = self._law.scaled(self._config.sim_startup_seconds)
        for fault in self.shared.board.in_force(self.shared.clock()):
            if fault.kind == "never-ready":
                delay = None
            elif fault.kind == "refuse" and delay is not None:
                delay = None if fault.seconds is None else max(delay, fault.seconds)
            elif fault.kind == "slow-start" and delay is not None:
                delay += self._law.scaled(fault.seconds or 0.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told_to_stop.wait(), delay)
        return not self._told_to_stop.is_set()

    async def _wind_down(self) -> None:
        timeout = self._law.scaled(self._config.shutdown_timeout)
        if timeout > 0:
            self.shared.engine.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.shared.engine.drained(), timeout)
        self.shared.engine.die()
        await asyncio.sleep(_MOMENT)  # lets the failed requests write their last words

    def _faults_changed(self) -> None:
        """Let sockets and engine follow the faults in force, now and when the first of them ends."""
        self.shared.engine.thaw()
        refuse = [fault for fault in self.shared.board.in_force(self.shared.clock()) if fault.kind == "refuse"]
        if refuse and not self._refusing:
            self._refusing = True
            for listener in self._server.servers:
                listener.close()
            self._server.servers.clear()
        elif self._refusing and not refuse:
            self._refusing = False
            self._reopening = self._loop.create_task(self._listen_again())
        lasting = [fault.seconds for fault in refuse if fault.seconds is not None]
        if lasting:
            self._loop.call_later(min(lasting), self._faults_changed)

    async def _listen_again(self) -> None:
        config = self._server.config
        again = bind(dataclasses.replace(self._config, port=self._port))
        listener = await self._loop.create_server(
            lambda: httptools_impl.HttpToolsProtocol(
                config=config, server_state=self._server.server_state, app_state=self._server.lifespan.state
            ),
            sock=again,
            backlog=config.backlog,
        )
        self._server.servers.append(listener)


async def _main(config: settings.Settings, bound: socket.socket) -> None:
    life = Life(config, bound)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, life.stop)
    host, port = bound.getsockname()[:2]
    print(f"engine-sim: {config.names[0]} on http://{host}:{port}", file=sys.stderr, flush=True)  # noqa: T201 - its one line
    await life.run()


def serve(config: settings.Settings) -> None:
    """
    Run the server until SIGTERM or SIGINT.

    Raises:
        StartError: The address cannot be used.

    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(config, bind(config)))
