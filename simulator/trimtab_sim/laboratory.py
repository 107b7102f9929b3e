"""What a scenario is made of, worked out once for all who search, screen or bound it: shares, promises, curves, prices.

Knows nothing of controllers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from trimtab_core import capacity, economics, units
from trimtab_core.planning import cost
from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing import publish
from trimtab_core.snapshot import CapacityProfile, PolicyState, Snapshot, TierKey, VariantState

from trimtab_sim import arrivals, curves, report, workload, world

Lengths = curves.Lengths


@dataclass(frozen=True)
class Laboratory:
    """A scenario and what follows from it."""

    scenario: world.Scenario

    @functools.cached_property
    def snapshot(self) -> Snapshot:
        """Specs, prices and profiles before anything runs."""
        return world.first_look(self.scenario)

    @functools.cached_property
    def trace(self) -> workload.Trace:
        """The requests as they arrive."""
        scenario = self.scenario
        return arrivals.offered(scenario.trace, scenario.faults, scenario.settings.seed)

    @property
    def policy(self) -> PolicyState:
        """The policy that gets the trace."""
        return self.snapshot.policies[self.scenario.policy_key]

    @functools.cached_property
    def classes(self) -> dict[str, float]:
        """The share of the requests in each class."""
        return world.class_shares(self.scenario)

    @functools.cached_property
    def lengths(self) -> Lengths:
        """Lengths as they come in the trace."""
        return curves.lengths(self.trace, self.scenario.settings.seed)

    @functools.cached_property
    def mix(self) -> capacity.Mix:
        """Mean lengths."""
        return world.mean_mix(self.trace)

    @property
    def tiers(self) -> tuple[TierKey, ...]:
        """The policy's tiers that there are."""
        return tuple(key for key in self.policy.tiers if key in self.snapshot.tiers)

    def variant(self, key: VariantKey) -> VariantState:
        """A variant before anything runs."""
        return self.snapshot.tiers[key.tier].variant(key.variant)

    def profile(self, key: VariantKey) -> CapacityProfile:
        """How its replicas really behave."""
        known = self.scenario.truth.get(key) or cost.sound_profile(self.variant(key))
        return known or publish.UNKNOWN_PROFILE

    def usd_per_second(self, key: VariantKey) -> float:
        """What a replica is billed with, at the prices that hold at the start."""
        usd = economics.worst_usd_per_hour(self.snapshot, key.tier, self.variant(key))
        return usd / units.SECONDS_PER_HOUR

    @functools.cached_property
    def attainment(self) -> float:
        """The share of requests that must meet the SLO: the policy's, else the strictest of its tiers."""
        spec = self.policy.spec
        if spec.slo is not None:
            return units.ratio(spec.slo.attainment)
        return max(units.ratio(self.snapshot.tiers[key].spec.slo.attainment) for key in self.tiers)

    @property
    def misses(self) -> int:
        """How many requests may miss the SLO."""
        return math.floor((1 - self.attainment) * len(self.trace) + 1e-9)

    def limits(self, tier: TierKey, classes: Iterable[str] = ()) -> capacity.Limits:
        """The promise on a tier: the strictest of its own and the policy's; of those classes, the most lenient one."""
        slo, spec = self.snapshot.tiers[tier].spec.slo, self.policy.spec
        wanted = set(classes)
        named = [each.slo or spec.slo for each in spec.classes if each.name in wanted]
        found = [capacity.limits(slo, one) for one in named] or [capacity.limits(slo, spec.slo)]

        def widest(values: Iterable[float | None]) -> float | None:
            most = max(math.inf if value is None else value for value in values)
            return None if math.isinf(most) else most

        return capacity.Limits(
            widest(one.ttft_seconds for one in found),
            widest(one.itl_seconds for one in found),
            widest(one.e2e_seconds for one in found),
            min(one.quantile for one in found),
        )

    def curve(self, key: VariantKey, classes: Iterable[str] = (), *, requests: int = curves.REQUESTS) -> curves.Curve:
        """What a replica of the variant keeps at which load."""
        found = promise(self.limits(key.tier, classes))
        return curves.measure(self.profile(key), found, self.lengths, requests=requests)


def promise(limits: capacity.Limits) -> report.Promise:
    """The limits as a request is held to them."""
    return report.Promise(limits.ttft_seconds, limits.itl_seconds, limits.e2e_seconds)
