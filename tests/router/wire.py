"""A raw HTTP client: sends any bytes, and says how the answer really ended."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Self

import httptools


@dataclass
class Reply:
    """One answer; ``whole`` is False if its message was cut off."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    keeps: bool = False

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json()["error"]
        return error

    @property
    def events(self) -> list[str]:
        return [event.removeprefix("data: ") for event in self.body.decode().split("\n\n") if event]

    @property
    def text(self) -> str:
        """The content of a chat stream."""
        chunks = [json.loads(event) for event in self.events if event.startswith("{")]
        choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._parser = httptools.HttpResponseParser(self)
        self._replies: list[Reply] = []
        self._parts: list[bytes] = []
        self._current = Reply()
        self._new = True
        self.closed = False

    @classmethod
    async def open(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def on_message_begin(self) -> None:
        self._current = Reply()
        self._parts = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._current.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self._current.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._current.body = b"".join(self._parts)
        self._current.whole = True
        self._current.keeps = self._parser.should_keep_alive()
        self._replies.append(self._current)

    async def reply(self, seconds: float = 10.0) -> Reply:
        """The next answer, whole or cut off by the end of the connection."""
        async with asyncio.timeout(seconds):
            while not self._replies:
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    self.closed = True
                    self._current.body = b"".join(self._parts)
                    return self._current
                self._parser.feed_data(data)
        return self._replies.pop(0)

    async def read_some(self) -> bytes:
        """Raw bytes, as they come."""
        async with asyncio.timeout(10):
            return await self.reader.read(65536)

    async def is_closed(self) -> bool:
        """Whether the other side ends the connection."""
        async with asyncio.timeout(10):
            try:
                return not await self.reader.read(1)
            except ConnectionError:
                return True


def request(
    body: dict[str, Any] | bytes = b"", *, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
) -> bytes:
    """A request as bytes; header names in keywords, ``_`` for ``-``."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: router", f"content-length: {len(payload)}"]
    if "content_type" not in headers:
        lines.append("content-type: application/json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + payload


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat request's body."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
