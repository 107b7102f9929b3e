"""What must not be cached: each rule names itself, and what no rule forbids may be stored or given again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab_core.routing import table

MAX_MESSAGES = 40
"""Longer conversations hardly repeat: not worth the memory."""

_DEFAULT_TEMPERATURE = 1.0
_SAMPLED = ("logprobs", "top_logprobs", "prompt_logprobs", "echo")
_TOOLS = ("tools", "functions", "tool_choice", "function_call")


def bypass_reason(cache: table.Cache, body: Mapping[str, Any], *, sensitive: bool) -> str:
    """Why a request goes around the cache, or an empty string if an answer may be looked up and stored.

    The rules: exact caching off; sensitive requests; sampling above the policy's temperature (1 when not
    given, as in OpenAI's API); more than one choice; fields whose result is not the text alone; tools;
    content other than text; very long conversations.
    """
    if not cache.exact:
        return "off"
    if sensitive:
        return "sensitive"
    temperature = body.get("temperature")
    if not isinstance(_DEFAULT_TEMPERATURE if temperature is None else temperature, (int, float)):
        return "temperature"
    if (_DEFAULT_TEMPERATURE if temperature is None else temperature) > cache.max_temperature:
        return "temperature"
    if body.get("n") not in (None, 1) or body.get("best_of") not in (None, 1):
        return "choices"
    if body.get("seed") is not None or any(body.get(name) not in (None, False, 0) for name in _SAMPLED):
        return "sampled"
    if any(body.get(name) for name in _TOOLS):
        return "tools"
    return _conversation_reason(body)


def _conversation_reason(body: Mapping[str, Any]) -> str:
    messages = body.get("messages")
    if messages is None:
        return "" if isinstance(body.get("prompt"), str) else "content"
    if not isinstance(messages, list) or len(messages) > MAX_MESSAGES:
        return "messages"
    for message in messages:
        if not isinstance(message, Mapping):
            return "messages"
        if message.get("role") in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
            return "tools"
        if not _is_text(message.get("content")):
            return "content"
    return ""


def _is_text(content: object) -> bool:
    if isinstance(content, str):
        return True
    if not isinstance(content, list):
        return False
    return all(isinstance(part, Mapping) and part.get("type") == "text" for part in content)


def skip_reason(cache: table.Cache, *, finish_reason: str, text: str, refusal: bool) -> str:
    """Why a complete answer is not stored, or an empty string if it may be.

    Only ``stop`` is the end of an answer: ``length``, ``content_filter``, ``abort`` and a stream without an
    end are parts of one.
    """
    if finish_reason != "stop":
        return "incomplete"
    if refusal:
        return "refusal"
    if not text:
        return "empty"
    if len(text.encode()) > cache.max_answer_bytes:
        return "too-long"
    return ""
