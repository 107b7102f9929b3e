"""Hypothesis strategies: any world the guards may meet, and any plan, however bad."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hypothesis import strategies as st
from trimtab_core import signals
from trimtab_core.planning.plan import Plan
from trimtab_core.snapshot import ClassTraffic, PolicyState, Snapshot, TierState, VariantMemory, VariantState

from . import fleets

TIERS = ("small", "large", "frontier")
CLASSES = ("simple", "complex")

few = st.integers(0, 4)
moment = st.one_of(st.none(), st.sampled_from([-10_000.0, -700.0, -301.0, -299.0, -1.0, 50.0]).map(fleets.NOW.__add__))
memories = st.builds(VariantMemory, moment, moment, moment, st.one_of(st.none(), st.just(fleets.NOW + 60)))
"""The override is rare, or most variants would be held."""


@st.composite
def variants(draw: st.DrawFn, name: str) -> VariantState:
    """A variant in any state."""
    least = draw(st.integers(0, 2))
    return fleets.variant(
        name,
        ready=draw(few),
        pending=draw(st.integers(0, 2)),
        draining=draw(st.integers(0, 2)),
        failed=draw(st.integers(0, 2)),
        desired=draw(st.integers(0, 6)),
        usd=draw(st.sampled_from([None, 0.0, 0.35, 1.0, 7.0, math.nan])),
        least=least,
        most=draw(st.integers(least, 8)),
        has=draw(
            st.sampled_from([None, fleets.PROFILE, fleets.profile(3.0), fleets.profile(1.0, itl_base_seconds=math.nan)])
        ),
        age=draw(st.sampled_from([1.0, 239.0, 241.0, 10_000.0])),
        memory=draw(st.one_of(st.just(VariantMemory()), memories)),
        external_scaler=draw(st.sampled_from(["", "", "", "HPA web"])),
    )


@st.composite
def tiers(draw: st.DrawFn, name: str) -> TierState:
    """A tier of own replicas in any state."""
    scaling: dict[str, object] = {
        "management": draw(st.sampled_from(["Auto", "Auto", "Auto", "Recommend"])),
        "maxStepUp": draw(st.integers(1, 4)),
    }
    if draw(st.booleans()):
        scaling["scaleToZero"] = {"after": "10m"}
    found = [draw(variants(each)) for each in ("l4", "spot")[: draw(st.integers(1, 2))]]
    return fleets.tier(name, draw(st.sampled_from(["0.3", "0.6", "0.9"])), *found, scaling=scaling)


numbers = st.one_of(st.floats(0, 40), st.sampled_from([math.nan, math.inf, -1.0, 0.0]))
any_signal = st.one_of(
    st.builds(signals.Fresh, numbers, st.just(5.0)),
    st.builds(signals.Stale, numbers, st.just(100.0)),
    st.just(signals.Missing("scrape failed")),
)
demands = st.builds(ClassTraffic, any_signal, any_signal, any_signal, any_signal, any_signal)
shares = st.dictionaries(
    st.sampled_from(TIERS), st.one_of(st.floats(0, 1), st.sampled_from([math.nan, -0.5, 7.0])), max_size=3
)


@st.composite
def policies(draw: st.DrawFn) -> PolicyState:
    """A policy over all tiers, with budgets, restrictions and any weights in force."""
    allow = draw(st.sampled_from([[], ["large"], ["small", "frontier"], ["gone"]]))
    spec: dict[str, object] = {
        "classes": [{"name": "simple", "allow": allow}, {"name": "complex"}],
        "retune": {"maxWeightStep": draw(st.sampled_from(["0", "0.10", "1"])), "probeShare": "0.01"},
        "objective": {"qualityRetention": draw(st.sampled_from(["0", "0.95", "1"]))},
    }
    if draw(st.booleans()):
        spec["budget"] = {"usdPerHour": draw(st.sampled_from(["0", "3", "20"]))}
    measured = draw(st.dictionaries(st.sampled_from(CLASSES), demands))
    weights = draw(st.dictionaries(st.sampled_from(CLASSES), shares))
    return fleets.policy("chat", TIERS, measured, weights=weights, spec=spec)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Two own tiers, an external one, and mostly a policy over them."""
    own = (draw(tiers("small")), draw(tiers("large")))
    found = (draw(policies()),) if draw(st.integers(0, 9)) else ()
    return fleets.snapshot((*own, fleets.external("frontier", "0.95")), found)


def plans(world: Snapshot) -> st.SearchStrategy[Plan]:
    """Any plan for a world: with counts missing, negative or no numbers, and any shares."""
    keys = list(fleets.plan(world).replicas)
    counts = st.one_of(st.integers(-1, 12), st.just(math.nan))
    replicas = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, counts))
    weights = st.dictionaries(st.sampled_from(CLASSES), shares_with_keys())
    return st.builds(_plan, st.just(world), replicas, weights)


def shares_with_keys() -> st.SearchStrategy[Mapping[str, float]]:
    """Any shares by tier key; one of a tier that doesn't exist."""
    keys = [f"default/{name}" for name in (*TIERS, "gone")]
    return st.dictionaries(st.sampled_from(keys), st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=4)


def _plan(world: Snapshot, replicas: Mapping[object, object], weights: Mapping[str, object]) -> Plan:
    found = fleets.plan(world, weights=dict.fromkeys(world.policies, weights))
    return Plan(
        {**replicas},  # type: ignore[dict-item]
        found.weights,
        found.memory,
        found.prediction,
        found.source,
    )
