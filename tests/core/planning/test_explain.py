"""Why a plan is as it is: what binds, what else could have been done, and what is told of each change."""

from __future__ import annotations

from typing import Any

import pytest
from trimtab_core.planning import optimizer
from trimtab_core.planning.plan import Code, Plan
from trimtab_core.snapshot import Snapshot

from . import fleets
from .fleets import CARRIES, key

LOAD = 0.85 * CARRIES


def pair(rate: float, *, least: int = 0, spec: dict[str, Any] | None = None, **small: Any) -> Snapshot:
    """A weak tier at 1 USD and a strong one at 10, which keeps at least so many replicas."""
    weak = fleets.tier("small", "0.6", fleets.variant(usd=1.0, **{"ready": 2, "most": 40, **small}))
    strong = fleets.tier("large", "0.9", fleets.variant(usd=10.0, ready=least, least=least, most=40))
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(rate)}, spec=spec)
    return fleets.snapshot((weak, strong), (chat,))


def alone(rate: float) -> Snapshot:
    """One tier that keeps a replica."""
    small = fleets.tier("small", "0.6", fleets.variant(ready=1, least=1))
    return fleets.snapshot((small,), (fleets.policy("chat", ("small",), {"all": fleets.traffic(rate)}),))


def alternatives(plan: Plan) -> dict[str, float]:
    return {one.name: one.usd_per_hour for one in plan.alternatives}


@pytest.mark.parametrize(
    ("world", "binding"),
    [
        pytest.param(pair(4 * LOAD, spec={"objective": {"qualityRetention": "1"}}), "quality", id="only the strong will do"),
        pytest.param(pair(3.4 * LOAD), "capacity", id="replicas that the load takes"),
        pytest.param(alone(0.1 * LOAD), "bounds", id="the fewest that may run"),
        pytest.param(
            pair(4 * LOAD, spec={"objective": {"qualityRetention": "1"}, "budget": {"usdPerHour": "12"}}), "quality",
            id="quality gave way to a budget",
        ),
    ],
)  # fmt: skip
def test_what_keeps_a_plan_from_being_cheaper_is_named(world: Snapshot, binding: str) -> None:
    assert optimizer.optimize(world).binding == binding


def test_sending_everything_to_one_tier_still_pays_for_what_the_other_must_keep() -> None:
    free, kept = (alternatives(optimizer.optimize(pair(3.4 * LOAD, least=least))) for least in (0, 2))
    small = "every request to default/small"
    assert kept[small] == pytest.approx(free[small] + 20.0)


def test_staying_costs_what_runs_and_says_what_it_would_not_carry() -> None:
    staying = optimizer.optimize(pair(3.4 * LOAD, ready=7)).alternatives[0]
    assert (staying.name, staying.usd_per_hour) == ("replicas as they are", 7.0)
    assert staying.why_not.startswith("default/large carries 0 of")


def test_an_alternative_that_breaks_the_quality_says_how_much_it_would_keep() -> None:
    plan = optimizer.optimize(pair(2 * LOAD, spec={"objective": {"qualityRetention": "0.9"}}))
    why = next(one.why_not for one in plan.alternatives if one.name == "every request to default/small")
    assert why == "keeps 0.667 of the best quality, 0.900 is asked"  # 0.6 / 0.9


@pytest.mark.parametrize(
    ("world", "code", "words"),
    [
        pytest.param(pair(5 * LOAD, ready=2), Code.DEMAND_UP, "2 replicas can carry", id="more arrives"),
        pytest.param(pair(0.5 * LOAD, ready=4), Code.DEMAND_DOWN, "are planned for", id="less arrives"),
        pytest.param(pair(0.5 * LOAD, ready=0), Code.WOKEN, "are planned for", id="from none"),
        pytest.param(pair(0.5 * LOAD, ready=2, least=0, most=1), Code.BOUNDS, "between 0 and 1", id="above the most"),
    ],
)
def test_a_change_is_told_with_its_cause_and_numbers(world: Snapshot, code: Code, words: str) -> None:
    (reason,) = [
        one for one in optimizer.optimize(world).reasons if one.variant == "l4" and one.tier == key("small").tier
    ]
    assert reason.code is code
    assert words in reason.message
