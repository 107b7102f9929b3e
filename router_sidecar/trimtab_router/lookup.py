"""The exact cache's part in one request: may it be looked up, under which key, and may the answer be stored."""

from __future__ import annotations

import msgspec
from trimtab_core.caching import canonical, guard, scope
from trimtab_core.routing import table

from trimtab_router import admission, cache_store, errors, heads, openai, relay, routes
from trimtab_router.request import Request

_SHAPES = (routes.Shape.CHAT, routes.Shape.COMPLETION)
_CONTROL = b"x-trimtab-cache-control"
_CONTROLS = (b"no-cache", b"no-store")


class Lookup(msgspec.Struct, frozen=True):
    """What the cache may do for a request.

    Attributes:
        key: of its answer; empty if the request goes around the cache.
        reads, stores: whether an answer may be taken from the cache, and put there.
    """

    key: bytes = b""
    reads: bool = False
    stores: bool = False


BYPASS = Lookup()


def prepare(cache: table.Cache, request: Request, route: routes.Route, admitted: admission.Admission) -> Lookup:
    """Decide on one request.

    Raises:
        errors.BadHeader: if the client's cache control is none.
    """
    control = request.headers.get(_CONTROL, b"").lower()
    if control and control not in _CONTROLS:
        raise errors.BadHeader("X-Trimtab-Cache-Control must be no-cache or no-store", param=_CONTROL.decode())
    if route.shape not in _SHAPES or control == b"no-store":
        return BYPASS
    body = openai.decode(request.body)
    if guard.bypass_reason(cache, body, sensitive=admitted.sensitive):
        return BYPASS
    key = scope.key(
        cache,
        tenant=admitted.tenant,
        route=route.name,
        allow=admitted.class_.allowed,
        canonical_body=canonical.canonical(body),
    )
    return Lookup(key, reads=control != b"no-cache", stores=True)


def text_to_store(cache: table.Cache, answer: relay.Relay) -> str:
    """The text of a finished answer if it may be stored, else an empty one."""
    if answer.failure or not answer.ended:
        return ""
    try:
        if isinstance(answer, relay.WholeRelay):
            text, more = cache_store.text_of_answer(answer.body)
        else:
            text, more = cache_store.text_of_stream(answer.kept or [])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    skipped = guard.skip_reason(cache, finish_reason=answer.finish_reason, text=text, refusal=more)
    return "" if skipped else text


def answer(
    stored: cache_store.Stored,
    shape: routes.Shape,
    admitted: admission.Admission,
    *,
    request_id: str,
    created: int,
    close: bool,
) -> bytes:
    """A hit as the client asked for it, as a stream or as JSON, whatever form it was made in; head and body."""
    envelope = admitted.envelope
    if envelope.stream:
        options = envelope.stream_options
        show = options is not None and bool(options.include_usage)
        kind = heads.EVENTS
        body = cache_store.render_stream(stored, shape, request_id=request_id, created=created, show_usage=show)
    else:
        kind = heads.JSON
        body = cache_store.render_answer(stored, shape, request_id=request_id, created=created)
    served = heads.served(
        request_id=request_id,
        model=stored.model,
        tier=stored.tier,
        class_=admitted.class_.spec.name,
        cache="hit",
        attempts=0,
        cost_usd=0.0,
    )
    return heads.answer(200, kind, extra=served, length=len(body), close=close) + body
