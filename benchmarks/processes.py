"""Processes under test: start them on one core, and read what they used from /proc."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MIB = 1 << 20


@dataclass
class Proxy:
    """One proxy: where it listens, and its process tree."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """Processor time so far of all its threads and children, kernel and user mode, to the nanosecond."""
        return sum(_tree(self.process.pid, _thread_seconds))

    def memory_mib(self) -> float:
        """Its share of memory (PSS), children included."""
        return sum(_tree(self.process.pid, _pss_mib))


def _tree(pid: int, read: Callable[[pathlib.Path], float]) -> list[float]:
    folder = pathlib.Path(f"/proc/{pid}")
    found = [read(folder)]
    for task in (folder / "task").iterdir():
        for child in (task / "children").read_text().split():
            found += _tree(int(child), read)
    return found


def _thread_seconds(folder: pathlib.Path) -> float:
    total = 0
    for task in (folder / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _pss_mib(folder: pathlib.Path) -> float:
    for line in (folder / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def start(arguments: list[str], core: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A child on one core, from its first instruction on: pools of threads are sized by what they see."""
    cores = sorted(os.sched_getaffinity(0))
    return subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, {cores[core % len(cores)]}),  # noqa: PLW1509 (no threads here)
    )


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until somebody listens; False if the process ends first or takes too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """End all; by force what doesn't end by itself."""
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
