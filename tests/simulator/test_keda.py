"""KEDA between 0 and 1, and its HPA above."""

from __future__ import annotations

import pytest
from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh
from trimtab_core.snapshot import ClassTraffic, Replica, ReplicaPhase, Snapshot
from trimtab_sim import world
from trimtab_sim.baselines import keda, routes

from tests.simulator import scenarios, seen

LARGE = VariantKey("default/large", "h100")
EMPTY = world.first_look(scenarios.scenario())
BUSY = {"default": ClassTraffic(Fresh(3.0, 0.0), Fresh(100.0, 0.0), Fresh(100.0, 0.0))}


def look(now: float, *pods: Replica, arrivals: bool = False) -> Snapshot:
    snapshot = seen.with_replicas(EMPTY, {LARGE: pods}, now=now)
    return seen.with_traffic(snapshot, BUSY) if arrivals else snapshot


def wanted(controller: keda.Keda, snapshot: Snapshot) -> int:
    return controller.step(snapshot).plan.replicas[LARGE]


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([seen.pod(15, 5), seen.pod(20, 0)], 4, id="(15 + 5 + 20) / 10"),
        pytest.param([seen.pod(8, 0), seen.pod(13, 0)], 2, id="21 / (2 × 10) = 1.05: within the tolerance"),
        pytest.param(
            [seen.pod(20, 5), seen.PENDING, seen.PENDING], 3, id="25 / 10, pods that start have no part in it"
        ),
        pytest.param([seen.pod(None, None), seen.pod(None, None)], 1, id="no result counts as 0: down to the minimum"),
        pytest.param(
            [seen.pod(10, 0), seen.pod(20, 0, phase=ReplicaPhase.DRAINING)], 3, id="a draining pod is scraped still"
        ),
    ],
)
def test_the_total_over_the_threshold(pods: list[Replica], expected: int) -> None:
    settings = keda.KedaSettings(10.0, down_window_seconds=0.0)
    controller = keda.Keda({LARGE: (1, 20)}, settings)

    assert wanted(controller, look(0.0, *pods)) == expected


def test_it_sleeps_once_the_cooldown_is_over_and_not_before() -> None:
    controller = keda.Keda({LARGE: (0, 20)}, keda.KedaSettings(10.0))
    assert wanted(controller, look(0.0, seen.pod(4, 0))) == 1

    counts = {now: wanted(controller, look(float(now), seen.pod(0, 0))) for now in range(15, 361, 15)}

    # last seen active at 0 s; polled each 30 s; more than 300 s later: 330 s
    assert {now: count for now, count in counts.items() if count == 0} == {330: 0, 360: 0}


def test_requests_at_the_router_wake_it_at_the_next_poll() -> None:
    controller = keda.Keda({LARGE: (0, 20)}, keda.KedaSettings(10.0))
    assert wanted(controller, look(0.0)) == 0

    assert wanted(controller, look(15.0, arrivals=True)) == 0
    assert wanted(controller, look(30.0, arrivals=True)) == 1


def test_requests_for_other_tiers_do_not_wake_it() -> None:
    small = VariantKey("default/small", "l4")
    controller = keda.Keda({small: (0, 20)}, keda.KedaSettings(10.0), routing=routes.BEST)

    snapshot = seen.with_traffic(EMPTY, BUSY)

    assert controller.step(snapshot).plan.replicas[small] == 0


def test_a_minimum_is_never_undercut() -> None:
    controller = keda.Keda({LARGE: (2, 20)}, keda.KedaSettings(10.0, cooldown_seconds=0.0, down_window_seconds=0.0))

    assert [wanted(controller, look(now, seen.pod(0, 0), seen.pod(0, 0))) for now in (0.0, 60.0, 900.0)] == [2, 2, 2]


def test_it_says_what_it_is_set_to() -> None:
    controller = keda.Keda({LARGE: (0, 7)}, keda.KedaSettings(12.5, down_window_seconds=60.0), shorten=5)

    assert controller.settings == (
        "threshold 12.5 running and waiting per pod, scale-down window 60 s, 0 to 7 × large/h100"
    )
    assert controller.interval_seconds(EMPTY) == 3.0
