"""What a plan was made from, as values that can be told to people: each number with its unit, state and age. Pure.

Every plan carries the demand of each class, and a decision takes along what concerns it. Must not know who reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab_core import signals
from trimtab_core.snapshot import (
    ClassName,
    ClassTraffic,
    PolicyKey,
    ReplicaPhase,
    TierKey,
    TierState,
    VariantState,
    Weights,
)

if TYPE_CHECKING:
    from trimtab_core.planning.loads import Load
    from trimtab_core.planning.problem import View

FORECAST, GIVEN = "Forecast", "Given"
"""States of inputs that nobody measured: computed ahead, or read from specs and price lists."""
STARTUP = "start-up"
"""Name of the input that says how long a variant's replica takes from creation to its first answer."""
ARRIVALS, PLANNED = "arrivals", "planned for"
"""Names of a class's measured and of its planned demand."""
FORECAST_ERROR = "forecast error"
"""Name of the input that says how wrong forecasts of a class have been one start-up time ahead."""
_RATE = "req/s"
SHARE = "of arrivals"
"""Unit of a share from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Input:
    """One number behind a plan.

    Attributes:
        about: class or variant.
        name: what it is.
        value: None where it is missing.
        unit: such as ``req/s``.
        state: ``Fresh``, ``Stale`` or ``Missing`` for measurements, else ``FORECAST`` or ``GIVEN``.
        age_seconds: of a measurement.
        note: its source, or why it is missing.
    """

    about: str
    name: str
    value: float | None
    unit: str
    state: str
    age_seconds: float | None = None
    note: str = ""


Demand = Mapping[PolicyKey, Mapping[ClassName, tuple[Input, ...]]]
"""The inputs of each class."""


def of_classes(view: View) -> Demand:
    """The demand of every class, as the optimiser saw it."""
    found: dict[PolicyKey, dict[ClassName, tuple[Input, ...]]] = {}
    for (policy, name), load in view.loads.items():
        traffic = view.snapshot.policies[policy].traffic.get(name)
        found.setdefault(policy, {})[name] = tuple(_of_class(name, traffic, load))
    return found


def _of_class(name: str, traffic: ClassTraffic | None, load: Load) -> Iterator[Input]:
    """What was measured of one class, and what was planned for."""
    if traffic is not None:
        yield of_signal(name, ARRIVALS, traffic.arrivals_per_second, _RATE)
        yield of_signal(name, "tokens in", traffic.input_tokens, "per request")
        yield of_signal(name, "tokens out", traffic.output_tokens, "per request")
        if not isinstance(traffic.cache_hit_ratio, signals.Missing):
            yield of_signal(name, "cache hits", traffic.cache_hit_ratio, SHARE)
        if not isinstance(traffic.burstiness, signals.Missing):
            yield of_signal(name, "burstiness", traffic.burstiness, "1 is Poisson")
    yield Input(name, "expected", load.forecast.mean, _RATE, FORECAST, note=load.forecast.method)
    if load.forecast.scored:
        by_last = f"of what came; {load.forecast.last_error_ratio:.1%} by the last value"
        yield Input(name, FORECAST_ERROR, load.forecast.error_ratio, "ratio", FORECAST, note=by_last)
    yield Input(name, PLANNED, load.planned, _RATE, FORECAST, note="after the cache, with a margin for error")


def forecast_errors(demand: Demand) -> Mapping[tuple[PolicyKey, ClassName], float]:
    """How wrong forecasts have been one start-up time ahead, as a share of what came; only of scored classes."""
    return {
        (policy, name): found.value
        for policy, classes in demand.items()
        for name, inputs in classes.items()
        for found in inputs
        if found.name == FORECAST_ERROR and found.value is not None
    }


def of_signal(about: str, name: str, signal: signals.Signal, unit: str) -> Input:
    """A measured number with its age, or why there is none."""
    if isinstance(signal, signals.Missing):
        return Input(about, name, None, unit, "Missing", note=signal.reason)
    return Input(about, name, signal.value, unit, type(signal).__name__, signal.age_seconds)


def of_variant(variant: VariantState) -> tuple[Input, ...]:
    """What runs of a variant, and what it costs and takes to start."""
    return tuple(_of_variant(variant))


def _of_variant(variant: VariantState) -> Iterator[Input]:
    yield Input(variant.name, "asked for", float(variant.desired), "replicas", GIVEN)
    for phase in ReplicaPhase:
        count = variant.count(phase)
        if count or phase is ReplicaPhase.READY:
            yield Input(variant.name, phase.value.lower(), float(count), "replicas", "Fresh", 0.0)
    price = variant.price
    if price is None:
        yield Input(variant.name, "price", None, "$/h", "Missing", note="no price could be resolved")
    else:
        source = f"{price.source}, {price.as_of}" if price.as_of else price.source
        yield Input(variant.name, "price", price.usd_per_hour, "$/h", GIVEN, note=source)
    startup = variant.profile.startup_seconds if variant.profile is not None else math.nan
    if math.isfinite(startup):
        yield Input(variant.name, STARTUP, startup, "s", GIVEN)


def of_tier(tier: TierState, variant: str) -> tuple[Input, ...]:
    """What is known of one variant of a tier; empty for one that is not there."""
    return next((of_variant(found) for found in tier.variants if found.name == variant), ())


def of_users(demand: Demand, weights: Mapping[PolicyKey, Weights], tier: TierKey) -> tuple[Input, ...]:
    """The demand of the classes that send requests to a tier."""
    return tuple(
        found
        for policy, classes in sorted(demand.items())
        for name, told in classes.items()
        if weights.get(policy, {}).get(name, {}).get(tier, 0.0) > 0
        for found in told
    )
