"""From what observers saw to the snapshot that the planner sees. Pure: every reading comes in as a value.

The operator's observers, local mode and the simulator all deliver an ``Observation``; ``snapshot`` judges
each number (fresh, stale or missing), drops series of replicas that no longer exist, resolves prices and
profiles, and reads what the loop must remember from the objects' status.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab_core import answers as answering
from trimtab_core import counters, learning, losses, recall, signals, surge, traffic, units
from trimtab_core import snapshot as snapshots
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import fields
from trimtab_core.catalog import prices, profiles
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase, Snapshot

QueryFailure = answering.QueryFailure
Answers = answering.Answers


@dataclass(frozen=True, slots=True)
class EngineReading:
    """One engine as last scraped; None where the family is absent.

    Attributes:
        running, waiting: requests, now.
        kv_usage: share of the KV cache in use, now.
        asleep: the engine has given its memory back.
        gap_seconds, gaps: sum and number of the times between two output tokens of a sequence, ever.
        prompt_tokens: input tokens computed, ever.
        kv_tokens: tokens that fit in the KV cache.
    """

    running: signals.Sample | None = None
    waiting: signals.Sample | None = None
    kv_usage: signals.Sample | None = None
    asleep: bool = False
    gap_seconds: signals.Sample | None = None
    gaps: signals.Sample | None = None
    prompt_tokens: signals.Sample | None = None
    kv_tokens: signals.Sample | None = None


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """One pod or process.

    Attributes:
        name: unique in its namespace.
        phase: as the cluster says; DRAINING when it was told to leave, by us or by anybody else.
        created_at: epoch seconds; of the last restart, if its engine came up anew since.
        ready_at: epoch seconds of the change to ready, None while pending.
        address: ``host:port`` of the engine, empty while unknown.
        drain_since: when we marked it to leave, epoch seconds; None when we did not, or when it is already
            being deleted.
    """

    name: str
    phase: ReplicaPhase
    created_at: float
    ready_at: float | None = None
    address: str = ""
    drain_since: float | None = None


@dataclass(frozen=True, slots=True)
class ObservedVariant:
    """What the cluster says of one variant.

    Attributes:
        desired: replica count of its Deployment, or None while there is no Deployment yet.
        external_scaler: another writer on that count, or empty.
        node_labels: labels of a node that runs it, for the price.
        told: the replica count that we last wrote; None when unknown. Another ``desired`` is a manual edit.
    """

    desired: int | None
    replicas: tuple[ObservedReplica, ...] = ()
    external_scaler: str = ""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    told: int | None = None

    @property
    def given_up(self) -> int:
        """Marked replicas that the Deployment's count no longer has, and that its controller is about to delete.

        A controller lags its count by a moment, and deletes first what is not ready.
        """
        marked = sum(1 for replica in self.replicas if replica.drain_since is not None)
        ready = sum(1 for replica in self.replicas if replica.phase is ReplicaPhase.READY)
        return min(marked, max(0, marked + ready - (self.desired or 0)))

    @property
    def asked_for(self) -> int:
        """The replicas that are to stay: those that were told to leave don't count, although ``desired`` has them."""
        marked = sum(1 for replica in self.replicas if replica.drain_since is not None)
        return max(0, (self.desired or 0) - (marked - self.given_up))


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that was seen at one moment.

    Attributes:
        tenant_keys: per policy (``namespace/name``), SHA-256 (hex) of each tenant's API keys, by tenant name.
        routers: per policy, the router replicas that are ready, by name.
        optional_kinds: kinds of other projects that the cluster serves, such as ``ScaledObject``.
        past: what a database knows from before a start, by policy and class; asked for once.
    """

    tiers: tuple[v1alpha1.InferenceTier, ...]
    policies: tuple[v1alpha1.RoutingPolicy, ...]
    caches: tuple[v1alpha1.CachePolicy, ...]
    variants: Mapping[VariantKey, ObservedVariant]
    answers: Answers
    engines: Mapping[str, EngineReading]
    tenant_keys: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    routers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional_kinds: frozenset[str] = frozenset()
    past: Mapping[traffic.PastKey, traffic.Past] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """How observations are judged.

    Attributes:
        freshness: how long a measurement counts.
        history_seconds: how far back the arrivals go that the forecast sees.
        override_seconds: how long a manual edit of a replica count holds.
        window_seconds: over which rates are taken.
        cloud, region: whose price list holds where no node label tells.
    """

    freshness: signals.Freshness = field(default_factory=signals.Freshness)
    history_seconds: float = 7200.0
    override_seconds: float = 1800.0
    window_seconds: float = 60.0
    cloud: str = "aws"
    region: str = ""


def key(metadata: fields.ObjectMeta) -> str:
    """``namespace/name``: how tiers, policies and caches are named in a snapshot."""
    return f"{metadata.namespace}/{metadata.name}"


def snapshot(
    observation: Observation,
    *,
    now: float,
    epoch: int,
    previous: Snapshot | None = None,
    settings: Settings | None = None,
) -> Snapshot:
    """What the planner may see.

    Args:
        observation: what was seen.
        now: epoch seconds.
        epoch: of the leader that looks.
        previous: the snapshot of the cycle before, if this process made one: numbers that can't be had now count
            on from there, older and older, and the history goes on. Never needed.
        settings: how to judge; the defaults fit a control interval of 15 s.
    """
    settings = settings or Settings()
    reader = answering.Reader(observation.answers, now, settings.freshness)
    judge = _Judge(observation, reader, now, settings, previous)
    held = traffic.Held(previous, now, settings.freshness)
    demand = traffic.Demand(reader, held, now, settings.history_seconds, observation.past)
    tiers = {key(tier.metadata): judge.tier(tier) for tier in observation.tiers}
    policies = {key(policy.metadata): demand.policy(key(policy.metadata), policy) for policy in observation.policies}
    caches = {key(cache.metadata): cache.spec for cache in observation.caches}
    return Snapshot(
        now, epoch, dict(sorted(tiers.items())), dict(sorted(policies.items())), caches, settings.window_seconds
    )


@dataclass(frozen=True, slots=True)
class _Judge:
    """One moment's observation and what is needed to judge it."""

    observation: Observation
    reader: answering.Reader
    now: float
    settings: Settings
    previous: Snapshot | None = None

    def tier(self, tier: v1alpha1.InferenceTier) -> snapshots.TierState:
        """One tier with all its variants."""
        name = key(tier.metadata)
        variants = tuple(
            self.variant(tier, spec, self.observation.variants.get(VariantKey(name, spec.name), _ABSENT))
            for spec in tier.spec.variants
        )
        attainment = traffic.tier_attainment(self.reader, name)
        judged, missed = traffic.tier_misses(self.reader, name)
        return snapshots.TierState(
            name, tier.spec, variants, _token_rates(tier.spec), attainment, judged, missed, recall.utilisation(tier)
        )

    def variant(
        self, tier: v1alpha1.InferenceTier, spec: v1alpha1.Variant, seen: ObservedVariant
    ) -> snapshots.VariantState:
        """One variant: what runs, what it costs, what it can carry, what is remembered of it."""
        learned = self.learned(tier, spec, seen)
        replicas = tuple(self.replica(replica) for replica in seen.replicas)
        lost, watched, served = self.losses(tier, spec, replicas, seen.asked_for)
        price = prices.for_variant(
            spec, node_labels=seen.node_labels, cloud=self.settings.cloud, region=self.settings.region
        )
        return snapshots.VariantState(
            spec=spec,
            desired=seen.asked_for,
            replicas=replicas,
            price=None if isinstance(price, prices.MissingPrice) else price,
            profile=_profile(tier, spec, seen, learned),
            memory=self.edited(recall.memory(tier, spec.name), seen),
            external_scaler=seen.external_scaler,
            learned=learned,
            lost=lost,
            watched_hours=watched,
            served=served,
        )

    def losses(
        self,
        tier: v1alpha1.InferenceTier,
        spec: v1alpha1.Variant,
        replicas: tuple[snapshots.Replica, ...],
        desired: int,
    ) -> tuple[int, float, int]:
        """Replicas lost since the snapshot before, replica-hours, and how many served then.

        A changed spec rolls replicas, which is no loss.
        """
        state = self.previous.tiers.get(key(tier.metadata)) if self.previous else None
        if self.previous is None or state is None or state.spec != tier.spec:
            return 0, 0.0, 0
        before = next((one for one in state.variants if one.name == spec.name), None)
        lost, watched = losses.count(before, replicas, desired, self.now - self.previous.now)
        return lost, watched, before.count(ReplicaPhase.READY) if before is not None else 0

    def learned(self, tier: v1alpha1.InferenceTier, spec: v1alpha1.Variant, seen: ObservedVariant) -> learning.Learned:
        """What the variant's replicas have shown up to now."""
        assumed, prior = profiles.resolve(tier.spec.model.name, spec), learning.ANY
        if assumed is not None:
            prior = learning.Law(
                assumed.itl_base_seconds, assumed.itl_per_sequence_seconds, assumed.prefill_tokens_per_second
            )
        name = key(tier.metadata)
        state = self.previous.tiers.get(name) if self.previous else None
        before = next((one.learned for one in state.variants if one.name == spec.name), None) if state else None
        if before is None:
            before = recall.learned(tier, spec.name, prior)
        elif before.prior != prior:  # another model or other numbers in the spec: what was learned is of the old ones
            before = dataclasses.replace(learning.begin(prior), readings=before.readings)
        readings = {
            replica.name: reading
            for replica in seen.replicas
            for reading in (self.counters(self.observation.engines.get(replica.name, _UNREAD)),)
            if reading is not None
        }
        shape = traffic.tier_shape(self.reader, name)
        return learning.observe(before, readings, shape, steady=not self.bunched(name, len(readings)))

    def bunched(self, tier: str, replicas: int) -> bool:
        """Whether a tier's requests come in bursts that leave its replicas idle in between, as last seen."""
        policies = self.previous.policies.values() if self.previous else ()
        indices = [
            signals.sound(seen.burstiness) or 1.0
            for policy in policies
            if tier in policy.tiers
            for seen in policy.traffic.values()
        ]
        return max(indices, default=1.0) > max(surge.BUNCHED, replicas)

    def counters(self, seen: EngineReading) -> counters.Reading | None:
        """An engine's counters, if all of them are fresh and of one moment."""
        samples = (seen.gap_seconds, seen.gaps, seen.prompt_tokens)
        gap_seconds, gaps, prompt_tokens = (
            signals.fresh(signals.read(sample, self.now, self.settings.freshness)) for sample in samples
        )
        if gap_seconds is None or gaps is None or prompt_tokens is None:
            return None
        moments = {sample.observed_at for sample in samples if sample is not None}
        kv_tokens = signals.fresh(signals.read(seen.kv_tokens, self.now, self.settings.freshness))
        if len(moments) != 1:
            return None
        return counters.Reading(moments.pop(), gap_seconds, gaps, prompt_tokens, kv_tokens or 0.0)

    def replica(self, seen: ObservedReplica) -> snapshots.Replica:
        """One replica with its engine's gauges. A sleeping engine answers no request: it counts as starting."""
        reading = self.observation.engines.get(seen.name, _UNREAD)
        phase = ReplicaPhase.PENDING if reading.asleep and seen.phase is ReplicaPhase.READY else seen.phase
        running, waiting, kv_usage = (
            signals.read(sample, self.now, self.settings.freshness)
            for sample in (reading.running, reading.waiting, reading.kv_usage)
        )
        return snapshots.Replica(seen.name, phase, seen.created_at, seen.address, running, waiting, kv_usage)

    def edited(self, remembered: snapshots.VariantMemory, seen: ObservedVariant) -> snapshots.VariantMemory:
        """What is remembered, with a manual edit of the replica count noticed: it holds for a while from now."""
        edited = seen.told is not None and seen.desired is not None and seen.desired != seen.told
        if not edited or seen.external_scaler:
            return remembered
        return dataclasses.replace(remembered, override_until=self.now + self.settings.override_seconds)


_ABSENT = ObservedVariant(desired=None)
_UNREAD = EngineReading()


def _profile(
    tier: v1alpha1.InferenceTier, spec: v1alpha1.Variant, seen: ObservedVariant, learned: learning.Learned
) -> snapshots.CapacityProfile | None:
    """The best known profile; the start-up time is that of the replicas that run, else the one measured before."""
    status = next((status for status in tier.status.variants if status.name == spec.name), None)
    startup, told = startup_seconds(seen), recall.learned_profile(learned)
    if startup is None and status is not None and status.startup is not None:
        startup = units.duration_seconds(status.startup)
    if told is not None and startup is not None:
        told = told.model_copy(update={"startup": units.format_duration(startup)})
    profile = profiles.resolve(tier.spec.model.name, spec, told)
    if profile is None or startup is None:
        return profile
    return dataclasses.replace(profile, startup_seconds=startup)


def startup_seconds(seen: ObservedVariant) -> float | None:
    """Measured time from creation to ready: the median of the replicas that are ready, None without any."""
    measured = [
        max(0.0, replica.ready_at - replica.created_at)
        for replica in seen.replicas
        if replica.phase is ReplicaPhase.READY and replica.ready_at is not None
    ]
    return statistics.median_low(measured) if measured else None


def _token_rates(spec: v1alpha1.InferenceTierSpec) -> snapshots.TokenRates | None:
    """The list price of an external API per token; None for a tier with replicas of its own."""
    if spec.external is None:
        return None
    price = spec.external.price
    per_input, per_output, per_cached = (
        units.decimal_number(text) / units.TOKENS_PER_MILLION
        for text in (
            price.input_usd_per_million_tokens,
            price.output_usd_per_million_tokens,
            price.cached_input_usd_per_million_tokens or price.input_usd_per_million_tokens,
        )
    )
    return snapshots.TokenRates(per_input, per_output, per_cached)
