"""What a plan was made from, as values that can be told to people: each number with its unit, state and age. Pure.

Every plan carries these of each class; a decision takes along those that concern it. Must not know who reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trimtab_core import signals, units
from trimtab_core.planning import limits
from trimtab_core.planning.plan import Input
from trimtab_core.planning.problem import Load, View
from trimtab_core.snapshot import ClassName, ClassTraffic, PolicyKey, ReplicaPhase, VariantState

FORECAST, GIVEN = "Forecast", "Given"
"""States of inputs that nobody measured: computed ahead, or read from specs and price lists."""
_RATE = "req/s"


def of_classes(view: View) -> Mapping[tuple[PolicyKey, ClassName], tuple[Input, ...]]:
    """The demand of every class, as the optimiser saw it."""
    return {
        (policy, name): tuple(_of_class(name, view.snapshot.policies[policy].traffic.get(name), load))
        for (policy, name), load in view.loads.items()
    }


def _of_class(name: str, traffic: ClassTraffic | None, load: Load) -> Iterator[Input]:
    """What was measured of one class, and what was planned for."""
    if traffic is not None:
        yield of_signal(name, "arrivals", traffic.arrivals_per_second, _RATE)
        yield of_signal(name, "tokens in", traffic.input_tokens, "per request")
        yield of_signal(name, "tokens out", traffic.output_tokens, "per request")
        if not isinstance(traffic.cache_hit_ratio, signals.Missing):
            yield of_signal(name, "cache hits", traffic.cache_hit_ratio, "of arrivals")
    forecast = load.forecast
    yield Input(name, "expected", forecast.mean, _RATE, FORECAST, note=forecast.method)
    yield Input(name, "planned for", load.planned, _RATE, FORECAST, note="after the cache, with a margin for error")


def of_signal(about: str, name: str, signal: signals.Signal, unit: str) -> Input:
    """A measured number with its age, or why there is none."""
    if isinstance(signal, signals.Missing):
        return Input(about, name, None, unit, "Missing", note=signal.reason)
    return Input(about, name, signal.value, unit, type(signal).__name__, signal.age_seconds)


def of_variant(variant: VariantState, now: float) -> Iterator[Input]:
    """What runs of a variant, and what it costs and takes to start."""
    for name, count in (
        ("asked for", variant.desired),
        ("ready", variant.count(ReplicaPhase.READY)),
        ("pending", variant.count(ReplicaPhase.PENDING)),
        ("failed", limits.failed(variant, now)),
    ):
        if count or name in {"asked for", "ready"}:
            yield Input(variant.name, name, float(count), "replicas", "Fresh", 0.0)
    price = variant.price
    if price is None:
        yield Input(variant.name, "price", None, "$/h", "Missing", note="no price could be resolved")
    else:
        source = f"{price.source}, {price.as_of}" if price.as_of else price.source
        yield Input(variant.name, "price", price.usd_per_hour, "$/h", GIVEN, note=source)
    startup = limits.startup_seconds(variant)
    yield Input(variant.name, "start-up", startup, "s", GIVEN, note=units.format_duration(round(startup)))
