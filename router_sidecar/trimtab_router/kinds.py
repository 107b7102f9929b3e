"""Which relay an answer gets: by its route and by what the engine says it is."""

from __future__ import annotations

from trimtab_core.routing import table

from trimtab_router import answers, billing, heads, messages, openai, relay, routes, settings, streams

_STORED_PER_TEXT = 16
"""Bytes of a stream that may be kept for each byte of text that the cache takes: chunks are mostly not text."""


def choose(
    content_type: bytes,
    route: routes.Route,
    *,
    envelope: openai.Envelope,
    rates: table.Rates,
    limits: settings.Limits,
    cache: table.Cache | None,
    own: bool = True,
) -> relay.Relay:
    """A relay for a good answer.

    Args:
        content_type: of the answer.
        route: of the request; routes passed through are not judged by OpenAI's shapes.
        envelope: of the request; says whether its client wants to see usage.
        rates: prices of the tier, for the usage that the client sees.
        limits: bounds on what is held.
        cache: that may store the answer; None if none may.
        own: the engine is one of our own, which are asked to count on every event.
    """
    shape, kind = route.shape, content_type.lower()
    if shape is routes.Shape.MESSAGE:
        if kind.startswith(b"text/event-stream"):
            return messages.MessageRelay(limits.event_bytes)
        return messages.WholeMessageRelay(limits.answer_bytes)
    if not kind.startswith(b"text/event-stream"):
        if shape is routes.Shape.OTHER and not kind.startswith(heads.JSON):
            return relay.OpaqueRelay()
        made = relay.WholeRelay(limits.answer_bytes, judged=shape is not routes.Shape.OTHER)
        if route.anthropic:
            made.usage = answers.Usage()  # tokens are counted there, and none are made
        return made
    if shape in (routes.Shape.CHAT, routes.Shape.COMPLETION):
        options = envelope.stream_options
        return streams.ChoiceRelay(
            limits.event_bytes,
            show_usage=options is not None and bool(options.include_usage),
            price=lambda usage: billing.usage_usd(rates, usage),
            keep_bytes=_STORED_PER_TEXT * cache.max_answer_bytes if cache is not None else 0,
            hides=own and not (options is not None and options.include_usage and options.continuous_usage_stats),
        )
    if shape is routes.Shape.RESPONSE:
        return streams.ResponseRelay(limits.event_bytes)
    return streams.EventRelay(limits.event_bytes)
