"""How replicas leave: told first, emptied, then deleted. Pure.

Over several cycles: the table stops naming the emptiest replicas and their pods are marked; once their engine is
empty, or their time is up, the Deployment's count falls and its controller deletes the cheapest pods to lose, which
are the marked ones. What waits for a machine or never became ready leaves at once. All memory is in the marks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import observation, signals, units
from trimtab_core import snapshot as snapshots
from trimtab_core.planning import plan as planning
from trimtab_core.snapshot import ReplicaPhase, Snapshot

LEAVING_COST = -1000
EMPTY_COST = -2000
"""Deletion costs: marked replicas go before others, empty ones before those that still work."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a replica's pod is to be told.

    Attributes:
        since: when it was told to leave, epoch seconds; None takes the mark away.
        deletion_cost: the lowest goes first; 0 for a mark that is taken away.
    """

    key: planning.VariantKey
    replica: str
    since: float | None
    deletion_cost: int


@dataclass(frozen=True, slots=True)
class Step:
    """One cycle's part of all drains.

    Attributes:
        scale: the replica count that each variant's Deployment gets now.
        marks: what pods are to be told; replicas whose mark stays as it is are not named.
        leaving: names of all replicas that must get no more requests.
    """

    scale: Mapping[planning.VariantKey, int]
    marks: tuple[Mark, ...]
    leaving: frozenset[str]


def step(seen: observation.Observation, snapshot: Snapshot, plan: planning.Plan, *, settle_seconds: float) -> Step:
    """Go one step from what runs towards the plan.

    Args:
        seen: replicas with their marks, and the counts of their Deployments.
        snapshot: the same with the engines' gauges.
        plan: wanted replicas.
        settle_seconds: how long routers may take to follow a new table.
    """
    scale: dict[planning.VariantKey, int] = {}
    marks: list[Mark] = []
    leaving: set[str] = set()
    for tier in snapshot.tiers.values():
        timeout_seconds = units.duration_seconds(tier.spec.drain.timeout)
        for variant in tier.variants:
            key = planning.VariantKey(tier.key, variant.name)
            scale[key] = wanted = plan.replicas.get(key, variant.desired)
            observed = seen.variants.get(key)
            if observed is not None and observed.desired is not None:
                drain = _Drain(key, observed, variant, snapshot.now, settle_seconds, timeout_seconds)
                scale[key], found = drain.towards(wanted)
                marks += [mark for mark in found if drain.is_news(mark)]
                leaving |= {mark.replica for mark in found if mark.since is not None}
    return Step(scale, tuple(marks), frozenset(leaving))


def marked(snapshot: Snapshot, leaving: frozenset[str]) -> Snapshot:
    """The snapshot with these replicas leaving: what the routing table is made from."""
    tiers = {
        key: dataclasses.replace(tier, variants=tuple(_marked(variant, leaving) for variant in tier.variants))
        for key, tier in snapshot.tiers.items()
    }
    return dataclasses.replace(snapshot, tiers=tiers)


def _marked(variant: snapshots.VariantState, leaving: frozenset[str]) -> snapshots.VariantState:
    if not any(replica.name in leaving for replica in variant.replicas):
        return variant
    replicas = tuple(
        dataclasses.replace(replica, phase=ReplicaPhase.DRAINING) if replica.name in leaving else replica
        for replica in variant.replicas
    )
    return dataclasses.replace(variant, replicas=replicas)


@dataclass(frozen=True, slots=True)
class _Drain:
    """One variant's replicas on their way."""

    key: planning.VariantKey
    observed: observation.ObservedVariant
    state: snapshots.VariantState
    now: float
    settle_seconds: float
    timeout_seconds: float

    def towards(self, wanted: int) -> tuple[int, list[Mark]]:
        """The Deployment's count now and the marks of all replicas that have or had one."""
        count = self.observed.desired or 0
        marked = sorted((r for r in self.observed.replicas if r.drain_since is not None), key=_told_first)
        ready = [r for r in self.observed.replicas if r.phase is ReplicaPhase.READY]
        given_up = self.observed.given_up  # not yet deleted: their marks must stay, or others would be
        goners, marked = marked[:given_up], marked[given_up:]
        going = max(0, count - wanted)
        unready = min(going, max(0, count - len(ready) - len(marked)))
        busy = going - unready
        kept, released = marked[:busy], marked[busy:]
        empty = [replica for replica in kept if self.is_over(replica)]
        chosen = sorted(ready, key=self.emptiest_first)[: busy - len(kept)]
        marks = [self.mark(replica, EMPTY_COST) for replica in (*goners, *empty)]
        marks += [self.mark(replica, LEAVING_COST) for replica in (*kept, *chosen) if replica not in empty]
        marks += [Mark(self.key, replica.name, None, 0) for replica in released]
        return max(wanted, count - unready - len(empty)) if going else wanted, marks

    def mark(self, replica: observation.ObservedReplica, cost: int) -> Mark:
        """A mark that keeps its age."""
        return Mark(self.key, replica.name, self.now if replica.drain_since is None else replica.drain_since, cost)

    def is_news(self, mark: Mark) -> bool:
        """Whether the pod must be told; its cost is told again when it became empty, which is once."""
        before = next(r.drain_since for r in self.observed.replicas if r.name == mark.replica)
        return mark.since != before or mark.deletion_cost == EMPTY_COST

    def is_over(self, replica: observation.ObservedReplica) -> bool:
        """Whether a marked replica may go: its engine was seen empty after routers had let go, or its time is up."""
        told = self.now if replica.drain_since is None else replica.drain_since
        if self.now - told >= self.timeout_seconds:
            return True
        state = next((r for r in self.state.replicas if r.name == replica.name), None)
        if state is None:
            return True
        return all(self.is_empty(signal, told + self.settle_seconds) for signal in (state.running, state.waiting))

    def is_empty(self, signal: signals.Signal, after: float) -> bool:
        """Whether a gauge was fresh and zero at or after a moment."""
        return isinstance(signal, signals.Fresh) and signal.value == 0 and self.now - signal.age_seconds >= after

    def emptiest_first(self, replica: observation.ObservedReplica) -> tuple[float, float, str]:
        """Order of choice: least work, then newest; an engine that can't be read counts as full."""
        state = next((r for r in self.state.replicas if r.name == replica.name), None)
        load = signals.known(signals.total((state.running, state.waiting))) if state else None
        return (math.inf if load is None else load, -replica.created_at, replica.name)


def _told_first(replica: observation.ObservedReplica) -> tuple[float, str]:
    return (replica.drain_since or 0.0, replica.name)
