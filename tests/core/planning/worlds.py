"""Hypothesis strategies: any world the guards may meet, and any plan, however bad."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from trimtab_core import signals
from trimtab_core.planning.plan import Plan
from trimtab_core.snapshot import ClassTraffic, PolicyState, Snapshot, TierState, VariantMemory, VariantState

from . import fleets

TIERS = ("small", "large", "frontier")
CLASSES = ("simple", "complex")
KEYS = (*(f"default/{name}" for name in TIERS), "default/gone")
"""Tiers that a plan may name; one doesn't exist."""
BROKEN = fleets.profile(1.0, itl_base_seconds=math.nan)


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Usual values four times in five: a world where everything is odd is held by every guard at once."""
    return st.integers(0, 4).flatmap(lambda drawn: usual if drawn else odd)


moment = st.sampled_from([-10_000.0, -700.0, -301.0, -299.0, -1.0, 50.0]).map(fleets.NOW.__add__)
past = st.one_of(st.none(), moment)
memories = st.builds(
    VariantMemory,
    mostly(st.just(fleets.NOW - 10_000), past),  # or the scale-down window would hide what other guards do
    past,
    mostly(st.none(), past),
    mostly(st.none(), st.just(fleets.NOW + 60)),
)
rarely_some = mostly(st.just(0), st.integers(0, 2))


@st.composite
def variants(draw: st.DrawFn, name: str) -> VariantState:
    """A variant in any state, mostly a healthy one."""
    ready, pending, failed = draw(st.integers(0, 4)), draw(rarely_some), draw(rarely_some)
    least = draw(mostly(st.just(0), st.integers(0, 2)))
    return fleets.variant(
        name,
        ready=ready,
        pending=pending,
        draining=draw(rarely_some),
        failed=failed,
        desired=draw(mostly(st.just(ready + pending + failed), st.integers(0, 6))),
        usd=draw(mostly(st.sampled_from([0.35, 1.0, 7.0]), st.sampled_from([None, 0.0, math.nan]))),
        least=least,
        most=draw(mostly(st.just(8), st.integers(least, 8))),
        has=draw(mostly(st.sampled_from([fleets.PROFILE, fleets.profile(3.0)]), st.sampled_from([None, BROKEN]))),
        age=draw(st.sampled_from([1.0, 239.0, 241.0])),
        memory=draw(memories),
        external_scaler=draw(mostly(st.just(""), st.just("HPA web"))),
        capacity_type="Spot" if name == "spot" else "OnDemand",
    )


@st.composite
def tiers(draw: st.DrawFn, name: str) -> TierState:
    """A tier of own replicas in any state."""
    scaling: dict[str, object] = {
        "management": draw(mostly(st.just("Auto"), st.just("Recommend"))),
        "maxStepUp": draw(st.integers(1, 4)),
        "onDemandShare": draw(st.sampled_from(["0", "0.5"])),
        "warm": draw(mostly(st.just(0), st.just(1))),
    }
    if draw(st.booleans()):
        scaling["scaleToZero"] = {"after": "10m"}
    found = [draw(variants(each)) for each in ("l4", "spot")[: draw(st.integers(1, 2))]]
    return fleets.tier(name, draw(st.sampled_from(["0.3", "0.6", "0.9"])), *found, scaling=scaling)


def measured(values: st.SearchStrategy[float]) -> st.SearchStrategy[signals.Signal]:
    """A signal, mostly a fresh number."""
    odd = st.sampled_from([math.nan, math.inf, -1.0])
    return mostly(
        st.builds(signals.Fresh, values, st.just(5.0)),
        st.one_of(
            st.builds(signals.Fresh, odd, st.just(5.0)),
            st.builds(signals.Stale, values | odd, st.just(100.0)),
            st.just(signals.Missing("scrape failed")),
        ),
    )


demands = st.builds(
    ClassTraffic,
    measured(st.floats(0.0, 10.0)),
    measured(st.floats(1.0, 3000.0)),
    measured(st.floats(1.0, 500.0)),
    measured(st.floats(0.0, 1.0)),
    measured(st.floats(0.0, 4.0)),
)


@st.composite
def shares(draw: st.DrawFn, keys: tuple[str, ...]) -> Mapping[str, float]:
    """Shares over these keys: mostly sound ones."""
    odd = st.dictionaries(st.sampled_from(keys), st.one_of(st.floats(0, 1), st.sampled_from([math.nan, -0.5, 7.0])))
    drawn = draw(st.lists(st.integers(0, 5), min_size=len(keys), max_size=len(keys)))
    total = sum(drawn)
    sound = {key: value / total for key, value in zip(keys, drawn, strict=True) if value}
    return draw(mostly(st.just(sound), odd))


@st.composite
def policies(draw: st.DrawFn) -> PolicyState:
    """A policy over all tiers, with budgets, restrictions and any weights in force."""
    allow = draw(mostly(st.just([]), st.sampled_from([["large"], ["small", "frontier"], ["gone"]])))
    spec: dict[str, object] = {
        "classes": [{"name": "simple", "allow": allow}, {"name": "complex"}],
        "retune": {"maxWeightStep": draw(st.sampled_from(["0", "0.10", "1"])), "probeShare": "0.01"},
        "objective": {"qualityRetention": draw(st.sampled_from(["0", "0.95", "1"]))},
    }
    if draw(st.booleans()):
        spec["budget"] = {"usdPerHour": draw(st.sampled_from(["0", "3", "20"]))}
    found = {name: draw(demands) for name in CLASSES if draw(mostly(st.just(True), st.booleans()))}
    weights = {name: draw(shares(TIERS)) for name in CLASSES if draw(mostly(st.just(True), st.booleans()))}
    return fleets.policy("chat", TIERS, found, weights=weights, spec=spec)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Two own tiers, an external one, and mostly a policy over them."""
    own = (draw(tiers("small")), draw(tiers("large")))
    found = (draw(policies()),) if draw(mostly(st.just(True), st.booleans())) else ()
    return fleets.snapshot((*own, fleets.external("frontier", "0.95")), found)


def plans(world: Snapshot) -> st.SearchStrategy[Plan]:
    """Any plan for a world: with counts missing, negative or no numbers, and any shares."""
    keys = list(fleets.plan(world).replicas)
    counts = mostly(st.integers(0, 12), st.sampled_from([-1, math.nan]))
    replicas = st.one_of(
        st.fixed_dictionaries(dict.fromkeys(keys, counts)),
        st.fixed_dictionaries({}, optional=dict.fromkeys(keys, counts)),
    )
    weights = st.fixed_dictionaries({}, optional={name: shares(KEYS) for name in CLASSES})
    return st.builds(_plan, st.just(world), replicas, weights)


def _plan(world: Snapshot, replicas: Mapping[object, object], weights: Mapping[str, object]) -> Plan:
    found = fleets.plan(world, weights=dict.fromkeys(world.policies, weights))
    return Plan(
        {**replicas},  # type: ignore[dict-item]
        found.weights,
        found.memory,
        found.prediction,
        found.source,
    )
