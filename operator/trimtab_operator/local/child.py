"""One child process that can't outlive us: own process group, killed by the kernel if we die, output in a file."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 4096


class Child:
    """A running process. Make one with ``start``.

    Attributes:
        log: file that holds its standard output and error.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path, begins: int) -> None:
        self._process = process
        self._begins = begins
        self.log = log

    @classmethod
    async def start(cls, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        """Start a program; its output is added to ``log``. Raises OSError if it can't be started."""
        with log.open("ab") as output:
            begins = output.tell()
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        return cls(process, log, begins)

    @property
    def pid(self) -> int:
        """Process id, which is its group's too."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, up to ``grace_seconds`` of patience, then SIGKILL; returns when the whole group is gone."""
        if self.code is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace_seconds)
        self.kill()
        await self.wait()

    def kill(self) -> None:
        """SIGKILL to whatever is left of its group."""
        self._signal(signal.SIGKILL)

    def tail(self, lines: int = 8) -> str:
        """The last lines that it printed, not those of an earlier process with the same log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self._begins, self.log.stat().st_size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        """Signal its group; no group, no matter."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def _die_with_parent() -> Callable[[], None] | None:
    """What a child runs before its program so that the kernel kills it when our thread ends; Linux only.

    Elsewhere a SIGKILL of the parent leaves children behind; every other end still stops them.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return arm
