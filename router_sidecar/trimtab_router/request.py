"""One request as the client's connection hands it over: complete, within limits, not yet understood."""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct):
    """A complete HTTP request.

    Attributes:
        method: such as ``POST``.
        path: without the query.
        query: what follows ``?``, empty if nothing does.
        headers: by lower-case name; of repeated ones the first.
        repeated: names that came more than once.
        body: the whole body.
        arrived_at: monotonic seconds when its first byte was read.
        keep_alive: the client lets the connection live on.
        chunks: the client understands chunked answers (HTTP/1.1).
    """

    arrived_at: float
    method: bytes = b""
    path: bytes = b""
    query: bytes = b""
    headers: dict[bytes, bytes] = {}
    repeated: tuple[bytes, ...] = ()
    body: bytes = b""
    keep_alive: bool = True
    chunks: bool = True
