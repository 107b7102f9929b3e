"""The settings that are tried of each baseline: a grid around what its replicas can carry.

Targets of autoscalers that count requests are given as shares of the requests that run at the largest load that keeps
the promise (``curves``): their users would find them by load tests. Of each grid ``search`` takes the best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trimtab_core import capacity
from trimtab_core.planning.plan import VariantKey

from trimtab_sim import laboratory
from trimtab_sim.baselines import autoscaled, hpa, keda, knative, last_value, routes, wva

WAITING = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Waiting requests per pod that are tried as the HPA's target."""
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the requests that run at the largest load that keeps the promise."""
MINIMA = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""minReplicas that are tried, as shares of the static peak's count; at least 1."""
MAXIMA = (1.0, 1.5)
"""maxReplicas, as multiples of the static peak's count: who runs an autoscaler knows his peak."""
WINDOWS = (300.0, 60.0)
"""Scale-down windows in seconds: the default, and a quicker one."""
FACTORS = (0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Of the last value."""
KV_DEFAULT = 0.80
UNBOUNDED = 10
"""Times the peak: what a variant may grow to that is the last resort of an autoscaler over several."""

Counts = dict[VariantKey, int]
"""Replicas of each serving variant."""


@dataclass(frozen=True)
class Ground:
    """What settings are made from.

    Attributes:
        lab: the scenario.
        routing: where requests go.
        peak: the static peak's replicas of each serving variant.
        running: requests that run on one replica at the largest load that keeps the promise.
    """

    lab: laboratory.Laboratory
    routing: routes.Routing
    peak: Counts
    running: Mapping[VariantKey, float]

    @property
    def shorten(self) -> float:
        """By how much a demonstration has shortened times."""
        return self.lab.scenario.settings.shorten

    def bounds(self, low: float, high: float, *, least: int = 1) -> routes.Bounds:
        """From a share of the peak to a multiple of it."""
        return {
            key: (min(count, max(least, round(count * low))), max(1, math.ceil(count * high)))
            for key, count in self.peak.items()
        }

    def targets(self, share: float) -> dict[VariantKey, float]:
        """That share of what runs at the largest load, for each variant, to three digits."""
        return {key: float(f"{max(share * value, 0.01):.3g}") for key, value in self.running.items()}


Scaling = autoscaled.Autoscaled | wva.Wva
"""A controller that grows and shrinks."""
Grid = Callable[[Ground], Iterator[Scaling]]
"""Makes a new controller for each setting of a baseline."""


def waiting(ground: Ground) -> Iterator[Scaling]:
    """HPAs on waiting requests."""
    for low, high, target in itertools.product(MINIMA, MAXIMA, WAITING):
        settings = hpa.HpaSettings(target)
        yield hpa.HpaOnQueue(ground.bounds(low, high), settings, shorten=ground.shorten, routing=ground.routing)


def running(ground: Ground) -> Iterator[Scaling]:
    """HPAs on running requests."""
    for low, window, share in itertools.product(MINIMA[:3], WINDOWS, SHARES):
        settings = {
            key: hpa.HpaSettings(target, down_window_seconds=window) for key, target in ground.targets(share).items()
        }
        bounds = ground.bounds(low, MAXIMA[-1])
        yield hpa.HpaOnRunning(bounds, settings, shorten=ground.shorten, routing=ground.routing)


def scaled_objects(ground: Ground) -> Iterator[Scaling]:
    """KEDA; only one whose tiers may sleep is tried with a minimum of zero."""
    least = [0, 1] if _may_sleep(ground) else [1]
    for (low, floor), window, share in itertools.product(
        [*((0.0, floor) for floor in least), (MINIMA[2], 1)], WINDOWS, SHARES
    ):
        settings = {
            key: keda.KedaSettings(target, down_window_seconds=window, cooldown_seconds=window)
            for key, target in ground.targets(share).items()
        }
        bounds = ground.bounds(low, MAXIMA[-1], least=floor)
        yield keda.Keda(bounds, settings, shorten=ground.shorten, routing=ground.routing)


def concurrency(ground: Ground) -> Iterator[Scaling]:
    """Knative; targets such that its utilisation of them aims at the shares."""
    tick = max(2.0, ground.lab.scenario.settings.scrape_interval)
    for low, share in itertools.product(MINIMA[:4], SHARES):
        settings = {
            key: knative.KpaSettings(float(f"{target / 0.7:.3g}"), tick_seconds=tick)
            for key, target in ground.targets(share).items()
        }
        bounds = ground.bounds(low, MAXIMA[-1])
        yield knative.Knative(bounds, settings, shorten=ground.shorten, routing=ground.routing)


def tokens(ground: Ground) -> Iterator[Scaling]:
    """WVA over all variants of the tiers in use: its default KV threshold, and those at which the promise holds."""
    bounds = {
        VariantKey(key.tier, variant.name): _wva_bounds(ground, key, variant.name)
        for key in ground.peak
        for variant in ground.lab.snapshot.tiers[key.tier].variants
        if variant.spec.replicas.max > 0
    }
    for window, share in itertools.product(WINDOWS, (None, *SHARES, 1.15)):
        settings = {
            key: wva.WvaSettings(
                KV_DEFAULT if share is None else share * _kv_share(ground, key), down_window_seconds=window
            )
            for key in bounds
        }
        yield wva.Wva(bounds, settings, shorten=ground.shorten, routing=ground.routing)


def _wva_bounds(ground: Ground, serving: VariantKey, name: str) -> tuple[int, int]:
    """The manifests' maximum, but none for the variant that others' autoscalers have without one."""
    if name == serving.variant:
        return 0, max(1, UNBOUNDED * ground.peak[serving])
    return 0, ground.lab.variant(VariantKey(serving.tier, name)).spec.replicas.max


def _kv_share(ground: Ground, key: VariantKey) -> float:
    """The share of the KV cache in use at the largest load that keeps the promise, over the share that WVA fills."""
    curve, profile, mix = ground.lab.curve(key), ground.lab.profile(key), ground.lab.mix
    point = curve.at(curve.largest(ground.lab.attainment))
    used = point.running * (mix.input_tokens + mix.output_tokens) / profile.kv_tokens
    return min(1.0, used / wva.WvaSettings().up)


def last_values(ground: Ground) -> Iterator[Scaling]:
    """Factors of the last value."""
    policy = ground.lab.scenario.policy_key
    interval = last_value.interval_seconds(ground.lab.snapshot, policy)
    for factor in FACTORS:
        bounds = ground.bounds(0.0, UNBOUNDED)
        yield last_value.LastValue(bounds, policy, factor, interval=interval, routing=ground.routing)


def _may_sleep(ground: Ground) -> bool:
    """Whether the manifests let every tier in use go to zero."""
    tiers = {key.tier for key in ground.peak}
    return bool(tiers) and all(ground.lab.snapshot.tiers[key].spec.scaling.scale_to_zero is not None for key in tiers)


def controllers(grid: Grid, ground: Ground) -> list[Scaling]:
    """A new controller for each setting; all start with the static peak's replicas."""
    found = list(grid(ground))
    for each in found:
        each.start = ground.peak
    return found


def make(lab: laboratory.Laboratory, routing: routes.Routing, peak: Counts) -> Ground:
    """The ground of a scenario under one routing."""
    found = {}
    for key in peak:
        curve = lab.curve(key)
        found[key] = max(0.01, curve.at(curve.largest(lab.attainment)).running)
    return Ground(lab, routing, peak, found)


def loads(lab: laboratory.Laboratory, routing: routes.Routing) -> dict[VariantKey, float]:
    """Replicas of each serving variant that the capacity model wants for its share of the peak minute."""
    window = min(60.0, max(lab.trace.duration_s, 1.0))
    rate = lab.trace.peak_rps(window)
    shares = routing.tier_shares(lab.snapshot, lab.scenario.policy_key, lab.classes)
    found = {}
    for key in routes.serving_variants(lab.snapshot, shares):
        load = capacity.admissible_load(lab.profile(key), lab.mix, lab.limits(key.tier))
        found[key] = rate * shares[key.tier] / load.requests_per_second
    return found


def fleets(found: Mapping[VariantKey, float], most: float) -> list[Counts]:
    """Static fleets in proportion to the loads, each one replica of some variant larger than the one before.

    Args:
        found: loads, in replicas.
        most: the last fleet is for so many times the loads.
    """
    factors = {0.0} | {
        number / max(load, 1e-3) for load in found.values() for number in range(1, hpa.ceil(most * max(load, 1.0)) + 1)
    }
    rungs: list[Counts] = []
    for factor in sorted(factors):
        counts = {key: max(1, hpa.ceil(factor * load)) for key, load in found.items()}
        if not rungs or counts != rungs[-1]:
            rungs.append(counts)
    return rungs
