"""The paths that the router answers, and what each is to the rest of the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto


class Shape(Enum):
    """How a route's bodies and streams look."""

    CHAT = auto()
    COMPLETION = auto()
    EMBEDDING = auto()
    RESPONSE = auto()
    MESSAGE = auto()
    MODELS = auto()
    OTHER = auto()
    HEALTH = auto()
    READY = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        name: for cache keys and views.
        methods: accepted ones; HEAD goes with GET, OPTIONS is always answered.
        shape: of bodies and streams.
        anthropic: its errors have Anthropic's shape.
        asks_usage: its streams carry usage only if ``stream_options`` ask for it.
    """

    name: str
    methods: tuple[bytes, ...]
    shape: Shape
    asks_usage: bool = False
    anthropic: bool = False

    @property
    def allow(self) -> bytes:
        """Value of the ``allow`` header."""
        extra = (b"HEAD", b"OPTIONS") if b"GET" in self.methods else (b"OPTIONS",)
        return b", ".join((*self.methods, *extra))


MESSAGES = b"/v1/messages"
"""Where Anthropic's routes begin."""

_EXACT = {
    b"/v1/chat/completions": Route("chat", (b"POST",), Shape.CHAT, asks_usage=True),
    b"/v1/completions": Route("completions", (b"POST",), Shape.COMPLETION, asks_usage=True),
    b"/v1/embeddings": Route("embeddings", (b"POST",), Shape.EMBEDDING),
    b"/v1/responses": Route("responses", (b"POST",), Shape.RESPONSE),
    b"/v1/messages": Route("messages", (b"POST",), Shape.MESSAGE, anthropic=True),
    b"/v1/messages/count_tokens": Route("count_tokens", (b"POST",), Shape.OTHER, anthropic=True),
    b"/v1/models": Route("models", (b"GET",), Shape.MODELS),
    b"/healthz": Route("healthz", (b"GET",), Shape.HEALTH),
    b"/readyz": Route("readyz", (b"GET",), Shape.READY),
}
_MODEL = Route("model", (b"GET",), Shape.MODELS)
_OTHER = Route("other", (b"POST", b"GET", b"DELETE"), Shape.OTHER)


_ODD = re.compile(rb"/\.{1,2}(?:/|$)|//|\\|%(?:2e|2f|5c|00)", re.IGNORECASE)
"""What an engine might read as another path than the router does, also once it is decoded."""


def find(path: bytes) -> Route | None:
    """The route of a path, None if there is none. What else lies under ``/v1/`` is passed through."""
    route = _EXACT.get(path)
    if route is not None:
        return route
    if not path.startswith(b"/v1/") or _ODD.search(path):
        return None
    return _MODEL if path.startswith(b"/v1/models/") else _OTHER
