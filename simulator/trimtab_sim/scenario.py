"""What is simulated: manifests, a trace and settings, and what follows from them before anything runs."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab_core import capacity, economics, observation, units
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.routing import publish
from trimtab_core.snapshot import CapacityProfile, Snapshot, TierState, VariantState

from trimtab_sim import arrivals, dispatch, faults, fleet, objects, prompts, trouble
from trimtab_sim.workload import Trace


class ScenarioError(ValueError):
    """Manifests that can't be simulated; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a world runs. Times are seconds.

    Attributes:
        seed: of prompts, classification ties and endpoint choice.
        shorten: by how much a demonstration has shortened all times of control (1 for real times): divides the
            scrape interval, the query window, the prologue, and the windows of baselines. Intervals, windows and
            start-up times of the manifests are taken as they are.
        scrape_interval, scrape_delay: how often counters are read, and how much later they are seen.
        scrape_loss: probability that a scrape of the routers, or of an engine, fails.
        window: over which rates are asked for.
        prologue: length of the run-in; 0 begins at once with the initial replicas.
        points: of the course in the report.
    """

    seed: int = 0
    shorten: float = 1.0
    scrape_interval: float = 5.0
    scrape_delay: float = 1.0
    scrape_loss: float = 0.0
    window: float = 60.0
    prologue: float = 600.0
    points: int = 120


@dataclass(frozen=True)
class Scenario:
    """What is simulated: the objects as ``kubectl apply`` would take them, and a trace for one of the policies.

    Attributes:
        policy: ``namespace/name`` of the policy that gets the trace; the first one when empty.
        faults: what goes wrong.
        source: of the prompts; made-up ones when None.
        truth: how replicas of a variant really behave, where that is not what the manifests and the catalogue say.
    """

    tiers: tuple[v1alpha1.InferenceTier, ...]
    policies: tuple[v1alpha1.RoutingPolicy, ...]
    caches: tuple[v1alpha1.CachePolicy, ...]
    trace: Trace
    settings: Settings = field(default_factory=Settings)
    policy: str = ""
    faults: faults.Faults = faults.NONE
    source: prompts.Source | None = None
    truth: Mapping[VariantKey, CapacityProfile] = field(default_factory=dict)

    @functools.cached_property
    def offered(self) -> Trace:
        """The trace as it arrives: with the outages and flash crowds among the faults."""
        return arrivals.offered(self.trace, self.faults, self.settings.seed)

    @property
    def prompts(self) -> prompts.Source:
        """Where the prompts come from."""
        return self.source or prompts.Synthetic(self.settings.seed)

    @property
    def policy_key(self) -> str:
        """The policy that gets the trace.

        Raises:
            ScenarioError: if there is none, or none of that name.
        """
        keys = [observation.key(policy.metadata) for policy in self.policies]
        if not keys:
            raise ScenarioError("no RoutingPolicy in the manifests: a trace needs one to serve it")
        if self.policy and self.policy not in keys:
            raise ScenarioError(f"policy {self.policy!r} is not in the manifests; there are {', '.join(keys)}")
        return self.policy or keys[0]


def first_look(scenario: Scenario) -> Snapshot:
    """The snapshot before anything runs: specs, prices and profiles."""
    return objects.Objects(scenario.tiers, scenario.policies, scenario.caches).look(objects.EPOCH_SECONDS, {}, {}, {})


def class_shares(scenario: Scenario) -> dict[str, float]:
    """The share of the trace's requests in each class of the policy, as the shipped classifier tells them apart.

    Of a long trace an evenly spread sample is looked at.
    """
    snapshot = first_look(scenario)
    nothing = Plan({}, {}, {}, Prediction(0.0, 0.0, 1.0, 0.0), Source.FLOOR)
    rules = publish.table(snapshot, nothing, scenario.policy_key, epoch=1, revision=1)
    router = dispatch.Dispatcher(scenario.settings.seed, scenario.prompts)
    router.install(rules)
    classes = [router.classify(router.judge(request)) for request in scenario.trace.facts.sample]
    found = Counter(each.name for each in classes if each is not None)
    return {name: count / len(classes) for name, count in sorted(found.items())}


def variants(snapshot: Snapshot) -> trouble.Variants:
    """The variants of the manifests, as faults name them."""
    return trouble.Variants(
        {
            VariantKey(tier.key, variant.name): variant.spec.capacity_type
            for tier in snapshot.tiers.values()
            for variant in tier.variants
        }
    )


def kinds(snapshot: Snapshot, scenario: Scenario) -> dict[VariantKey, fleet.Kind]:
    """How replicas of each variant really behave: as the profiles say, or as the scenario knows better."""
    mix = mean_mix(scenario.trace)
    return {
        key: _kind(snapshot, tier, variant, mix, truth=scenario.truth.get(key))
        for tier in snapshot.tiers.values()
        for variant in tier.variants
        for key in (VariantKey(tier.key, variant.name),)
    }


def _kind(
    snapshot: Snapshot, tier: TierState, variant: VariantState, mix: capacity.Mix, *, truth: CapacityProfile | None
) -> fleet.Kind:
    profile = truth or variant.profile or publish.UNKNOWN_PROFILE
    load = capacity.admissible_load(profile, mix, capacity.limits(tier.spec.slo))
    return fleet.Kind(
        profile=profile,
        usd_per_hour=economics.worst_usd_per_hour(snapshot, tier.key, variant),
        accelerators=variant.spec.accelerator.count,
        fitting=max(load.running, 1e-9),
        requests_per_second=load.requests_per_second,
        drain_seconds=units.duration_seconds(tier.spec.drain.timeout),
    )


def mean_mix(trace: Trace) -> capacity.Mix:
    """Mean lengths of a trace's requests."""
    return capacity.Mix(trace.mean_input_tokens, trace.mean_output_tokens)
