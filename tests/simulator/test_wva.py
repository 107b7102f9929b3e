"""WVA's saturation analysis in tokens, with the arithmetic beside."""

from __future__ import annotations

import pytest
from trimtab_core import capacity
from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh
from trimtab_core.snapshot import CapacityProfile, ClassTraffic, Replica
from trimtab_sim import world
from trimtab_sim.baselines import wva
from trimtab_sim.baselines.wva import Standing, WvaSettings

from tests.simulator import scenarios, seen

CHEAP, DEAR = VariantKey("default/large", "cheap"), VariantKey("default/large", "dear")
DEFAULT = WvaSettings()


def standing(
    key: VariantKey, *, tokens: float = 1000.0, ready: int, pending: int = 0, low: int = 0, high: int = 20
) -> Standing:
    usd = 1.0 if key == CHEAP else 3.0
    return Standing(key, tokens, usd, ready + pending, ready, pending, low, high)


@pytest.mark.parametrize(
    ("standings", "demand", "expected"),
    [
        # RC = D / 0.85 - (ready + pending)·c
        pytest.param([standing(CHEAP, ready=2)], 3400.0, {CHEAP: 4}, id="3400 / 0.85 = 4000: 2 more for 2000"),
        pytest.param([standing(CHEAP, ready=2, pending=1)], 3400.0, {CHEAP: 4}, id="a pending one counts: 1 more"),
        pytest.param([standing(CHEAP, ready=2)], 1500.0, {CHEAP: 2}, id="1500 / 0.85 < 2000 and 1500 / 0.7 > 2000"),
        pytest.param(
            [standing(CHEAP, ready=2, high=3), standing(DEAR, tokens=2000.0, ready=0)],
            5000.0,
            {CHEAP: 3, DEAR: 2},
            id="5882 - 2000 = 3882: 1 cheap one to its maximum, 2882 / 2000 dear ones",
        ),
        pytest.param(
            [standing(CHEAP, ready=1), standing(DEAR, tokens=4000.0, ready=1)],
            5100.0,
            {CHEAP: 1, DEAR: 2},
            id="cheapest by the token first: 3 / 4000 < 1 / 1000",
        ),
        # SC = ready·c - D / 0.70
        pytest.param([standing(CHEAP, ready=5)], 1400.0, {CHEAP: 2}, id="5000 - 2000: 3 may go"),
        pytest.param(
            [standing(CHEAP, ready=3), standing(DEAR, ready=2)],
            1400.0,
            {CHEAP: 2, DEAR: 0},
            id="3000 spare: both dear ones, then a cheap one",
        ),
        pytest.param([standing(CHEAP, ready=3)], 0.0, {CHEAP: 1}, id="the last one of the cheapest stays"),
        pytest.param([standing(DEAR, ready=3, low=2)], 0.0, {DEAR: 2}, id="never below the minimum"),
    ],
)
def test_what_the_optimiser_wants(standings: list[Standing], demand: float, expected: dict[VariantKey, int]) -> None:
    assert wva.optimise(standings, demand, DEFAULT) == expected


PROFILE = CapacityProfile(0.02, 0.001, 10_000.0, 200_000, 128, 20.0)


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        # N = min(2048·O/(I + O), S); k2 = N·(I + O/2)
        pytest.param(capacity.Mix(1000.0, 24.0), 48 * 1012.0, id="2048 · 24 / 1024 = 48 sequences"),
        pytest.param(capacity.Mix(100.0, 300.0), 128 * 250.0, id="1536, but 128 sequences at most"),
    ],
)
def test_compute_capacity_from_the_engines_settings(mix: capacity.Mix, expected: float) -> None:
    assert wva.derived(PROFILE, mix) == pytest.approx(expected)


LARGE = VariantKey("default/large", "h100")
EMPTY = world.first_look(scenarios.scenario())
TRAFFIC = {"default": ClassTraffic(Fresh(3.0, 0.0), Fresh(1000.0, 0.0), Fresh(24.0, 0.0))}


def wanted(controller: wva.Wva, *pods: Replica, now: float = 0.0) -> int:
    snapshot = seen.with_traffic(seen.with_replicas(EMPTY, {LARGE: pods}, now=now), TRAFFIC)
    return controller.step(snapshot).plan.replicas[LARGE]


def test_demand_is_tokens_in_use_and_what_waits() -> None:
    controller = wva.Wva({LARGE: (0, 20)}, WvaSettings(kv_threshold=0.1))

    # k1 = 200,000 · 0.1 = 20,000 < k2 = 48 · 1,012; D = 0.07 · 200,000 + 4 · 1,000 = 18,000
    # RC = 18,000 / 0.85 - 20,000 = 1,176: one more
    assert wanted(controller, seen.pod(14, 4, kv_usage=0.07)) == 2


def test_a_long_queue_teaches_what_the_compute_can_hold() -> None:
    controller = wva.Wva({LARGE: (0, 20)}, WvaSettings(down_window_seconds=0.0))
    # 6 wait: full with what is in use, 20,000. D = 20,000 + 6,000; RC = 26,000 / 0.85 - 20,000 = 10,588: one more
    assert wanted(controller, seen.pod(20, 6, kv_usage=0.1)) == 2

    # Nothing waits now, and 20,000 stays the capacity: D = 30,000; RC = 35,294 - 40,000 < 0; SC = 40,000 - 42,857 < 0
    assert wanted(controller, seen.pod(15, 0, kv_usage=0.075), seen.pod(15, 0, kv_usage=0.075), now=15.0) == 2


def test_without_any_reading_the_last_wish_stands() -> None:
    controller = wva.Wva({LARGE: (0, 20)}, DEFAULT)

    assert wanted(controller, *[seen.pod(None, None)] * 3) == 3


def test_going_down_waits_for_the_hpas_window() -> None:
    controller = wva.Wva({LARGE: (0, 20)}, WvaSettings(kv_threshold=0.1))
    assert wanted(controller, *[seen.pod(50, 9, kv_usage=0.09)] * 3) > 3

    counts = {now: wanted(controller, *[seen.pod(0, 0)] * 3, now=float(now)) for now in (15, 150, 285, 300)}

    assert counts == {15: 3, 150: 3, 285: 3, 300: 1}


def test_it_starts_with_the_minimum_and_one_of_the_cheapest() -> None:
    large = scenarios.tier("large", "0.80", [scenarios.variant("cheap", "1.00"), scenarios.variant("dear", "3.00")])
    snapshot = world.first_look(scenarios.scenario(tiers=(scenarios.SMALL, large)))
    controller = wva.Wva({CHEAP: (0, 4), DEAR: (0, 9)}, DEFAULT)

    initial = controller.initial(snapshot)

    assert (initial[CHEAP], initial[DEAR]) == (1, 0)
    assert controller.settings == "KV threshold 0.8, up at 0.85, down at 0.7, 0 to 4 × large/cheap, 0 to 9 × large/dear"


def test_requests_wake_a_model_without_replicas() -> None:
    controller = wva.Wva({LARGE: (0, 20)}, DEFAULT)

    assert wanted(controller) == 1
    assert controller.step(EMPTY).plan.replicas[LARGE] == 0
