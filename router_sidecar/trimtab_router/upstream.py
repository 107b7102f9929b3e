"""The engines' side: one connection that asks and reads answers, and the pool that keeps it.

Answers are parsed and re-framed, never passed on byte for byte: what follows a message's end, chunk extensions
and trailers of an engine must not reach a client as part of the next answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools

IDLE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, and with it vLLM, closes an idle connection."""

_MAX_HEAD_BYTES = 256 << 10


class Listener(Protocol):
    """Who waits for an answer. After ``complete`` or ``lost`` nothing more comes of this connection."""

    def head(self, status: int, content_type: bytes, retry_after: bytes) -> None:
        """Status and headers have come."""

    def read(self, data: bytes) -> None:
        """Bytes of the body have come."""

    def complete(self) -> None:
        """The message is whole."""

    def lost(self, *, stale: bool) -> None:
        """The connection broke.

        ``stale``: it was reused and brought not one byte; right after asking that is safe to repeat.
        """


class Pool:
    """Idle connections to one address, the one used last on top: the others can grow old and be closed."""

    __slots__ = ("_idle", "_retired")

    def __init__(self) -> None:
        self._idle: list[UpstreamConnection] = []
        self._retired = False

    def take(self, now: float) -> UpstreamConnection | None:
        """A connection that should still live, or None."""
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since <= IDLE_SECONDS and not connection.transport.is_closing():
                return connection
            connection.close()
        return None

    def put(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a connection whose answer is complete."""
        if self._retired:
            connection.close()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def drop(self, connection: UpstreamConnection) -> None:
        """Forget a connection that closed by itself."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_old(self, now: float) -> None:
        """Close what has been idle for too long; the oldest are at the bottom."""
        while self._idle and now - self._idle[0].idle_since > IDLE_SECONDS:
            self._idle.pop(0).close()

    def close(self) -> None:
        """Close all."""
        while self._idle:
            self._idle.pop().close()

    def retire(self) -> None:
        """Close all, and from now on whatever comes back: nobody will look after this pool any more."""
        self._retired = True
        self.close()

    def __len__(self) -> int:
        return len(self._idle)


class UpstreamConnection(asyncio.Protocol):
    """One connection to an engine.

    Attributes:
        told: what a provider says of its rate limits, by header; None where nobody wants to know.
        idle_since: monotonic seconds.
        reused: it has brought an answer before.
    """

    __slots__ = (
        "_clock", "_complete", "_framed", "_head_bytes", "_head_done", "_keep", "_listener", "_parser", "_parts",
        "_pool", "_retry_after", "_status", "_surplus", "_touched", "_type", "idle_since", "on_body", "reused",
        "told", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, pool: Pool, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._listener: Listener | None = None
        self._parts: list[bytes] = []
        # Called by the parser for each piece of a body. A burst has hundreds in one read: no Python in between.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self.reused = False
        self.idle_since = 0.0
        self.told: dict[bytes, bytes] | None = None
        self._reset()

    def _reset(self) -> None:
        self._touched = self._head_done = self._complete = self._keep = self._framed = False
        self._surplus = -1
        self._head_bytes = self._status = 0
        self._type = self._retry_after = b""
        if self.told:
            self.told.clear()

    def send(self, listener: Listener, data: bytes) -> None:
        """Ask: ``data`` is a whole request."""
        self._reset()
        self._listener = listener
        self.transport.write(data)

    def abort(self) -> None:
        """Break off: the engine stops to generate, and nothing more is reported."""
        self._listener = None
        self.transport.abort()

    def close(self) -> None:
        """Close an idle connection."""
        self.transport.close()

    def pause(self) -> None:
        """Read no more for now: the client is slow."""
        self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """Parse, and report what came of it: at most a head, one piece of body and an end per read."""
        listener = self._listener
        if listener is None:
            self.transport.abort()
            return
        self._touched = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._break(listener)
                return
            # The answer is whole; what follows it is nobody's, and the connection is not used again.
            self._keep = False
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._break(listener)
            return
        if self._head_bytes >= 0:
            self._head_bytes = -1
            listener.head(self._status, self._type, self._retry_after)
        parts = self._parts
        if self._surplus >= 0:
            del parts[self._surplus :]
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if self._listener is listener:
                listener.read(body)
        if self._complete and self._listener is listener:
            self._finish(listener)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report a break; an answer without length or chunks ends this way."""
        listener, self._listener = self._listener, None
        if listener is None:
            self._pool.drop(self)
        elif exc is None and self._head_done and not self._framed:
            listener.complete()
        else:
            listener.lost(stale=self.reused and not self._touched)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A second message in the place of one: nobody asked for it, and the connection can't be trusted."""
        if self._complete and self._surplus < 0:
            self._surplus = len(self._parts)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter."""
        if self._surplus >= 0:
            return
        size = len(name)
        if size == 12 and name.lower() == b"content-type":  # noqa: PLR2004 (lengths first: most names fail here)
            self._type = value
        elif (size == 14 and name.lower() == b"content-length") or (  # noqa: PLR2004
            size == 17 and name.lower() == b"transfer-encoding"  # noqa: PLR2004
        ):
            self._framed = True
        elif size == 11 and name.lower() == b"retry-after":  # noqa: PLR2004
            self._retry_after = value
        elif self.told is not None and name[:12].lower() == b"x-ratelimit-":
            self.told[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is whole, unless it is an interim one."""
        if self._surplus < 0:
            self._status = self._parser.get_status_code()
            self._head_done = self._status >= 200  # noqa: PLR2004 (1xx are interim)

    def on_message_complete(self) -> None:
        """The message is whole, unless it is an interim one."""
        if self._head_done and self._surplus < 0:
            self._complete = True
            # Asked here: after feed_data the parser has forgotten it, and every connection would be closed.
            self._keep = self._parser.should_keep_alive()

    # Own steps.

    def _finish(self, listener: Listener) -> None:
        self._listener = None
        if self._keep and self._surplus < 0 and not self.transport.is_closing():
            self.reused = True
            self._pool.put(self, self._clock())
        else:
            self.transport.close()
        listener.complete()

    def _break(self, listener: Listener) -> None:
        self._listener = None
        self.transport.abort()
        listener.lost(stale=False)
