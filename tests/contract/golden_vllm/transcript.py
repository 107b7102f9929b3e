"""A recorded exchange: what was sent, what came back. Reads the `.txt` files beside it and speaks the same form over a socket."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import socket
from typing import Any

FOLDER = pathlib.Path(__file__).parent
_SENTENCE = "a router sends each request to the cheapest model that can answer it in time"


def _chat(content: str, **fields: Any) -> str:
    return json.dumps(
        {
            "model": "small",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 8,
            "temperature": 0,
            **fields,
        }
    )


_STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
# Bodies that the recorder cut short, made again; each has the length that the transcript's Content-Length says.
CUT_BODIES = {
    "18a-cache-first": _chat(" ".join([_SENTENCE] * 12)),
    "18b-cache-second": _chat(" ".join([_SENTENCE] * 12)),
    "18c-cache-second-stream": _chat(" ".join([_SENTENCE] * 12), **{"max_tokens": 2, **_STREAMED}),
    "18d-cache-salt": _chat(" ".join([_SENTENCE] * 12), cache_salt="tenant-b"),
    "e-too-long": _chat(" ".join(["seven"] * 1500)),
    "e-too-long-stream": _chat(" ".join(["seven"] * 1500), stream=True),
}


@dataclasses.dataclass(frozen=True)
class Answer:
    status_line: str
    headers: list[tuple[str, str]]
    chunks: list[bytes]  # the body as framed on the wire; one entry if it was not chunked
    whole: bool = True  # the body ended as its framing promises

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def status(self) -> int:
        return int(self.status_line.split()[1])

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[str | None, Any]]:
        """Server-sent events as (name, data); data is parsed JSON, or the text `[DONE]`."""
        found = []
        for block in self.body.decode().split("\n\n"):
            if block.strip():
                lines = dict(line.split(": ", 1) for line in block.strip().split("\n"))
                data = lines["data"]
                found.append((lines.get("event"), data if data == "[DONE]" else json.loads(data)))
        return found


@dataclasses.dataclass(frozen=True)
class Transcript:
    name: str
    request: bytes
    answer: Answer | None  # None where the request timed out


def _parse_answer(lines: list[str]) -> Answer | None:
    if "<<TIMEOUT>>" in lines:
        return None
    blank = lines.index("")
    headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines[1:blank])]
    text = "\n".join(lines[blank + 1 :])
    if ("transfer-encoding", "chunked") not in headers:
        length = int(dict(headers)["content-length"])
        body = text.encode()[:length] if length else b""
        return Answer(lines[0], headers, [body] if body else [])
    return Answer(lines[0], headers, _parse_chunks(text.encode()))


def _parse_chunks(raw: bytes) -> list[bytes]:
    chunks = []
    while match := re.match(rb"([0-9a-f]+)\n", raw):
        size = int(match[1], 16)
        chunks.append(raw[match.end() : match.end() + size])
        raw = raw[match.end() + size + 1 :]
        if size == 0:
            break
    return [chunk for chunk in chunks if chunk]


def read(name: str) -> Transcript:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    asked, answered = text.split("\n# ---- response", 1)
    head, _, body = asked.split("# ---- request\n", 1)[1].partition("\n\n")
    body = CUT_BODIES.get(name, body)
    length = re.search(r"Content-Length: (\d+)", head)
    assert len(body.encode()) >= (int(length[1]) if length else 0), "the recorder cut this body"
    raw = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body.encode()[: int(length[1]) if length else 0]
    return Transcript(name, raw, _parse_answer(answered.split("\n")[1:]))


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def exchange(port: int, request: bytes, *, timeout: float = 20.0) -> Answer:
    """Send raw request bytes (they ask to close) and read the answer to its end; TimeoutError if it does not come."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return parse_raw(b"".join(parts))


def parse_raw(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines[1:])]
    if ("transfer-encoding", "chunked") not in headers:
        promised = int(dict(headers).get("content-length", "0"))
        return Answer(lines[0], headers, [body] if body else [], whole=len(body) == promised)
    chunks = []
    while match := re.match(rb"([0-9a-f]+)\r\n", body):
        size = int(match[1], 16)
        chunks.append(body[match.end() : match.end() + size])
        body = body[match.end() + size + 2 :]
        if size == 0:
            break
    return Answer(lines[0], headers, [chunk for chunk in chunks if chunk], whole=bool(chunks) and chunks[-1] == b"")
