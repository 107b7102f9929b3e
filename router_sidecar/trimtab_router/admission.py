"""Admission: who asks, for what, and which class that is. Decides and raises; sends nothing."""

from __future__ import annotations

import hashlib
import hmac
import random
import re

import msgspec
from trimtab_core.routing import classes, classifier, features

from trimtab_router import compiled, errors, openai, routes
from trimtab_router.request import Request

_OWN = b"x-trimtab-"
_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TRUE = (b"true", b"1", b"yes")
_FALSE = (b"false", b"0", b"no", b"")
_BEARER = b"bearer "


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


def admit(table: compiled.Table, request: Request, route: routes.Route, rng: random.Random) -> Admission:
    """Identify, check and classify a request.

    Raises:
        errors.RequestError: if the client can mend it.
        errors.Unavailable: if no class takes it.
    """
    headers = request.headers
    if request.repeated:
        _refuse_repeated(request.repeated)
    tenant = _tenant(table, headers)
    envelope, rewrites = _read_body(table, request, route)
    sensitive = _is_sensitive(table, request)
    traits = _Traits(table, request, tenant=tenant, model=envelope.model, sensitive=sensitive)
    class_ = _classify(table, traits)
    class_.arrivals.add(1)
    class_.squares.add(class_.windows.arrive(request.arrived_at))
    first, intervals = None, class_.reach.intervals
    if intervals is not None:
        first = intervals.tiers[0]
        if class_.reach.needs_score:
            class_.complexity.observe(traits.complexity)
            first = intervals.owner(class_.ranks.rank(traits.complexity, rng))
    return Admission(
        class_=class_,
        first=first,
        envelope=envelope,
        rewrites=rewrites,
        tenant=tenant,
        workflow=_name(headers, b"x-trimtab-workflow"),
        feature=_name(headers, b"x-trimtab-feature"),
        sensitive=sensitive,
        score=traits.known,
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
        if name.startswith(_OWN) or name == b"authorization":
            raise errors.BadHeader(f"the header {name.decode()} came more than once", param=name.decode())


def _tenant(table: compiled.Table, headers: dict[bytes, bytes]) -> str:
    """The caller, by API key or by the word of a trusted hop; empty if unknown and that is allowed."""
    rules = table.data.tenants
    credentials = headers.get(b"authorization", b"")
    if table.tenants and credentials[:7].lower() == _BEARER:
        digest = hashlib.sha256(credentials[7:].strip()).hexdigest()
        known = table.tenants.get(digest)
        # The look-up is by a hash of what the caller sent, so its time tells nothing of any key; the last word
        # is a comparison in constant time all the same.
        if known is not None and hmac.compare_digest(known.key_sha256.lower(), digest):
            return known.name
    if rules.trusted_header:
        trusted = _name(headers, b"x-trimtab-tenant")
        if trusted:
            return trusted
    if rules.required:
        problem = "the API key is not known" if credentials else "an API key is needed: Authorization: Bearer KEY"
        raise errors.Unauthorized(problem)
    return ""


def _name(headers: dict[bytes, bytes], header: bytes) -> str:
    value = headers.get(header)
    if value is None:
        return ""
    if not _NAME.fullmatch(value):
        raise errors.BadHeader(
            f"{header.decode()} must be 1 to 63 letters, digits, dots, dashes or underscores", param=header.decode()
        )
    return value.decode()


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
