"""A proxy as many are written: an ASGI app on uvicorn that asks by aiohttp. Reads ``$UPSTREAM``, a URL.

It does what every router must at least: read the model, choose, replace the model, relay, and stop the engine when
its client leaves. It counts nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_KEPT = ("content-type", "content-length")
_session: aiohttp.ClientSession | None = None


def _open() -> aiohttp.ClientSession:
    global _session  # noqa: PLW0603 (one for the process, made inside its loop)
    if _session is None:
        _session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
    return _session


async def _read(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _relay(path: str, body: bytes, send: Send) -> None:
    asked = json.loads(body)
    asked["model"] = "small"
    headers = {"content-type": "application/json", "authorization": "Bearer sk-engine"}
    data = json.dumps(asked, separators=(",", ":")).encode()
    async with _open().post(os.environ["UPSTREAM"] + path, data=data, headers=headers) as answer:
        kept = [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]
        kept = [each for each in kept if each[0].decode() in _KEPT]
        await send({"type": "http.response.start", "status": answer.status, "headers": kept})
        async for data in answer.content.iter_any():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Relay one request."""
    if scope["type"] != "http":
        return
    body = await _read(receive)
    work = asyncio.ensure_future(_relay(scope["path"], body, send))
    gone = asyncio.ensure_future(receive())
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        gone.cancel()
        await work
    else:
        work.cancel()
