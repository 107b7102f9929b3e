"""Admission: who asks, for what, and which class that is. Decides and raises; sends nothing."""

from __future__ import annotations

import asyncio
import random
import re

import msgspec
from trimtab_core.routing import classes, classifier, features

from trimtab_router import compiled, errors, identity, openai, quotas, routes, sizes, traceparent
from trimtab_router.request import Request

_OWN = b"x-trimtab-"
_MAX_COST = b"x-trimtab-max-cost-usd"
_PRICE = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,12})?")
_CREDENTIALS = (b"authorization", b"x-api-key")
_TRUE = (b"true", b"1", b"yes")
_FALSE = (b"false", b"0", b"no", b"")
_SALTED = (routes.Shape.CHAT, routes.Shape.COMPLETION, routes.Shape.RESPONSE)
_BOUNDS = {
    routes.Shape.CHAT: b',"max_completion_tokens":%d',
    routes.Shape.COMPLETION: b',"max_tokens":%d',
    routes.Shape.RESPONSE: b',"max_output_tokens":%d',
}


class Admission(msgspec.Struct):
    """A request that may be served.

    Attributes:
        class_: its class.
        first: name of the tier that the weights give it to; None if no tier may serve it.
        envelope: what was read of the body; empty for bodies that are no JSON.
        rewrites: the body's model must be replaced for the engine.
        tenant, workflow, feature: empty if unknown.
        sensitive: marked, or found to be.
        score: complexity; None where nothing needed it.
        caller: with what it may use.
        size: tokens at most, where something needs to know.
        fits: names of the tiers that are sure to cost no more than the client allows; None if it allows anything.
        extra: fields that every engine is sent, as JSON with a comma before each.
        salt: the one that only our own engines are sent.
    """

    class_: compiled.Class
    first: str | None
    envelope: openai.Envelope
    rewrites: bool
    tenant: str
    workflow: str
    feature: str
    sensitive: bool
    score: float | None
    caller: identity.Caller = identity.NOBODY
    size: sizes.Size | None = None
    fits: frozenset[str] | None = None
    extra: bytes = b""
    salt: bytes = b""


def admit(
    table: compiled.Table,
    request: Request,
    route: routes.Route,
    rng: random.Random,
    *,
    transport: asyncio.BaseTransport | None = None,
) -> Admission:
    """Identify, check and classify a request.

    Args:
        table: in force.
        request: of the client.
        route: that it came by.
        rng: breaks ties of complexity.
        transport: of the client, whose address may have to be trusted.

    Raises:
        errors.RequestError: if the client can mend it.
        errors.Unavailable: if no class takes it.
    """
    headers = request.headers
    if request.repeated:
        _refuse_repeated(request.repeated)
        if traceparent.HEADER in request.repeated:
            # Which of them counts nobody can say.
            del headers[traceparent.HEADER]
    callers = table.callers
    caller = identity.NOBODY if callers is None else callers.identify(headers, transport)
    tenant = caller.name
    envelope, rewrites = _read_body(table, request, route)
    sensitive = _is_sensitive(table, request)
    traits = _Traits(table, request, tenant=tenant, model=envelope.model, sensitive=sensitive)
    class_ = _classify(table, traits)
    if not caller.rules:
        count_arrival(class_, request)
    first, intervals = None, class_.reach.intervals
    if intervals is not None:
        first = intervals.tiers[0]
        if class_.reach.needs_score:
            class_.complexity.observe(traits.complexity)
            first = intervals.owner(class_.ranks.rank(traits.complexity, rng))
    admitted = Admission(
        class_=class_,
        first=first,
        envelope=envelope,
        rewrites=rewrites,
        tenant=tenant,
        workflow=identity.name(headers, b"x-trimtab-workflow"),
        feature=identity.name(headers, b"x-trimtab-feature"),
        sensitive=sensitive,
        score=traits.known,
        caller=caller,
    )
    if callers is not None and caller is not identity.NOBODY:
        _bound(table, admitted, request, route)
    if _MAX_COST in headers:
        _keep_to_cost(admitted, request, route)
    return admitted


def count_arrival(class_: compiled.Class, request: Request) -> None:
    """Count a request as offered; one that a tenant's limit refuses is none that capacity should be bought for."""
    class_.arrivals.add(1)
    class_.squares.add(class_.windows.arrive(request.arrived_at))


def _bound(table: compiled.Table, admitted: Admission, request: Request, route: routes.Route) -> None:
    """What a known caller's request takes at most, and what keeps its prefix cache apart."""
    caller, envelope, callers = admitted.caller, admitted.envelope, table.callers
    assert callers is not None
    if caller.salt and route.shape in _SALTED:
        salt = caller.salt
        if envelope.cache_salt:
            salt = callers.salted(caller, bytes(envelope.cache_salt))
        admitted.salt = b',"cache_salt":"%b"' % salt
    if caller.rules:
        most = table.data.tenants.max_output_tokens
        if envelope.output_bound is None and most is not None and route.shape in _BOUNDS:
            admitted.extra = _BOUNDS[route.shape] % most
        admitted.size = _size(admitted, request, route, most=most)


def _size(admitted: Admission, request: Request, route: routes.Route, *, most: int | None = None) -> sizes.Size:
    """Tokens at most: of the prompt by its bytes, of the answer by the bound in force."""
    counts_only = route.anthropic and route.shape is routes.Shape.OTHER
    if not admitted.rewrites or counts_only:
        return sizes.Size(0, 0)
    if route.shape is routes.Shape.EMBEDDING:
        return admitted.class_.sizes.worst(len(request.body), bound=0)
    envelope = admitted.envelope
    answers = envelope.answers
    if route.shape is routes.Shape.COMPLETION:
        answers *= openai.prompts_in(request.body)
    bound = envelope.output_bound
    return admitted.class_.sizes.worst(len(request.body), bound=most if bound is None else bound, answers=answers)


def _keep_to_cost(admitted: Admission, request: Request, route: routes.Route) -> None:
    """Only tiers whose worst case is within what the client allows; the nearest to the one that was chosen.

    Raises:
        errors.BadHeader: if the header holds no amount.
        errors.TooDear: if no tier that may serve the request is.
    """
    value, first = request.headers[_MAX_COST], admitted.first
    if not _PRICE.fullmatch(value):
        raise errors.BadHeader("X-Trimtab-Max-Cost-Usd must be an amount such as 0.05", param=_MAX_COST.decode())
    if first is None:
        return
    admitted.size = size = admitted.size or _size(admitted, request, route)
    allowed = int(float(value) * quotas.NANO)
    order = admitted.class_.reach.order(first, closed=admitted.sensitive)
    costs = {
        tier.spec.name: quotas.worst(
            tier.spec.rates, input_tokens=size.input_tokens, output_tokens=size.output_tokens
        ).nano_usd
        for tier in order
    }
    admitted.fits = frozenset(name for name, cost in costs.items() if cost <= allowed)
    own = (tier.spec.name for tier in admitted.class_.reach.own[first])
    admitted.first = next((name for name in own if name in admitted.fits), None)
    if admitted.first is None:
        least = min(costs.values()) / quotas.NANO
        raise errors.TooDear(
            f"this request may cost {least:.6g} USD on the cheapest tier that may serve it; "
            "raise X-Trimtab-Max-Cost-Usd or lower max_tokens",
            param=_MAX_COST.decode(),
        )


class _Traits:
    """What classes look at in one request; its complexity is worked out once, and only if something asks for it."""

    __slots__ = ("_body", "_table", "headers", "known", "model", "sensitive", "tenant")

    def __init__(self, table: compiled.Table, request: Request, *, tenant: str, model: str, sensitive: bool) -> None:
        self._table, self._body = table, request.body
        self.headers, self.tenant, self.model, self.sensitive = request.headers, tenant, model, sensitive
        self.known: float | None = None

    @property
    def complexity(self) -> float:
        if self.known is None:
            text, turns = openai.last_text(self._body)
            values = features.extract(text, turns=turns, context_chars=len(self._body))
            self.known = classifier.score(self._table.scorer, values)
        return self.known


def _refuse_repeated(names: tuple[bytes, ...]) -> None:
    for name in names:
        if name.startswith(_OWN) or name in _CREDENTIALS:
            raise errors.BadHeader(f"the header {name.decode()} came more than once", param=name.decode())


def _read_body(table: compiled.Table, request: Request, route: routes.Route) -> tuple[openai.Envelope, bool]:
    """The envelope, and whether its model must be rewritten.

    On routes passed through, a body without a model (or that is no JSON) goes on as it is.
    """
    if route.shape is routes.Shape.OTHER:
        kind = request.headers.get(b"content-type", b"")
        if not request.body or not kind.startswith(b"application/json"):
            return openai.Envelope(), False
        envelope = openai.read(request.body)
        if not envelope.model:
            return envelope, False
    else:
        if not request.body:
            raise errors.Malformed("the body is empty; send JSON with at least a model")
        envelope = openai.read(request.body)
        if not envelope.model:
            raise errors.Malformed("you must provide a model parameter", param="model")
    if envelope.model not in table.models:
        known = ", ".join(sorted(table.models))
        raise errors.UnknownModel(
            f"The model `{envelope.model[:128]}` does not exist; this router answers {known}", param="model"
        )
    return envelope, True


def _is_sensitive(table: compiled.Table, request: Request) -> bool:
    flag = request.headers.get(b"x-trimtab-sensitive")
    if flag is not None:
        if flag.lower() in _TRUE:
            return True
        if flag.lower() not in _FALSE:
            raise errors.BadHeader("X-Trimtab-Sensitive must be true or false", param="x-trimtab-sensitive")
    # The header can only add: what the text itself gives away stays sensitive.
    if not table.watches_sensitive:
        return False
    body = request.body
    if b"\\u00" in body:
        # ASCII written as JSON escapes would hide from byte patterns.
        body = re.sub(rb"\\u00([2-7][0-9a-fA-F])", lambda match: bytes([int(match[1], 16)]), body)
    return bool(features.sensitive_mark(body))


def _classify(table: compiled.Table, traits: _Traits) -> compiled.Class:
    wanted = traits.headers.get(b"x-trimtab-class")
    chosen = _chosen(table, wanted, traits.tenant) if wanted is not None else None
    if chosen is not None and not traits.sensitive:
        return chosen
    found = classes.first(table.rules, traits)
    if chosen is not None and (found is None or not found.spec.match.sensitive):
        return chosen
    if found is None:
        raise errors.Unavailable("no class of the policy takes this request")
    # A sensitive request stays in its class, whatever class was asked for.
    return found


def _chosen(table: compiled.Table, wanted: bytes, tenant: str) -> compiled.Class:
    """The class that a header asks for; one that is kept for certain tenants is no choice for others."""
    class_ = table.by_name.get(wanted.decode("latin-1"))
    if class_ is None or (class_.spec.match.tenants and tenant not in class_.spec.match.tenants):
        known = ", ".join(each.spec.name for each in table.by_name.values() if not each.spec.match.tenants)
        raise errors.BadHeader(f"X-Trimtab-Class names no class that you may use: {known}", param="x-trimtab-class")
    return class_
