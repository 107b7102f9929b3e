"""A class's demand over several cycles: steady means, burstiness, season, and what a database knows of before."""

from __future__ import annotations

import pytest
from trimtab_core import answers, observation, telemetry, traffic
from trimtab_core.api import v1alpha1
from trimtab_core.observation import Observation
from trimtab_core.signals import Fresh, Missing, Stale
from trimtab_core.snapshot import ClassTraffic, Snapshot

NOW = 1_800_000_000.0
POLICY = "team/chat"


def policy() -> v1alpha1.RoutingPolicy:
    return v1alpha1.RoutingPolicy.model_validate(
        {"metadata": {"name": "chat", "namespace": "team"}, "spec": {"tiers": [{"ref": "small"}]}}
    )


def cycle(
    previous: Snapshot | None,
    now: float,
    *,
    past: traffic.Past | None = None,
    routers: int = 1,
    ended: tuple[float, float, float] | None = None,
    **rates: float,
) -> Snapshot:
    """One cycle; ``ended`` is requests, input and output tokens per second."""
    found: dict[str, tuple[telemetry.Answer, ...] | answers.QueryFailure] = {
        f"{name}_per_second": (telemetry.Answer((POLICY, "default"), value, now),) for name, value in rates.items()
    }
    for name, value in zip(("requests", "input_tokens", "output_tokens"), ended or (), strict=False):
        labels = (POLICY, "default", "small", *(("ok",) if name == "requests" else ()))
        found[f"{name}_per_second"] = (telemetry.Answer(labels, value, now),)
    found[answers.TABLES] = tuple(
        telemetry.Answer((POLICY, "1.1-a", f"router-{number}"), 1.0, now) for number in range(routers)
    )
    pasts = {(POLICY, "default"): past} if past else {}
    seen = Observation((), (policy(),), (), {}, found, {}, past=pasts)
    return observation.snapshot(seen, now=now, epoch=1, previous=previous)


def of(snapshot: Snapshot) -> ClassTraffic:
    return snapshot.policies[POLICY].traffic["default"]


def test_few_ended_requests_move_the_mean_lengths_little_and_many_set_them() -> None:
    first = cycle(None, NOW, arrivals=5.0, ended=(5.0, 5_000.0, 500.0))
    assert of(first).input_tokens == Fresh(1000.0, 0.0)
    # Half a request per second: 30 in the window, of 200 that make a mean: 1000 + 30/200 · 1000.
    few = cycle(first, NOW + 15, arrivals=5.0, ended=(0.5, 1_000.0, 50.0))
    assert of(few).input_tokens == Fresh(pytest.approx(1150.0), 0.0)
    assert of(few).output_tokens == Fresh(pytest.approx(100.0), 0.0)
    many = cycle(few, NOW + 30, arrivals=5.0, ended=(5.0, 10_000.0, 500.0))
    assert of(many).input_tokens == Fresh(2000.0, 0.0)


def test_burstiness_comes_from_squares_and_moves_with_its_arrivals() -> None:
    # 10/s in windows of 2 s are 20 each; if every count is 20 but one in two is 40 and one 0, variance/mean is 20.
    calm = cycle(None, NOW, arrivals=10.0, arrival_squares=210.0)  # (210/10 - 20)·30/29 = 1.03
    assert of(calm).burstiness == Fresh(pytest.approx(1.03, abs=0.01), 0.0)
    wild = cycle(calm, NOW + 15, arrivals=10.0, arrival_squares=400.0)
    # A reading of 20.7 that came as long as 15 s of the 600 it takes: 1.03 + 0.0247 · 19.7.
    assert of(wild).burstiness == Fresh(pytest.approx(1.52, abs=0.02), 0.0)


def test_two_routers_see_half_of_the_excess_each() -> None:
    one = cycle(None, NOW, arrivals=10.0, arrival_squares=400.0)
    two = cycle(None, NOW, arrivals=10.0, arrival_squares=200.0, routers=2)
    # Each of two counts 10 in 2 s with twice that in every other window: 200/10 - 10 = 10, so 1 + 9·2 = 19.
    assert of(one).burstiness == Fresh(pytest.approx(20.7, abs=0.1), 0.0)
    assert of(two).burstiness == Fresh(pytest.approx(19.3, abs=0.2), 0.0)


def test_idle_minutes_leave_burstiness_as_it_was_until_it_is_too_old() -> None:
    before = cycle(None, NOW, arrivals=10.0, arrival_squares=400.0)
    idle = cycle(before, NOW + 15, arrivals=0.0, arrival_squares=0.0)
    assert of(idle).burstiness == Fresh(pytest.approx(20.7, abs=0.1), 15.0)
    later = cycle(before, NOW + 100, arrivals=0.0, arrival_squares=0.0)
    assert isinstance(of(later).burstiness, Stale)


def test_the_first_minute_of_all_arrivals_is_no_burst() -> None:
    snapshot = cycle(None, NOW)
    for number in range(1, 7):
        # Of a window of 60 s, 15 s more have arrivals in each cycle: 20 in 2 s, and nothing before.
        share = min(1.0, number * 15 / 60)
        snapshot = cycle(snapshot, NOW + number * 15, arrivals=10.0 * share, arrival_squares=210.0 * share)
        if number < 5:
            assert isinstance(of(snapshot).burstiness, Missing)
    assert of(snapshot).burstiness == Fresh(pytest.approx(1.03, abs=0.01), 0.0)


def test_a_router_without_that_counter_tells_no_burstiness() -> None:
    assert isinstance(of(cycle(None, NOW, arrivals=10.0)).burstiness, Missing)


def test_the_season_grows_with_every_fresh_reading() -> None:
    snapshot, step = None, 60.0
    for number in range(240):
        snapshot = cycle(snapshot, NOW + number * step, arrivals=7.0)
    assert snapshot is not None
    season = of(snapshot).season
    assert season is not None
    # Four hours are 24 bins; the last 18 wait, and the one that is open.
    assert sum(value == 7.0 for value in season.week_bins) == 5
    assert len(season.waiting) == 18


def test_an_outage_is_kept_out_of_the_season() -> None:
    snapshot, step = None, 60.0
    for number in range(300):
        snapshot = cycle(snapshot, NOW + number * step, arrivals=0.0 if 40 <= number < 55 else 7.0)
    assert snapshot is not None
    season = of(snapshot).season
    assert season is not None
    assert {value for value in season.week_bins if value >= 0} == {7.0}


def test_after_a_start_the_past_comes_from_the_database() -> None:
    past = traffic.Past(recent=((NOW - 60, 3.0), (NOW - 9_000, 9.0)), bins=((NOW - 86_400, 5.0),))
    first = cycle(None, NOW, arrivals=4.0, past=past)
    assert of(first).history == ((NOW - 60, 3.0), (NOW, 4.0))
    season = of(first).season
    assert season is not None
    assert 5.0 in season.week_bins
    # Once there is a cycle before, it alone counts.
    second = cycle(first, NOW + 15, arrivals=4.0, past=past)
    assert of(second).history == ((NOW - 60, 3.0), (NOW, 4.0), (NOW + 15, 4.0))


def test_without_arrivals_nothing_grows() -> None:
    gone = observation.snapshot(
        Observation((), (policy(),), (), {}, {"arrivals_per_second": answers.QueryFailure("down")}, {}),
        now=NOW,
        epoch=1,
    )
    assert of(gone).history == ()
    assert of(gone).season is None


def test_after_a_gap_arrivals_are_stale_until_a_whole_window_is_behind_it() -> None:
    """In the window of a minute lie 15 s of arrivals at first: the rate is a quarter of what truly comes."""
    seen = cycle(None, NOW, arrivals=4.0)
    for at in range(15, 16 + 300, 15):
        seen = cycle(seen, NOW + at)
    assert not isinstance(of(seen).arrivals_per_second, Fresh)

    found = []
    for number, value in enumerate((1.0, 2.0, 3.0, 4.0, 4.0, 4.0)):
        seen = cycle(seen, NOW + 330 + 15 * number, arrivals=value)
        found.append(of(seen).arrivals_per_second)

    assert found == [*(Stale(value, 60.0) for value in (1.0, 2.0, 3.0, 4.0)), Fresh(4.0, 0.0), Fresh(4.0, 0.0)]
    assert {value for _, value in of(seen).history} == {4.0}  # none of the low ones


def test_a_cycle_without_a_reading_does_not_count_for_the_window() -> None:
    seen = cycle(None, NOW, arrivals=4.0)
    for at in range(15, 16 + 300, 15):
        seen = cycle(seen, NOW + at)

    found = []
    for number, value in enumerate((1.0, 2.0, None, None, 3.0, 4.0, 4.0)):
        rates = {} if value is None else {"arrivals": value}
        seen = cycle(seen, NOW + 330 + 15 * number, **rates)
        found.append(isinstance(of(seen).arrivals_per_second, Fresh))

    assert found == [False, False, False, False, False, False, True]


def test_a_short_gap_is_none() -> None:
    seen = cycle(cycle(None, NOW, arrivals=4.0), NOW + 15)

    assert of(cycle(seen, NOW + 30, arrivals=4.0)).arrivals_per_second == Fresh(4.0, 0.0)


def test_slow_cycles_are_no_gap() -> None:
    seen = cycle(None, NOW, arrivals=4.0)
    for at in (300, 600, 900):
        seen = cycle(seen, NOW + at, arrivals=4.0)

    assert of(seen).arrivals_per_second == Fresh(4.0, 0.0)
