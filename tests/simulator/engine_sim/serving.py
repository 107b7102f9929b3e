"""A simulator in the test's own event loop, on a real loopback port, and a small HTTP client for it."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import dataclasses
import json
from typing import Any

from trimtab_sim.engine_sim import lifecycle, settings

CHAT = "/v1/chat/completions"


@dataclasses.dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    def json(self) -> Any:
        return json.loads(self.body)

    def data(self) -> list[str]:
        """The `data:` lines of an event stream."""
        return [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]

    def finish_reason(self) -> str:
        reason: str = self.json()["choices"][0]["finish_reason"]
        return reason


@dataclasses.dataclass
class Running:
    life: lifecycle.Life
    port: int

    async def open(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: sim",
            "Connection: close",
            f"Content-Length: {len(raw)}",
            "Content-Type: application/json",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
        return reader, writer

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        reader, writer = await self.open(method, path, body, **headers)
        try:
            return parse(await reader.read())
        finally:
            writer.close()

    async def chat(self, content: str = "hello", **fields: Any) -> Reply:
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "ignore_eos": True, **fields}
        return await self.call("POST", CHAT, {name: value for name, value in body.items() if value is not None})

    async def fault(self, kind: str, **fields: Any) -> None:
        assert (await self.call("POST", "/sim/faults", {"kind": kind, **fields})).status == 200

    def counted(self, name: str, label: str = "") -> float:
        return self.life.shared.engine.metrics._values[f"vllm:{name}", label].value

    async def until(self, condition: collections.abc.Callable[[], object]) -> None:
        while not condition():
            await asyncio.sleep(0.001)


def parse(raw: bytes) -> Reply:
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") != "chunked":
        return Reply(int(first.split()[1]), headers, rest, whole=len(rest) == int(headers.get("content-length", "0")))
    body, ended = b"", False
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest, ended = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :], int(size, 16) == 0
    return Reply(int(first.split()[1]), headers, body, whole=ended)


@contextlib.asynccontextmanager
async def serving(**fields: Any) -> collections.abc.AsyncIterator[Running]:
    """Serve with these settings (fast ones by default) until the block ends."""
    values = {
        "sim_itl_base_ms": 1.0,
        "sim_itl_per_seq_ms": 0.0,
        "sim_prefill_tokens_per_second": 1e6,
        "sim_control": True,
        **fields,
    }
    config = settings.Settings(host="127.0.0.1", port=0, **values)
    bound = lifecycle.bind(config)
    life = lifecycle.Life(config, bound)
    port = bound.getsockname()[1]
    task = asyncio.create_task(life.run())
    try:
        while not life._server.started:
            await asyncio.sleep(0.001)
        yield Running(life, port)
    finally:
        life.stop()
        await task
