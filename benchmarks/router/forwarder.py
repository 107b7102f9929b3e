"""The floor: a TCP forwarder on uvloop that looks at nothing. Run: ``forwarder.py PORT UPSTREAM_PORT``."""

from __future__ import annotations

import asyncio
import sys

import uvloop


class Half(asyncio.Protocol):
    """One side of a forwarded connection."""

    def __init__(self, upstream_port: int | None) -> None:
        self.upstream_port = upstream_port
        self.peer: Half | None = None
        self.waiting: list[bytes] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client's side opens the other side."""
        self.transport = transport  # type: ignore[assignment]
        if self.upstream_port is not None:
            self.opening = asyncio.get_running_loop().create_task(self._open(self.upstream_port))

    async def _open(self, port: int) -> None:
        _, peer = await asyncio.get_running_loop().create_connection(lambda: Half(None), "127.0.0.1", port)
        self.peer, peer.peer = peer, self
        assert peer.transport is not None
        for data in self.waiting:
            peer.transport.write(data)
        self.waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self.peer is None or self.peer.transport is None:
            self.waiting.append(data)
        else:
            self.peer.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close both."""
        del exc
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def pause_writing(self) -> None:
        """Slow the other side down."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let it go on."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()


async def main(port: int, upstream_port: int) -> None:
    """Forward for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Half(upstream_port), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
