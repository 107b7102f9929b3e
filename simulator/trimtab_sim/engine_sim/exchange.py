"""One HTTP exchange as the ASGI handlers see it: the body in, JSON or server-sent events out."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from trimtab_sim.engine_sim import protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

BARE = "trimtab.bare"
JSON = b"application/json"
_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")


class Exchange:
    """Reads one request and writes its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap an ASGI call."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self.load_report: Header | None = None

    def header(self, name: bytes) -> str | None:
        """Return a request header by its lower-case name, None if absent."""
        for key, value in self._scope["headers"]:
            if key == name:
                return bytes(value).decode("latin-1")
        return None

    def query(self) -> dict[str, str]:
        """Return the query parameters; of equal names the last one counts."""
        pairs = (part.partition("=") for part in self._scope["query_string"].decode("latin-1").split("&") if part)
        return {name: value for name, _, value in pairs}

    async def body(self) -> bytes:
        """Return the whole request body."""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return b"".join(parts)
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def json_object(self) -> dict[str, Any]:
        """
        Return the JSON object in the body.

        Raises:
            protocol.ApiError: The content type is not JSON, or the body is no JSON object.

        """
        media_type = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise protocol.unsupported_media_type()
        return protocol.parse_object(await self.body())

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the client disconnects, or when the answer is complete; the body must have been read."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch(gone))

    async def _watch(self, gone: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        gone()

    async def reply(
        self, body: bytes, *, status: int = 200, content_type: bytes | None = JSON, extra: Iterable[Header] = ()
    ) -> None:
        """Send a complete answer; headers in the order in which the real server sends them."""
        headers = [*extra]
        if self.load_report is not None and status == http.HTTPStatus.OK:
            headers.append(self.load_report)
        headers.append((b"content-length", str(len(body)).encode()))
        if content_type is not None:
            headers.append((b"content-type", content_type))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def reply_partly(self, body: bytes, *, sent: int) -> None:
        """Promise `body` and send only its first `sent` bytes; the server then closes the connection."""
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", JSON)]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body[:sent], "more_body": True})

    async def reply_error(self, error: protocol.ApiError, *, messages_shape: bool = False) -> None:
        """Send an error answer, in the shape of /v1/messages if asked."""
        if error.bare:
            self._scope[BARE] = True
        await self.reply(error.messages_body() if messages_shape else error.body(), status=error.status)

    async def start_events(self) -> None:
        """Send the head of an event stream."""
        await self._send({"type": "http.response.start", "status": 200, "headers": [_EVENT_STREAM]})

    async def event(self, data: bytes) -> None:
        """Send one event as one chunk; `data` has its `data: ` and its blank line."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_events(self) -> None:
        """End the event stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
