"""Which step of its budget a policy is at: what routers must refuse while its tiers cost more than they may.

Cheaper tiers are the planner's step: it takes them by itself while quality may give way. Where even the cheapest plan
costs more than the ceiling, requests must go: first those that are no batch requests, if the policy says so, and all
new ones where that is the only step left, or where nothing of the month's money is.
"""

from __future__ import annotations

from trimtab_core.api.v1alpha1.routing_policy import WhenExceeded
from trimtab_core.planning import cost
from trimtab_core.planning.plan import Code, Plan, Source
from trimtab_core.routing import table as tables
from trimtab_core.snapshot import PolicyState

_STEPS: dict[WhenExceeded, tables.Degraded] = {
    WhenExceeded.DOWNSHIFT: "Downshift",
    WhenExceeded.BATCH_ONLY: "BatchOnly",
    WhenExceeded.REJECT: "Reject",
}


def step(policy: PolicyState, plan: Plan, now: float, *, before: tables.Degraded = "") -> tables.Degraded:
    """The step in force; empty while the policy is within its budget.

    Args:
        policy: with its budget and what it has spent.
        plan: what the planner says of it.
        now: epoch seconds.
        before: the step of the table before: it stays where this plan says nothing of budgets.
    """
    budget = policy.spec.budget
    if budget is None:
        return ""
    if plan.source not in (Source.OPTIMAL, Source.TIME_LIMIT):
        return before
    over = any(each.code is Code.BUDGET and each.policy == policy.key and not each.guard for each in plan.reasons)
    if not over:
        return ""
    refusing = [each for each in budget.when_exceeded if each is not WhenExceeded.DOWNSHIFT]
    if not refusing:
        return "Downshift"
    spent_up = cost.ceiling_usd_per_hour(policy, now) <= 0
    return _STEPS[refusing[-1] if spent_up else refusing[0]]
