"""Whatever users write and whatever the world does: reconcile raises nothing, and keeps its promises."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trimtab_core.api import v1alpha1
from trimtab_core.routing import table as tables

from . import world

NAMES = ("small", "medium", "large")

bounds = st.tuples(st.integers(0, 3), st.integers(0, 4)).map(lambda pair: {"min": pair[0], "max": sum(pair)})
variants = st.builds(
    lambda accelerator, price, replicas, profile, capacity: {
        "accelerator": {"type": accelerator},
        "replicas": replicas,
        "capacityType": capacity,
        **({"price": {"usdPerHour": price}} if price else {}),
        **({"profile": world.PROFILE} if profile else {}),
    },
    st.sampled_from(["L4", "H100", "Z9"]),
    st.sampled_from(["", "0.5", "4"]),
    bounds,
    st.booleans(),
    st.sampled_from(["OnDemand", "Spot", "Reserved"]),
)
tiers = st.builds(
    lambda found, management, actuator, zero, quality: {
        "variants": [{**each, "name": f"v{number}"} for number, each in enumerate(found)],
        "scaling": {
            "management": management,
            "actuator": actuator,
            "scaleDownWindow": "15s",
            **({"scaleToZero": {"after": "30s"}} if zero else {}),
        },
        "quality": quality,
    },
    st.lists(variants, min_size=1, max_size=2),
    st.sampled_from(["Auto", "Approve", "Recommend", "Observe"]),
    st.sampled_from(["Direct", "Direct", "HPA", "KEDA"]),
    st.booleans(),
    st.sampled_from(["0", "0.5", "0.9", "1"]),
)
classes = st.lists(
    st.builds(
        lambda allow, reject, quality: {
            **({"allow": sorted(allow)} if allow else {}),
            **({"onUnavailable": "Reject"} if reject else {}),
            **({"minQuality": quality} if quality else {}),
        },
        st.sets(st.sampled_from(NAMES), max_size=2),
        st.booleans(),
        st.sampled_from(["", "0.6", "0.95"]),
    ),
    min_size=1,
    max_size=3,
)
happenings = st.lists(
    st.fixed_dictionaries(
        {
            "rate": st.sampled_from([0.0, 0.5, 20.0, 400.0]),
            "age": st.sampled_from([1.0, 100.0, 1000.0]),
            "failure": st.sampled_from(["", "", "", "down"]),
            "nan": st.sampled_from([False, False, True]),
            "never_ready": st.booleans(),
            "restart": st.sampled_from([False, False, True]),
            "seconds": st.sampled_from([1.0, 15.0, 300.0]),
        }
    ),
    min_size=2,
    max_size=8,
)


def build(specs: list[dict[str, Any]], given_classes: list[dict[str, Any]], budget: str) -> world.World:
    made: list[Any] = []
    for name, spec in zip(NAMES, specs, strict=False):
        quality = spec["quality"]
        made.append(
            world.tier(name, quality=quality, **{key: value for key, value in spec.items() if key != "quality"})
        )
    whole: dict[str, Any] = {"classes": [{"name": f"c{number}", **each} for number, each in enumerate(given_classes)]}
    if budget:
        whole["budget"] = {"usdPerHour": budget}
    return world.World(*made, world.policy(tiers=NAMES[: len(specs)], **whole), c0=0.0)


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tiers, min_size=1, max_size=3), classes, st.sampled_from(["", "0.1", "50"]), happenings)
def test_reconcile_keeps_its_promises_in_any_world(
    specs: list[dict[str, Any]], given_classes: list[dict[str, Any]], budget: str, story: list[dict[str, Any]]
) -> None:
    made = build(specs, given_classes, budget)
    allowed = {
        tier.metadata.name: tier for tier in made.cluster.objects.values() if isinstance(tier, v1alpha1.InferenceTier)
    }
    used = {name for each in given_classes for name in each.get("allow") or NAMES}  # others serve nobody, seen or not
    for moment in story:
        made.metrics.rates["c0"] = moment["rate"]
        made.metrics.age_seconds, made.metrics.failure, made.metrics.nan = (
            moment["age"],
            moment["failure"],
            moment["nan"],
        )
        made.cluster.never_ready = moment["never_ready"]
        if moment["restart"]:
            made.restart()
        before = dict(made.cluster.counts)
        outcome = made.cycle(seconds=moment["seconds"])
        blind = moment["failure"] or moment["nan"]
        for key, wanted in outcome.plan.replicas.items():
            tier, name = allowed[key.tier.partition("/")[2]], f"{key.tier.partition('/')[2]}--{key.variant}"
            limits = next(each.replicas for each in tier.spec.variants if each.name == key.variant)
            if tier.spec.scaling.management is v1alpha1.Management.AUTO:
                assert limits.min <= wanted <= max(limits.min, limits.max)
            known = name in before and before[name] <= limits.max and made.memory.snapshot is not None
            if blind and known and tier.metadata.name in used:
                assert wanted >= min(before[name], _asked_for(outcome, key)), "blind, and yet fewer"
        for table in made.memory.tables.values():
            tables.check(table)
            for cls in table.classes:
                assert set(cls.weights) <= set(cls.allow)


def _asked_for(outcome: Any, key: Any) -> int:
    return int(outcome.snapshot.tiers[key.tier].variant(key.variant).desired)
