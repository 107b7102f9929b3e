"""Holes in traffic: abrupt and rare ones are outages, everything else is how traffic is."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import outages

STEP = 15.0


def samples(*parts: tuple[float, float]) -> list[tuple[float, float]]:
    """Parts of (seconds, rate), one after the other, a sample every 15 s."""
    found, at = [], 0.0
    for seconds, rate in parts:
        for _ in range(int(seconds / STEP)):
            found.append((at, rate))
            at += STEP
    return found


def test_traffic_that_vanishes_and_comes_back_was_out() -> None:
    (hole,) = outages.find(samples((900, 6.0), (480, 0.0), (900, 6.0)))
    assert (hole.start, hole.end) == (900.0, 1380.0)
    assert hole.level == pytest.approx(6.0)
    # Rates are means over a minute: the ramps on both sides belong to it.
    assert hole.holds(845.0)
    assert hole.holds(1439.0)
    assert not hole.holds(830.0)


def test_an_outage_that_lasts_has_no_end() -> None:
    (hole,) = outages.find(samples((900, 6.0), (300, 0.1)))
    assert hole.end == math.inf


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([(900, 6.0), (600, 0.9), (600, 6.0)], id="a drop to 15 % is less traffic"),
        pytest.param([(900, 0.2), (600, 0.0), (600, 0.2)], id="12 expected arrivals may fail to come"),
        pytest.param([(150, 6.0), (600, 0.0)], id="what was there for two minutes is no level"),
        pytest.param([(900, 6.0), (4000, 0.0), (900, 6.0)], id="an hour without traffic is a quiet hour"),
        pytest.param([(400, 6.0), (60, 0.0)] * 6, id="pauses in a row are its nature"),
        pytest.param([(60, 6.0 * 0.9**step) for step in range(60)], id="a slow end of the day"),
    ],
)
def test_what_is_no_outage(parts: list[tuple[float, float]]) -> None:
    assert outages.find(samples(*parts)) == ()


def test_noise_is_no_outage() -> None:
    rng = random.Random(4)
    assert outages.find([(step * STEP, rng.expovariate(1 / 6.0) + 0.4) for step in range(480)]) == ()


@given(st.lists(st.floats(0, 100), max_size=80))
def test_outages_never_overlap_and_come_in_order(values: list[float]) -> None:
    found = outages.find([(index * 40.0, value) for index, value in enumerate(values)])
    for hole, later in itertools.pairwise(found):
        assert hole.start < hole.end <= later.start
