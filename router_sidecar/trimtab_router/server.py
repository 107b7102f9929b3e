"""The client's side: bytes in, requests out, answers back, in order. Knows HTTP and no policy.

A connection parses ahead but hands over one request at a time; what is pipelined waits in a short queue, and
beyond it the socket is not read. An error of HTTP itself ends the connection after its answer, because nobody
can say where the next request begins.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from typing import Protocol

import httptools

from trimtab_router import errors, request, settings

log = logging.getLogger("trimtab.router")

_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
"""What comes before the path in the absolute form of a target (RFC 9112, section 3.2.2); it chooses nothing here."""
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_MOST_HOSTS = 64
_good_hosts: set[bytes] = set()
"""Values seen to be valid: most clients say the same."""
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 4 << 20
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange(Protocol):
    """What serves one request; the connection tells it of its client."""

    def client_gone(self) -> None:
        """The client left: nobody will read the answer."""

    def client_slow(self) -> None:
        """The client doesn't keep up: read no more from upstream."""

    def client_ready(self) -> None:
        """The client has caught up."""


class Acceptor(Protocol):
    """What a connection needs of the process that it belongs to."""

    limits: settings.Limits
    connections: set[ClientConnection]

    def clock(self) -> float:
        """Monotonic seconds."""

    def accept(self, connection: ClientConnection, incoming: request.Request) -> Exchange | None:
        """Serve a request; None if it is answered already. ``connection.finish`` ends it in either case."""

    def refuse(self, connection: ClientConnection, error: errors.RouterError) -> None:
        """Answer a request that could not even be read; the connection closes after it."""


class ClientConnection(asyncio.Protocol):
    """One connection of a client.

    Its answers are written through ``write`` and ended by ``finish``, exactly once for each request.
    """

    __slots__ = (
        "_acceptor", "_bad", "_body", "_body_bytes", "_building", "_choked", "_expects", "_head_bytes", "_head_read",
        "_headers", "_in_body", "_lingered", "_parser", "_paused", "_queue", "_reading", "_repeated", "_url", "busy",
        "closing", "exchange", "idle_since", "transport",
    )  # fmt: skip

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[request.Request] = deque()
        self._building: request.Request | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated: tuple[bytes, ...] = ()
        self._body: list[bytes] = []
        self._body_bytes = self._head_bytes = self._head_read = self._reading = 0
        self._in_body = self._paused = self._choked = self._expects = False
        self._bad: errors.RouterError | None = None
        self._lingered = -1
        self.busy = self.closing = False
        self.exchange: Exchange | None = None
        self.idle_since = acceptor.clock()
        self.transport: asyncio.Transport | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to serve, unless there are too many connections."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are no asyncio.Transport
        self._acceptor.connections.add(self)
        if len(self._acceptor.connections) > self._acceptor.limits.connections:
            self._fail(errors.Unavailable("too many connections; try again later", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange that nobody reads any more."""
        del exc
        self._acceptor.connections.discard(self)
        self.transport = None
        self._queue.clear()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The client reads more slowly than the engine writes."""
        self._choked = True
        if self.exchange is not None:
            self.exchange.client_slow()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._choked = False
        if self.exchange is not None:
            self.exchange.client_ready()
        elif not self.busy and self._queue:
            self._serve_next()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; answers and pipelined requests follow from its callbacks."""
        if self._lingered >= 0:
            self._linger(len(data))
            return
        self._reading = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Refused as RFC 9110 says, by an ordinary answer; what follows in another protocol is not read.
            self.closing = True
            if not self.busy and self.transport is not None:
                self.transport.close()
        except httptools.HttpParserCallbackError:
            # Not the client's bytes are at fault but what was done with them.
            log.exception("a request failed inside the router")
            if self.busy:
                self.abort()
                return
            self._bad = errors.Internal("the router failed; its log says why")
        except httptools.HttpParserError as error:
            self._bad = self._bad or errors.Malformed(f"not a valid HTTP/1.1 request: {error}")
        if self._building is not None and not self._in_body:
            # A header without end never reaches a callback, so unfinished heads are counted by bytes read.
            self._head_read += len(data)
            if self._head_read > self._acceptor.limits.head_bytes:
                self._bad = self._bad or errors.HeadTooLarge(self._head_limit())
        if self._bad is not None:
            if self.busy:
                self._pause()
            else:
                self._fail(self._bad)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Start a request."""
        self._building = request.Request(self._acceptor.clock())
        self._url = b""
        self._headers = {}
        self._repeated = ()
        self._body_bytes = self._head_bytes = self._head_read = 0
        self._in_body = self._expects = False

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the header; note repeated ones."""
        if self._in_body:
            # A trailer. Nothing that it says may count as said in the head.
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > self._acceptor.limits.head_bytes:
                self._bad = self._bad or errors.HeadTooLarge(self._head_limit())
            return
        name = name.lower()
        headers = self._headers
        if name in headers:
            self._repeated += (name,)
            self._head_bytes += len(name) + len(value)
        else:
            headers[name] = value

    def on_headers_complete(self) -> None:
        """Judge the head; ask for the body if the client waits to be asked."""
        building, headers = self._building, self._headers
        assert building is not None
        building.headers, building.repeated = headers, self._repeated
        self._in_body = True
        limits, length = self._acceptor.limits, headers.get(b"content-length", b"0")
        if self._head_read + self._reading > limits.head_bytes:
            # All that was read may be more than the head: only now it pays to count.
            self._head_bytes += len(self._url) + sum(len(name) + len(value) for name, value in headers.items())
        if self._head_bytes > limits.head_bytes:
            self._bad = self._bad or errors.HeadTooLarge(self._head_limit())
        elif int(length) > limits.body_bytes:
            self._bad = self._bad or errors.BodyTooLarge(self._body_limit())
        elif headers.get(b"host") not in _good_hosts or self._repeated:
            self._judge_host()
        if b"transfer-encoding" in headers:
            self._judge_coding(headers[b"transfer-encoding"])
        if b"expect" in headers and self._bad is None:
            self._expect(headers[b"expect"])

    def _judge_host(self) -> None:
        """RFC 9112, section 3.2: one Host that is a valid one; only HTTP/1.0 may leave it out."""
        host = self._headers.get(b"host")
        if host is None and self._parser.get_http_version() == "1.0":
            return
        if host is None or b"host" in self._repeated or not _HOST.fullmatch(host):
            self._bad = self._bad or errors.Malformed("exactly one valid Host header is needed", param="host")
        elif len(_good_hosts) < _MOST_HOSTS:
            _good_hosts.add(host)

    def _judge_coding(self, coding: bytes) -> None:
        """RFC 9112, section 6.1. The parser has refused a content-length beside it; or will, after this."""
        if self._parser.get_http_version() == "1.0":
            self._bad = self._bad or errors.Malformed("HTTP/1.0 has no transfer codings")
        elif coding.lower() != b"chunked":
            why = "the only transfer coding that is understood is chunked"
            self._bad = self._bad or errors.UnknownCoding(why)

    def _expect(self, value: bytes) -> None:
        """RFC 9110, section 10.1.1. Behind another request, the body is asked for when its turn comes."""
        if value.lower() != b"100-continue":
            self._bad = errors.UnmetExpectation("the only expectation that can be met is 100-continue")
        elif self._parser.get_http_version() == "1.0":
            return
        elif self.busy:
            self._expects = True
        else:
            self.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Collect the body up to the limit."""
        self._expects = False
        self._body_bytes += len(body)
        if self._body_bytes > self._acceptor.limits.body_bytes:
            self._bad = self._bad or errors.BodyTooLarge(self._body_limit())
            self._body.clear()
        elif self._bad is None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the request over, or queue it behind the one under way."""
        building, self._building = self._building, None
        if building is None or self._bad is not None:
            return
        building.method = self._parser.get_method()
        url = self._url
        if not url.startswith(b"/"):
            url = _AUTHORITY.sub(b"", url, count=1) or b"/"
            url = url if url[:1] in b"/*" else b"/" + url
        building.path, _, building.query = url.partition(b"?")
        # Asked here: after feed_data the parser has forgotten it.
        building.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        building.chunks = self._parser.get_http_version() != "1.0"
        body = self._body
        if body:
            building.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
        if self.busy or self._choked:
            # Also while the last answer is still being read: answers must not pile up here.
            self._queue.append(building)
            if len(self._queue) >= self._acceptor.limits.pipelined:
                self._pause()
        else:
            self._serve(building)

    # What exchanges call.

    def write(self, data: bytes) -> None:
        """Send bytes of the answer, unless the client has gone."""
        if self.transport is not None:
            self.transport.write(data)

    def finish(self, *, close: bool) -> None:
        """The answer is complete: close, or serve what waits."""
        self.exchange = None
        self.busy = False
        self.idle_since = self._acceptor.clock()
        if self.transport is None:
            return
        if close or self.closing:
            self.closing = True
            self.transport.close()
        elif self._queue:
            if not self._choked:
                self._serve_next()
        elif self._bad is not None:
            self._fail(self._bad)
        else:
            if self._expects:
                self._expects = False
                self.write(CONTINUE)
            self._unpause()

    def abort(self) -> None:
        """Break the connection off: the client sees that the answer is not complete."""
        if self.transport is not None:
            self.closing = True
            self.transport.abort()

    def expire(self, now: float) -> None:
        """Close it if it is idle for too long; refuse a request that comes too slowly."""
        limits = self._acceptor.limits
        if self.transport is None or self.busy:
            return
        if self._building is not None:
            if now - self._building.arrived_at > limits.request_seconds:
                self._fail(errors.SlowRequest(f"the request did not come within {limits.request_seconds:g} s"))
        elif now - self.idle_since > limits.idle_seconds or self.closing:
            if self._choked and now - self.idle_since > limits.idle_seconds:
                # It never read its last answer: a polite end would wait for that for ever.
                self.transport.abort()
            else:
                self.transport.close()

    # Own steps.

    def _serve(self, incoming: request.Request) -> None:
        self.busy = True
        self.exchange = None
        exchange = self._acceptor.accept(self, incoming)
        if self.busy:
            self.exchange = exchange

    def _serve_next(self) -> None:
        """By the loop and not by a call, so that a long pipeline can't grow the stack."""
        self.busy = True
        asyncio.get_running_loop().call_soon(self._serve_queued)

    def _serve_queued(self) -> None:
        if self.transport is None:
            self.busy = False
            return
        waiting = self._queue.popleft()
        if not self._queue and self._bad is None:
            self._unpause()
        self._serve(waiting)

    def _pause(self) -> None:
        if self.transport is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _unpause(self) -> None:
        if self.transport is not None and self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _fail(self, error: errors.RouterError) -> None:
        """Answer with an error and stop reading requests; the rest of the client's bytes is thrown away."""
        if self._lingered >= 0 or self.transport is None or self.transport.is_closing():
            return
        self._lingered = 0
        self.closing = self.busy = True
        self._building = None
        self._unpause()
        self._acceptor.refuse(self, error)
        if self.transport is not None and not self.transport.is_closing():
            # Closing with unread bytes would reset the connection and could destroy the answer on its way.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)

    def _linger(self, count: int) -> None:
        self._lingered += count
        if self._lingered > _LINGER_BYTES:
            self.abort()

    def _head_limit(self) -> str:
        return f"the request's head is larger than {self._acceptor.limits.head_bytes} bytes"

    def _body_limit(self) -> str:
        return f"the request's body is larger than {self._acceptor.limits.body_bytes} bytes"
