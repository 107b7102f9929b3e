"""The Workload Variant Autoscaler of llm-d, version 2 of its saturation analysis: supply and demand in tokens.

Source: llm-d ``internal/engines/analyzers/saturation_v2/analyzer.go`` and ``pipeline/cost_aware_optimizer.go``. Every
15 s, for each model:

- capacity of a replica c = min(k1, k2), of a variant the median of its replicas'. k1 = KV tokens · ``kv_threshold``.
  k2 is what was in use while at least ``queue_threshold`` requests waited (the mean of the last 10 such sights, by
  variant and bucket of output lengths), else N·(I + O/2) with N = min(B·O/(I + O), max sequences) and B the tokens
  of one step, else k1;
- demand D = tokens in use + waiting · I, over all replicas;
- required RC = D / ``up`` - (ready and pending)·c; spare SC = ready·c - D / ``down``;
- RC > 0: variants by rising cost per capacity get ceil(RC / c), up to their maximum; else SC > 0: variants by falling
  cost lose floor(SC / c), the cheapest keeping one where it would be the last.

Its wish is a metric that an HPA carries out, whose default windows and rates apply. Missing readings of a replica
leave it out; with none at all the last wish stands. Requests for a model without replicas wake its cheapest variant.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimtab_core import capacity, signals
from trimtab_core.economics import UNPRICED_USD_PER_HOUR
from trimtab_core.planning import cost
from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing import publish
from trimtab_core.snapshot import CapacityProfile, Replica, ReplicaPhase, Snapshot, TierKey, TierState, VariantState

from trimtab_sim.baselines import autoscaled, hpa, routes
from trimtab_sim.control import Orders

_SHORT, _MIDDLING = 100, 500
_SIGHTS = 10
INTERVAL_SECONDS = 15.0
"""Between two evaluations."""


@dataclass(frozen=True, slots=True)
class WvaSettings:
    """A WVA; the defaults are its own.

    Attributes:
        kv_threshold: share of the KV cache that counts as full.
        queue_threshold: waiting requests from which a replica's compute counts as full.
        up, down: shares of the supply above which more is asked for and below which some may go.
        down_window_seconds: of the HPA that carries its wish out.
    """

    kv_threshold: float = 0.80
    queue_threshold: float = 5.0
    up: float = 0.85
    down: float = 0.70
    down_window_seconds: float = hpa.DOWN_WINDOW_SECONDS


@dataclass(frozen=True, slots=True)
class Standing:
    """One variant of a model as the optimiser sees it.

    Attributes:
        tokens: capacity of one replica.
        usd: of one replica-hour.
        target: replicas asked for so far.
        ready, pending: replicas that serve and that start.
        low, high: bounds.
    """

    key: VariantKey
    tokens: float
    usd: float
    target: int
    ready: int
    pending: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Load:
    """What one replica holds: tokens in use, and requests that wait."""

    tokens: float
    waiting: float


@dataclass(slots=True)
class _Model:
    """What is remembered of one tier."""

    sights: dict[tuple[str, int], deque[float]] = field(default_factory=dict)
    histories: dict[VariantKey, hpa.History] = field(default_factory=dict)


class Wva:
    """The autoscaler over all variants of the tiers that are used.

    Args:
        bounds: least and most replicas of every variant that it may scale.
        settings: of all models, or of each variant; those of a model's variants agree in ``up`` and ``down``.
        shorten: by how much a demonstration has shortened times.
        routing: where requests go.
    """

    name = "wva"
    start: Mapping[VariantKey, int] = {}
    """Replicas that are ready when the run begins; see ``autoscaled``."""

    def __init__(
        self,
        bounds: routes.Bounds,
        settings: autoscaled.Each[WvaSettings],
        *,
        shorten: float = 1.0,
        routing: routes.Routing = routes.BEST,
    ) -> None:
        self._bounds = bounds
        self._settings = autoscaled.spread(bounds, settings)
        self._shorten = shorten
        self._routing = routing
        self._models: dict[TierKey, _Model] = {}
        self.uses_cache = routing.uses_cache
        what = autoscaled.told(self._settings, _told)
        self.settings = ", ".join(part for part in (what, routes.told_bounds(bounds), routing.told) if part)

    def interval_seconds(self, snapshot: Snapshot) -> float:
        """The loop's interval."""
        del snapshot
        return INTERVAL_SECONDS / self._shorten

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        """What it starts with, within its bounds, and one of the cheapest variant of a tier that would have none."""
        counts = {key: min(max(self.start.get(key, low), low), high) for key, (low, high) in self._bounds.items()}
        for tier in sorted({key.tier for key in counts}):
            keys = [key for key in counts if key.tier == tier]
            if not any(counts[key] for key in keys):
                counts[_cheapest(snapshot, keys)] = 1
        return dict(routes.plan(snapshot, counts, self._routing).replicas)

    def step(self, snapshot: Snapshot) -> Orders:
        """Evaluate every model."""
        counts: dict[VariantKey, int] = {}
        demands = cost.tier_demands(snapshot)
        for tier in sorted({key.tier for key in self._bounds}):
            counts |= self._evaluate(snapshot.tiers[tier], demands[tier].mix, snapshot.now)
            keys = [key for key in self._bounds if key.tier == tier]
            if not any(counts[key] for key in keys) and routes.arrives(snapshot, tier, self._routing):
                counts[_cheapest(snapshot, keys)] = 1
        return Orders(routes.plan(snapshot, counts, self._routing))

    def _evaluate(self, tier: TierState, mix: capacity.Mix, now: float) -> dict[VariantKey, int]:
        """The replicas of one model's variants."""
        model = self._models.setdefault(tier.key, _Model())
        states = {key: tier.variant(key.variant) for key in self._bounds if key.tier == tier.key}
        wanted = {key: variant.desired for key, variant in states.items()}
        loads = [load for variant in states.values() for one in variant.replicas for load in _load(one, variant)]
        if loads:
            demand = sum(load.tokens + load.waiting * mix.input_tokens for load in loads)
            standings = [self._standing(model, key, variant, mix) for key, variant in states.items()]
            wanted = optimise(standings, demand, next(self._settings[key] for key in states))
        found = {}
        for key, variant in states.items():
            history = model.histories.setdefault(key, deque())
            rules = hpa.HpaSettings(1.0, down_window_seconds=self._settings[key].down_window_seconds)
            count = hpa.stabilise(wanted[key], variant.desired, now, history, rules, self._shorten)
            low, high = self._bounds[key]
            found[key] = min(max(count, low), high)
        return found

    def _standing(self, model: _Model, key: VariantKey, variant: VariantState, mix: capacity.Mix) -> Standing:
        """The variant with the median capacity of its replicas; with what can be derived where it has none."""
        profile = cost.sound_profile(variant) or publish.UNKNOWN_PROFILE
        settings = self._settings[key]
        full = settings.kv_threshold * profile.kv_tokens
        sights = model.sights.setdefault((variant.name, bucket(mix.output_tokens)), deque(maxlen=_SIGHTS))
        capacities = []
        for load in (load for one in variant.replicas for load in _load(one, variant)):
            if load.waiting >= settings.queue_threshold and load.tokens > 0:
                sights.append(load.tokens)
                capacities.append(min(full, load.tokens))
            else:
                capacities.append(min(full, statistics.fmean(sights) if sights else derived(profile, mix)))
        if not capacities:
            capacities = [min(full, statistics.fmean(sights) if sights else derived(profile, mix))]
        ready = variant.count(ReplicaPhase.READY)
        pending = variant.count(ReplicaPhase.PENDING)
        return Standing(
            key, statistics.median(capacities), _usd(variant), variant.desired, ready, pending, *self._bounds[key]
        )


def optimise(standings: Sequence[Standing], demand: float, settings: WvaSettings) -> dict[VariantKey, int]:
    """The replicas wanted of each variant.

    Args:
        standings: of all variants of one model.
        demand: tokens.
        settings: where more is asked for and some may go.
    """
    targets = {one.key: one.target for one in standings}
    required = demand / settings.up - sum((one.ready + one.pending) * one.tokens for one in standings)
    spare = sum(one.ready * one.tokens for one in standings) - demand / settings.down
    if required > 0:
        for one in sorted(standings, key=lambda one: (one.usd / one.tokens, one.key)):
            added = min(hpa.ceil(required / one.tokens), max(0, one.high - one.target)) if required > 0 else 0
            targets[one.key] += added
            required -= added * one.tokens
        return targets
    dearest = sorted(standings, key=lambda one: (-one.usd, one.tokens, one.key))
    for at, one in enumerate(dearest):
        last = at == len(dearest) - 1 and not any(targets[other.key] for other in dearest[:at])
        floor = max(one.low, 1) if last else one.low
        removed = max(0, min(math.floor(spare / one.tokens + 1e-9), one.target - floor)) if spare > 0 else 0
        targets[one.key] -= removed
        spare -= removed * one.tokens
    return targets


def bucket(output_tokens: float) -> int:
    """Short, middling or long answers: sights of one kind say nothing of another."""
    return (output_tokens >= _SHORT) + (output_tokens >= _MIDDLING)


def derived(profile: CapacityProfile, mix: capacity.Mix) -> float:
    """k2 from the engine's settings: the tokens of as many sequences as fit into its steps."""
    share = mix.output_tokens / (mix.input_tokens + mix.output_tokens)
    sequences = min(capacity.CHUNK_TOKENS * share, float(profile.max_sequences))
    return max(1.0, sequences * (mix.input_tokens + mix.output_tokens / 2))


def _load(replica: Replica, variant: VariantState) -> Sequence[Load]:
    """What a replica holds; nothing where a reading is missing."""
    usage, waiting = signals.sound(replica.kv_usage), signals.sound(replica.waiting)
    if replica.phase is not ReplicaPhase.READY or usage is None or waiting is None:
        return ()
    profile = cost.sound_profile(variant) or publish.UNKNOWN_PROFILE
    return (Load(usage * profile.kv_tokens, waiting),)


def _cheapest(snapshot: Snapshot, keys: Sequence[VariantKey]) -> VariantKey:
    return min(keys, key=lambda key: (_usd(snapshot.tiers[key.tier].variant(key.variant)), key))


def _usd(variant: VariantState) -> float:
    """The cost that its user would write down; one without a price is the last to be taken."""
    usd = cost.sound_price(variant)
    return UNPRICED_USD_PER_HOUR if usd is None else usd


def _told(settings: WvaSettings) -> str:
    what = f"KV threshold {settings.kv_threshold:.3g}, up at {settings.up:g}, down at {settings.down:g}"
    return what + hpa.told_window(settings.down_window_seconds)
