"""KEDA: a ScaledObject on requests in the engines, waiting and running ones together.

Between 1 and the maximum KEDA's HPA scales on an External metric of type AverageValue; KEDA itself only switches
between 0 and 1: on when the trigger is active, off when it has been inactive for the cooldown period. Both look once
in a polling interval or sync period of their own. A query without a result counts as 0, as ``ignoreNullValues`` is
true unless it is set. What wakes a Deployment of 0 replicas, which has no engine to ask, is a second trigger on the
requests that come in at the router, as the vLLM production stack's operator sets one up. Sources: keda
``pkg/scaling/executor/scale_scaledobjects.go``, ``pkg/scalers/prometheus_scaler.go``; defaults: 30 s, 300 s.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Snapshot, VariantState

from trimtab_sim.baselines import autoscaled, hpa, routes


@dataclass(frozen=True, slots=True)
class KedaSettings:
    """A ScaledObject; the defaults are KEDA's.

    Attributes:
        threshold: requests in the engines per pod.
        polling_seconds: time between two looks at whether the trigger is active.
        cooldown_seconds: how long it must have been inactive before the last replica goes.
        down_window_seconds: of the HPA that KEDA makes.
    """

    threshold: float
    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    down_window_seconds: float = hpa.DOWN_WINDOW_SECONDS


@dataclass(slots=True)
class _Trigger:
    """What KEDA and its HPA remember of one ScaledObject."""

    active_at: float
    polled_at: float
    history: hpa.History = field(default_factory=deque)


class Keda(autoscaled.Autoscaled):
    """One ScaledObject for each serving variant.

    Args:
        bounds: minReplicaCount (0 lets it sleep) and maxReplicaCount of each serving variant.
        settings: of all its ScaledObjects, or of each.
        shorten: by how much a demonstration has shortened times.
        routing: where requests go.
    """

    name = "keda"

    def __init__(
        self,
        bounds: routes.Bounds,
        settings: autoscaled.Each[KedaSettings],
        *,
        shorten: float = 1.0,
        routing: routes.Routing = routes.BEST,
    ) -> None:
        self._settings = autoscaled.spread(bounds, settings)
        self._shorten = shorten
        self._triggers: dict[VariantKey, _Trigger] = {}
        super().__init__(bounds, autoscaled.told(self._settings, _told), hpa.SYNC_SECONDS / shorten, routing)

    def decide(self, key: VariantKey, variant: VariantState, snapshot: Snapshot) -> int:
        """The HPA's wish while the trigger is active or cooling down, else the minimum."""
        settings, now, low = self._settings[key], snapshot.now, self._bounds[key][0]
        trigger = self._triggers.setdefault(key, _Trigger(now, float("-inf")))
        total = autoscaled.in_flight(variant.replicas) or 0.0
        if now - trigger.polled_at >= settings.polling_seconds / self._shorten - 1e-9:
            trigger.polled_at = now
            active = total > 0 or routes.arrives(snapshot, key.tier, self._routing)
            trigger.active_at = now if active else trigger.active_at
            if not variant.desired:
                return max(1, low) if active else 0
            if not low and now - trigger.active_at > settings.cooldown_seconds / self._shorten:
                trigger.history.clear()
                return 0
        if not variant.desired:  # the HPA leaves a Deployment alone that is switched off
            return 0
        rules = hpa.HpaSettings(settings.threshold, down_window_seconds=settings.down_window_seconds)
        proposal = hpa.recommend_total(total, variant.desired, rules)
        wanted = hpa.stabilise(proposal, variant.desired, now, trigger.history, rules, self._shorten)
        return max(wanted, 1, low)


def _told(settings: KedaSettings) -> str:
    what = f"threshold {settings.threshold:g} running and waiting per pod"
    return what + hpa.told_window(settings.down_window_seconds)
