"""Field-by-field comparison of an answer with a recorded one; what may differ is listed here and nowhere else."""

from __future__ import annotations

import json
import re
from typing import Any

from . import transcript

# Fields whose values depend on the run, the tokenizer or the model's (random) weights. Their type and null-ness must still agree.
VOLATILE = frozenset(
    (
        *("id", "created", "created_at", "system_fingerprint", "item_id"),  # identity and time
        *(
            "content",
            "text",
            "delta",
            "tokens",
            "token",
            "token_ids",
            "bytes",
            "token_logprobs",
            "text_offset",
            "decoded_token",
        ),
        *("logprob", "rank", "prompt"),  # what a random model says
        *(
            "prompt_tokens",
            "total_tokens",
            "input_tokens",
            "count",
            "original_input_tokens",
            "cached_tokens",
        ),  # tokenizer
        *("created_cache_tokens", "cache_write_tokens"),
        *("time_to_first_token_ms", "generation_time_ms", "queue_time_ms", "mean_itl_ms", "tokens_per_second"),
    )
)
# Objects whose keys are tokens or token ids, and lists whose length is a number of tokens.
KEYED_BY_TOKEN = frozenset(("top_logprobs", "prompt_logprobs"))
LENGTH_IN_TOKENS = frozenset(("tokens", "bytes"))
VOLATILE_HEADERS = frozenset(("date", "content-length"))


def differences(
    expected: Any, actual: Any, *, path: str = "", also_volatile: frozenset[str] = frozenset()
) -> list[str]:
    """What differs in structure (keys and their order, types, null-ness, lengths) or in a value that is not volatile."""
    key = re.sub(r"\[\d+\]$", "", path.rsplit(".", 1)[-1])
    if isinstance(expected, dict) and isinstance(actual, dict):
        if key in KEYED_BY_TOKEN:
            return []
        if list(expected) != list(actual):
            return [f"{path}: keys {list(expected)} != {list(actual)}"]
        return [
            found
            for name in expected
            for found in differences(expected[name], actual[name], path=f"{path}.{name}", also_volatile=also_volatile)
        ]
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual) and key not in LENGTH_IN_TOKENS:
            return [f"{path}: {len(expected)} entries != {len(actual)}"]
        return [
            found
            for at, (left, right) in enumerate(zip(expected, actual, strict=False))
            for found in differences(left, right, path=f"{path}[{at}]", also_volatile=also_volatile)
        ]
    if type(expected) is not type(actual):
        return [f"{path}: {type(expected).__name__} {expected!r} != {type(actual).__name__} {actual!r}"]
    if key in VOLATILE or key in also_volatile or expected == actual:
        return []
    return [f"{path}: {expected!r} != {actual!r}"]


def head_differences(
    expected: transcript.Answer, actual: transcript.Answer, *, sent_id: str | None = None
) -> list[str]:
    """Status line, header names with their order, and the values that do not depend on the run."""
    found = [] if expected.status_line == actual.status_line else [f"{expected.status_line} != {actual.status_line}"]
    names = [name for name, _ in expected.headers]
    if names != [name for name, _ in actual.headers]:
        return [*found, f"headers {names} != {[name for name, _ in actual.headers]}"]
    for (name, left), (_, right) in zip(expected.headers, actual.headers, strict=True):
        if name == "x-request-id" and sent_id is None:
            same = re.fullmatch(r"[0-9a-f]{32}", right) is not None
        elif name == "endpoint-load-metrics":
            same = re.sub(r"[\d.]+", "0", left) == re.sub(r"[\d.]+", "0", right)
        else:
            same = left == right or name in VOLATILE_HEADERS
        if not same:
            found.append(f"header {name}: {left!r} != {right!r}")
    return found


def kind_of(event: tuple[str | None, Any]) -> str:
    """Events of one kind carry text only; how many tokens share an event depends on timing."""
    name, data = event
    if name is not None or data == "[DONE]":
        return name or "[DONE]"
    if "error" in data:
        return "error"
    if not data["choices"]:
        return "usage"
    choice = data["choices"][0]
    if choice["finish_reason"] is not None:
        return "finish"
    return "role" if "role" in choice.get("delta", {}) else "delta"


def sequence(events: list[tuple[str | None, Any]]) -> list[str]:
    """The kinds of events in order; a run of one kind counts once, and plain deltas may all have joined the finish."""
    kinds: list[str] = []
    for event in events:
        kind = kind_of(event)
        if kind != "delta" and kinds[-1:] != [kind]:
            kinds.append(kind)
    return kinds


def completion_tokens(events: list[tuple[str | None, Any]]) -> list[int]:
    """The answer's length as the usage events report it (not those of continuous usage)."""
    return [data["usage"]["completion_tokens"] for event in events if kind_of(event) == "usage" for data in event[1:]]


def event_differences(
    expected: transcript.Answer, actual: transcript.Answer, *, also_volatile: frozenset[str]
) -> list[str]:
    """The sequence of kinds, the shape of the first event of each kind, and that every chunk is one whole event."""
    left, right = expected.events(), actual.events()
    found = [] if sequence(left) == sequence(right) else [f"events {sequence(left)} != {sequence(right)}"]
    firsts: dict[str, Any] = {}
    for event in left:
        firsts.setdefault(kind_of(event), event[1])
    for event in right:
        if (kind := kind_of(event)) in firsts:
            found += differences(
                firsts[kind],
                event[1],
                path=kind,
                also_volatile=also_volatile | {"completion_tokens", "sequence_number"},
            )
    counted = [completion_tokens(events) for events in (left, right)]
    if counted[0] != counted[1] and "completion_tokens" not in also_volatile:
        found.append(f"completion tokens {counted[0]} != {counted[1]}")
    for answer in (expected, actual):
        if any(chunk.count(b"\n\n") != 1 or not chunk.endswith(b"\n\n") for chunk in answer.chunks):
            found.append("a chunk is not exactly one event")
    return list(dict.fromkeys(found))


def all_differences(
    expected: transcript.Answer,
    actual: transcript.Answer,
    *,
    sent_id: str | None = None,
    also_volatile: frozenset[str] = frozenset(),
) -> list[str]:
    """Everything in which two answers differ and should not."""
    found = head_differences(expected, actual, sent_id=sent_id)
    if not actual.whole:
        found.append("the body did not end as promised")
    if expected.header("content-type") == "text/event-stream; charset=utf-8":
        return found + event_differences(expected, actual, also_volatile=also_volatile)
    if expected.body == b"" or actual.body == b"":
        return found + ([] if expected.body == actual.body else ["one body is empty"])
    if list(expected.json()) == list(actual.json()) and actual.body != compact(actual.body):
        found.append("the body is not spaced as the real one")
    return found + differences(expected.json(), actual.json(), also_volatile=also_volatile)


def compact(body: bytes) -> bytes:
    return json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()
