"""A load of fixed requests at a fixed rate, on uvloop; every answer is checked to be complete."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

_MOST_SECONDS = 30
PROMPT = (
    "Explain in a few sentences how a heat pump moves heat from a cold place to a warm one, why that does not break "
    "the second law of thermodynamics, and what its coefficient of performance means for a house in winter. "
)


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes:
        name: for the table.
        request: as bytes.
        streamed: the answer ends with the last chunk, else by its content-length.
    """

    name: str
    request: bytes
    streamed: bool


def request(name: str, *, stream: bool = False, user: str = "", class_: str = "", agent_bytes: int = 0) -> Kind:
    """A chat request of about 0.7 KB.

    Args:
        name: for the table.
        stream: ask for a stream.
        user: what tells the engine how to stream: ``paced`` or ``idle``.
        class_: name the class in a header, so that the router need not classify.
        agent_bytes: so many bytes of tools and of turns before the question, as coding agents send them.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT * 2}]
    body: dict[str, Any] = {"model": "auto", "messages": messages, "temperature": 0.7}
    if agent_bytes:
        body |= {"messages": _turns(agent_bytes * 3 // 4) + messages, "tools": _tools(agent_bytes // 4)}
    if stream:
        body |= {"stream": True}
    if user:
        body |= {"user": user}
    data = json.dumps(body, separators=(",", ":")).encode()
    header = f"x-trimtab-class: {class_}\r\n" if class_ else ""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: application/json\r\n"
        f"authorization: Bearer sk-bench\r\n{header}content-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return Kind(name, head.encode() + data, stream)


def _turns(size: int) -> list[dict[str, Any]]:
    """Turns of an agent: a call of a tool and the file that it read, again and again."""
    lines = "".join(
        f"def step_{number}(self, value: int) -> int:\n    return value * {number}\n" for number in range(60)
    )
    call = {"id": "call_0", "type": "function", "function": {"name": "read", "arguments": '{"path": "src/a.py"}'}}
    turn: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": lines},
    ]
    return turn * max(1, size // len(json.dumps(turn)))


def _tools(size: int) -> list[dict[str, Any]]:
    """Tools with schemas."""
    property_ = {"type": "string", "description": PROMPT[:120]}
    function = {
        "name": "edit",
        "description": PROMPT,
        "parameters": {"type": "object", "properties": {f"part_{number}": property_ for number in range(6)}},
    }
    tool = {"type": "function", "function": function}
    return [tool] * max(1, size // len(json.dumps(tool)))


class Caller(asyncio.Protocol):
    """One connection that asks whenever its run tells it to."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.buffer = b""
        self.need = -1
        self.asked_at = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self.transport = transport  # type: ignore[assignment]
        self.run.free.append(self)

    def ask(self) -> None:
        """Send one request."""
        assert self.transport is not None
        self.buffer, self.need = b"", -1
        self.asked_at = time.perf_counter()
        self.transport.write(self.run.kind.request)

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the answer."""
        if self.run.holds:
            self.run.held.add(self)
            if len(self.run.held) == self.run.requests:
                self.run.over.set()
        elif self.run.kind.streamed:
            self.buffer = (self.buffer + data)[-64:] if len(data) < 64 else data[-64:]
            if self.buffer.endswith(b"0\r\n\r\n"):
                self.run.answered(self, ok=b"[DONE]" in self.buffer)
        else:
            self._collect(data)

    def _collect(self, data: bytes) -> None:
        """An answer of known length."""
        self.buffer += data
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            self.need = end + 4 + int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self.buffer) >= self.need:
            self.run.answered(self, ok=self.buffer.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, exc: Exception | None) -> None:
        """No connection may end before the run does."""
        del exc
        self.run.lost()


class Run:
    """A fixed number of requests over a fixed number of connections, at a fixed rate or as fast as they go."""

    def __init__(self, kind: Kind, requests: int, rate: float | None, *, holds: bool = False) -> None:
        self.kind = kind
        self.requests = requests
        self.rate = rate
        self.holds = holds
        self.held: set[Caller] = set()
        self.seconds: list[float] = []
        self.free: list[Caller] = []
        self.sent = self.good = self.bad = 0
        self.over = asyncio.Event()

    async def pace(self) -> None:
        """Send what is due each millisecond; what finds no free connection waits for one."""
        began = time.perf_counter()
        if self.rate is None:
            while self.free and self.sent < self.requests:
                self._send(self.free.pop())
            return
        while self.sent < self.requests and not self.over.is_set():
            due = min(self.requests, int((time.perf_counter() - began) * self.rate) + 1)
            while self.sent < due and self.free:
                self._send(self.free.pop())
            await asyncio.sleep(0.001)

    def answered(self, caller: Caller, *, ok: bool) -> None:
        """Count an answer; its connection is free again."""
        self.seconds.append(time.perf_counter() - caller.asked_at)
        self.good += ok
        self.bad += not ok
        if self.rate is None and self.sent < self.requests:
            self._send(caller)
        else:
            self.free.append(caller)
        if self.good + self.bad == self.requests:
            self.over.set()

    def _send(self, caller: Caller) -> None:
        self.sent += 1
        caller.ask()

    def lost(self) -> None:
        """A connection ended, which is a failure unless all is answered."""
        if not self.over.is_set():
            self.bad += 1
            self.over.set()


async def _run(port: int, run: Run, connections: int, meanwhile: Callable[[], float] | None) -> float:
    loop = asyncio.get_running_loop()
    # One by one: a thousand at once would wait for each other's handshakes.
    opened = [await loop.create_connection(lambda: Caller(run), "127.0.0.1", port) for _ in range(connections)]
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            await run.pace()
            await run.over.wait()
    except TimeoutError:
        raise SystemExit(f"{run.kind.name}: {run.good} of {run.requests} answered by port {port} in time") from None
    seen = 0.0
    if meanwhile is not None:
        await asyncio.sleep(1.0)
        seen = meanwhile()
    for transport, _ in opened:
        transport.abort()
    return seen


def drive(port: int, kind: Kind, *, requests: int, connections: int, rate: float | None) -> list[float]:
    """Send all requests, ``rate`` a second, or as fast as they are answered if it is None.

    Ends the program if an answer is not complete and good. Returns the seconds that each took.
    """
    run = Run(kind, requests, rate)
    uvloop.run(_run(port, run, connections, None))
    if run.bad or run.good != requests:
        raise SystemExit(f"{kind.name}: {run.bad} of {requests} answers were bad, {run.good} good")
    return run.seconds


def hold(port: int, kind: Kind, *, streams: int, read: Callable[[], float]) -> float:
    """Open so many streams that don't end, and return what ``read`` says once all have begun."""
    run = Run(kind, streams, None, holds=True)
    seen = uvloop.run(_run(port, run, streams, read))
    if run.bad:
        raise SystemExit(f"{kind.name}: a stream broke")
    return seen
