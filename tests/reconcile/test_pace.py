"""Weights keep their pace; what can't wait does not."""

from __future__ import annotations

import pytest
from trimtab_core import observation, recall
from trimtab_core.observation import Observation, ObservedReplica, ObservedVariant
from trimtab_core.planning import plan as planning
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.snapshot import ReplicaPhase, VariantMemory
from trimtab_operator import pace

from . import world

NOW = 1_800_000_000.0
BEFORE = {"default/small": 0.6, "default/large": 0.4}
WANTED = {"default": {"default/small": 0.7, "default/large": 0.3}}


def held(
    *, moved: float | None, ready: bool = True, in_force: bool = True, interval: str = "15s", loop: float = 15.0
) -> bool:
    """Whether the weights in force were kept."""
    status = {"classes": [{"name": "default", "weights": {"small": "0.6", "large": "0.4"}}]} if in_force else {}
    policy = world.policy(tiers=("small", "large"), retune={"interval": interval})
    policy = policy.model_copy(update={"status": type(policy.status).model_validate(status)})
    phase = ReplicaPhase.READY if ready else ReplicaPhase.PENDING
    variants = {
        VariantKey("default/small", "l4"): ObservedVariant(1, (ObservedReplica("a", ReplicaPhase.READY, 0.0),)),
        VariantKey("default/large", "l4"): ObservedVariant(1, (ObservedReplica("b", phase, 0.0),)),
    }
    seen = Observation((world.tier("small"), world.tier("large")), (policy,), (), variants, {}, {})
    snapshot = observation.snapshot(seen, now=NOW, epoch=1)
    plan = Plan({}, {"default/chat": WANTED}, {}, Prediction(0, 0, 1, 0), Source.OPTIMAL)
    moved_at = {} if moved is None else {"default/chat": NOW - moved}
    kept = pace.hold(plan, snapshot, moved_at, loop).weights["default/chat"]["default"]
    assert kept in (BEFORE, WANTED["default"])
    return kept == BEFORE


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, True), (14.0, True), (14.6, False), (15.0, False), (100.0, False), (None, False)],
)
def test_weights_wait_for_their_interval(seconds: float | None, *, expected: bool) -> None:
    assert held(moved=seconds) is expected


def test_the_shorter_of_the_policys_and_the_loops_interval_holds() -> None:
    assert not held(moved=4.0, interval="3s")
    assert not held(moved=4.0, loop=3.0)
    assert held(moved=2.0, interval="3s")


def test_a_tier_that_can_not_serve_is_left_at_once() -> None:
    assert not held(moved=1.0, ready=False)


def test_a_class_without_weights_gets_them_at_once() -> None:
    assert not held(moved=1.0, in_force=False)


def test_only_policies_whose_weights_moved_are_remembered() -> None:
    change = planning.WeightChange("default/chat", "default", {}, {"default/small": 1.0}, ())
    assert pace.moved(planning.Changes((), (change,)), {"x": 1.0}, NOW) == {"x": 1.0, "default/chat": NOW}
    assert pace.moved(planning.Changes((), ()), {"x": 1.0}, NOW) == {"x": 1.0}


@pytest.mark.parametrize(
    ("wanted", "scaled_ago", "expected"),
    [
        pytest.param(2, 3.0, 3, id="a second one so soon waits"),
        pytest.param(2, 15.0, 2, id="one per interval goes"),
        pytest.param(2, None, 2, id="the first goes"),
        pytest.param(5, 0.0, 5, id="more never wait"),
    ],
)
def test_replicas_go_one_per_interval(wanted: int, scaled_ago: float | None, expected: int) -> None:
    tier = world.tier()
    if scaled_ago is not None:
        status = {"variants": [{"name": "l4", "lastScaled": recall.rfc3339(NOW - scaled_ago)}]}
        tier = tier.model_copy(update={"status": type(tier.status).model_validate(status)})
    key = VariantKey("default/small", "l4")
    seen = Observation((tier,), (), (), {key: ObservedVariant(3)}, {}, {})
    snapshot = observation.snapshot(seen, now=NOW, epoch=1)
    memory = {key: VariantMemory(last_scaled_at=NOW, fewer_since=NOW - 100)}
    held_plan = pace.hold(Plan({key: wanted}, {}, memory, Prediction(0, 0, 1, 0), Source.OPTIMAL), snapshot, {}, 15.0)
    assert held_plan.replicas[key] == expected
    waits = expected != wanted
    assert held_plan.memory[key].last_scaled_at == (NOW - 3.0 if waits else NOW)
    assert held_plan.memory[key].fewer_since == NOW - 100


def test_what_the_maximum_does_not_allow_goes_at_once() -> None:
    tier = world.tier()
    lower = tier.spec.variants[0].model_copy(update={"replicas": type(tier.spec.variants[0].replicas)(min=0, max=2)})
    status = {"variants": [{"name": "l4", "lastScaled": recall.rfc3339(NOW - 3.0)}]}
    tier = tier.model_copy(
        update={
            "spec": tier.spec.model_copy(update={"variants": [lower]}),
            "status": type(tier.status).model_validate(status),
        }
    )
    key = VariantKey("default/small", "l4")
    snapshot = observation.snapshot(Observation((tier,), (), (), {key: ObservedVariant(3)}, {}, {}), now=NOW, epoch=1)
    wanted = Plan({key: 2}, {}, {key: VariantMemory()}, Prediction(0, 0, 1, 0), Source.OPTIMAL)

    assert pace.hold(wanted, snapshot, {}, 15.0).replicas[key] == 2
