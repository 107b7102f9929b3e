"""Clients for the soak: each request's name, what was asked, and what really came back."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

COMPLETE, REFUSED, BROKEN, LEFT, LOST = "complete", "refused", "broken", "left", "lost"
_EVENT = re.compile(rb"data: (.*?)\n\n")
_CLEAN_END = b"\r\n0\r\n\r\n"
_MOST_SECONDS = 90.0


@dataclass
class Seen:
    """What became of one request, as its client saw it.

    Attributes:
        asked: tokens.
        result: one of this module's words.
        status: of the answer; 0 for none.
        tokens: of content that came.
        slot: which engine's attempt the answer names.
        why: what is wrong with it, if something is.
    """

    asked: int
    streamed: bool
    result: str = LOST
    status: int = 0
    tokens: int = 0
    slot: str = ""
    why: str = ""


class Connection(asyncio.Protocol):
    """One connection: one request at a time, and whether its answer's message was whole."""

    def __init__(self) -> None:
        self.open = False
        self._ended: asyncio.Future[None] | None = None
        self._data = bytearray()
        self._size = -1
        self.whole = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.open = True

    async def ask(self, data: bytes, seconds: float) -> bytes:
        """Send a request; returns what came until its end, the connection's end, or the time given."""
        self._data, self._size, self.whole = bytearray(), -1, False
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        await asyncio.wait((self._ended,), timeout=seconds)
        return bytes(self._data)

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the message."""
        self._data += data
        if self._size < 0:
            self._read_head()
        at_end = self._data.endswith(_CLEAN_END) if self._size == 0 else 0 < self._size <= len(self._data)
        if at_end:
            self.whole = True
            self._finish()

    def _read_head(self) -> None:
        end = self._data.find(b"\r\n\r\n")
        if end >= 0:
            head = bytes(self._data[:end]).lower()
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._size = end + 4 + int(length) if length else 0

    def connection_lost(self, exc: Exception | None) -> None:
        """The router closed, or this side did."""
        del exc
        self.open = False
        self._finish()

    def _finish(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def judge(seen: Seen, data: bytes, *, whole: bool, left: bool) -> None:
    """Write down what an answer was.

    Args:
        seen: of this request; filled in.
        data: head and body, as they came.
        whole: the message had its proper end.
        left: the client did not wait for one.
    """
    head, _, body = data.partition(b"\r\n\r\n")
    seen.status = int(head[9:12]) if head[9:12].isdigit() else 0
    if seen.status == 200 and seen.streamed:
        _judge_stream(seen, body, whole=whole, left=left)
    elif left and not whole:
        seen.result = LEFT
    elif not whole:
        seen.why = f"connection closed after {len(data)} bytes"
    elif seen.status == 200:
        answer = json.loads(body)
        text = answer["choices"][0]["message"]["content"]
        seen.slot, seen.tokens = answer["id"].removeprefix("chatcmpl-"), len(text.split())
        good = text == "".join(f" {index}" for index in range(seen.asked))
        seen.result, seen.why = (COMPLETE, "") if good else (LOST, "another text")
    else:
        good = seen.status >= 400 and bool(json.loads(body)["error"]["message"])
        seen.result, seen.why = (REFUSED, "") if good else (LOST, f"status {seen.status}")


def _judge_stream(seen: Seen, body: bytes, *, whole: bool, left: bool) -> None:
    events = _EVENT.findall(body)
    done, error, stopped = b"[DONE]" in events, False, False
    for event in events:
        if event == b"[DONE]":
            continue
        chunk = json.loads(event)
        error = error or "error" in chunk
        for choice in chunk.get("choices", ()):
            seen.slot = seen.slot or chunk["id"].removeprefix("chatcmpl-")
            if chunk["id"].removeprefix("chatcmpl-") != seen.slot:
                seen.why = "two engines' answers in one"
            stopped = stopped or choice["finish_reason"] is not None
            text = choice["delta"].get("content")
            if text:
                if text != f" {seen.tokens}":
                    seen.why = f"token {seen.tokens} is {text!r}"
                seen.tokens += 1
    if seen.why:
        return
    if error:
        clean = done or stopped or whole
        seen.result, seen.why = (LOST, "an error with a clean end") if clean else (BROKEN, "")
    elif whole and done and stopped and seen.tokens == seen.asked:
        seen.result = COMPLETE
    elif left and not whole:
        seen.result = LEFT
    else:
        seen.why = f"{seen.tokens} of {seen.asked} tokens, whole {whole}, done {done}, stop {stopped}, no error event"


@dataclass
class Crowd:
    """Many clients that ask one after the other until they are told to stop.

    Attributes:
        port: of the router.
        seed: of what they ask and when they leave.
        most_tokens: of one answer.
        token_seconds: pace of the engines, by which they decide when to leave.
        log: by number of the request.
    """

    port: int
    seed: int
    most_tokens: int
    token_seconds: float
    clock: Callable[[], float] = time.monotonic
    log: dict[int, Seen] = field(default_factory=dict)
    under_way: int = 0
    stopping: bool = False
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def run(self, clients: int, until: float) -> None:
        """Let so many ask until the clock says ``until``, and wait for all answers."""
        await asyncio.gather(*(self._customer(index, until) for index in range(clients)))

    async def _customer(self, index: int, until: float) -> None:
        rng = random.Random(f"{self.seed} {index}")  # noqa: S311 (repeatable)
        # Not all in the first instant.
        await asyncio.sleep(rng.random() * self.most_tokens * self.token_seconds / 2)
        connection: Connection | None = None
        while self.clock() < until and not self.stopping:
            if connection is None or not connection.open or rng.random() < 0.2:
                if connection is not None:
                    connection.transport.abort()
                connection = await self._connect()
            await self._one(connection, rng)
        if connection is not None:
            connection.transport.abort()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self.port))[1]

    async def _one(self, connection: Connection, rng: random.Random) -> None:
        number, asked = next(self._numbers), rng.randrange(1, self.most_tokens + 1)
        seen = self.log[number] = Seen(asked, rng.random() < 0.8)
        leaves = rng.random() < 0.08
        patience = 0.02 + rng.random() * asked * self.token_seconds if leaves else _MOST_SECONDS
        self.under_way += 1
        data = await connection.ask(_request(number, seen), patience)
        self.under_way -= 1
        judge(seen, data, whole=connection.whole, left=leaves and connection.open)
        if not connection.whole:
            connection.transport.abort()
            connection.open = False


def _request(number: int, seen: Seen) -> bytes:
    body = json.dumps(
        {
            "model": "auto",
            "messages": [{"role": "user", "content": f"Question {number}: count up from nought."}],
            "max_tokens": seen.asked,
            **({"stream": True} if seen.streamed else {}),
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: soak\r\nx-request-id: s{number}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
