"""The best setting of each baseline, found by running the simulator: fairness costs a few runs.

"Best" is the cheapest run that keeps the SLO; where none does, the one that misses it least. What was tried is told.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Self

from trimtab_core import capacity, observation, units
from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing import publish

from trimtab_sim import baselines, control, world
from trimtab_sim.report import Run

HPA_TARGETS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waiting requests per pod that are tried as the HPA's AverageValue."""
HPA_MINIMA = (0.0, 0.25, 0.5, 0.75)
"""minReplicas that are tried, as shares of maxReplicas; at least 1."""
_HOPELESS = 0.1
"""Attainment so far below the wanted one is not made up for by a target that scales up later."""
_ENOUGH = 0.002
"""Where no count keeps the SLO: attainment this near to the best reachable counts as reached."""
_PEAK_WINDOW_SECONDS = 60.0

Counts = dict[VariantKey, int]
"""Replicas of each serving variant."""
Simulate = Callable[[world.Scenario, Sequence[control.Controller]], list[Run]]
"""Runs each controller on the scenario; results in the same order."""


NAMES = {
    baselines.StaticPeak.name: "every request to the best tier, on the fewest replicas that keep the SLO at the peak",
    baselines.HpaOnQueue.name: "every request to the best tier, scaled by an HPA on waiting requests, best setting",
}
"""Every baseline and what it is, in the order of reports."""


def run_baselines(
    scenario: world.Scenario,
    names: Sequence[str] = tuple(NAMES),
    told: Callable[[str], None] | None = None,
    *,
    workers: int = 1,
) -> tuple[Run, ...]:
    """The best run of each named baseline, in the order of ``NAMES``.

    Args:
        scenario: the same that Trimtab ran on.
        names: keys of ``NAMES``; KeyError for another.
        told: called with a description before every simulated run.
        workers: processes to use; more than 1 pays for long traces only, and changes no result.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise KeyError(unknown[0])
    if not names:
        return ()
    with _Pool(told or (lambda _: None), workers) as pool:
        peak, runs = peak_counts(scenario, pool.simulate)
        found = []
        if baselines.StaticPeak.name in names:
            found.append(_static_peak(peak, runs))
        if baselines.HpaOnQueue.name in names:
            found.append(hpa_on_queue(scenario, peak, simulate=pool.simulate))
    return tuple(found)


class _Pool:
    """Runs simulations, several at once if there are workers and several to run."""

    def __init__(self, told: Callable[[str], None], workers: int) -> None:
        self._told = told
        # Not forked: progress bars have threads. Ctrl-C is the parent's to tell of, once.
        context = multiprocessing.get_context("spawn")
        quiet = (signal.SIGINT, signal.SIG_IGN)
        self._executor = (
            futures.ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=quiet)
            if workers > 1
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def simulate(self, scenario: world.Scenario, controllers: Sequence[control.Controller]) -> list[Run]:
        """Run each controller on the scenario; results in the same order."""
        if self._executor is None or len(controllers) == 1:
            return [self._alone(scenario, controller) for controller in controllers]
        self._told(f"{controllers[0].name}: {len(controllers)} settings")
        return list(self._executor.map(world.simulate, itertools.repeat(scenario), controllers))

    def _alone(self, scenario: world.Scenario, controller: control.Controller) -> Run:
        self._told(f"{controller.name}: {controller.settings}")
        return world.simulate(scenario, controller)


def _one_by_one(scenario: world.Scenario, controllers: Sequence[control.Controller]) -> list[Run]:
    return [world.simulate(scenario, controller) for controller in controllers]


def wanted_attainment(scenario: world.Scenario) -> float:
    """The share of requests that must meet the SLO: the policy's, else the strictest of its tiers."""
    policy = next(one for one in scenario.policies if observation.key(one.metadata) == scenario.policy_key)
    if policy.spec.slo is not None:
        return units.ratio(policy.spec.slo.attainment)
    refs = {tier.ref for tier in policy.spec.tiers}
    return max(units.ratio(tier.spec.slo.attainment) for tier in scenario.tiers if tier.metadata.name in refs)


def _static_peak(counts: Counts, runs: Sequence[tuple[Counts, Run]]) -> Run:
    """The run of these counts, with what else was tried."""
    run = next(run for tried, run in runs if tried == counts)
    return dataclasses.replace(run, notes=(*run.notes, f"smallest of {len(runs)} counts tried"))


def peak_counts(scenario: world.Scenario, simulate: Simulate = _one_by_one) -> tuple[Counts, list[tuple[Counts, Run]]]:
    """The smallest replica counts that keep the SLO, and all that was tried.

    The first guess is the capacity model's for the peak minute; then counts are doubled until the SLO holds and halved
    down to the smallest that still does. With several serving variants all scale with one factor.
    """
    loads = _loads(scenario)
    wanted = wanted_attainment(scenario)
    runs: dict[int, tuple[Counts, Run]] = {}

    def attainment(total: int) -> float:
        if total not in runs:
            counts = _counts(loads, total)
            runs[total] = (counts, simulate(scenario, [baselines.StaticPeak(counts)])[0])
        return runs[total][1].slo_attainment

    high = max(1, math.ceil(sum(loads.values())))
    limit = 4 * high + 8
    while attainment(high) < wanted and high < limit:
        high = min(2 * high, limit)
    wanted = min(wanted, attainment(high) - _ENOUGH) if attainment(high) < wanted else wanted
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if attainment(middle) >= wanted else (middle, high)
    attainment(high)
    return runs[high][0], list(runs.values())


def hpa_on_queue(
    scenario: world.Scenario,
    peak: Counts,
    targets: Sequence[float] = HPA_TARGETS,
    simulate: Simulate = _one_by_one,
) -> Run:
    """The HPA with the target and minReplicas that keep the SLO for the least money.

    maxReplicas is the static peak's count: who runs an HPA knows his peak. minReplicas rises from 1 by quarters of
    it until some target keeps the SLO; higher ones would only cost more. The lowest target scales up soonest: a minimum
    with which even that one misses the SLO by far is not tried with the others.
    """
    shorten, wanted = scenario.settings.shorten, wanted_attainment(scenario)
    runs: list[Run] = []
    tried = {tuple((max(1, round(count * share)), count) for count in peak.values()): None for share in HPA_MINIMA}
    *_, last = tried
    for pairs in tried:
        bounds = dict(zip(peak, pairs, strict=True))
        eager, *patient = (
            baselines.HpaOnQueue(bounds, baselines.HpaSettings(target), shorten=shorten) for target in sorted(targets)
        )
        runs += simulate(scenario, [eager])
        if runs[-1].slo_attainment >= wanted - _HOPELESS or pairs == last:
            runs += simulate(scenario, patient) if patient else []
        if any(run.slo_attainment >= wanted for run in runs):
            break
    chosen = best(runs, wanted)
    told = (
        f"best of {len(runs)} settings: targets {', '.join(f'{target:g}' for target in targets)}, minReplicas from 1 up"
    )
    return dataclasses.replace(chosen, notes=(*chosen.notes, told))


def best(runs: Sequence[Run], target: float) -> Run:
    """The cheapest run that keeps the SLO; if none does, the one of highest attainment."""
    keeping = [run for run in runs if run.slo_attainment >= target]
    if keeping:
        return min(keeping, key=lambda run: run.cost_usd)
    return max(runs, key=lambda run: (run.slo_attainment, -run.cost_usd))


def _loads(scenario: world.Scenario) -> dict[VariantKey, float]:
    """Replicas of each serving variant that the capacity model wants for its share of the peak minute."""
    snapshot = world.first_look(scenario)
    window = min(_PEAK_WINDOW_SECONDS, max(scenario.trace.duration_s, 1.0))
    peak, mix = scenario.offered.peak_rps(window), world.mean_mix(scenario.trace)
    destinations = baselines.best_tiers(snapshot)[scenario.policy_key]
    shares: dict[str, float] = {}
    for name, share in world.class_shares(scenario).items():
        for tier in destinations.get(name, {}):
            shares[tier] = shares.get(tier, 0.0) + share
    loads = {}
    for key, variant in baselines.serving_variants(snapshot, shares).items():
        slo = capacity.limits(snapshot.tiers[key.tier].spec.slo)
        load = capacity.admissible_load(variant.profile or publish.UNKNOWN_PROFILE, mix, slo)
        loads[key] = peak * shares[key.tier] / load.requests_per_second
    return loads


def _counts(loads: Mapping[VariantKey, float], total: int) -> Counts:
    """``total`` replicas shared out by load; at least one of each."""
    whole = sum(loads.values()) or 1.0
    return {key: max(1, round(total * load / whole)) for key, load in loads.items()}
