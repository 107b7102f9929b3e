"""Small fleets for the tests: snapshots with round numbers, built in one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trimtab_core import capacity, signals
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey, current_replicas
from trimtab_core.snapshot import (
    CapacityProfile,
    ClassTraffic,
    PolicyState,
    Price,
    Replica,
    ReplicaPhase,
    Snapshot,
    TierState,
    TokenRates,
    VariantMemory,
    VariantState,
)

NOW = 1_700_000_000.0

PROFILE = CapacityProfile(
    itl_base_seconds=0.010,
    itl_per_sequence_seconds=0.0005,
    prefill_tokens_per_second=10_000.0,
    kv_tokens=400_000,
    max_sequences=256,
    startup_seconds=120.0,
)
"""A replica with a 10 ms step, 0.5 ms more per sequence."""

SLO = {"ttft": {"p95": "2s"}, "itl": {"p95": "60ms"}}
MIX = capacity.Mix(1000.0, 200.0)
CARRIES = capacity.admissible_load(
    PROFILE, MIX, capacity.Limits(ttft_seconds=2.0, itl_seconds=0.06)
).requests_per_second
"""Requests per second of 1,000 + 200 tokens that one replica of PROFILE carries within SLO."""


def carries(replicas: float) -> float:
    """The same for each of several that share the load: requests that find one busy take another."""
    mix = dataclasses.replace(MIX, replicas=replicas)
    return capacity.admissible_load(PROFILE, mix, capacity.Limits(2.0, 0.06)).requests_per_second


def profile(speed: float = 1.0, **changes: float) -> CapacityProfile:
    """PROFILE made faster by a factor, with some values replaced."""
    values: dict[str, float] = {
        "itl_base_seconds": PROFILE.itl_base_seconds / speed,
        "itl_per_sequence_seconds": PROFILE.itl_per_sequence_seconds / speed,
        "prefill_tokens_per_second": PROFILE.prefill_tokens_per_second * speed,
        "kv_tokens": PROFILE.kv_tokens,
        "max_sequences": PROFILE.max_sequences,
        "startup_seconds": PROFILE.startup_seconds,
        **changes,
    }
    return CapacityProfile(**values)  # type: ignore[arg-type]


def variant(
    name: str = "l4",
    *,
    ready: int = 0,
    pending: int = 0,
    draining: int = 0,
    failed: int = 0,
    desired: int | None = None,
    usd: float | None = 1.0,
    least: int = 0,
    most: int = 10,
    has: CapacityProfile | None = PROFILE,
    age: float = 30.0,
    memory: VariantMemory = VariantMemory(),
    external_scaler: str = "",
    capacity_type: str = "OnDemand",
) -> VariantState:
    """A variant with that many replicas in each phase; as many desired as are ready or pending, unless said."""
    phases = {
        ReplicaPhase.READY: ready,
        ReplicaPhase.PENDING: pending,
        ReplicaPhase.DRAINING: draining,
        ReplicaPhase.FAILED: failed,
    }
    replicas = tuple(
        Replica(
            f"{name}-{phase.value.lower()}-{index}", phase, NOW - (age if phase is ReplicaPhase.PENDING else 3600.0)
        )
        for phase, count in phases.items()
        for index in range(count)
    )
    spec = v1alpha1.Variant.model_validate(
        {
            "name": name,
            "accelerator": {"type": "L4"},
            "capacityType": capacity_type,
            "replicas": {"min": least, "max": most},
        }
    )
    return VariantState(
        spec,
        ready + pending if desired is None else desired,
        replicas,
        None if usd is None else Price(usd, "spec"),
        has,
        memory,
        external_scaler,
    )


def tier(name: str, quality: str, *variants: VariantState, scaling: Mapping[str, object] | None = None) -> TierState:
    """A tier of own replicas with SLO."""
    spec = v1alpha1.InferenceTierSpec.model_validate(
        {
            "model": {"name": name, "quality": quality},
            "slo": SLO,
            "variants": [found.spec.to_dict() for found in variants],
            "scaling": dict(scaling or {}),
        }
    )
    return TierState(f"default/{name}", spec, variants)


def external(name: str, quality: str, *, input_usd: str = "1", output_usd: str = "4", limit: int = 100) -> TierState:
    """A tier of an external API; prices per million tokens."""
    price = {"inputUsdPerMillionTokens": input_usd, "outputUsdPerMillionTokens": output_usd}
    spec = v1alpha1.InferenceTierSpec.model_validate(
        {
            "model": {"name": name, "quality": quality},
            "slo": SLO,
            "external": {"url": "https://api.example.com/v1", "price": price, "maxRequestsPerSecond": limit},
        }
    )
    rates = TokenRates(float(input_usd) / 1e6, float(output_usd) / 1e6, float(input_usd) / 1e6)
    return TierState(f"default/{name}", spec, (), rates)


def traffic(
    rate: float | signals.Signal,
    *,
    mix: capacity.Mix = MIX,
    history: tuple[tuple[float, float], ...] = (),
    hits: signals.Signal = signals.Missing("no cache"),
) -> ClassTraffic:
    """Measured demand; a plain number is a fresh signal."""
    arrivals = signals.Fresh(rate, 5.0) if isinstance(rate, int | float) else rate
    return ClassTraffic(
        arrivals, signals.Fresh(mix.input_tokens, 5.0), signals.Fresh(mix.output_tokens, 5.0), hits, history=history
    )


def policy(
    name: str,
    tiers: tuple[str, ...],
    demand: Mapping[str, ClassTraffic],
    *,
    weights: Mapping[str, Mapping[str, float]] | None = None,
    spec: Mapping[str, object] | None = None,
) -> PolicyState:
    """A policy over tiers of namespace default; one class per entry of ``demand`` unless ``spec`` has classes."""
    full = v1alpha1.RoutingPolicySpec.model_validate(
        {
            "tiers": [{"ref": one} for one in tiers],
            "classes": [{"name": one} for one in demand],
            "objective": {"qualityRetention": "0"},
            **(spec or {}),
        }
    )
    keyed = {one: {f"default/{key}": share for key, share in found.items()} for one, found in (weights or {}).items()}
    return PolicyState(f"default/{name}", full, tuple(f"default/{one}" for one in tiers), demand, keyed)


def snapshot(tiers: tuple[TierState, ...], policies: tuple[PolicyState, ...] = (), *, now: float = NOW) -> Snapshot:
    """The world."""
    return Snapshot(now, 1, {one.key: one for one in tiers}, {one.key: one for one in policies})


def key(tier_name: str, variant_name: str = "l4") -> VariantKey:
    """A variant's key in namespace default."""
    return VariantKey(f"default/{tier_name}", variant_name)


def plan(world: Snapshot, replicas: Mapping[VariantKey, int] | None = None, weights: object = None) -> Plan:
    """A plan that changes nothing but what is given."""
    kept = {name: found.weights for name, found in world.policies.items()}
    return Plan(
        {**current_replicas(world), **(replicas or {})},
        {**kept, **(weights or {})},  # type: ignore[dict-item]
        {},
        Prediction(0.0, 0.0, 1.0, 0.0),
        Source.OPTIMAL,
    )
