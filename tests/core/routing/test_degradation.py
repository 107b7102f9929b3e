"""What a budget that is used up takes away, and how a policy's resilience and cache pressure reach routers."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from trimtab_core import signals
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import Code, Plan, Prediction, Reason, Source
from trimtab_core.routing import degradation, publish_resilience
from trimtab_core.routing import table as tables
from trimtab_core.snapshot import Snapshot

from . import test_publish as publishing

EXCEEDED = Reason(Code.BUDGET, "the cheapest plan exceeds the budget", policy=publishing.POLICY)
GUARDED = Reason(Code.BUDGET, "one more replica would exceed it", policy=publishing.POLICY, guard="reserve_budget")
OTHER = Reason(Code.BUDGET, "the cheapest plan exceeds the budget", policy="team/other")


def plan(*reasons: Reason, source: Source = Source.OPTIMAL) -> Plan:
    return Plan({}, {}, {}, Prediction(0, 0, 1, 0), source, reasons=reasons)


def step(
    steps: list[str] | None, made: Plan, *, spent: float | None = None, before: tables.Degraded = ""
) -> tables.Degraded:
    budget = {"usdPerMonth": "100", "whenExceeded": steps} if steps else None
    policy = publishing.world(budget=budget).policies[publishing.POLICY]
    if spent is not None:
        policy = dataclasses.replace(policy, spent_usd_month_to_date=signals.Fresh(spent, 1.0))
    return degradation.step(policy, made, publishing.NOW, before=before)


ALL = ["Downshift", "BatchOnly", "Reject"]
CASES = {
    "no budget": (None, plan(EXCEEDED), 0.0, ""),
    "within it": (ALL, plan(), 0.0, ""),
    "a guard only held a replica back": (ALL, plan(GUARDED), 0.0, ""),
    "another policy's": (ALL, plan(OTHER), 0.0, ""),
    "cheaper tiers are not enough": (ALL, plan(EXCEEDED), 0.0, "BatchOnly"),
    "the month's money is gone": (ALL, plan(EXCEEDED), 100.0, "Reject"),
    "nothing may be refused": (["Downshift"], plan(EXCEEDED), 100.0, "Downshift"),
    "all is refused at once": (["Reject"], plan(EXCEEDED), 0.0, "Reject"),
    "never all": (["Downshift", "BatchOnly"], plan(EXCEEDED), 100.0, "BatchOnly"),
}


@pytest.mark.parametrize(("steps", "made", "spent", "expected"), CASES.values(), ids=CASES.keys())
def test_what_degrades(steps: list[str] | None, made: Plan, spent: float, expected: tables.Degraded) -> None:
    assert step(steps, made, spent=spent) == expected


@pytest.mark.parametrize("source", [Source.PREVIOUS, Source.FLOOR])
def test_a_plan_that_was_not_worked_out_changes_nothing(source: Source) -> None:
    assert step(ALL, plan(source=source), before="BatchOnly") == "BatchOnly"


def test_the_table_says_what_degrades() -> None:
    snapshot = publishing.world(budget={"usdPerHour": "1", "whenExceeded": ["BatchOnly"]})
    made = publishing.publish.table(snapshot, plan(EXCEEDED), publishing.POLICY, epoch=1, revision=1)
    assert made.degraded == "BatchOnly"
    assert tables.decode(tables.encode(made)).degraded == "BatchOnly"


def test_every_part_of_a_policys_resilience_reaches_the_table() -> None:
    given = {
        "connectTimeout": "1s",
        "firstByteTimeout": "2s",
        "answerTimeout": "3s",
        "idleTimeout": "4s",
        "totalTimeout": "5s",
        "stallAfter": "6s",
        "maxFallbacks": 5,
        "ejectAfter": 8,
        "ejectFor": "9s",
        "breaker": {
            "failureRatio": "0.1", "window": "11s", "minRequests": 12, "maxEjected": "0.13", "easeIn": "14s",
        },
        "retryBudget": {"share": "0.15", "floorPerSecond": 16, "window": "17s"},
        "hedging": {"quantile": "0.98"},
        "queue": {"maxRequests": 19, "maxMegabytes": 20, "maxWait": "21s", "startAt": "2.2", "maxHeld": 23},
    }  # fmt: skip
    spec = v1alpha1.RoutingPolicySpec.model_validate({"tiers": [{"ref": "small"}], "resilience": given})
    assert publish_resilience.rules(spec.resilience) == tables.Resilience(
        connect_timeout=1.0,
        first_byte_timeout=2.0,
        answer_timeout=3.0,
        idle_timeout=4.0,
        total_timeout=5.0,
        stall_after=6.0,
        max_fallbacks=5,
        eject_after=8,
        eject_seconds=9.0,
        failure_ratio=0.1,
        failure_window=11.0,
        failure_requests=12,
        max_ejected=0.13,
        ease_in_seconds=14.0,
        retry_share=0.15,
        retry_floor_per_second=16.0,
        retry_window=17.0,
        hedge_quantile=0.98,
        queue_requests=19,
        queue_bytes=20 << 20,
        queue_seconds=21.0,
        queue_at=2.2,
        hold_requests=23,
    )


def test_defaults_of_a_policy_are_those_of_a_table_but_that_requests_may_wait() -> None:
    spec = v1alpha1.RoutingPolicySpec.model_validate({"tiers": [{"ref": "small"}]})
    made = publish_resilience.rules(spec.resilience)
    assert made.queue_requests > 0
    assert made == tables.Resilience(queue_requests=made.queue_requests)


@pytest.mark.parametrize(
    ("usage", "before", "told"),
    [(0.5, 0.0, 0.0), (0.93, 0.0, 0.93), (0.93, 0.9, 0.9), (0.5, 0.9, 0.0)],
    ids=["calm", "pressed", "as pressed as before", "calm again"],
)
def test_a_table_tells_of_a_cache_that_is_nearly_full_and_not_of_every_move(
    usage: float, before: float, told: float
) -> None:
    calm = publishing.world(publishing.replica("a"))
    old = publishing.table(calm)
    small = next(tier for tier in old.tiers if tier.name == "small")
    small.endpoints[0] = msgspec.structs.replace(small.endpoints[0], kv_usage=before)
    made = publishing.table(_with_usage(calm, signals.Fresh(usage, 1.0)), previous=old)
    assert next(tier for tier in made.tiers if tier.name == "small").endpoints[0].kv_usage == told


def _with_usage(snapshot: Snapshot, usage: signals.Signal) -> Snapshot:
    tier = snapshot.tiers["team/small"]
    variant = tier.variants[0]
    replica = dataclasses.replace(variant.replicas[0], kv_usage=usage)
    tier = dataclasses.replace(tier, variants=(dataclasses.replace(variant, replicas=(replica,)),))
    return dataclasses.replace(snapshot, tiers={**snapshot.tiers, "team/small": tier})
