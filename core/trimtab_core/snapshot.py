"""The snapshot: everything that one planning decision may see, frozen at one moment.

The operator, local mode and the simulator all build it with the functions of ``observation.py``; the
optimiser, the guards and the diff read nothing else. Keys: a tier or policy is named
``namespace/name``; a variant is named within its tier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from trimtab_core import learning
from trimtab_core.api import v1alpha1
from trimtab_core.economics import TokenRates as TokenRates  # noqa: PLC0414 (defined where routers can import it)
from trimtab_core.season import Season
from trimtab_core.signals import Missing, Signal
from trimtab_core.waves import UNSEEN, Waves

TierKey = str
PolicyKey = str
ClassName = str
Weights = Mapping[ClassName, Mapping[TierKey, float]]
"""For each class, the share of its requests that each tier gets; shares of a class sum to 1."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one replica-hour costs, with its provenance.

    Attributes:
        usd_per_hour: USD per replica-hour, above 0.
        source: who says so, such as ``spec`` or ``catalog aws us-east-1``.
        as_of: date of the price, ISO 8601, or an empty text when the user fixed it.
    """

    usd_per_hour: float
    source: str
    as_of: str = ""


@dataclass(frozen=True, slots=True)
class CapacityProfile:
    """What one replica can carry: inter-token latency a + b·n with n running sequences.

    Source of the linear law: 420 fitted cells of measured GPUs, median R² 0.99
    (ai-dynamo/aiconfigurator silicon sample).
    """

    itl_base_seconds: float
    itl_per_sequence_seconds: float
    prefill_tokens_per_second: float
    kv_tokens: int
    max_sequences: int
    startup_seconds: float


class ReplicaPhase(StrEnum):
    """Where a replica is in its life."""

    PENDING = "Pending"
    READY = "Ready"
    DRAINING = "Draining"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Replica:
    """One running engine as seen from outside.

    Attributes:
        name: pod or process name.
        phase: READY counts as capacity, PENDING only until its deadline.
        created_at: epoch seconds.
        address: ``host:port``, or an empty text while there is none.
        running, waiting: requests in the engine.
        kv_usage: share of the KV cache in use, 0 to 1.
    """

    name: str
    phase: ReplicaPhase
    created_at: float
    address: str = ""
    running: Signal = Missing("not scraped")
    waiting: Signal = Missing("not scraped")
    kv_usage: Signal = Missing("not scraped")


@dataclass(frozen=True, slots=True)
class VariantMemory:
    """What the loop must remember of a variant between two cycles; kept in status.

    All times are epoch seconds; None means never or not now.

    Attributes:
        losses_per_hour: replicas that went without being told to, per replica-hour; None before any was measured.
        waves: how many of them went together; what status lacks of it is a hint.
        recent: (epoch seconds, count) that was planned in each cycle of the scale-down window; a hint, not in status.
    """

    fewer_since: float | None = None
    last_scaled_at: float | None = None
    blocked_until: float | None = None
    override_until: float | None = None
    losses_per_hour: float | None = None
    lost_at: float | None = None
    waves: Waves = UNSEEN
    recent: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class VariantState:
    """One variant of a tier now.

    Attributes:
        desired: replicas that the cluster was last told to run.
        price: None when no price could be resolved: such a variant is never scaled up.
        profile: each number given, else learned, else prior; None when nothing is known.
        external_scaler: name of another writer on the replica count, such as an HPA we did not make.
        lost: replicas that went since the snapshot before without being told to: preempted, evicted or crashed.
        watched_hours: replica-hours since then, over which that was seen.
        served: replicas that were ready then.
        learned: what its replicas have shown so far; None where nobody has looked.
    """

    spec: v1alpha1.Variant
    desired: int
    replicas: tuple[Replica, ...]
    price: Price | None
    profile: CapacityProfile | None
    memory: VariantMemory = VariantMemory()
    external_scaler: str = ""
    lost: int = 0
    watched_hours: float = 0.0
    served: int = 0
    learned: learning.Learned | None = None

    @property
    def name(self) -> str:
        """The variant's name within its tier."""
        return self.spec.name

    def count(self, phase: ReplicaPhase) -> int:
        """Number of replicas in one phase."""
        return sum(1 for replica in self.replicas if replica.phase is phase)


@dataclass(frozen=True, slots=True)
class TierState:
    """One tier now.

    Attributes:
        token_rates: set for external tiers, which have no variants.
        slo_attainment: share of recent requests that kept the promise that was kept least.
        judged_per_second: requests that were held against a promise.
        missed_per_second: those that missed one; at most all of several misses where they can't be told apart.
        utilisation: share of the admissible load that is planned with, see ``planning.headroom``.
    """

    key: TierKey
    spec: v1alpha1.InferenceTierSpec
    variants: tuple[VariantState, ...]
    token_rates: TokenRates | None = None
    slo_attainment: Signal = Missing("not measured")
    judged_per_second: Signal = Missing("not measured")
    missed_per_second: Signal = Missing("not measured")
    utilisation: float = 0.85

    def variant(self, name: str) -> VariantState:
        """The variant of that name. Raises KeyError."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class ClassTraffic:
    """Measured demand of one class of one policy, over the observer's window.

    Attributes:
        arrivals_per_second: requests offered, completed or not, before the cache.
        input_tokens, output_tokens: means per request.
        cache_hit_ratio: share of arrivals answered from the cache.
        burstiness: variance of arrival counts over their mean, at the scale of seconds (``burstiness``); 1 is Poisson.
        history: (epoch seconds, arrivals per second) of past cycles, oldest first, for the forecast.
        season: what a usual week looks like; None before the first fresh reading.
        back_since: epoch seconds from when on arrivals are seen again after a gap; None once rates are whole again.
    """

    arrivals_per_second: Signal
    input_tokens: Signal
    output_tokens: Signal
    cache_hit_ratio: Signal = Missing("no cache")
    burstiness: Signal = Missing("not measured")
    history: tuple[tuple[float, float], ...] = ()
    season: Season | None = None
    back_since: float | None = None


@dataclass(frozen=True, slots=True)
class PolicyState:
    """One policy now: its spec, its tiers in spec order, its measured traffic and the weights in force.

    Attributes:
        spent_usd_month_to_date: what its tiers have cost in this calendar month (UTC).
    """

    key: PolicyKey
    spec: v1alpha1.RoutingPolicySpec
    tiers: tuple[TierKey, ...]
    traffic: Mapping[ClassName, ClassTraffic]
    weights: Weights
    spent_usd_month_to_date: Signal = Missing("not measured")
    slo_attainment: Signal = Missing("not measured")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at ``now`` (epoch seconds), as leader ``epoch`` sees it; rates are taken over ``window_seconds``."""

    now: float
    epoch: int
    tiers: Mapping[TierKey, TierState]
    policies: Mapping[PolicyKey, PolicyState]
    caches: Mapping[str, v1alpha1.CachePolicySpec] = field(default_factory=dict)
    window_seconds: float = 60.0
