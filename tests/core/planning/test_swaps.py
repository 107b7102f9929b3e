"""Replicas of one variant that are to replace those of another come when they can be of use."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.planning import problem, swaps
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Snapshot, VariantMemory

from tests.core.planning import fleets

DEAR, CHEAP = (VariantKey("default/small", name) for name in ("dear", "cheap"))
RATE = 3.0 * fleets.CARRIES
SOON = {"fewer_since": fleets.NOW - 200}
"""Of 300 seconds: it may go in 100, and a successor starts for 120."""
OVER = {"fewer_since": fleets.NOW - 400}


def due(
    planned: tuple[int, int],
    *,
    dear: int,
    cheap: int,
    memory: dict[str, Any] | None = None,
    last_scaled: float | None = None,
    **more: Any,
) -> tuple[int, int]:
    """What is left of a plan where so many of each serve and so long fewer of the dear ones are asked for."""
    world = _world(dear, cheap, VariantMemory(last_scaled_at=last_scaled, **(memory or {})), **more)
    found = swaps.due(world, _component(world), dict(zip((DEAR, CHEAP), planned, strict=True)))
    return found[DEAR], found[CHEAP]


def _world(dear: int, cheap: int, memory: VariantMemory, *, capacity_type: str = "OnDemand") -> Snapshot:
    variants = (
        fleets.variant("dear", ready=dear, usd=2.0, memory=memory),
        fleets.variant("cheap", ready=cheap, usd=1.0, most=50, capacity_type=capacity_type),
    )
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(RATE)})
    return fleets.snapshot((fleets.tier("small", "0.6", *variants),), (chat,))


def _component(world: Snapshot) -> problem.Component:
    return problem.build(problem.view(world, problem.Settings()), problem.parts(world)[0])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param({}, (0, 0), id="they stay for a window: nothing is bought yet"),
        pytest.param({"memory": SOON}, (0, 3), id="they may go by the time the new ones serve"),
        pytest.param({"memory": OVER}, (0, 3), id="they may go now"),
        pytest.param(
            {"memory": OVER, "last_scaled": fleets.NOW - 500}, (3, 0), id="counts were changed 500 s ago: they stay"
        ),
        pytest.param({"memory": OVER, "last_scaled": fleets.NOW - 601}, (0, 3), id="two windows of calm"),
        pytest.param({"capacity_type": "Spot"}, (0, 3), id="spot is not waited with"),
    ],
)
def test_three_cheap_ones_for_three_dear_ones(state: dict[str, Any], expected: tuple[int, int]) -> None:
    assert due((0, 3), dear=3, cheap=0, **state) == expected


def test_what_is_lacking_is_bought_at_once() -> None:
    """Five are needed and three serve: two of the five new ones can't wait."""
    assert due((0, 5), dear=3, cheap=0) == (0, 2)


def test_what_is_too_much_goes_before_anything_starts() -> None:
    """Four of ten are too many; a tenth goes at once, and what starts would hold the rest."""
    assert due((4, 2), dear=10, cheap=0, memory=OVER) == (6, 0)


def test_a_plan_that_only_grows_or_only_shrinks_is_left_alone() -> None:
    assert due((5, 2), dear=3, cheap=1) == (5, 2)
    assert due((1, 0), dear=3, cheap=1) == (1, 0)


@given(
    st.tuples(st.integers(0, 10), st.integers(0, 20)),
    st.tuples(st.integers(0, 10), st.integers(0, 20)),
    st.sampled_from([{}, SOON, OVER]),
    st.sampled_from([None, fleets.NOW - 100]),
)
def test_what_stays_and_what_is_ordered_never_carries_less_than_was_planned(
    planned: tuple[int, int], serving: tuple[int, int], memory: dict[str, Any], last_scaled: float | None
) -> None:
    dear, cheap = due(planned, dear=serving[0], cheap=serving[1], memory=memory, last_scaled=last_scaled)

    held = serving[0] if memory != OVER else 0  # by the scale-down window
    held_cheap = serving[1]  # of which fewer were never asked for
    assert max(dear, held) + max(cheap, held_cheap) >= sum(planned)
    assert dear <= max(planned[0], serving[0])
    assert cheap <= max(planned[1], serving[1])


def test_a_change_is_forgotten_after_two_windows() -> None:
    tier = _world(1, 1, VariantMemory(last_scaled_at=fleets.NOW - 599)).tiers["default/small"]
    now = fleets.snapshot((tier,), ())
    assert swaps.unsettled(now, tier)
    assert not swaps.unsettled(dataclasses.replace(now, now=fleets.NOW + 2), tier)
