"""Knative's arithmetic, tick by tick."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh
from trimtab_core.snapshot import ClassTraffic, Replica
from trimtab_sim import world
from trimtab_sim.baselines import knative

from tests.simulator import scenarios, seen

LARGE = VariantKey("default/large", "h100")
TEN = knative.KpaSettings(10.0 / 0.7)  # 10 requests in flight per pod are aimed at


def feed(kpa: knative.Kpa, values: list[float], *, ready: int, start: float = 0.0) -> list[int | None]:
    """One value every 5 s."""
    return [kpa.scale(value, ready, start + 5.0 * at) for at, value in enumerate(values)]


@pytest.mark.parametrize(
    ("value", "ready", "expected"),
    [
        pytest.param(40.0, 4, 4, id="40 / 10"),
        pytest.param(41.0, 4, 5, id="4.1, rounded up"),
        pytest.param(15.0, 4, 2, id="halved at most: 2, for 1.5"),
        pytest.param(5.0, 8, 4, id="halved at most: 4, for 0.5"),
        pytest.param(0.0, 1, 0, id="half of one is none"),
        pytest.param(25.0, 0, 3, id="no ready pod counts as one"),
    ],
)
def test_a_steady_load(value: float, ready: int, expected: int) -> None:
    assert knative.Kpa(TEN).scale(value, ready, 0.0) == expected


def test_the_stable_window_averages_over_a_minute() -> None:
    kpa = knative.Kpa(TEN)

    # 6 samples of 40 and 6 of 60 in 60 s: mean 50 once all are in, and then only what is 60 s old goes
    counts = feed(kpa, [40.0] * 6 + [60.0] * 6 + [60.0] * 6, ready=4)

    assert (counts[5], counts[11], counts[17]) == (4, 5, 6)


def test_a_burst_makes_it_panic_and_not_go_down_for_a_stable_window() -> None:
    kpa = knative.Kpa(TEN)
    assert feed(kpa, [20.0] * 12, ready=2)[-1] == 2

    # 80 in flight want 8 pods, 4 times the 2 ready ones, while the minute's mean is still 25
    assert kpa.scale(80.0, 2, 60.0) == 5  # the panic window of 6 s has the last 20 in it: mean 50
    assert kpa.scale(80.0, 2, 65.0) == 8

    calm = [kpa.scale(20.0, 8, 70.0 + 5.0 * at) for at in range(14)]
    # at 65 s it was last over the threshold; more than 60 s later, at 130 s, panic ends
    assert calm[:12] == [8] * 12
    assert calm[12] == 4  # 20 / 10 = 2, but no more than halved


def test_without_data_nothing_changes() -> None:
    kpa = knative.Kpa(TEN)
    assert kpa.scale(None, 3, 0.0) is None

    controller = knative.Knative({LARGE: (1, 9)}, TEN)
    blind = seen.with_replicas(world.first_look(scenarios.scenario()), {LARGE: (seen.pod(None, None),) * 3}, now=0.0)
    assert controller.step(blind).plan.replicas[LARGE] == 3


def test_the_last_pod_stays_for_the_grace_period() -> None:
    controller = knative.Knative({LARGE: (0, 9)}, TEN)
    empty = world.first_look(scenarios.scenario())

    def wanted(now: float, *pods: Replica) -> int:
        return controller.step(seen.with_replicas(empty, {LARGE: pods}, now=now)).plan.replicas[LARGE]

    assert wanted(0.0, seen.pod(5, 0)) == 1
    counts = {now: wanted(float(now), seen.pod(0, 0)) for now in range(5, 121, 5)}

    # the sample of 0 s leaves the window at 60 s; the last wish for a pod was at 55 s; 30 s of grace
    assert min(now for now, count in counts.items() if count == 0) == 85


def test_held_requests_wake_a_sleeping_service() -> None:
    controller = knative.Knative({LARGE: (0, 9)}, TEN)
    empty = world.first_look(scenarios.scenario())
    traffic = {"default": ClassTraffic(Fresh(3.0, 0.0), Fresh(100.0, 0.0), Fresh(100.0, 0.0))}

    assert controller.step(empty).plan.replicas[LARGE] == 0
    assert controller.step(seen.with_traffic(empty, traffic)).plan.replicas[LARGE] == 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 500), min_size=1, max_size=40), st.integers(1, 30))
def test_it_never_shrinks_in_panic_and_never_by_more_than_half(values: list[float], ready: int) -> None:
    kpa, before = knative.Kpa(TEN), 0
    for at, value in enumerate(values):
        wanted = kpa.scale(value, ready, 5.0 * at)
        assert wanted is not None
        assert wanted >= ready // 2
        if kpa.panic_since is not None:
            assert wanted >= before
        before = kpa.most


def test_it_says_what_it_is_set_to() -> None:
    controller = knative.Knative({LARGE: (1, 7)}, knative.KpaSettings(40.0))

    assert controller.settings == "target 40 in flight per pod at 70%, 1 to 7 × large/h100"
