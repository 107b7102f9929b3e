"""Requests are counted by slot, class and complexity as the simulated router sees them."""

from __future__ import annotations

import pytest
from trimtab_core import quality
from trimtab_sim import census, laboratory, prompts, world

from tests.simulator import scenarios


def taken(slots: int = 3, shift: float = 0.0, **changes: object) -> census.Census:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=3), **changes)
    return census.take(laboratory.Laboratory(scenario), slots=slots, shift_seconds=shift)


def test_every_request_is_counted_once() -> None:
    found = taken()
    trace = scenarios.flat_trace(minutes=3)
    groups = [group for slot in found.slots for group in slot.values()]

    assert found.total == sum(group.requests for group in groups) + found.spared == len(trace)
    assert sum(group.inputs for group in groups) == sum(request.input_tokens for request in trace)
    assert found.lost == 0
    assert sum(group.requests for group in found.totals().values()) == sum(group.requests for group in groups)


def test_shares_of_classes_are_the_simulators() -> None:
    found = taken(slots=1)
    shares = world.class_shares(scenarios.scenario(scenarios.flat_trace(minutes=3)))

    sensitive = sum(group.requests for (name, _), group in found.slots[0].items() if name == "sensitive")
    assert sensitive / found.total == pytest.approx(shares["sensitive"])


def test_what_may_wait_beyond_its_slot_is_spared() -> None:
    assert taken(shift=6.0).spared > taken(shift=2.0).spared > taken().spared == 0


def test_repeated_prompts_are_spared_only_where_there_is_a_cache() -> None:
    trace = scenarios.flat_trace(minutes=3, mix=prompts.Mix(sensitive=0.0, repeated=0.4))
    plain = scenarios.scenario(trace)
    cached = scenarios.scenario(trace, policy_spec={"cache": {"ref": "answers"}}, caches=(scenarios.CACHE,))
    repeated = len(trace) - len({request.prompt for request in trace})

    assert [census.take(laboratory.Laboratory(one), slots=1, shift_seconds=0.0).spared for one in (plain, cached)] == [
        0,
        repeated,
    ]


def test_harder_segments_gain_more_from_the_better_tier() -> None:
    found = taken(slots=1).slots[0]

    gains = [
        (group.qualities["default/large"] - group.qualities["default/small"]) / group.requests
        for (name, _), group in sorted(found.items())
        if name == "default"
    ]
    assert gains == sorted(gains)
    # the mean gap is that of the priors, 0.80 - 0.60
    assert sum(gains) / len(gains) == pytest.approx(0.20, abs=0.01)


def test_a_class_reaches_the_tiers_that_it_names() -> None:
    reaches = census.reaches(laboratory.Laboratory(scenarios.scenario()))

    assert reaches["sensitive"].tiers == ("default/large",)
    assert reaches["default"].tiers == ("default/small", "default/large")
    assert reaches["default"].best == "default/large"


def test_rounding_covers_a_segment_that_two_tiers_share() -> None:
    (reach,) = [
        each for name, each in census.reaches(laboratory.Laboratory(scenarios.scenario())).items() if name == "default"
    ]
    width = 1 / census.SEGMENTS
    # the class split in the middle of its fifth segment, against that segment's mean
    exact = quality.of_split([(0.6, 4.5 * width), (0.8, 1 - 4.5 * width)], 0.0, 1.0, reach.m)
    whole = [quality.of_split([(0.6, cut * width), (0.8, 1 - cut * width)], 0.0, 1.0, reach.m) for cut in (4, 5)]

    assert 0 < exact - sum(whole) / 2 <= census.rounding([reach]) + 1e-12


def test_a_long_trace_is_sampled_and_weighs_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = taken(slots=1).totals()
    monkeypatch.setattr(census, "SAMPLE", 200)

    part = taken(slots=1).totals()

    for of in (lambda group: group.requests, lambda group: group.inputs, lambda group: group.best):
        assert sum(map(of, part.values())) == pytest.approx(sum(map(of, whole.values())), rel=0.15)
