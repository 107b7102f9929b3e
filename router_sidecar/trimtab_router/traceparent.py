"""W3C trace context, level 2: which ``traceparent`` is one, and the one that comes after it. No I/O.

What is no valid one is not passed on, and its ``tracestate`` neither, as the recommendation says.
"""

from __future__ import annotations

import random
import re

import msgspec

HEADER = b"traceparent"
STATE = b"tracestate"

_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{1,100})?")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_SAMPLED = 1


class Parent(msgspec.Struct, frozen=True):
    """What a client says of the trace that its request belongs to.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: of the client, 16 hexadecimal digits.
        flags: as they came; the lowest bit says that the client records.
    """

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the client records, and so everybody behind it should."""
        return bool(self.flags & _SAMPLED)


def read(value: bytes) -> Parent | None:
    """Read a value of the header; None if it is none. Of versions to come only what version 00 has is read."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return Parent(trace.decode(), span.decode(), int(flags, 16))


class Span(msgspec.Struct, frozen=True):
    """One request's place in a trace that is exported.

    Attributes:
        trace_id, span_id: of the request itself.
        parent_id: of who asked; empty if the trace begins here.
    """

    trace_id: str
    span_id: str
    parent_id: str = ""

    @property
    def header(self) -> bytes:
        """For whom the router asks."""
        return f"00-{self.trace_id}-{self.span_id}-01".encode()


def follow(parent: Parent | None, rng: random.Random, *, ratio: float) -> Span | None:
    """The span of a request that is exported; None if it is not.

    Who has a parent does as the parent does; otherwise the ratio decides.

    Args:
        parent: as it came.
        rng: makes ids; they must only differ.
        ratio: of requests without a parent to export, in [0, 1].
    """
    if parent is not None:
        return Span(parent.trace_id, _id(rng, 64), parent.span_id) if parent.sampled else None
    return Span(_id(rng, 128), _id(rng, 64)) if rng.random() < ratio else None


def _id(rng: random.Random, bits: int) -> str:
    # All zeros is no id.
    return f"{rng.getrandbits(bits) or 1:0{bits // 4}x}"
