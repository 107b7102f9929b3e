"""Manifests made fit for one machine and for an impatient audience. Pure.

What only a cluster has (autoscalers, sidecar injection, several routers) is replaced by what serves the same end
here; with a time scale, everything that waits for hardware or for evidence waits that much less. Requests, prices
and SLOs are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.catalog import profiles

from trimtab_operator import settings
from trimtab_operator.local.store import Object

SHORTEST_INTERVAL_SECONDS = 2.0
SHORTEST_WINDOW_SECONDS = 10.0
"""Rates over less than this would follow chance: five intervals, and dozens of requests in the demo."""
SHORT_WINDOW_UTILISATION = "0.70"
"""Share of the admissible load to begin with where windows are shortened: what is counted in seconds swings by tens of
percent, one busy machine delays every step of every engine, and minutes are too few to learn by how much."""
SETTLE_SECONDS = 1.5
"""A local router looks at its table's file twice a second."""


def adapt(objects: Sequence[Object], time_scale: float = 1.0) -> list[Object]:
    """The objects as local mode runs them; waits divided by ``time_scale``, which is at least 1."""
    adapted: list[Object] = []
    for found in objects:
        if isinstance(found, v1alpha1.InferenceTier):
            changes = {"spec": _tier(found.spec, time_scale), "status": _status(found.status, time_scale)}
            adapted.append(found.model_copy(update=changes))
        elif isinstance(found, v1alpha1.RoutingPolicy):
            adapted.append(found.model_copy(update={"spec": _policy(found.spec, time_scale)}))
        else:
            adapted.append(found)
    return adapted


def loop(objects: Sequence[Object], time_scale: float = 1.0, interval_seconds: float | None = None) -> settings.Loop:
    """The loop's settings for adapted objects; ``interval_seconds`` overrides what policies ask for."""
    asked = [units.duration_seconds(o.spec.retune.interval) for o in objects if isinstance(o, v1alpha1.RoutingPolicy)]
    return settings.Loop(
        interval_seconds=interval_seconds or min(asked, default=settings.Loop().interval_seconds),
        window_seconds=shortened(settings.Loop().window_seconds, time_scale, SHORTEST_WINDOW_SECONDS),
        settle_seconds=SETTLE_SECONDS,
    )


def shortened(seconds: float, time_scale: float, shortest: float = 0.0) -> float:
    """A wait divided by the time scale, but not below ``shortest`` unless it already was."""
    return max(seconds / time_scale, min(seconds, shortest))


def _tier(spec: v1alpha1.InferenceTierSpec, time_scale: float) -> v1alpha1.InferenceTierSpec:
    """The count is written by us alone; start-ups and windows are shortened."""
    to_zero = spec.scaling.scale_to_zero
    if to_zero is not None:
        to_zero = to_zero.model_copy(update={"after": _divided(to_zero.after, time_scale)})
    scaling = spec.scaling.model_copy(
        update={
            "actuator": v1alpha1.Actuator.DIRECT,
            "scale_down_window": _divided(spec.scaling.scale_down_window, time_scale),
            "scale_to_zero": to_zero,
        }
    )
    variants = [_variant(spec.model.name, variant, time_scale) for variant in spec.variants]
    return spec.model_copy(update={"scaling": scaling, "variants": variants})


def _status(status: v1alpha1.InferenceTierStatus, time_scale: float) -> v1alpha1.InferenceTierStatus:
    """More room from the start where time is shortened, unless it is known how much is needed."""
    if time_scale == 1 or status.utilisation is not None:
        return status
    return status.model_copy(update={"utilisation": SHORT_WINDOW_UTILISATION})


def _variant(model: str, variant: v1alpha1.Variant, time_scale: float) -> v1alpha1.Variant:
    """A variant whose start-up is written down, shortened; one of which nothing is known stays as it is."""
    profile = profiles.resolve(model, variant)
    if profile is None or time_scale == 1:
        return variant
    startup = units.format_duration(profile.startup_seconds / time_scale)
    written = (variant.profile or v1alpha1.Profile()).model_copy(update={"startup": startup})
    return variant.model_copy(update={"profile": written})


def _policy(spec: v1alpha1.RoutingPolicySpec, time_scale: float) -> v1alpha1.RoutingPolicySpec:
    """One router as a process, tuned more often."""
    interval = shortened(units.duration_seconds(spec.retune.interval), time_scale, SHORTEST_INTERVAL_SECONDS)
    retune = spec.retune.model_copy(update={"interval": units.format_duration(interval)})
    replicas = spec.router.replicas.model_copy(update={"min": 1, "max": 1})
    router = spec.router.model_copy(update={"mode": v1alpha1.RouterMode.GATEWAY, "replicas": replicas})
    return spec.model_copy(update={"retune": retune, "router": router})


def _divided(duration: str, time_scale: float) -> str:
    return units.format_duration(units.duration_seconds(duration) / time_scale)
