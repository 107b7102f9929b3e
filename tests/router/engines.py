"""Scripted engines: raw asyncio servers that answer whatever bytes a test wants, and remember what they were asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httptools


@dataclass
class Asked:
    """One request as an engine saw it."""

    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    nth: int = 0
    """Which request of its connection it is, from 1."""

    def json(self) -> Any:
        return json.loads(self.body)


class Close:
    """End the connection in the usual way."""


class Reset:
    """End the connection by a reset."""


class Hang:
    """Say no more until the other side leaves."""


Step = bytes | float | type[Close] | type[Reset] | type[Hang]
Script = Callable[[Asked], Iterable[Step]]


class Engine:
    """An engine on a port of its own."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.connections = 0
        self.gone = asyncio.Event()
        """Set when a client leaves while its answer is not complete."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self, port: int = 0) -> Engine:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def open_connections(self) -> int:
        """Connections that have not ended yet."""
        return len(self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        count = 0
        try:
            while (asked := await self._read(reader)) is not None:
                count += 1
                asked.nth = count
                self.asked.append(asked)
                if not await self._play(asked, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _play(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for step in self.script(asked):
            if step is Close:
                return False
            if step is Reset:
                writer.transport.abort()
                return False
            if step is Hang:
                await reader.read()
                self.gone.set()
                return False
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                assert isinstance(step, bytes)
                writer.write(step)
                await writer.drain()
        return True

    async def _read(self, reader: asyncio.StreamReader) -> Asked | None:
        asked = Asked()
        done: list[int] = []

        class Parts:
            def on_url(self, url: bytes) -> None:
                asked.path += url.decode()

            def on_header(self, name: bytes, value: bytes) -> None:
                assert name.decode().lower() not in asked.headers, name
                asked.headers[name.decode().lower()] = value.decode()

            def on_body(self, body: bytes) -> None:
                asked.body += body

            def on_message_complete(self) -> None:
                asked.method = parser.get_method().decode()
                done.append(1)

        parser = httptools.HttpRequestParser(Parts())
        while not done:
            data = await reader.read(1 << 20)
            if not data:
                return None
            parser.feed_data(data)
        return asked


USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 2}}


def compact(value: Any) -> bytes:
    """JSON as vLLM writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def whole(body: Any, status: int = 200, **headers: str) -> bytes:
    """An answer in one piece."""
    payload = body if isinstance(body, bytes) else compact(body)
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(payload)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + payload


def answer(text: str = "hi there", *, model: str = "small", finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": model, "choices": [choice], "usage": USAGE}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat stream; without a delta, one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small"}
    return b"data: " + compact({**head, "choices": choices, **more}) + b"\n\n"


def frame(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = chunk({"role": "assistant", "content": ""})
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"


def pieces(words: Iterable[str] = ("hi", " there", " you")) -> list[bytes]:
    """The events of a good stream, usage included."""
    texts = [chunk({"content": word}) for word in words]
    return [ROLE, *texts, chunk({}, "stop"), chunk(usage=USAGE), DONE]


def stream(events: Iterable[bytes] | None = None) -> list[Step]:
    """A good stream, one write for each event."""
    return [STREAM_HEAD, *map(frame, pieces() if events is None else events), LAST]


def talk(asked: Asked) -> list[Step]:
    """What a healthy engine does."""
    return stream() if asked.json().get("stream") else [whole(answer())]
