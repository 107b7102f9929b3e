"""The memory store of cached answers: bounded by entries and by bytes, oldest use out first, dead after their time.

Answers are kept in a neutral form, the text alone, and rendered anew as a stream or as JSON: a stored stream
must not be replayed to a client that asked for JSON, nor stored headers, ids or usage to anybody.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from trimtab_router import answers, routes, sse

_OVERHEAD_BYTES = 400
"""Rough size of an entry beside its text."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One complete answer.

    Attributes:
        text: of its only choice.
        model, tier: who gave it.
        cost_usd, baseline_usd: what it cost, and would have cost on the baseline tier.
        expires_at: monotonic seconds.
    """

    text: str
    model: str
    tier: str
    cost_usd: float
    baseline_usd: float
    expires_at: float

    @property
    def size(self) -> int:
        """Bytes that it holds, roughly."""
        return len(self.text) + _OVERHEAD_BYTES


class MemoryStore:
    """Answers of one router process.

    Args:
        max_bytes: of all entries together.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Stored] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes, now: float) -> Stored | None:
        """The answer of a key if it is there and alive."""
        stored = self._entries.get(key)
        if stored is None:
            return None
        if stored.expires_at <= now:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return stored

    def put(self, key: bytes, stored: Stored, max_entries: int) -> None:
        """Keep an answer; the ones unused for longest make room."""
        if key in self._entries:
            self._remove(key)
        self._entries[key] = stored
        self._bytes += stored.size
        while self._entries and (len(self._entries) > max_entries or self._bytes > self._max_bytes):
            self._remove(next(iter(self._entries)))

    def _remove(self, key: bytes) -> None:
        self._bytes -= self._entries.pop(key).size

    def __len__(self) -> int:
        return len(self._entries)


def text_of_answer(body: bytes) -> tuple[str, bool]:
    """Text of an answer in one piece, and whether it is one that may not be stored (refusal or tool call)."""
    answer = answers.chunk.decode(body)
    if len(answer.choices) != 1:
        return "", True
    choice = answer.choices[0]
    if choice.message is None:
        return choice.text or "", False
    return choice.message.content or "", _is_more_than_text(choice.message)


def text_of_stream(blocks: list[bytes]) -> tuple[str, bool]:
    """The same of a stream as it was relayed."""
    texts: list[str] = []
    more = False
    for event in sse.events(b"".join(blocks)):
        payload = sse.data(event)
        if not payload or payload == b"[DONE]":
            continue
        for choice in answers.chunk.decode(payload).choices:
            more = more or choice.index != 0
            if choice.delta is not None:
                more = more or _is_more_than_text(choice.delta)
                texts.append(choice.delta.content or "")
            else:
                texts.append(choice.text or "")
    return "".join(texts), more


def _is_more_than_text(body: answers.Body) -> bool:
    """Refusals, tool calls and reasoning are not stored: the neutral form has the text alone."""
    return body.refusal is not None or bool(
        answers.is_filled(body.tool_calls)
        or answers.is_filled(body.function_call)
        or body.reasoning
        or body.reasoning_content
    )


_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
"""A hit used no tokens; clients that add up usage must not pay twice."""

_PREFIX = {routes.Shape.CHAT: "chatcmpl", routes.Shape.COMPLETION: "cmpl"}


def render_answer(stored: Stored, shape: routes.Shape, *, request_id: str, created: int) -> bytes:
    """A stored answer as JSON."""
    chat = shape is routes.Shape.CHAT
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    if chat:
        choice["message"] = {"role": "assistant", "content": stored.text, "refusal": None}
    else:
        choice["text"] = stored.text
    return msgspec.json.encode(
        {
            "id": f"{_PREFIX[shape]}-{request_id}",
            "object": "chat.completion" if chat else "text_completion",
            "created": created,
            "model": stored.model,
            "choices": [choice],
            "usage": _USAGE,
        }
    )


def render_stream(stored: Stored, shape: routes.Shape, *, request_id: str, created: int, show_usage: bool) -> bytes:
    """A stored answer as a stream: role, text, end, usage if it was asked for, ``[DONE]``."""
    chat = shape is routes.Shape.CHAT
    head = {
        "id": f"{_PREFIX[shape]}-{request_id}",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": created,
        "model": stored.model,
    }

    def chunk(choices: list[dict[str, Any]], **more: object) -> bytes:
        return sse.render(msgspec.json.encode({**head, "choices": choices, **more}))

    def choice(part: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
        body = {"delta": part} if chat else {"text": part.get("content", "")}
        return [{"index": 0, **body, "logprobs": None, "finish_reason": finish}]

    parts = [chunk(choice({"role": "assistant", "content": ""}))] if chat else []
    parts += [chunk(choice({"content": stored.text})), chunk(choice({}, "stop"))]
    if show_usage:
        parts.append(chunk([], usage={**_USAGE, "cost_usd": 0.0}))
    return b"".join((*parts, sse.DONE))
