"""One side of a preview: manifests on a load, as numbers, and the promises that they kept or broke. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab_core import observation, units
from trimtab_core.api import findings
from trimtab_core.api.v1alpha1 import routing_policy
from trimtab_core.planning.plan import VariantKey
from trimtab_sim import report, search, world

from trimtab_cli.pages import wording
from trimtab_cli.preview import watch

MOSTLY = 0.5
"""A promise that the plan can't keep for more of the time than that is broken; for less, demand rose too fast."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise.

    Attributes:
        name: such as ``SLO`` or ``budget of default/chat, $/h``.
        promised, reached: as texts.
        kept: whether it holds.
    """

    name: str
    promised: str
    reached: str
    kept: bool

    def text(self) -> str:
        """A sentence for people."""
        return f"{self.name}: {self.reached}, {self.promised}"


@dataclass(frozen=True, slots=True)
class Side:
    """Everything that is told of one set of manifests.

    Attributes:
        usd_per_hour: mean cost.
        attainment: share of requests within the SLO; None where nothing was simulated.
        quality_retention: of always the best tier; None where it is not known.
        latencies: (name, seconds) pairs.
        replicas: by ``tier/variant``: the mean, and the most.
        shares: of requests by tier.
        checks: the promises.
        unkept: promises that no plan could keep, as sentences, and manifests' findings that say so.
        run: the simulation; None where nothing was simulated.
    """

    usd_per_hour: float
    attainment: float | None
    quality_retention: float | None
    latencies: Sequence[tuple[str, float | None]]
    replicas: Mapping[str, tuple[float, int]]
    shares: Mapping[str, float]
    checks: Sequence[Check]
    unkept: Sequence[str]
    run: report.Run | None = None

    @property
    def usd_per_month(self) -> float:
        """The same for a month of such hours."""
        return self.usd_per_hour * units.HOURS_PER_MONTH

    @property
    def promises(self) -> list[tuple[bool, str]]:
        """Every promise: whether it is kept, and a sentence."""
        return [(check.kept, check.text()) for check in self.checks] + [(False, text) for text in self.unkept]

    @property
    def broken(self) -> list[str]:
        """What would break, as sentences; empty where all is kept."""
        return [text for kept, text in self.promises if not kept]


def simulated(
    scenario: world.Scenario, run: report.Run, moments: Sequence[watch.Moment], doubts: Sequence[findings.Finding]
) -> Side:
    """The numbers of a simulation.

    Args:
        scenario: what was simulated.
        run: what came of it.
        moments: what the planner's cycles saw.
        doubts: promises of the manifests that can't be kept.
    """
    hours = max(run.duration_s, 1.0) / units.SECONDS_PER_HOUR
    unkept = [finding.text() for finding in doubts]
    for reason, share in watch.broken_share(moments, run.duration_s):
        if share > MOSTLY:
            unkept.append(f"{reason.policy}, {wording.percent(share)} of the time: {reason.message}")
    return Side(
        usd_per_hour=run.cost_usd / hours,
        attainment=run.slo_attainment,
        quality_retention=run.quality_retention,
        latencies=[("TTFT p95", run.ttft_p95_s), ("ITL p95", run.itl_p95_s), ("end to end p95", run.e2e_p95_s)],
        replicas={_name(key): found for key, found in watch.mean_replicas(moments, run.duration_s).items()},
        shares=run.share_by_tier,
        checks=[_slo(scenario, run), *_budgets(scenario, run, moments)],
        unkept=unkept,
        run=run,
    )


def _slo(scenario: world.Scenario, run: report.Run) -> Check:
    wanted = search.wanted_attainment(scenario)
    kept = run.slo_attainment >= wanted
    reached = f"{wording.attainment(run.slo_attainment, wanted)} of the requests meet it"
    return Check(f"SLO of {scenario.policy_key}", f"{wording.percent(wanted)} are promised", reached, kept)


def _budgets(scenario: world.Scenario, run: report.Run, moments: Sequence[watch.Moment]) -> list[Check]:
    """Every policy's budget against what its tiers cost.

    What external APIs cost is not in ``moments``; it belongs to the policy that got the trace, as nobody else calls.
    """
    found: list[Check] = []
    hours = max(run.duration_s, 1.0) / units.SECONDS_PER_HOUR
    own = _usd_per_hour(moments, run.duration_s)
    external = max(0.0, run.cost_usd / hours - sum(own.values()))
    for policy in scenario.policies:
        key = observation.key(policy.metadata)
        tiers = {f"{policy.metadata.namespace}/{tier.ref}" for tier in policy.spec.tiers}
        extra = external if key == scenario.policy_key else 0.0
        dearest = watch.dearest_hour(moments, run.duration_s, tiers) + extra
        mean = sum(usd for tier, usd in own.items() if tier in tiers) + extra
        found += budget_checks(key, policy.spec.budget, dearest, mean * units.HOURS_PER_MONTH)
    return found


def budget_checks(
    policy: str, budget: routing_policy.Budget | None, usd_per_hour: float, usd_per_month: float | None = None
) -> list[Check]:
    """A policy's ceilings beside what its tiers cost.

    Args:
        policy: ``namespace/name``.
        budget: its ceilings.
        usd_per_hour: what they cost in their dearest hour.
        usd_per_month: what they cost in a month; one of such hours when None.
    """
    month = usd_per_hour * units.HOURS_PER_MONTH if usd_per_month is None else usd_per_month
    limits = (budget.usd_per_hour, budget.usd_per_month) if budget is not None else (None, None)
    found = []
    for name, limit, usd in zip(("usdPerHour", "usdPerMonth"), limits, (usd_per_hour, month), strict=True):
        if limit is not None:
            ceiling = units.decimal_number(limit)
            reached, promised = f"{wording.usd(usd)} would be spent", f"{wording.usd(ceiling)} may be"
            found.append(Check(f"budget.{name} of {policy}", promised, reached, usd <= ceiling))
    return found


def _usd_per_hour(moments: Sequence[watch.Moment], duration_s: float) -> dict[str, float]:
    """Mean cost of each tier's own replicas."""
    held = watch.spans(moments, duration_s)
    whole = sum(held)
    if not whole:
        return dict(moments[-1].usd_per_hour) if moments else {}
    tiers = {tier for moment in moments for tier in moment.usd_per_hour}
    return {
        tier: sum(moment.usd_per_hour.get(tier, 0.0) * span for moment, span in zip(moments, held, strict=True)) / whole
        for tier in sorted(tiers)
    }


def _name(key: VariantKey) -> str:
    """Such as ``small/l4``."""
    return f"{key.tier.rpartition('/')[2]}/{key.variant}"
