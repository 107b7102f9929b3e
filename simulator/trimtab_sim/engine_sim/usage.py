"""The `usage` objects and timings of the OpenAI routes, whose fields differ by route and by streaming. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from trimtab_sim.engine_sim import engine, protocol, scheduler


@dataclasses.dataclass(frozen=True, slots=True)
class StreamUsage:
    """Which usage a stream carries: in a last event, and on every event."""

    final: bool
    continuous: bool


def stream_usage(fields: protocol.Fields, *, stream: bool, forced: bool) -> StreamUsage:
    """
    Read `stream_options`; `forced` is the server's own wish for usage.

    Raises:
        protocol.ApiError: There are stream options and no stream.

    """
    options = fields.mapping("stream_options")
    if options is not None and not stream:
        raise protocol.ApiError(
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)", param="stream_options"
        )
    final = forced or bool(options and options.get("include_usage"))
    return StreamUsage(final=final, continuous=final and bool(options and options.get("continuous_usage_stats")))


def prompt_tokens(ticket: engine.Ticket) -> int:
    """Return the prompt tokens of a request; those of a prompt count once for all its choices."""
    return sum(len(sequence.prompt) for sequence in ticket.sequences[:: max(1, ticket.choices)])


def completion_tokens(ticket: engine.Ticket) -> int:
    """Return the tokens generated so far."""
    return sum(sequence.generated for sequence in ticket.sequences)


def _counts(ticket: engine.Ticket) -> dict[str, Any]:
    prompt, completion = prompt_tokens(ticket), completion_tokens(ticket)
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def _cached(ticket: engine.Ticket) -> int:
    return ticket.sequences[0].cached


def whole(ticket: engine.Ticket, *, details: bool, chat: bool) -> dict[str, Any]:
    """Return the usage of a plain answer; completions do not report created cache tokens."""
    parts = None
    if details:
        created = ticket.sequences[0].created if chat else None
        parts = {"cached_tokens": _cached(ticket), "created_cache_tokens": created, "multimodal_tokens": None}
    return {**_counts(ticket), "prompt_tokens_details": parts, "completion_tokens_details": None}


def last(ticket: engine.Ticket, *, details: bool, chat: bool) -> dict[str, Any]:
    """Return the usage of a stream's last event, where nulls are left out."""
    usage = _counts(ticket)
    if details:
        usage["prompt_tokens_details"] = {"cached_tokens": _cached(ticket)}
        if chat:
            usage["prompt_tokens_details"]["created_cache_tokens"] = ticket.sequences[0].created
    return usage


def running(prompt: int, completion: int, *, chat: bool) -> bytes:
    """Return `,"usage":{…}` as continuous usage puts it on each event."""
    extra = b"" if chat else b',"prompt_tokens_details":null'
    return (
        b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d%b,"completion_tokens_details":null}'
        % (
            prompt,
            prompt + completion,
            completion,
            extra,
        )
    )


def timings(sequence: scheduler.Sequence) -> dict[str, Any]:
    """Return the per-request metrics of a finished sequence, milliseconds."""
    first = sequence.last_token if sequence.first_token is None else sequence.first_token
    scheduled = sequence.arrived if sequence.scheduled is None else sequence.scheduled
    to_first, generating = first - sequence.arrived, sequence.last_token - first
    gaps, total = sequence.generated - 1, to_first + generating
    return {
        "time_to_first_token_ms": to_first * 1000,
        "generation_time_ms": generating * 1000,
        "queue_time_ms": (scheduled - sequence.arrived) * 1000,
        "mean_itl_ms": generating * 1000 / gaps if gaps > 0 else None,
        "tokens_per_second": sequence.generated / total if total > 0 else None,
    }
