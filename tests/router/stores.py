"""A Redis server of its own for a test, on a loopback port, without a file on disk."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from . import scene

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None and shutil.which("valkey-server") is None,
    reason="needs redis-server or valkey-server: apt-get install redis-server",
)


@contextlib.contextmanager
def redis(port: int = 0, *options: str) -> Iterator[int]:
    """The port of a server that lives as long as the context."""
    port = port or scene.closed_port()
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    assert binary is not None
    server = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield port
    finally:
        server.kill()
        server.wait()


async def deaf() -> asyncio.Server:
    """A server that takes connections and never answers."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    return await asyncio.start_server(hang, "127.0.0.1", 0)


def wait_for(port: int, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
