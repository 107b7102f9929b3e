"""Last value times a factor: as many replicas as the latest arrivals need, and some more, every cycle.

It has Trimtab's own capacity model and its signals, and neither forecast, windows nor optimisation: what it costs to
do without them shows beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from trimtab_core import capacity, signals, units
from trimtab_core.planning import cost
from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing import publish
from trimtab_core.snapshot import Snapshot, VariantState

from trimtab_sim.baselines import autoscaled, hpa, routes


class LastValue(autoscaled.Autoscaled):
    """``factor`` times the capacity that the last known arrivals of each tier need.

    Args:
        bounds: least and most replicas of each serving variant.
        policy: whose interval it keeps, and whose promise.
        factor: above 1 for headroom.
        interval: seconds between two decisions.
        routing: where requests go.
    """

    name = "last-value"

    def __init__(
        self,
        bounds: routes.Bounds,
        policy: str,
        factor: float = 1.2,
        *,
        interval: float = 15.0,
        routing: routes.Routing = routes.BEST,
    ) -> None:
        super().__init__(bounds, f"{factor:g} times the last value", interval, routing)
        self._policy = policy
        self._factor = factor
        self._demands: tuple[float, Mapping[str, cost.Demand]] = (float("nan"), {})

    def decide(self, key: VariantKey, variant: VariantState, snapshot: Snapshot) -> int:
        """Replicas for the last value; those that there are while arrivals aren't known."""
        policy = snapshot.policies[self._policy]
        if all(signals.sound(traffic.arrivals_per_second) is None for traffic in policy.traffic.values()):
            return variant.desired
        if self._demands[0] != snapshot.now:
            self._demands = (snapshot.now, cost.tier_demands(snapshot))
        demand = self._demands[1][key.tier]
        slo = capacity.limits(snapshot.tiers[key.tier].spec.slo, policy.spec.slo)
        load = capacity.admissible_load(cost.sound_profile(variant) or publish.UNKNOWN_PROFILE, demand.mix, slo)
        return hpa.ceil(self._factor * demand.requests_per_second / load.requests_per_second)


def interval_seconds(snapshot: Snapshot, policy: str) -> float:
    """The policy's own time between two decisions."""
    return units.duration_seconds(snapshot.policies[policy].spec.retune.interval)
