"""Worker processes that share one port: started, watched, and started again if one of them breaks.

A worker that ends by itself is replaced, later each time: the streams of the others go on, and Kubernetes need not
know. If that happens too often the fault is not one worker's. Then all drain and the process ends with code 1, so that
Kubernetes sees it, and restarts the pod in its own rhythm.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable

from trimtab_router import listening, settings

log = logging.getLogger("trimtab.router")

Sockets = tuple[socket.socket, socket.socket]
Run = Callable[[settings.Settings, Sockets, int], int]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_FIRST_DELAY_SECONDS = 0.5
_MOST_ENDS = 5
_ENDS_SECONDS = 60.0


class Crew:
    """All workers of one router.

    Workers hold the reading end of a pipe of their parent: should it be killed, they drain and end too.

    Args:
        options: of the router.
        run: what a worker does until it is told to stop; returns its exit code.
    """

    def __init__(self, options: settings.Settings, run: Run) -> None:
        self._options = options
        self._run = run
        self._running: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._ends: deque[float] = deque(maxlen=_MOST_ENDS)
        self._pipe = os.pipe()
        self._stopping = False
        self._code = 0

    def serve(self) -> int:
        """Run all workers until a signal comes; returns the exit code.

        All ports are bound before the first worker starts, so that a busy one ends the start as a whole.

        Raises:
            listening.PortBusyError: if a port can't be had.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        bound = [self._bind(index) for index in range(self._options.workers)]
        for index in range(len(bound)):
            self._start(index, bound)
        for pair in bound:
            _close(pair)
        while self._running or self._due:
            self._wait()
        return self._code

    def _wait(self) -> None:
        """For the next thing that happens."""
        wait = min(self._due.values(), default=_now() + _ENDS_SECONDS) - _now()
        told = signal.sigtimedwait(_SIGNALS, max(0.0, wait))
        if told is not None and told.si_signo != signal.SIGCHLD:
            self._stop(told.si_signo)
        while self._running:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            self._ended(self._running.pop(child), os.waitstatus_to_exitcode(status))
        for index in [index for index, due in self._due.items() if due <= _now()]:
            del self._due[index]
            self._restart(index)

    def _ended(self, index: int, code: int) -> None:
        if self._stopping:
            self._code = max(self._code, abs(code))
            return
        now = _now()
        recent = sum(now - each < _ENDS_SECONDS for each in self._ends)
        self._ends.append(now)
        if recent + 1 >= _MOST_ENDS:
            log.error("worker %d ended with %d, the %dth end within a minute: giving up", index, code, recent + 1)
            self._code = 1
            self._stop(signal.SIGTERM)
            return
        delay = _FIRST_DELAY_SECONDS * 2**recent
        log.error("worker %d ended with %d; another one starts in %g s", index, code, delay)
        self._due[index] = now + delay

    def _stop(self, number: int) -> None:
        self._stopping = True
        self._due.clear()
        for child in self._running:
            os.kill(child, number)

    def _restart(self, index: int) -> None:
        try:
            bound = self._bind(index)
        except listening.PortBusyError as error:
            log.error("worker %d: %s", index, error)  # noqa: TRY400 (one line says it)
            self._ended(index, 1)
            return
        self._start(0, [bound], as_index=index)
        _close(bound)

    def _bind(self, index: int) -> Sockets:
        options = self._mine(index)
        shared = listening.bind(options.host, options.port, shared=True)
        return shared, listening.bind(options.admin_address, options.admin_port)

    def _mine(self, index: int) -> settings.Settings:
        port = self._options.admin_port
        admin_port = port + index if port else 0
        return dataclasses.replace(self._options, workers=1, processes=self._options.workers, admin_port=admin_port)

    def _start(self, at: int, bound: list[Sockets], as_index: int | None = None) -> None:
        index = at if as_index is None else as_index
        child = os.fork()
        if child:
            self._running[child] = index
            return
        code = 1
        try:
            os.close(self._pipe[1])
            for other, pair in enumerate(bound):
                if other != at:
                    _close(pair)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            code = self._run(self._mine(index), bound[at], self._pipe[0])
        except Exception:  # the outermost loop of a process
            log.exception("worker %d failed", index)
        finally:
            os._exit(code)


def _close(pair: Sockets) -> None:
    for each in pair:
        each.close()


def _now() -> float:
    return time.monotonic()
