"""From a plan to the routing table of one policy. Pure.

The table names what routers may use now: replicas that are ready, awake and not leaving. Shares that the plan
gives to a tier are published as they are, even while the tier has no endpoint: routers hold, fall back or reject
as the class says. Must not know how a table travels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from trimtab_core import capacity, economics, recall, signals, units
from trimtab_core import snapshot as snapshots
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import cache_policy, inference_tier
from trimtab_core.planning.plan import Plan
from trimtab_core.routing import degradation, publish_resilience, publish_tenants, scorers
from trimtab_core.routing import table as tables
from trimtab_core.snapshot import ReplicaPhase, Snapshot

KEY_FOLDER = "/etc/trimtab/keys"
"""Where routers find the API keys of external tiers: one file per tier, named like it."""

NOISE = 0.1
"""Prices and loads follow measured lengths; smaller movements would only make routers reload."""

UNKNOWN_PROFILE = snapshots.CapacityProfile(
    itl_base_seconds=0.05,
    itl_per_sequence_seconds=0.002,
    prefill_tokens_per_second=2000.0,
    kv_tokens=65536,
    max_sequences=32,
    startup_seconds=300.0,
)
"""Prices and loads replicas of which nothing is known: slow on purpose, so that unknown never looks cheap."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a table needs of secrets: never the secrets themselves.

    Attributes:
        tenant_keys: tenant name → SHA-256 (hex) of its API keys, the first one first.
        key_folder: folder of the external tiers' key files, as routers see it.
    """

    tenant_keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key_folder: str = KEY_FOLDER


def key_hash(api_key: str) -> str:
    """How a table names an API key: its SHA-256, hex."""
    return hashlib.sha256(api_key.encode()).hexdigest()


def table(
    snapshot: Snapshot,
    plan: Plan,
    policy_key: snapshots.PolicyKey,
    *,
    epoch: int,
    revision: int,
    secrets: Secrets | None = None,
    previous: tables.RoutingTable | None = None,
) -> tables.RoutingTable:
    """The sealed table of one policy, issued at ``snapshot.now``.

    Args:
        snapshot: what runs.
        plan: the weights to publish; a class without weights in it keeps those in force.
        policy_key: ``namespace/name``; KeyError if the snapshot has no such policy.
        epoch: of the leader that publishes.
        revision: counts up within the epoch.
        secrets: hashes of tenants' keys and where external keys lie.
        previous: the table before: prices and loads that moved less than ``NOISE`` since stay as they are there.
    """
    policy = snapshot.policies[policy_key]
    secrets = secrets or Secrets()
    load = _Load(snapshot, _mix(policy), policy.spec.slo)
    before = {tier.name: tier for tier in previous.tiers} if previous else {}
    tiers = [
        _steady(_tier(load, snapshot.tiers[key], secrets), before.get(_name(key)))
        for key in policy.tiers
        if key in snapshot.tiers
    ]
    weights = {**policy.weights, **plan.weights.get(policy_key, {})}
    return tables.seal(
        tables.RoutingTable(
            policy=policy_key,
            epoch=epoch,
            revision=revision,
            issued_at=snapshot.now,
            models=sorted(policy.spec.models),
            tiers=tiers,
            classes=[_class(cls, policy.spec, tiers, weights.get(cls.name, {})) for cls in policy.spec.classes],
            baseline=_baseline(policy.spec, tiers),
            tenants=publish_tenants.table_part(policy.spec, secrets.tenant_keys, folder=secrets.key_folder),
            resilience=publish_resilience.rules(policy.spec.resilience),
            cache=_cache(snapshot, policy),
            degraded=degradation.step(
                policy, plan, snapshot.now, before=previous.degraded if previous is not None else ""
            ),
        )
    )


def baseline_tier(spec: v1alpha1.RoutingPolicySpec, tiers: Sequence[tables.Tier]) -> tables.Tier | None:
    """The tier that savings are measured against: the one named, else the one of best quality; None without tiers."""
    named = next((tier for tier in tiers if tier.name == spec.baseline_tier), None)
    return named or max(tiers, key=lambda tier: (tier.quality, tier.name), default=None)


@dataclass(frozen=True, slots=True)
class _Load:
    """What requests of a policy look like and what they were promised: replicas are priced and filled by it."""

    snapshot: Snapshot
    mix: capacity.Mix
    promised: v1alpha1.LatencySlo | None

    def of(self, tier: snapshots.TierState, variant: snapshots.VariantState) -> capacity.Capacity:
        """What one replica carries of this traffic within the tier's and the policy's promise."""
        return capacity.admissible_load(variant.profile or UNKNOWN_PROFILE, self.mix, self.limits(tier))

    def limits(self, tier: snapshots.TierState) -> capacity.Limits:
        """The stricter of the tier's and the policy's promise, part by part."""
        return capacity.limits(tier.spec.slo, self.promised)

    def rates(self, tier: snapshots.TierState, variant: snapshots.VariantState) -> economics.TokenRates:
        """USD per token on one variant; an unknown price counts as the dearest that it could be."""
        usd_per_hour = economics.worst_usd_per_hour(self.snapshot, tier.key, variant)
        price = snapshots.Price(usd_per_hour, "worst case") if variant.price is None else variant.price
        return economics.token_rates(price, variant.profile or UNKNOWN_PROFILE, self.mix, self.limits(tier))


def _mix(policy: snapshots.PolicyState) -> capacity.Mix:
    """Mean lengths over the policy's classes by their arrivals."""
    weighted = [
        (signals.known(traffic.arrivals_per_second) or 0.0, inputs, outputs)
        for traffic in policy.traffic.values()
        if (inputs := signals.known(traffic.input_tokens)) is not None
        and (outputs := signals.known(traffic.output_tokens)) is not None
    ]
    arrivals = sum(part for part, _, _ in weighted)
    if arrivals <= 0:
        return capacity.DEFAULT_MIX
    inputs = sum(part * tokens for part, tokens, _ in weighted) / arrivals
    outputs = sum(part * tokens for part, _, tokens in weighted) / arrivals
    return capacity.Mix(_rounded(inputs), _rounded(outputs))


def _rounded(value: float) -> float:
    """The value with three significant digits: more are never known."""
    return float(f"{value:.3g}")


def _steady(tier: tables.Tier, before: tables.Tier | None) -> tables.Tier:
    """The tier with the prices and loads of the table before, where they moved no more than a measurement's noise."""
    if before is None:
        return tier
    rates = before.rates if _is_noise(tier.rates, before.rates) else tier.rates
    loads = {endpoint.variant: endpoint.capacity for endpoint in before.endpoints}
    usages = {endpoint.name: endpoint.kv_usage for endpoint in before.endpoints}
    endpoints = []
    for endpoint in tier.endpoints:
        load = loads.get(endpoint.variant, endpoint.capacity)
        steady = abs(endpoint.capacity - load) <= max(1.0, NOISE * endpoint.capacity)
        usage = usages.get(endpoint.name, 0.0)
        endpoints.append(
            msgspec.structs.replace(
                endpoint,
                capacity=load if steady else endpoint.capacity,
                kv_usage=usage if abs(endpoint.kv_usage - usage) <= NOISE else endpoint.kv_usage,
            )
        )
    return msgspec.structs.replace(tier, rates=rates, endpoints=endpoints)


def _is_noise(new: tables.Rates, old: tables.Rates) -> bool:
    """Whether no part of the price moved by more than noise; a price that appears or goes is no noise."""
    pairs = zip(msgspec.structs.astuple(new), msgspec.structs.astuple(old), strict=True)
    return all(abs(one - other) <= NOISE * max(one, other) for one, other in pairs)


def _tier(load: _Load, state: snapshots.TierState, secrets: Secrets) -> tables.Tier:
    """One tier with its endpoints, sorted by name."""
    name = _name(state.key)
    endpoints = [
        tables.Endpoint(
            replica.name, replica.address, variant.name, "Ready", capacity=sequences, kv_usage=_kv_usage(replica)
        )
        for variant in state.variants
        for sequences in (float(max(1, int(load.of(state, variant).sequences))),)
        for replica in variant.replicas
        if replica.phase is ReplicaPhase.READY and replica.address
    ]
    hold = state.spec.scaling.scale_to_zero
    return tables.Tier(
        name=name,
        model=state.spec.model.name,
        quality=units.ratio(state.spec.model.quality),
        rates=_rates(load, state),
        endpoints=sorted(endpoints, key=lambda endpoint: endpoint.name),
        external=_external(state.spec.external, name, secrets),
        slo=_slo(state.spec.slo),
        hold_seconds=units.duration_seconds(hold.hold) if hold else 0.0,
    )


def _kv_usage(replica: snapshots.Replica) -> float:
    """Share of a replica's KV cache in use, once it speaks against sending it more; 0 while calm or not known."""
    usage = signals.sound(replica.kv_usage) if isinstance(replica.kv_usage, signals.Fresh) else None
    return round(usage, 2) if usage is not None and usage > scorers.KV_CALM else 0.0


def _rates(load: _Load, state: snapshots.TierState) -> tables.Rates:
    """What a token costs on a tier: the list price, or the mean over what runs, or the cheapest of what could."""
    if state.token_rates is not None:
        listed = state.token_rates
        return tables.Rates(listed.input_usd_per_token, listed.output_usd_per_token, listed.cached_input_usd_per_token)
    priced = [(variant.count(ReplicaPhase.READY), load.rates(state, variant)) for variant in state.variants]
    running = sum(count for count, _ in priced)
    if not running:
        cheapest = min((rates for _, rates in priced), key=lambda rates: rates.output_usd_per_token, default=None)
        priced, running = ([(1, cheapest)], 1) if cheapest else ([], 1)
    return tables.Rates(
        _rounded(sum(count * rates.input_usd_per_token for count, rates in priced) / running),
        _rounded(sum(count * rates.output_usd_per_token for count, rates in priced) / running),
        _rounded(sum(count * rates.cached_input_usd_per_token for count, rates in priced) / running),
    )


def _external(spec: inference_tier.ExternalApi | None, name: str, secrets: Secrets) -> tables.External | None:
    if spec is None:
        return None
    return tables.External(
        base_url=spec.url.rstrip("/").removesuffix("/v1"),
        api_key_file=f"{secrets.key_folder}/{name}" if spec.api_key_secret_ref else "",
        max_requests_per_second=float(spec.max_requests_per_second),
        max_tokens_per_minute=float(spec.max_tokens_per_minute) if spec.max_tokens_per_minute else None,
        models=dict(sorted(spec.models.items())),
        batch_discount=units.ratio(spec.price.batch_discount),
        batch_service_tier=spec.batch_service_tier,
    )


def _class(
    cls: v1alpha1.RequestClass,
    spec: v1alpha1.RoutingPolicySpec,
    tiers: Sequence[tables.Tier],
    weights: Mapping[str, float],
) -> tables.Class:
    """One class. Without planned weights it goes where quality is best: dearer, never worse than wanted."""
    allow = [tier.name for tier in tiers if not cls.allow or tier.name in cls.allow]
    shares = {_name(tier): share for tier, share in weights.items() if _name(tier) in allow and share > 0}
    if not shares and allow:
        shares = {max((tier for tier in tiers if tier.name in allow), key=lambda tier: tier.quality).name: 1.0}
    whole = sum(shares.values())
    rounded = recall.weight_fields({tier: share / whole for tier, share in shares.items()})
    complexity = cls.match.complexity
    return tables.Class(
        name=cls.name,
        match=tables.Match(
            sensitive=cls.match.sensitive,
            priority=cls.match.priority,
            complexity_min=units.ratio(complexity.min) if complexity else 0.0,
            complexity_max=units.ratio(complexity.max) if complexity else 1.0,
            models=sorted(cls.match.models),
            tenants=sorted(cls.match.tenants),
            headers=dict(sorted(cls.match.headers.items())),
        ),
        allow=allow,
        weights={tier: float(share) for tier, share in rounded.items()},
        slo=_slo(cls.slo or spec.slo),
        reject_when_unavailable=cls.on_unavailable is v1alpha1.OnUnavailable.REJECT,
    )


def _slo(slo: v1alpha1.LatencySlo | None) -> tables.Slo:
    if slo is None:
        return tables.Slo()
    ttft, itl, e2e = (
        units.duration_seconds(part.p95) if part is not None else None for part in (slo.ttft, slo.itl, slo.e2e)
    )
    return tables.Slo(ttft, itl, e2e, units.ratio(slo.attainment))


def _baseline(spec: v1alpha1.RoutingPolicySpec, tiers: Sequence[tables.Tier]) -> tables.Rates:
    tier = baseline_tier(spec, tiers)
    return tier.rates if tier else tables.Rates(0.0, 0.0)


def _cache(snapshot: Snapshot, policy: snapshots.PolicyState) -> tables.Cache | None:
    """The policy's cache; none where it names none or one that does not exist."""
    if policy.spec.cache is None:
        return None
    key = f"{policy.key.partition('/')[0]}/{policy.spec.cache.ref}"
    spec = snapshot.caches.get(key)
    if spec is None:
        return None
    return tables.Cache(
        name=_name(key),
        ttl_seconds=units.duration_seconds(spec.ttl),
        max_entries=spec.max_entries,
        max_answer_bytes=spec.max_answer_bytes,
        shared=spec.scope is cache_policy.CacheScope.SHARED,
        exact=spec.exact.enabled,
        max_temperature=units.decimal_number(spec.exact.max_temperature),
        generation=_generation(snapshot, policy),
    )


def _generation(snapshot: Snapshot, policy: snapshots.PolicyState) -> str:
    """Changes when any tier's model, its source or its engine's arguments change: old answers no longer hold."""
    served = [
        (key, spec.model.name, spec.model.source, spec.engine.image, spec.engine.args)
        for key in policy.tiers
        if key in snapshot.tiers
        for spec in (snapshot.tiers[key].spec,)
    ]
    return hashlib.sha256(json.dumps(served).encode()).hexdigest()[:12]


def _name(key: str) -> str:
    """``namespace/name`` → ``name``."""
    return key.partition("/")[2] or key
