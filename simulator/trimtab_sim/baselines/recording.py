"""Trimtab with a memory of its routing, so that an autoscaler can be compared under the very same weights."""

from __future__ import annotations

from trimtab_core import signals
from trimtab_core.planning import cost
from trimtab_core.snapshot import PolicyKey, Snapshot, TierKey, Weights

from trimtab_sim import control, objects
from trimtab_sim.baselines import routes


class Recording(control.Trimtab):
    """Trimtab, which also adds up the weights of each class by the requests that arrived under them."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[PolicyKey, dict[str, dict[TierKey, float]]] = {}

    def step(self, snapshot: Snapshot) -> control.Orders:
        """Decide, and remember where requests go until the next time."""
        orders = super().step(snapshot)
        if snapshot.now < objects.EPOCH_SECONDS:  # the prologue does not count
            return orders
        for policy, classes in orders.plan.weights.items():
            traffic = snapshot.policies[policy].traffic
            for name, shares in classes.items():
                known = traffic.get(name)
                arrivals = signals.sound(known.arrivals_per_second) if known is not None else None
                sums = self._sums.setdefault(policy, {}).setdefault(name, {})
                for tier, share in shares.items():
                    sums[tier] = sums.get(tier, 0.0) + share * max(arrivals or 0.0, cost.LEAST_WEIGHT)
        return orders

    def routing(self) -> routes.Routing:
        """Fixed weights: the mean of all that were in force, by demand; with the cache."""
        weights: dict[PolicyKey, Weights] = {
            policy: {
                name: {tier: value / total for tier, value in sums.items() if value > 0}
                for name, sums in classes.items()
                for total in (sum(sums.values()),)
                if total > 0
            }
            for policy, classes in self._sums.items()
        }
        return routes.Routing(weights, uses_cache=True, told="Trimtab's mean routing and cache")
