"""A client of Redis and Valkey: one connection, pipelined commands, a limit in time, and a breaker. Knows no commands.

The wire form is RESP2 (the Redis serialization protocol). Answers come in the order of commands, so one that does not
come in time costs the connection, and with it all commands under way: nobody can say whose answer comes next.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LARGEST_REPLY = 1 << 20
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0


class StoreDownError(Exception):
    """The store can't be asked now; the message says why."""


class ServerError(Exception):
    """The server does not do what it was asked for; the message is its own, and begins with a word in capitals."""


Reply = int | bytes | ServerError | list[Any] | None
"""Simple and bulk strings, integers, errors, arrays of these, or nothing."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how it is entered.

    Attributes:
        tls: what the server is checked by; None for a plain connection.
        setup: commands sent at the start of every connection, such as AUTH and SELECT.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    setup: tuple[tuple[bytes, ...], ...] = ()


def encode(parts: tuple[bytes, ...]) -> bytes:
    """One command."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Parser:
    """Cuts a byte stream into replies."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data, self._at = b"", 0

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete by now.

        Raises:
            StoreDownError: if this is not RESP, or a reply is larger than any that was asked for.
        """
        self._data += data
        replies = []
        try:
            while self._data:
                self._at = 0
                replies.append(self._read())
                self._data = self._data[self._at :]
        except _Incomplete:
            if len(self._data) > _LARGEST_REPLY:
                raise StoreDownError("the store sent a reply that is too large") from None
        except (ValueError, RecursionError) as error:
            raise StoreDownError("the store does not speak RESP") from error
        return replies

    def _read(self) -> Reply:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ServerError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._bulk(int(rest))
        if kind == b"*":
            count = int(rest)
            return None if count < 0 else [self._read() for _ in range(count)]
        raise ValueError(kind)

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            raise _Incomplete
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    def _bulk(self, size: int) -> bytes | None:
        if size < 0:
            return None
        if size > _LARGEST_REPLY:
            raise ValueError(size)
        end = self._at + size
        if len(self._data) < end + 2:
            raise _Incomplete
        found = self._data[self._at : end]
        self._at = end + 2
        return found


class _Incomplete(Exception):  # noqa: N818 (no error: more bytes will come)
    pass


class _Connection(asyncio.Protocol):
    """Commands out, replies in, in order."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._parser = Parser()
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self.why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are no asyncio.Transport

    def send(self, parts: tuple[bytes, ...], loop: asyncio.AbstractEventLoop) -> asyncio.Future[Reply]:
        answer: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append(answer)
        self.transport.write(encode(parts))
        return answer

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._parser.feed(data)
        except StoreDownError as error:
            self.end(str(error))
            return
        for reply in replies:
            if not self._waiting:
                self.end("the store answered what nobody asked")
                return
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"the store closed the connection{f': {exc}' if exc else ''}")

    def end(self, why: str) -> None:
        self.why = self.why or why
        self.transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(StoreDownError(self.why))


class Client:
    """Asks one server, over one connection that is made when it is needed.

    Args:
        address: read anew for every connection, so that a changed password counts.
        timeout_seconds: of a connection with its setup, and of each command.
        clock: monotonic seconds.
    """

    def __init__(self, address: Callable[[], Address], timeout_seconds: float, *, clock: Callable[[], float]) -> None:
        self._address = address
        self._timeout = timeout_seconds
        self._clock = clock
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._closed_until = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self.down = False

    async def execute(self, *parts: bytes) -> Reply:
        """The reply to one command.

        Raises:
            StoreDownError: if there is none in time; at once while the breaker is open.
            ServerError: if the server refuses.
        """
        try:
            async with asyncio.timeout(self._timeout):
                connection = self._connection or await self._connect()
                reply = await connection.send(parts, asyncio.get_running_loop())
        except TimeoutError:
            self._fail("the store did not answer in time")
            raise StoreDownError("the store did not answer in time") from None
        except StoreDownError as error:
            self._fail(str(error))
            raise
        self.down, self._pause = False, _FIRST_PAUSE_SECONDS
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.end("closed")
            self._connection = None

    async def _connect(self) -> _Connection:
        """The connection, made once for all who wait for it."""
        if self._clock() < self._closed_until:
            raise StoreDownError("the store is down")
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._open())
        try:
            self._connection = await asyncio.shield(self._connecting)
        finally:
            if self._connecting is not None and self._connecting.done():
                self._connecting = None
        return self._connection

    async def _open(self) -> _Connection:
        try:
            address = self._address()
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(self._timeout):
                _, connection = await loop.create_connection(_Connection, address.host, address.port, ssl=address.tls)
                for parts in address.setup:
                    reply = await connection.send(parts, loop)
                    if isinstance(reply, ServerError):
                        connection.end("refused")
                        raise StoreDownError(f"the store refuses {parts[0].decode()}: {str(reply).partition(' ')[0]}")
        except (OSError, TimeoutError) as error:
            raise StoreDownError(f"the store can't be reached: {str(error) or 'no answer in time'}") from error
        return connection

    def _fail(self, why: str) -> None:
        """Give the server a rest: every failure after the first doubles it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end(why)
        now = self._clock()
        if now >= self._closed_until:
            self._closed_until = now + self._pause
            self._pause = min(_LONGEST_PAUSE_SECONDS, 2 * self._pause)
        self.down = True
