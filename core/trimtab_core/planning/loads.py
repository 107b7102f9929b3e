"""Demand of every class as it is planned for: judged, forecast one start-up ahead, and carried on where it rises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab_core import bursts, capacity, demand, recall, signals, surge, units
from trimtab_core import season as seasons
from trimtab_core.api import v1alpha1
from trimtab_core.planning import cost, limits
from trimtab_core.snapshot import PolicyKey, PolicyState, Snapshot

USUAL_ATTAINMENT = 0.95
"""Share of requests that keep their promise, for which the settings' quantile is meant."""
LONGEST_HORIZON_SECONDS = 900.0
"""No forecast looks further ahead than this: beyond it the last value is the better guess."""


@dataclass(frozen=True, slots=True)
class Load:
    """Demand of one class after the cache, in requests per second.

    Attributes:
        now: present.
        planned: upper forecast one start-up time ahead, never below ``now``, nor below what bursts need.
        evidence: how far it may be trusted; ``why`` says what is wrong.
    """

    now: float
    planned: float
    mix: capacity.Mix
    evidence: limits.Evidence
    why: str
    forecast: demand.Forecast


Key = tuple[PolicyKey, str]
"""Policy and class."""


def _of_class(snapshot: Snapshot, policy: PolicyState, request_class: v1alpha1.RequestClass, rarity: float) -> Load:
    """Demand of one class, with every gap read as the safe side of what it may hide."""
    traffic = policy.traffic.get(request_class.name)
    evidence, why = limits.evidence_of(traffic)
    if traffic is None:
        return Load(0.0, 0.0, capacity.DEFAULT_MIX, evidence, why, demand.Forecast(0.0, 0.0, "none"))
    arrivals = signals.sound(traffic.arrivals_per_second)
    history = traffic.history
    if arrivals is not None:
        history = (*(sample for sample in history if sample[0] < snapshot.now), (snapshot.now, arrivals))
    horizon = horizon_seconds(snapshot, policy, request_class)
    bunched = signals.sound(traffic.burstiness) or 1.0
    forecast = demand.forecast(
        history,
        horizon,
        snapshot.now,
        quantile=rarity,
        season=traffic.season,
        dispersion=bunched * _noise(snapshot),
    )
    misses = cost.miss_ratio(traffic)
    present = soon = forecast.mean if arrivals is None else arrivals
    known = _bursts(snapshot, policy, history, horizon)
    if evidence is limits.Evidence.FRESH:
        # A rate over a minute shows a step after a minute, and a ramp half of it late.
        rising = surge.present(history, snapshot.window_seconds, bunched)
        # What bursts are known to do is believed of those that are like them.
        if known is None or rising > bursts.ALL_LATE * known.level:
            present, soon = rising, surge.ahead(history, horizon, snapshot.window_seconds, bunched)
    now = present * misses
    # Nothing at all arrives: past errors of the forecast are no demand, or no tier could ever sleep. But what has
    # vanished at once mostly comes back, and sooner than replicas could.
    planned = max(now, soon * misses, forecast.upper * misses) if now or forecast.method == demand.OUTAGE else 0.0
    if known is not None:
        planned = max(planned, known.level * _left_free(snapshot, policy) * misses)
    return Load(now, planned, cost.measured_mix(traffic), evidence, why, forecast)


def _bursts(
    snapshot: Snapshot, policy: PolicyState, history: Sequence[bursts.Sample], horizon: float
) -> bursts.Bursts | None:
    """What the bursts of a class tell, or of a policy's whole."""
    return bursts.of(
        history,
        snapshot.now,
        window_seconds=snapshot.window_seconds,
        horizon_seconds=horizon,
        late=1.0 - attainment(snapshot, policy),
    )


def _left_free(snapshot: Snapshot, policy: PolicyState) -> float:
    """The share of what replicas carry that plans use: what bursts need says already what is late at a full load.

    A tier that has learned to use less than at the start keeps that much more for bursts as well.
    """
    shares = (snapshot.tiers[key].utilisation for key in policy.tiers if key in snapshot.tiers)
    return max(recall.START_UTILISATION, min(shares, default=recall.START_UTILISATION))


def _noise(snapshot: Snapshot) -> float:
    """How much more counts vary than over the window that forecasts reckon with, where it is shorter."""
    return max(1.0, demand.COUNTING_SECONDS / snapshot.window_seconds)


def of_policy(snapshot: Snapshot, policy: PolicyState, usual_quantile: float) -> Mapping[Key, Load]:
    """Demand of all classes of a policy; together they are planned for as much as the policy's whole may reach.

    Classes that swing apart even out, and those that rise together don't: the error of the whole's own forecast knows
    which, so what the classes' upper values add up to beyond it is taken off, from each in proportion.
    """
    rarity = quantile(snapshot, policy, usual_quantile)
    loads = {each.name: _of_class(snapshot, policy, each, rarity) for each in policy.spec.classes}
    arriving = [name for name, found in loads.items() if found.now]
    if len(arriving) > 1:
        samples: dict[float, list[float]] = {}
        for name in arriving:
            misses = cost.miss_ratio(policy.traffic[name])
            for at, arrivals in policy.traffic[name].history:
                samples.setdefault(at, []).append(arrivals * misses)
        history = [(at, sum(found)) for at, found in sorted(samples.items()) if len(found) == len(arriving)]
        horizon = max(horizon_seconds(snapshot, policy, each) for each in policy.spec.classes)
        known = [policy.traffic[name].season for name in arriving]
        whole = demand.forecast(
            history,
            horizon,
            snapshot.now,
            quantile=rarity,
            season=seasons.total(known),
            dispersion=_noise(snapshot),
        )
        now = sum(loads[name].now for name in arriving)
        bunched = sum(loads[name].now * loads[name].mix.burstiness for name in arriving) / now
        above = sum(loads[name].planned - loads[name].now for name in arriving)
        found = _bursts(snapshot, policy, history, horizon)
        kept = 0.0 if found is None else found.level * _left_free(snapshot, policy)
        soon = surge.ahead(history, horizon, snapshot.window_seconds, bunched)
        wanted = max(0.0, max(whole.upper, soon, kept) - now)
        if history and wanted < above:
            for name in arriving:
                load = loads[name]
                planned = load.now + (load.planned - load.now) * wanted / above
                loads[name] = dataclasses.replace(load, planned=planned)
    return {(policy.key, name): found for name, found in loads.items()}


def quantile(snapshot: Snapshot, policy: PolicyState, usual: float) -> float:
    """The forecast's quantile to plan for: the fewer requests may miss their promise, the rarer it may be exceeded.

    By the cube root, as a load that is exceeded costs few promises at first: measured on recorded hours, 0.7 keeps 95 %
    at the least cost, and 0.8 keeps 99 % (decision 0013). ``usual`` is that of ``USUAL_ATTAINMENT``.
    """
    missed = 1.0 - attainment(snapshot, policy)
    relative = max(1e-4, missed) / (1.0 - USUAL_ATTAINMENT)
    return 1.0 - (1.0 - usual) * math.pow(relative, 1.0 / 3.0)


def attainment(snapshot: Snapshot, policy: PolicyState) -> float:
    """Share of a policy's requests that must keep their promise: the strictest of its own and its tiers'."""
    slos = [policy.spec.slo] if policy.spec.slo is not None else []
    slos += [snapshot.tiers[key].spec.slo for key in policy.tiers if key in snapshot.tiers]
    return max((units.ratio(slo.attainment) for slo in slos), default=USUAL_ATTAINMENT)


def horizon_seconds(snapshot: Snapshot, policy: PolicyState, request_class: v1alpha1.RequestClass) -> float:
    """How far ahead capacity must be ordered: the slowest start-up among variants of use, and one interval."""
    startups = [
        limits.startup_seconds(variant)
        for key in limits.allowed_tiers(snapshot, policy, request_class)
        for variant in snapshot.tiers[key].variants
        if variant.spec.replicas.max > 0 and variant.profile is not None
    ]
    interval = units.duration_seconds(policy.spec.retune.interval)
    return min(LONGEST_HORIZON_SECONDS, max(startups, default=0.0) + interval)
