"""The ledger: what each request cost, what it would have cost, and whether it met its SLO. Settled exactly once.

An exchange appends one entry when it ends; entries are counted into metrics a moment later, many at a time, and
always before metrics are read. What they cost is made out in ``billing``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec
from trimtab_core import telemetry
from trimtab_core.routing import table

from trimtab_router import metrics

OK = "ok"
CACHED = "cached"
CLIENT_ERROR = "client_error"
CANCELLED = "cancelled"
FAILED = "failed"
REJECTED = "rejected"
LIMITED = "limited"
INVALID = "invalid"
FAILED_ATTEMPT = "failed_attempt"
HEDGE = "hedge_waste"
NO_TIER = "none"
CACHE_TIER = "cache"
ANONYMOUS = "anonymous"

_FLUSH_AT = 512
_RECENT = 256


class Entry(msgspec.Struct, frozen=True):
    """One ended request.

    Attributes:
        meter: series of its class and tier.
        result: one of this module's outcomes.
        tenant: empty if unknown.
        slo: what was promised.
        input_tokens, cached_input_tokens, output_tokens: as the engine counted, or ``estimated``.
        cost_usd: of the tokens on the tier that made them.
        baseline_usd: of the same tokens on the baseline tier; of a cache hit, what the answer had cost there.
        saved_usd: what a cache hit avoided.
        ttft_seconds, itl_seconds: None where there is none, as for answers in one piece.
        e2e_seconds: arrival to last byte.
        attempts: endpoints asked.
        wasted_usd: cost of attempts that brought nothing; on nobody's bill.
        request_id, workflow, feature: for attribution.
        ended_at: epoch seconds.
    """

    meter: Meter
    result: str
    tenant: str
    slo: table.Slo
    e2e_seconds: float
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    baseline_usd: float = 0.0
    saved_usd: float = 0.0
    ttft_seconds: float | None = None
    itl_seconds: float | None = None
    estimated: bool = False
    attempts: int = 0
    wasted_usd: float = 0.0
    request_id: str = ""
    workflow: str = ""
    feature: str = ""


class Meter:
    """The series of one class on one tier, looked up once."""

    __slots__ = (
        "_costs", "_registry", "_results", "baseline", "cached", "class_", "e2e", "input", "itl", "labels", "measured",
        "met", "output", "saved", "tier", "ttft",
    )  # fmt: skip

    def __init__(self, registry: metrics.Registry, policy: str, class_: str, tier: str) -> None:
        labels = (policy, class_, tier)
        self.labels, self.class_, self.tier = labels, class_, tier
        self._registry = registry
        self._results: dict[str, metrics.Counter] = {}
        self._costs: dict[str, metrics.Counter] = {}
        self.input = registry.counter(telemetry.INPUT_TOKENS, *labels)
        self.cached = registry.counter(telemetry.CACHED_TOKENS, *labels)
        self.output = registry.counter(telemetry.OUTPUT_TOKENS, *labels)
        self.ttft = registry.histogram(telemetry.TTFT, *labels)
        self.itl = registry.histogram(telemetry.ITL, *labels)
        self.e2e = registry.histogram(telemetry.E2E, *labels)
        self.measured: dict[str, metrics.Counter] = {}
        self.met: dict[str, metrics.Counter] = {}
        self.baseline = registry.counter(telemetry.BASELINE_USD, policy, class_)
        self.saved = registry.counter(telemetry.CACHE_SAVED_USD, policy, class_)

    def result(self, name: str) -> metrics.Counter:
        """The count of one outcome."""
        counter = self._results.get(name)
        if counter is None:
            counter = self._results[name] = self._registry.counter(telemetry.REQUESTS, *self.labels, name)
        return counter

    def cost(self, tenant: str) -> metrics.Counter:
        """The cost of one tenant; beyond the cap of label values, of all others together."""
        counter = self._costs.get(tenant)
        if counter is None:
            label = self._registry.tenant_label(tenant or ANONYMOUS)
            counter = self._costs[tenant] = self._registry.counter(telemetry.COST_USD, *self.labels, label)
        return counter

    def wasted(self, reason: str) -> metrics.Counter:
        """The cost of attempts that brought nothing, by why: ``FAILED_ATTEMPT``, ``HEDGE`` or ``CANCELLED``."""
        return self._registry.counter(telemetry.WASTED_USD, *self.labels, reason)

    def judge(self, promise: str, limit: float, value: float | None) -> None:
        """Count whether a promise was met, at the exact threshold; a failed request has no value and missed it."""
        if promise not in self.measured:
            self.measured[promise] = self._registry.counter(telemetry.SLO_MEASURED, *self.labels, promise)
            self.met[promise] = self._registry.counter(telemetry.SLO_MET, *self.labels, promise)
        self.measured[promise].add(1)
        if value is not None and value <= limit:
            self.met[promise].add(1)


class Meters:
    """The meters of one class, by tier name.

    Real tiers have one from the start, so that rates see its first event; ``NO_TIER`` and ``CACHE_TIER`` get
    theirs with their first one.
    """

    __slots__ = ("_class", "_known", "_policy", "_registry")

    def __init__(self, registry: metrics.Registry, policy: str, *, class_: str, tiers: Iterable[str]) -> None:
        self._registry, self._policy, self._class = registry, policy, class_
        self._known = {tier: Meter(registry, policy, class_, tier) for tier in tiers}

    def __getitem__(self, tier: str) -> Meter:
        known = self._known.get(tier)
        if known is None:
            known = self._known[tier] = Meter(self._registry, self._policy, self._class, tier)
        return known


class Ledger:
    """Entries on their way to the metrics."""

    def __init__(self) -> None:
        self._ring: list[Entry] = []
        self.recent: deque[Entry] = deque(maxlen=_RECENT)

    def settle(self, entry: Entry) -> None:
        """Append one entry."""
        self._ring.append(entry)
        if len(self._ring) >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Count what waits."""
        entries, self._ring = self._ring, []
        for entry in entries:
            _count(entry)
        self.recent.extend(entries)


def _count(entry: Entry) -> None:
    # Once for every request, so additions are written out instead of called.
    meter, slo = entry.meter, entry.slo
    meter.result(entry.result).value += 1
    if entry.input_tokens or entry.output_tokens:
        meter.input.value += entry.input_tokens
        meter.cached.value += entry.cached_input_tokens
        meter.output.value += entry.output_tokens
        meter.cost(entry.tenant).value += entry.cost_usd
    meter.baseline.value += entry.baseline_usd
    meter.saved.value += entry.saved_usd
    if entry.result in (OK, CACHED):
        meter.e2e.observe(entry.e2e_seconds)
        if slo.e2e_seconds is not None:
            meter.judge("e2e", slo.e2e_seconds, entry.e2e_seconds)
        if entry.ttft_seconds is not None:
            meter.ttft.observe(entry.ttft_seconds)
            if slo.ttft_seconds is not None:
                meter.judge("ttft", slo.ttft_seconds, entry.ttft_seconds)
        if entry.itl_seconds is not None:
            meter.itl.observe(entry.itl_seconds)
            if slo.itl_seconds is not None:
                meter.judge("itl", slo.itl_seconds, entry.itl_seconds)
    elif entry.result in (FAILED, REJECTED):
        if slo.e2e_seconds is not None:
            meter.judge("e2e", slo.e2e_seconds, None)
        if slo.ttft_seconds is not None:
            meter.judge("ttft", slo.ttft_seconds, None)
