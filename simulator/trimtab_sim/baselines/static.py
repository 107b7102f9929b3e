"""A fixed number of replicas, on all day."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Snapshot

from trimtab_sim.baselines import routes
from trimtab_sim.control import Orders


class StaticPeak:
    """A fixed number of replicas, on all day.

    Args:
        counts: replicas of each serving variant.
        routing: where requests go.
        name: for tables, where it stands for another baseline.
    """

    name = "static-peak"

    def __init__(
        self, counts: Mapping[VariantKey, int], routing: routes.Routing = routes.BEST, *, name: str = name
    ) -> None:
        self.name = name
        self.counts = dict(counts)
        self._routing = routing
        self.uses_cache = routing.uses_cache
        parts = [f"{count} × {routes.told(key)}" for key, count in sorted(counts.items())]
        self.settings = ", ".join([*parts, routing.told] if routing.told else parts)

    def interval_seconds(self, snapshot: Snapshot) -> float:
        """It never changes its mind; once a minute keeps the table fresh."""
        del snapshot
        return 60.0

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        """Its replicas, and nothing else."""
        return dict(routes.plan(snapshot, self.counts, self._routing).replicas)

    def step(self, snapshot: Snapshot) -> Orders:
        """The same as ever."""
        return Orders(routes.plan(snapshot, self.counts, self._routing))
