"""The HPA's arithmetic as Kubernetes documents it."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core.planning.plan import VariantKey
from trimtab_sim.baselines import hpa
from trimtab_sim.baselines.hpa import HpaSettings

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
    assert hpa.recommend(metrics, current, FOUR) == expected


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1000)), min_size=1, max_size=20))
def test_a_recommendation_never_moves_against_the_metric(metrics: list[float | None]) -> None:
    current = len(metrics)
    found = [value for value in metrics if value is not None]

    proposal = hpa.recommend(metrics, current, FOUR)

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
        pytest.param(1, 5, [], 5, id="not down at first sight: the replicas that there are count as wished"),
        pytest.param(1, 5, [(-200, 4)], 4, id="down to the highest of the last 300 s"),
        pytest.param(1, 5, [(-200, 9)], 5, id="a higher past never scales up"),
        pytest.param(1, 5, [(-300, 5)], 1, id="what is 300 s old is forgotten"),
        pytest.param(5, 5, [(-100, 2)], 5, id="steady"),
    ],
)
def test_windows_and_growth(proposal: int, current: int, past: list[tuple[float, int]], expected: int) -> None:
    assert hpa.stabilise(proposal, current, 0.0, deque(past), FOUR) == expected


def test_a_shortened_demonstration_shortens_the_window() -> None:
    past = deque([(-40.0, 5)])

    assert hpa.stabilise(1, 5, 0.0, deque(past), FOUR) == 5
    assert hpa.stabilise(1, 5, 0.0, deque([*past, (-20.0, 1)]), FOUR, shorten=10) == 1


def test_scaling_down_reads_like_a_script() -> None:
    history: deque[tuple[float, int]] = deque()
    current, seen = 8, []
    # the queue is empty from the first minute on; the peak asked for 8 replicas at 0 s
    for at, proposal in [(0, 8), *((15 * step, 1) for step in range(1, 25))]:
        current = hpa.stabilise(proposal, current, float(at), history, FOUR)
        seen.append((at, current))

    assert dict(seen)[285] == 8
    assert dict(seen)[300] == 1


def test_the_hpa_says_what_it_is_set_to() -> None:
    bounds = {VariantKey("default/large", "h100"): (1, 7)}

    controller = hpa.HpaOnQueue(bounds, FOUR, shorten=5)

    assert controller.settings == "target 4 waiting per pod, 1 to 7 × large/h100"
    assert controller.interval_seconds(None) == 3.0  # type: ignore[arg-type]


LARGE, SMALL = VariantKey("default/large", "h100"), VariantKey("default/small", "l4")


def test_equal_settings_are_told_once_and_others_by_variant() -> None:
    bounds = {LARGE: (1, 2), SMALL: (1, 9)}

    alike = hpa.HpaOnRunning(bounds, HpaSettings(30.0))
    apart = hpa.HpaOnRunning(bounds, {LARGE: HpaSettings(30.0), SMALL: HpaSettings(9.0, down_window_seconds=60.0)})

    assert alike.settings == "target 30 running per pod, 1 to 2 × large/h100, 1 to 9 × small/l4"
    assert apart.settings.startswith(
        "target 30 running per pod (large/h100), target 9 running per pod, scale-down window 60 s (small/l4), 1 to 2"
    )


@pytest.mark.parametrize(
    ("total", "current", "expected"),
    [
        pytest.param(40.0, 4, 10, id="40 / 4"),
        pytest.param(41.0, 4, 11, id="41 / 4 = 10.25, rounded up"),
        pytest.param(17.5, 4, 4, id="17.5 / (4 × 4) = 1.09: within the tolerance"),
        pytest.param(0.0, 4, 0, id="nothing"),
        pytest.param(3.0, 0, 1, id="from zero"),
    ],
)
def test_a_total_is_divided_by_the_target(total: float, current: int, expected: int) -> None:
    assert hpa.recommend_total(total, current, FOUR) == expected


def test_a_window_upwards_takes_the_lowest_wish_in_it() -> None:
    settings = HpaSettings(4.0, up_window_seconds=60.0)
    history: deque[tuple[float, int]] = deque([(-45.0, 3), (-30.0, 6)])

    assert hpa.stabilise(6, 2, 0.0, history, settings) == 3


def test_a_rate_limit_downwards_lets_only_a_share_go() -> None:
    settings = HpaSettings(4.0, down_ratio=0.25, down_window_seconds=60.0)

    assert hpa.stabilise(0, 8, 0.0, deque([(-30.0, 0)]), settings) == 6


@settings(deadline=None)
@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.lists(st.tuples(st.floats(-400, -1), st.integers(0, 50)), max_size=20),
)
def test_windows_never_carry_beyond_what_was_wished(proposal: int, current: int, past: list[tuple[float, int]]) -> None:
    found = hpa.stabilise(proposal, current, 0.0, deque(sorted(past)), FOUR)

    assert min(proposal, current) <= found <= max(proposal, current)
