"""What autoscalers of one Deployment have in common: one of them for each serving variant, between two bounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from trimtab_core import signals
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Replica, ReplicaPhase, Snapshot, VariantState

from trimtab_sim.baselines import routes
from trimtab_sim.control import Orders

S = TypeVar("S")
Each: TypeAlias = S | Mapping[VariantKey, S]
"""Settings of all autoscalers of a controller, or of each one."""
SCRAPED = (ReplicaPhase.READY, ReplicaPhase.DRAINING)
"""Phases in which a pod has metrics."""


class Autoscaled(ABC):
    """A controller that decides for each serving variant apart.

    Args:
        bounds: least and most replicas of each serving variant.
        what: the main parameter, for people.
        interval: seconds between two evaluations.
        routing: where requests go.
    """

    name = ""
    start: Mapping[VariantKey, int] = {}
    """Replicas that are ready when the run begins, the minima where it says nothing. A run's prologue would else begin
    with a backlog that no autoscaler ever has to deal with, and some never get rid of."""

    def __init__(self, bounds: routes.Bounds, what: str, interval: float, routing: routes.Routing) -> None:
        self._bounds = bounds
        self._interval = interval
        self._routing = routing
        self.uses_cache = routing.uses_cache
        parts = (what, routes.told_bounds(bounds), routing.told)
        self.settings = ", ".join(part for part in parts if part)

    def interval_seconds(self, snapshot: Snapshot) -> float:
        """The time between two evaluations."""
        del snapshot
        return self._interval

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        """What it starts with, within its bounds."""
        counts = {key: min(max(self.start.get(key, low), low), high) for key, (low, high) in self._bounds.items()}
        return dict(routes.plan(snapshot, counts, self._routing).replicas)

    def step(self, snapshot: Snapshot) -> Orders:
        """Evaluate every autoscaler."""
        counts = {}
        for key, (low, high) in self._bounds.items():
            wanted = self.decide(key, snapshot.tiers[key.tier].variant(key.variant), snapshot)
            counts[key] = min(max(wanted, low), high)
        return Orders(routes.plan(snapshot, counts, self._routing))

    @abstractmethod
    def decide(self, key: VariantKey, variant: VariantState, snapshot: Snapshot) -> int:
        """Replicas wanted now, before the bounds."""


def pods(variant: VariantState) -> list[Replica]:
    """The pods of the scale: ready and pending ones."""
    return [one for one in variant.replicas if one.phase in {ReplicaPhase.READY, ReplicaPhase.PENDING}]


def in_flight(replicas: Iterable[Replica]) -> float | None:
    """Running and waiting requests of all pods that can be read, together; None if there are none such."""
    values = [
        running + waiting
        for one in replicas
        if one.phase in SCRAPED
        for running, waiting in ((signals.sound(one.running), signals.sound(one.waiting)),)
        if running is not None and waiting is not None
    ]
    return sum(values) if values else None


def spread(bounds: routes.Bounds, settings: Each[S]) -> dict[VariantKey, S]:
    """The settings of each serving variant."""
    if isinstance(settings, Mapping):
        return {key: settings[key] for key in bounds}
    return dict.fromkeys(bounds, settings)


def told(settings: Mapping[VariantKey, S], what: Callable[[S], str]) -> str:
    """What the settings are, once where they are equal for all."""
    texts = {key: what(one) for key, one in sorted(settings.items())}
    if len(set(texts.values())) <= 1:
        return next(iter(texts.values()), "")
    return ", ".join(f"{text} ({routes.told(key)})" for key, text in texts.items())
