"""Makes faults happen: to replicas, machines, prices, the answer cache and the controller, each at its time.

What happens to metrics is in ``scrapes``, what happens to arrivals in ``arrivals``. Every draw has a generator of its
own, named by what it is about, so that one fault more changes no other. Knows nothing of controllers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase

from trimtab_sim import engine, faults, replicas
from trimtab_sim import fleet as fleets

_STRUCK = (ReplicaPhase.READY, ReplicaPhase.PENDING)


class Variants:
    """The variants of a scenario, as faults name them.

    Args:
        bought: how the hardware of each variant is bought.
    """

    def __init__(self, bought: Mapping[VariantKey, CapacityType]) -> None:
        self._bought = bought

    def named(self, name: str) -> VariantKey:
        """The variant that a fault names ``tier/variant``, with or without the namespace. Raises FaultError."""
        for key in self._bought:
            if name in (_short(key), f"{key.tier}/{key.variant}"):
                return key
        there = ", ".join(sorted(map(_short, self._bought)))
        raise faults.FaultError(f"faults: variant {name!r} is not in the manifests; there are {there or 'none'}")

    def of(self, whose: faults.Whose, otherwise: CapacityType | None = None) -> frozenset[VariantKey]:
        """Those that a fault is about; ``otherwise`` says which ones where it names none. Raises FaultError."""
        if whose.variant is not None:
            return frozenset({self.named(whose.variant)})
        wanted = whose.capacity_type or otherwise
        return frozenset(key for key, bought in self._bought.items() if wanted in (None, bought))


def _short(key: VariantKey) -> str:
    return f"{key.tier.rpartition('/')[2]}/{key.variant}"


class Births:
    """How replicas come up: blocked, slowly or never, by the time at which they are created.

    Raises:
        faults.FaultError: for a variant that is not there.
    """

    def __init__(
        self,
        troubles: faults.Faults,
        clock: engine.Engine,
        variants: Variants,
        startups: Mapping[VariantKey, float],
    ) -> None:
        self._clock = clock
        self._startups = startups
        self._blocked = [(variants.of(one), one.begins, one.ends) for one in troubles.capacity_blocked]
        self._never = [(variants.of(one), one) for one in troubles.never_ready]
        self._slow = [(variants.of(one), one) for one in troubles.slow_start]

    def start(self, key: VariantKey) -> replicas.Start | None:
        """How a replica of the variant comes up that is created now; None for as usual."""
        now = self._clock.now
        never = any(key in keys and period.holds(now) for keys, period in self._never)
        slower = math.prod(slow.factor for keys, slow in self._slow if key in keys and slow.holds(now))
        waits = self._free_at(key, now) - now
        if not never and slower == 1 and waits <= 0:
            return None
        return replicas.Start(waits, math.inf if never else self._startups[key] * slower)

    def block(self, key: VariantKey, seconds: float) -> None:
        """From now on, no machine is found for the variant for a while."""
        now = self._clock.now
        self._blocked.append((frozenset({key}), now, now + seconds))

    def _free_at(self, key: VariantKey, at: float) -> float:
        """When a machine is found for a replica that asks at that time."""
        while True:
            ends = [end for keys, begin, end in self._blocked if key in keys and begin <= at < end]
            if not ends:
                return at
            at = max(ends)


class Strikes:
    """Preemptions and failures of replicas.

    Raises:
        faults.FaultError: for a variant that is not there.
    """

    def __init__(  # noqa: PLR0917 (what it connects)
        self,
        troubles: faults.Faults,
        clock: engine.Engine,
        variants: Variants,
        fleet: fleets.Fleet,
        births: Births,
        *,
        seed: int,
    ) -> None:
        self._clock = clock
        self._fleet = fleet
        self._births = births
        self._seed = seed
        self._strikes: list[tuple[frozenset[VariantKey], faults.Preemption | faults.Failure]] = [
            *((variants.of(one, CapacityType.SPOT), one) for one in troubles.preemptions),
            *((variants.of(one), one) for one in troubles.failures),
        ]

    def begin(self) -> None:
        """Schedule what has its moment."""
        for number, (keys, strike) in enumerate(self._strikes):
            if strike.at is not None:
                self._clock.at(strike.at, self._wave(number, keys, strike))

    def ready(self, key: VariantKey, replica: replicas.Replica) -> None:
        """A replica has become ready: from now on it may be hit at a rate."""
        for number, (keys, strike) in enumerate(self._strikes):
            if strike.per_replica_hour is None or key not in keys:
                continue
            rng = random.Random(f"strike {self._seed} {number} {replica.name} {replica.ready_at}")
            since = max(self._clock.now, strike.begins)
            at = since + rng.expovariate(strike.per_replica_hour / units.SECONDS_PER_HOUR)
            if at < strike.ends:
                self._clock.at(at, self._single(key, replica, strike))

    def _wave(
        self, number: int, keys: frozenset[VariantKey], strike: faults.Preemption | faults.Failure
    ) -> engine.Action:
        rng = random.Random(f"wave {self._seed} {number}")

        def hit() -> None:
            found = [(key, one) for key, one in self._fleet.members() if key in keys and _can_be_hit(one, strike)]
            count = strike.count or max(1, round((strike.share or 1.0) * len(found)))
            for key, replica in rng.sample(found, min(count, len(found))):
                self._strike(key, replica, strike)

        return hit

    def _single(
        self, key: VariantKey, replica: replicas.Replica, strike: faults.Preemption | faults.Failure
    ) -> engine.Action:
        since = replica.ready_at

        def hit() -> None:
            if replica.phase is ReplicaPhase.READY and replica.ready_at == since:
                self._strike(key, replica, strike)

        return hit

    def _strike(self, key: VariantKey, replica: replicas.Replica, strike: faults.Preemption | faults.Failure) -> None:
        if isinstance(strike, faults.Preemption):
            self._births.block(key, strike.no_capacity_for)
            self._fleet.preempt(key, replica, strike.notice)
        elif strike.kind is faults.FailureKind.LOST:
            self._fleet.lose(key, replica)
        elif strike.kind is faults.FailureKind.RESTART:
            replica.restart()
        else:
            replica.freeze()
            if strike.lasts is not None:
                self._clock.after(strike.lasts, replica.thaw)


def _can_be_hit(replica: replicas.Replica, strike: faults.Preemption | faults.Failure) -> bool:
    """Machines are taken from ready and from starting replicas; only ready ones fail."""
    if isinstance(strike, faults.Preemption):
        return replica.phase in _STRUCK and not (replica.phase is ReplicaPhase.PENDING and replica.stuck)
    return replica.phase is ReplicaPhase.READY and not replica.frozen


@dataclass(frozen=True, slots=True)
class Levers:
    """What else faults move.

    Attributes:
        reprice: set a variant's price per replica-hour, USD.
        empty_cache: forget all answers.
        hand_over: replace the controller, after so many seconds without decisions.
    """

    reprice: Callable[[VariantKey, float], None]
    empty_cache: engine.Action
    hand_over: Callable[[float], None]


def schedule(
    troubles: faults.Faults,
    clock: engine.Engine,
    variants: Variants,
    *,
    kinds: Mapping[VariantKey, fleets.Kind],
    levers: Levers,
) -> None:
    """Schedule price changes, cold caches and hand-overs. Raises FaultError for a variant that is not there."""
    for change in troubles.price_changes:
        key = variants.named(change.variant)
        usd = change.usd_per_hour or kinds[key].usd_per_hour * (change.factor or 1.0)
        clock.at(change.at, _reprice(levers, key, usd))
    for moment in troubles.cold_cache:
        clock.at(moment.at, levers.empty_cache)
    for handover in troubles.leader_handover:
        clock.at(handover.at, _hand_over(levers, handover.gap), engine.Order.MEASURE)


def _reprice(levers: Levers, key: VariantKey, usd: float) -> engine.Action:
    return lambda: levers.reprice(key, usd)


def _hand_over(levers: Levers, gap: float) -> engine.Action:
    return lambda: levers.hand_over(gap)
