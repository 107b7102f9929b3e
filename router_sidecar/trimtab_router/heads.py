"""HTTP/1.1 heads as bytes: the answers' to clients and the requests' to engines. Knows no policy."""

from __future__ import annotations

import http

from trimtab_router import traceparent

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"
LAST_CHUNK = b"0\r\n\r\n"

FORWARDED = (
    traceparent.HEADER, traceparent.STATE, b"openai-beta", b"accept-language", b"anthropic-version", b"anthropic-beta",
)  # fmt: skip
"""Client headers that engines get; all others stay here, above all cookies, keys and X-Trimtab-*. The first two go
only together with a valid trace."""
_FORWARDED = frozenset(FORWARDED)


def status_line(status: int) -> bytes:
    """The first line of an answer."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


def answer(
    status: int,
    content_type: bytes,
    *,
    extra: bytes = b"",
    length: int | None = None,
    chunked: bool = False,
    close: bool = False,
) -> bytes:
    """The head of an answer.

    Args:
        status: HTTP status.
        content_type: value of the header of that name; empty for none.
        extra: further header lines, each with its line end.
        length: of the body, if it is known.
        chunked: the body comes in chunks. With neither, there is none, or the connection's end ends it.
        close: tell the client that the connection ends with this answer.
    """
    kind = b"content-type: %b\r\n" % content_type if content_type else b""
    framing = b"transfer-encoding: chunked\r\n" if chunked else b""
    if length is not None:
        framing = b"content-length: %d\r\n" % length
    end = b"connection: close\r\n\r\n" if close else b"\r\n"
    return b"".join((status_line(status), kind, framing, extra, end))


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def is_token(value: bytes, limit: int = 128) -> bool:
    """Whether a header value is short and of visible ASCII only, so that it may be passed on or logged."""
    return 0 < len(value) <= limit and value.isascii() and value.decode().isprintable() and b" " not in value


def served(
    *, request_id: str, model: str, tier: str, class_: str, cache: str, attempts: int, cost_usd: float | None
) -> bytes:
    """Header lines that say how a request was served; the cost only where it is known before the body."""
    cost = "" if cost_usd is None else f"x-trimtab-cost-usd: {cost_usd:.10g}\r\n"
    text = (
        f"x-request-id: {request_id}\r\nx-trimtab-model: {model}\r\nx-trimtab-tier: {tier}\r\n"
        f"x-trimtab-class: {class_}\r\nx-trimtab-cache: {cache}\r\nx-trimtab-attempts: {attempts}\r\n{cost}"
    )
    return text.encode()


def forwarded(headers: dict[bytes, bytes]) -> bytes:
    """Header lines of those client headers that engines get."""
    if _FORWARDED.isdisjoint(headers):
        return b""
    names: tuple[bytes, ...] = FORWARDED
    given = headers.get(traceparent.HEADER)
    if given is None or traceparent.read(given) is None:
        names = FORWARDED[2:]
    return b"".join([b"%b: %b\r\n" % (name, headers[name]) for name in names if name in headers])
