"""Demand that is planned for: bursts that pass are kept ready for, what stays is followed, silence may sleep."""

from __future__ import annotations

import dataclasses

import pytest
from trimtab_core import signals
from trimtab_core.planning import limits, loads, problem
from trimtab_core.snapshot import ClassTraffic, Snapshot

from tests.core.planning import fleets

NOW = fleets.NOW
KEY = ("default/chat", "one")


def bursts(
    count: int, *, apart: float = 300.0, rate: float = 10.0, quiet: float = 240.0
) -> tuple[tuple[float, float], ...]:
    """What a rate over a minute shows every 15 s of bursts of half a minute, the last one so long ago."""
    ends = [NOW - quiet - apart * number for number in range(count)]

    def seen(at: float) -> float:
        return sum(rate * max(0.0, min(at, end) - max(at - 60.0, end - 30.0)) for end in ends) / 60.0

    return tuple((NOW - 15.0 * number, seen(NOW - 15.0 * number)) for number in range(240, 0, -1))


def world(traffic: ClassTraffic, utilisation: float = 0.85) -> Snapshot:
    tier = dataclasses.replace(fleets.tier("small", "0.8", fleets.variant(ready=2)), utilisation=utilisation)
    return fleets.snapshot((tier,), (fleets.policy("chat", ("small",), {"one": traffic}),))


def planned(snapshot: Snapshot) -> loads.Load:
    return loads.of_policy(snapshot, snapshot.policies["default/chat"], 0.7)[KEY]


def test_between_bursts_that_pass_capacity_for_the_next_is_kept() -> None:
    found = planned(world(fleets.traffic(0.0, history=bursts(5))))

    assert found.now == 0.0
    assert found.planned == pytest.approx(0.85 * 10.0, rel=0.15)  # at a full load as many are late as may be


def test_without_bursts_silence_is_no_demand() -> None:
    assert planned(world(fleets.traffic(0.0, history=bursts(0)))).planned == 0.0


def test_what_has_learned_to_carry_less_keeps_more_for_bursts_as_well() -> None:
    history = bursts(5)

    usual, careful = (planned(world(fleets.traffic(0.0, history=history), share)) for share in (0.85, 0.5))

    assert careful.planned == usual.planned  # and is divided by the smaller share


@pytest.mark.parametrize(
    ("count", "now"),
    [
        pytest.param(0, 10.0, id="what was never seen to pass is believed at once, as if the minute were full of it"),
        pytest.param(5, 2.5, id="what has always passed is not"),
    ],
)
def test_a_sudden_rise(count: int, now: float) -> None:
    # 10 per second for the last 15 s: a rate of 2.5 over the minute
    found = planned(world(fleets.traffic(2.5, history=bursts(count))))

    assert found.now == pytest.approx(now)
    assert found.planned >= found.now


def test_a_rise_beyond_all_bursts_is_believed_whatever_they_did() -> None:
    found = planned(world(fleets.traffic(10.0, history=bursts(5, rate=4.0))))

    assert found.now == pytest.approx(40.0)


@pytest.mark.parametrize(
    "arrivals", [signals.Stale(2.0, 90.0), signals.Missing("no answer"), signals.Fresh(float("nan"), 1.0)]
)
def test_what_is_kept_for_bursts_stays_while_signals_are_bad(arrivals: signals.Signal) -> None:
    found = planned(world(fleets.traffic(arrivals, history=bursts(5))))

    assert found.evidence is not limits.Evidence.FRESH
    assert found.planned >= 0.85 * 8.0


def test_classes_whose_bursts_come_together_are_all_kept_ready_for() -> None:
    history, demand = bursts(5), {}
    for name in ("one", "two"):
        demand[name] = fleets.traffic(0.1, history=history)
    snapshot = fleets.snapshot(
        (fleets.tier("small", "0.8", fleets.variant(ready=2)),), (fleets.policy("chat", ("small",), demand),)
    )

    found = loads.of_policy(snapshot, snapshot.policies["default/chat"], 0.7)

    assert sum(load.planned for load in found.values()) == pytest.approx(0.85 * 20.0, rel=0.15)


def test_capacity_is_counted_for_the_replicas_that_are_planned_and_not_for_those_of_now() -> None:
    """A burst is shared by what is kept for it: counted for one replica alone, each would seem to carry little."""
    traffic = dataclasses.replace(
        fleets.traffic(0.0, history=bursts(5, rate=60.0)), burstiness=signals.Fresh(12.0, 1.0)
    )
    snapshot = world(traffic)
    given = dataclasses.replace(snapshot.policies["default/chat"], weights={"one": {"default/small": 1.0}})
    snapshot = dataclasses.replace(snapshot, policies={given.key: given})

    view = problem.view(snapshot, problem.Settings())
    component = problem.build(view, problem.parts(snapshot)[0])

    work = component.classes[0].work["default/small"]
    assert 1.0 / work == pytest.approx(component.tiers[0].requests_per_second, rel=0.05)
