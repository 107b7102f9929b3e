"""Decisions out of a simulation that is run again up to the moment in question, and one start-up time beyond."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimtab_core import signals
from trimtab_core.planning import cost, inputs
from trimtab_core.planning.plan import Decision, Plan, Reason
from trimtab_core.snapshot import Snapshot
from trimtab_sim import control, world

from trimtab_cli.explanation import from_file
from trimtab_cli.explanation.account import Account, Outcome
from trimtab_cli.pages import wording
from trimtab_cli.preview import watch


class _Seen(Exception):  # noqa: N818 (no error: all that was asked for is known)
    """Ends the simulation."""


@dataclass(frozen=True, slots=True)
class Came:
    """What one cycle measured.

    Attributes:
        at_s: seconds since the start of the trace.
        usd_per_hour: of all that runs, and of external APIs.
        loads: requests per second that the cache did not answer, by class.
        met: shares of requests within the SLO, by policy.
    """

    at_s: float
    usd_per_hour: float
    loads: Mapping[str, float]
    met: Mapping[str, float]


@dataclass(slots=True)
class Evidence:
    """What was noted up to the moment that is asked about, and after it.

    Attributes:
        at_s: the moment.
        decisions: up to it, oldest first; their times count from the start of the trace.
        snapshot, plan: of the last cycle up to it.
        came: what every cycle measured.
    """

    at_s: float
    decisions: list[Decision] = field(default_factory=list)
    snapshot: Snapshot | None = None
    plan: Plan | None = None
    came: list[Came] = field(default_factory=list)

    def __deepcopy__(self, memo: object) -> Evidence:
        return self  # it outlives a change of leader


class Witness(control.Trimtab):
    """The shipped planner with somebody who takes notes until enough is known."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__()
        self._evidence = evidence

    def step(self, snapshot: Snapshot) -> control.Orders:
        """Decide as shipped, and note it."""
        orders = super().step(snapshot)
        seen, at_s = self._evidence, snapshot.now - world.EPOCH_SECONDS
        if at_s >= 0:
            seen.came.append(_came(at_s, snapshot))
        if at_s <= seen.at_s:
            seen.snapshot, seen.plan = snapshot, orders.plan
            seen.decisions += [_since_start(one) for one in orders.decisions if at_s >= 0]
        elif at_s >= seen.at_s + _patience(seen):
            raise _Seen
        return orders


def _came(at_s: float, snapshot: Snapshot) -> Came:
    own = watch.moment(at_s, snapshot, ()).usd_per_hour
    loads: dict[str, float] = {}
    for policy in snapshot.policies.values():
        for name, traffic in policy.traffic.items():
            loads[name] = loads.get(name, 0.0) + cost.missed_per_second(traffic)
    met = {key: signals.known(policy.slo_attainment) for key, policy in snapshot.policies.items()}
    return Came(
        at_s,
        sum(own.values()) + cost.external_usd_per_hour(snapshot, {}),
        loads,
        {key: share for key, share in met.items() if share is not None},
    )


def _since_start(decision: Decision) -> Decision:
    return dataclasses.replace(decision, time=decision.time - world.EPOCH_SECONDS)


def _patience(seen: Evidence) -> float:
    """How long after the moment its decision has had its effect."""
    return from_file.effect_seconds(seen.decisions[-1].inputs if seen.decisions else ()) + 60.0


def run(scenario: world.Scenario, at_s: float, progress: world.Progress) -> Evidence:
    """Simulate up to ``at_s`` seconds and a little further. Raises world.ScenarioError if the trace ends before it."""
    if at_s > scenario.trace.duration_s:
        raise world.ScenarioError(
            f"--at {wording.clock(at_s)} is after the end of the trace, {wording.clock(scenario.trace.duration_s)}"
        )
    evidence = Evidence(at_s)
    with contextlib.suppress(_Seen):
        world.simulate(scenario, Witness(evidence), progress)
    return evidence


def tell(seen: Evidence, decision: Decision, source: str) -> Account:
    """The account of one decision, with the plan that was in force at the moment that was asked about."""
    assert seen.plan is not None
    assert seen.snapshot is not None
    given = decision.inputs
    return Account(
        time=f"{wording.clock(decision.time)}, in force at {wording.clock(seen.at_s)}",
        source=source,
        decision=decision,
        guards=decision.guards,
        inputs=given,
        alternatives=decision.alternatives or seen.plan.alternatives,
        holding=_holding(seen.plan.reasons),
        weights=_weights(seen.plan),
        outcome=_outcome(seen, decision),
    )


def nothing_changed(seen: Evidence) -> Decision:
    """The plan in force as a decision, where none was taken up to the moment."""
    assert seen.plan is not None
    assert seen.snapshot is not None
    usd = seen.plan.prediction.usd_per_hour
    demand = tuple(one for classes in seen.plan.demand.values() for found in classes.values() for one in found)
    running = tuple(
        one for tier in seen.snapshot.tiers.values() for variant in tier.variants for one in inputs.of_variant(variant)
    )
    reasons = tuple(dict.fromkeys(reason.message for reason in seen.plan.reasons)) or ("what runs is what is wanted",)
    return Decision(seen.at_s, "all tiers", "nothing changed", reasons, usd, usd, seen.plan.binding, demand + running)


def _holding(reasons: Sequence[Reason]) -> list[str]:
    """What guards say of a plan."""
    said = (f"{one.guard}, {one.tier or one.policy}: {one.message}" for one in reasons if one.guard)
    return list(dict.fromkeys(said))


def _weights(plan: Plan) -> list[tuple[str, str]]:
    return [
        (
            name,
            ", ".join(f"{tier.rpartition('/')[2]} {wording.percent(share)}" for tier, share in sorted(shares.items())),
        )
        for classes in plan.weights.values()
        for name, shares in classes.items()
    ]


def _outcome(seen: Evidence, decision: Decision) -> list[Outcome]:
    """Cost and load as planned and as they came, once the decision had its effect."""
    effect = decision.time + from_file.effect_seconds(decision.inputs)
    found = next((one for one in seen.came if one.at_s >= effect), None)
    if found is None:
        return []
    after = f"at {wording.clock(found.at_s)}"
    expected = f"{wording.usd(decision.cost_after_usd_per_hour)}/h"
    told = [Outcome(f"cost {after}", expected, f"{wording.usd(found.usd_per_hour)}/h")]
    for one in decision.inputs:
        if one.name == inputs.PLANNED and one.value is not None:
            came = f"{wording.number(found.loads.get(one.about, 0.0))} req/s"
            told.append(Outcome(f"load of {one.about} {after}", f"up to {wording.number(one.value)} req/s", came))
    return told + [Outcome(f"SLO met {after}", "", wording.percent(share, 1)) for share in found.met.values()]
