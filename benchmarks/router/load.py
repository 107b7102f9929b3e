"""A closed-loop load of fixed requests, on uvloop; every answer is checked to be complete."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import uvloop

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


def request(name: str, *, stream: bool = False, paced: bool = False, class_: str = "") -> Kind:
    """A chat request of about 0.7 KB.

    Args:
        name: for the table.
        stream: ask for a stream.
        paced: have the engine send a chunk each 5 ms.
        class_: name the class in a header, so that the router need not classify.
    """
    body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT * 2}], "temperature": 0.7}
    if stream:
        body |= {"stream": True}
    if paced:
        body |= {"user": "paced"}
    data = json.dumps(body, separators=(",", ":")).encode()
    header = f"x-trimtab-class: {class_}\r\n" if class_ else ""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: application/json\r\n"
        f"authorization: Bearer sk-bench\r\n{header}content-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return Kind(name, head.encode() + data, stream)


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.buffer = b""
        self.need = -1
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        """Send the next request, if one is left."""
        assert self.transport is not None
        self.buffer, self.need = b"", -1
        if self.run.take():
            self.transport.write(self.run.kind.request)
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the answer."""
        if self.run.kind.streamed:
            self.buffer = (self.buffer + data)[-64:] if len(data) < 64 else data[-64:]
            if self.buffer.endswith(b"0\r\n\r\n"):
                self.run.answered(ok=b"[DONE]" in self.buffer)
                self.ask()
            return
        self.buffer += data
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            self.need = end + 4 + int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self.buffer) >= self.need:
            self.run.answered(ok=self.buffer.startswith(b"HTTP/1.1 200"))
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self.run.left(exc)


class Run:
    """A fixed number of requests over a fixed number of connections."""

    def __init__(self, kind: Kind, requests: int, connections: int) -> None:
        self.kind = kind
        self.todo = requests
        self.good = self.bad = 0
        self.open = connections
        self.over = asyncio.Event()

    def take(self) -> bool:
        """Whether one more request is to be sent."""
        self.todo -= 1
        return self.todo >= 0

    def answered(self, *, ok: bool) -> None:
        """Count an answer."""
        self.good += ok
        self.bad += not ok

    def left(self, exc: Exception | None) -> None:
        """A connection ended."""
        self.bad += exc is not None
        self.open -= 1
        if self.open == 0:
            self.over.set()


async def _run(port: int, kind: Kind, requests: int, connections: int) -> tuple[float, int]:
    run = Run(kind, requests, connections)
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.create_connection(lambda: Caller(run), "127.0.0.1", port) for _ in range(connections)))
    async with asyncio.timeout(60):
        await run.over.wait()
    if run.bad or run.good != requests:
        raise SystemExit(f"{kind.name}: {run.bad} of {requests} answers were bad, {run.good} good")
    return time.perf_counter() - began, run.good


def drive(port: int, kind: Kind, *, requests: int, connections: int) -> float:
    """Send all requests; returns seconds. Ends the program if an answer is not complete and good."""
    return uvloop.run(_run(port, kind, requests, connections))[0]
