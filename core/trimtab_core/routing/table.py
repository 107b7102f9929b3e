"""The RoutingTable: the versioned contract from operator to routers. Free of Kubernetes types.

The data form is what travels, as JSON in a ConfigMap or file. A router decodes it, compiles it, swaps it in
atomically and keeps the last good one; only then does it report the version as applied. A table of an unknown
major format is refused. One table serves one policy.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec import Struct

FORMAT_MAJOR = 1
FORMAT_MINOR = 0


class TableError(ValueError):
    """A table that can't be used; the message says why and names the field."""


class Part(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of all parts: frozen, camelCase on the wire, unknown fields ignored so that minor versions can add."""


EndpointState = Literal["Ready", "Warming", "Draining", "Asleep"]

Degraded = Literal["", "Downshift", "BatchOnly", "Reject"]
"""The budget's step that is in force: none, cheaper tiers, batch requests only, no new requests."""


class Endpoint(Part, frozen=True):
    """One engine that may be sent requests.

    Attributes:
        name: pod or process name; stable over the endpoint's life.
        address: ``host:port``.
        state: only ``Ready`` ones are picked.
        capacity: running sequences up to which the SLO holds; at least 1.
        kv_usage: share of its KV cache in use, in [0, 1]; 0 while it matters to nobody.
    """

    name: str
    address: str
    variant: str = ""
    state: EndpointState = "Ready"
    capacity: float = 32.0
    kv_usage: float = 0.0


class External(Part, frozen=True):
    """An OpenAI-compatible provider that serves a tier.

    Attributes:
        base_url: up to and without ``/v1``.
        api_key_file: path of the file that holds the key; never the key itself.
        max_requests_per_second, max_tokens_per_minute: what one router may send; None is not limited.
        models: name that the client sent → name at the provider; the tier's ``model`` for all others.
        batch_discount: taken off the rates of requests of priority batch, which carry ``batch_service_tier``.
    """

    base_url: str
    api_key_file: str = ""
    max_requests_per_second: float = 100.0
    max_tokens_per_minute: float | None = None
    models: dict[str, str] = {}
    batch_discount: float = 0.0
    batch_service_tier: str = "flex"


class Rates(Part, frozen=True):
    """USD per token. For own replicas derived from replica-hours, see ``economics.token_rates``."""

    input_usd_per_token: float
    output_usd_per_token: float
    cached_input_usd_per_token: float = 0.0


class Slo(Part, frozen=True):
    """Latency limits in seconds; None is not promised."""

    ttft_seconds: float | None = None
    itl_seconds: float | None = None
    e2e_seconds: float | None = None
    attainment: float = 0.95


class Tier(Part, frozen=True):
    """One tier as a router sees it.

    Attributes:
        name: the InferenceTier's name.
        model: model name that its engines serve.
        quality: probability in [0, 1] that an answer is as good as wanted.
        hold_seconds: how long a request may wait while the tier wakes from zero; 0 never holds.
    """

    name: str
    model: str
    quality: float
    rates: Rates
    endpoints: list[Endpoint] = []
    external: External | None = None
    slo: Slo = Slo()
    hold_seconds: float = 0.0


class Match(Part, frozen=True):
    """What a request must be; every given part must hold."""

    sensitive: bool | None = None
    priority: str | None = None
    complexity_min: float = 0.0
    complexity_max: float = 1.0
    models: list[str] = []
    tenants: list[str] = []
    headers: dict[str, str] = {}


class Class(Part, frozen=True):
    """One class: first match wins. ``weights`` are shares over tier names; ``allow`` bounds fallbacks too."""

    name: str
    match: Match
    allow: list[str]
    weights: dict[str, float]
    slo: Slo = Slo()
    reject_when_unavailable: bool = False


class Limits(Part, frozen=True):
    """What one tenant may use; None is not limited. Days and months are those of the calendar in UTC."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None
    concurrent_requests: int | None = None


class Tenant(Part, frozen=True):
    """A tenant known by the SHA-256 (hex) of its API key.

    Attributes:
        further_sha256: of keys that count as well, while one takes the place of another.
        limits: its own; None for the default ones.
    """

    name: str
    key_sha256: str = ""
    further_sha256: list[str] = []
    limits: Limits | None = None


class Store(Part, frozen=True):
    """Where it is counted what tenants use.

    Attributes:
        kind: memory of one process, or a server that all routers share.
        address: ``host:port`` of the server.
        password_file: path of the file that holds its password; never the password itself.
        on_failure: what becomes of limited requests while it is down.
        routers: that share the limits; each may give out its part of them on its own.
    """

    kind: Literal["Memory", "Redis"] = "Memory"
    address: str = ""
    database: int = 0
    tls: bool = False
    username: str = ""
    password_file: str = ""
    timeout_seconds: float = 0.1
    on_failure: Literal["Allow", "Deny", "Local"] = "Local"
    routers: int = 1


class Tenants(Part, frozen=True):
    """How callers are known, and what they may use.

    Attributes:
        trusted_peers: networks from which the tenant header is believed; empty for anywhere.
        default_limits: of tenants without their own, and of all unnamed callers together.
        max_output_tokens: set where a limited request names no bound of its own.
        isolate: keep tenants' prefix caches apart, by a salt that is derived from ``salt_file`` or the keys' hashes.
    """

    required: bool = False
    trusted_header: bool = False
    known: list[Tenant] = []
    trusted_peers: list[str] = []
    default_limits: Limits | None = None
    max_output_tokens: int | None = None
    store: Store = Store()
    isolate: bool = False
    salt_file: str = ""


class Cache(Part, frozen=True):
    """The cache in force. ``generation`` is part of every key: a new model or prompt version starts afresh."""

    name: str
    ttl_seconds: float
    max_entries: int
    max_answer_bytes: int
    shared: bool = False
    exact: bool = True
    max_temperature: float = 0.0
    generation: str = ""


class Resilience(Part, frozen=True):
    """Time limits in seconds, and what happens when engines fail, hang or are full.

    Attributes:
        first_byte_timeout: until the first byte of a stream.
        answer_timeout: until the first byte of an answer in one piece, which comes when all of it is made.
        stall_after: an engine with streams under way that brings no byte of any for so long gets no new requests.
        eject_after: failures in a row that eject an endpoint.
        eject_seconds: how long for; twice as long each time that it fails again at once.
        failure_ratio: share of failures among an endpoint's answers that ejects it too.
        failure_window: over which that is looked at.
        failure_requests: answers in the window before it is.
        max_ejected: share of a tier's endpoints that may be ejected for what they answer; at least one may.
        ease_in_seconds: over which an endpoint's share grows back after an ejection.
        retry_share: retries, fallbacks and hedges as a share of the requests of the last ``retry_window``.
        retry_floor_per_second: as many are free, so that little traffic has any.
        hedge_quantile: ask a second engine when the first byte takes longer than this share of requests took; 0 never.
        queue_requests: that may wait in one tier while its endpoints are full; 0 sends them on all the same.
        queue_bytes: of all bodies that wait, in one tier.
        queue_seconds: longest wait for room.
        queue_at: load of every endpoint, as a multiple of its capacity, from which requests wait.
        hold_requests: that may wait for one tier to wake.
    """

    connect_timeout: float = 2.0
    first_byte_timeout: float = 60.0
    idle_timeout: float = 30.0
    total_timeout: float = 600.0
    max_fallbacks: int = 1
    eject_after: int = 3
    eject_seconds: float = 10.0
    answer_timeout: float = 300.0
    stall_after: float = 5.0
    failure_ratio: float = 0.5
    failure_window: float = 10.0
    failure_requests: int = 20
    max_ejected: float = 0.5
    ease_in_seconds: float = 10.0
    retry_share: float = 0.2
    retry_floor_per_second: float = 1.0
    retry_window: float = 10.0
    hedge_quantile: float = 0.0
    queue_requests: int = 0
    queue_bytes: int = 64 << 20
    queue_seconds: float = 10.0
    queue_at: float = 2.0
    hold_requests: int = 1000


class Classifier(Part, frozen=True):
    """Parameters of the complexity score: a logistic model over ``routing.features``.

    Attributes:
        version: names the fit, such as ``lexical-1``.
        intercept, weights: of the logistic model, by feature name; empty weights use the built-in fit.
    """

    version: str = "builtin"
    intercept: float = 0.0
    weights: dict[str, float] = {}


class RoutingTable(Part, frozen=True):
    """All that a router needs to serve one policy.

    Attributes:
        format: ``major.minor`` of this contract.
        policy: ``namespace/name``.
        epoch: leader epoch of the writer, then ``revision`` counts up within it.
        content_hash: of everything but epoch, revision and issue time; equal content is not a new version.
        baseline: rates of the tier that savings are measured against.
        degraded: what the budget takes away now.
    """

    policy: str
    epoch: int
    revision: int
    issued_at: float
    models: list[str]
    tiers: list[Tier]
    classes: list[Class]
    baseline: Rates
    format: str = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    content_hash: str = ""
    tenants: Tenants = Tenants()
    resilience: Resilience = Resilience()
    classifier: Classifier = Classifier()
    cache: Cache | None = None
    degraded: Degraded = ""

    @property
    def version(self) -> str:
        """``epoch.revision-hash``: what routers report as applied."""
        return f"{self.epoch}.{self.revision}-{self.content_hash[:12]}"


_decoder = msgspec.json.Decoder(RoutingTable)
_encoder = msgspec.json.Encoder(order="deterministic")


def hash_content(table: RoutingTable) -> str:
    """SHA-256 (hex) of the content, blind to epoch, revision, issue time and the hash field itself."""
    blind = msgspec.structs.replace(table, epoch=0, revision=0, issued_at=0.0, content_hash="")
    # Through the wire form once, so that a 60 where a float belongs hashes as the 60.0 that a router reads.
    return hashlib.sha256(_encoder.encode(_decoder.decode(_encoder.encode(blind)))).hexdigest()


def seal(table: RoutingTable) -> RoutingTable:
    """The table with its content hash filled in; what the operator publishes."""
    return msgspec.structs.replace(table, content_hash=hash_content(table))


def encode(table: RoutingTable) -> bytes:
    """The JSON form."""
    return _encoder.encode(table)


def decode(data: bytes) -> RoutingTable:
    """Read and check a table.

    Raises:
        TableError: on bad JSON, a wrong type, an unknown major format, a broken hash, or weights that name
            tiers that the class may not use.
    """
    try:
        table = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise TableError(f"not a routing table: {error}") from error
    major = table.format.partition(".")[0]
    if major != str(FORMAT_MAJOR):
        raise TableError(f"format {table.format!r} is not {FORMAT_MAJOR}.x: update the router")
    if table.content_hash != hash_content(table):
        raise TableError("contentHash does not match the content: the table was changed on its way")
    check(table)
    return table


def check(table: RoutingTable) -> None:
    """Check what types can't: names that resolve, shares that sum to 1, a class for every request.

    Raises:
        TableError: naming the class and field at fault.
    """
    names = [tier.name for tier in table.tiers]
    if len(set(names)) != len(names):
        raise TableError("tiers: two tiers have one name")
    if not table.classes:
        raise TableError("classes: at least one is needed")
    for class_ in table.classes:
        where = f"classes[{class_.name}]"
        unknown = (set(class_.allow) | set(class_.weights)) - set(names)
        if unknown:
            raise TableError(f"{where}: unknown tiers {', '.join(sorted(unknown))}")
        outside = set(class_.weights) - set(class_.allow)
        if outside:
            raise TableError(f"{where}.weights: not allowed: {', '.join(sorted(outside))}")
        shares = list(class_.weights.values())
        if not all(0 <= share <= 1 for share in shares):
            raise TableError(f"{where}.weights: every share must lie in 0 to 1")
        if shares and abs(sum(shares) - 1) > 1e-6:  # noqa: PLR2004 (rounding noise)
            raise TableError(f"{where}.weights: shares sum to {sum(shares):.6f}, not 1")
