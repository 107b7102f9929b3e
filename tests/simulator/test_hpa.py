"""The HPA's arithmetic as Kubernetes documents it, and where baselines send requests."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.planning.plan import VariantKey
from trimtab_sim import baselines, world
from trimtab_sim.baselines import HpaSettings

from tests.simulator import scenarios

FOUR = HpaSettings(target=4.0)


@pytest.mark.parametrize(
    ("metrics", "current", "expected"),
    [
        # ceil(current × mean / target), kubernetes.io "Algorithm details"
        pytest.param([8.0, 8.0], 2, 4, id="double the target doubles"),
        pytest.param([2.0, 2.0, 2.0, 2.0], 4, 2, id="half the target halves"),
        pytest.param([5.0, 4.5, 4.5], 3, 4, id="rounds up: 3 × 4.67 / 4 = 3.5"),
        pytest.param([4.3, 4.3], 2, 2, id="within the tolerance of 10 %: 1.075"),
        pytest.param([3.7, 3.7], 2, 2, id="within the tolerance of 10 %: 0.925"),
        pytest.param([4.5, 4.5], 2, 3, id="above the tolerance: 2 × 1.125 = 2.25"),
        pytest.param([0.0, 0.0, 0.0], 3, 0, id="nothing waits"),
        pytest.param([None, None], 2, 2, id="no metric at all: nothing is done"),
        # pods without a metric: 0 when scaling up
        pytest.param([12.0, 12.0, None, None], 4, 6, id="missing as 0 on the way up: 24 / 4 pods / 4 = 1.5 → 6"),
        pytest.param([6.0, None], 2, 2, id="missing as 0 turns up into down (0.75): nothing is done"),
        pytest.param([8.5, None], 2, 2, id="missing as 0 brings it within the tolerance (1.06)"),
        # and the target when scaling down
        pytest.param([0.0, 0.0, 0.0, None], 4, 1, id="missing as 4 on the way down: 4 / 4 pods / 4 = 0.25 → 1"),
        pytest.param([3.5, None], 2, 2, id="missing as 4 on the way down, within the tolerance (0.94)"),
        pytest.param([4.0, None], 2, 2, id="exactly on target with one missing"),
    ],
)
def test_what_the_metric_asks_for(metrics: list[float | None], current: int, expected: int) -> None:
    assert baselines.recommend(metrics, current, FOUR) == expected


@given(st.lists(st.one_of(st.none(), st.floats(0, 1000)), min_size=1, max_size=20))
def test_a_recommendation_never_moves_against_the_metric(metrics: list[float | None]) -> None:
    current = len(metrics)
    found = [value for value in metrics if value is not None]

    proposal = baselines.recommend(metrics, current, FOUR)

    assert proposal >= 0
    if found and sum(found) / len(found) > 4.0:
        assert proposal >= current
    if found and sum(found) / len(found) < 4.0:
        assert proposal <= current


@pytest.mark.parametrize(
    ("proposal", "current", "past", "expected"),
    [
        pytest.param(3, 2, [], 3, id="up at once"),
        pytest.param(50, 2, [], 6, id="up by at most 4 pods when few"),
        pytest.param(50, 10, [], 20, id="up by at most 100 % when many"),
        pytest.param(1, 5, [], 1, id="down without a past"),
        pytest.param(1, 5, [(-200, 4)], 4, id="down to the highest of the last 300 s"),
        pytest.param(1, 5, [(-200, 9)], 5, id="a higher past never scales up"),
        pytest.param(1, 5, [(-300, 5)], 1, id="what is 300 s old is forgotten"),
        pytest.param(5, 5, [(-100, 2)], 5, id="steady"),
    ],
)
def test_windows_and_growth(proposal: int, current: int, past: list[tuple[float, int]], expected: int) -> None:
    assert baselines.stabilise(proposal, current, 0.0, deque(past), FOUR) == expected


def test_a_shortened_demonstration_shortens_the_window() -> None:
    past = deque([(-40.0, 5)])

    assert baselines.stabilise(1, 5, 0.0, deque(past), FOUR) == 5
    assert baselines.stabilise(1, 5, 0.0, deque(past), FOUR, shorten=10) == 1


def test_scaling_down_reads_like_a_script() -> None:
    history: deque[tuple[float, int]] = deque()
    current, seen = 8, []
    # the queue is empty from the first minute on; the peak asked for 8 replicas at 0 s
    for at, proposal in [(0, 8), *((15 * step, 1) for step in range(1, 25))]:
        current = baselines.stabilise(proposal, current, float(at), history, FOUR)
        seen.append((at, current))

    assert dict(seen)[285] == 8
    assert dict(seen)[300] == 1


def test_every_class_goes_to_its_best_tier() -> None:
    snapshot = world.first_look(scenarios.scenario())

    weights = baselines.best_tiers(snapshot)

    assert weights == {
        "default/chat": {"sensitive": {"default/large": 1.0}, "default": {"default/large": 1.0}},
    }


def test_a_class_that_may_not_use_the_best_tier_goes_to_the_best_it_may() -> None:
    classes = [{"name": "batch", "allow": ["small"]}, {"name": "default"}]
    snapshot = world.first_look(scenarios.scenario(policy_spec={"classes": classes}))

    weights = baselines.best_tiers(snapshot)["default/chat"]

    assert weights["batch"] == {"default/small": 1.0}
    assert weights["default"] == {"default/large": 1.0}


def test_the_cheapest_variant_is_on_demand_and_cheap_by_the_request() -> None:
    large = scenarios.tier(
        "large",
        "0.80",
        [
            scenarios.variant("spot", "0.50", capacityType="Spot"),
            scenarios.variant("slow", "3.00"),
            scenarios.variant("fast", "4.00", speed=2.0),
            scenarios.variant("off", "0.10", replicas={"min": 0, "max": 0}),
        ],
    )
    snapshot = world.first_look(scenarios.scenario(tiers=(scenarios.SMALL, large)))

    chosen = baselines.cheapest_variant(snapshot.tiers["default/large"])

    # fast costs a third more than slow and carries more than twice as much
    assert chosen is not None
    assert chosen.name == "fast"


def test_static_peak_runs_its_replicas_and_nothing_else() -> None:
    snapshot = world.first_look(scenarios.scenario())
    controller = baselines.StaticPeak({VariantKey("default/large", "h100"): 3})

    plan = controller.step(snapshot).plan

    assert plan.replicas == {VariantKey("default/large", "h100"): 3, VariantKey("default/small", "l4"): 0}
    assert controller.initial(snapshot) == plan.replicas
    assert controller.settings == "3 × large/h100"


def test_the_hpa_says_what_it_is_set_to() -> None:
    bounds = {VariantKey("default/large", "h100"): (1, 7)}

    controller = baselines.HpaOnQueue(bounds, FOUR, shorten=5)

    assert controller.settings == "target 4 waiting per pod, 1 to 7 × large/h100"
    assert controller.interval_seconds(None) == 3.0  # type: ignore[arg-type]
