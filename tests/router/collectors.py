"""An OTLP collector for tests, and a trace to follow."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from . import scene

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


class Collector:
    """An OTLP collector on a port of its own; answers with one status, or never."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        if self.status:
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
            await writer.drain()
        else:
            await reader.read()
        writer.close()

    @property
    def spans(self) -> list[dict[str, Any]]:
        scopes = [each["resourceSpans"][0]["scopeSpans"][0] for each in self.bodies]
        return [span for scope in scopes for span in scope["spans"]]

    def attributes(self, index: int = -1) -> dict[str, Any]:
        return {each["key"]: next(iter(each["value"].values())) for each in self.spans[index]["attributes"]}


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    made = Collector()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def flushed(router: scene.Scene) -> None:
    await router.quiet()
    for sink in router.router.sinks:
        await sink.flush()
