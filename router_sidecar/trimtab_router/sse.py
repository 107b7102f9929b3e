"""Server-sent events as bytes: where one ends, and what it carries. Source: the WHATWG HTML standard, section 9.2.

A stream may be cut at any byte, also between the two bytes of a line end.
"""

from __future__ import annotations

END = b"\n\n"
DONE = b"data: [DONE]\n\n"


class Splitter:
    """Cuts a byte stream into blocks of whole events; what is not yet whole waits.

    Line ends of CRLF or CR come out as LF, so that everything behind it knows one kind only.
    """

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The whole events at hand, each with its empty line; empty if none is complete."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
        if b"\r" in data:
            data = self._unify(data)
        if data.endswith(END):
            return data
        cut = data.rfind(END) + len(END)
        if cut < len(END):
            self.rest = data + self.rest
            return b""
        self.rest = data[cut:] + self.rest
        return data[:cut]

    def _unify(self, data: bytes) -> bytes:
        if data.endswith(b"\r"):
            # A line feed may follow in the next read, and would then be no empty line of its own.
            self.rest = b"\r"
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def events(block: bytes) -> list[bytes]:
    """The events of a block, without the empty lines between them."""
    return [event for event in block.split(END) if event.strip(b"\n")]


def data(event: bytes) -> bytes:
    """The data of one event: its ``data`` lines joined; empty for comments and other fields."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


def render(payload: bytes) -> bytes:
    """One event of a JSON payload."""
    return b"data: %b\n\n" % payload
