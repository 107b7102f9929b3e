"""What giving a replica back has to reckon with."""

from __future__ import annotations

import dataclasses

import pytest
from trimtab_core.planning import guards, rises
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Snapshot, VariantMemory

from tests.core.planning import fleets

SMALL = VariantKey("default/small", "l4")
OVER = VariantMemory(fewer_since=fleets.NOW - 400)


def world(*rates: float, ready: int = 2) -> Snapshot:
    """A tier that gets these rates, evenly spread over the last 300 seconds."""
    step = 300.0 / len(rates)
    history = tuple((fleets.NOW - 300.0 + step * number, rate) for number, rate in enumerate(rates))
    traffic = dataclasses.replace(fleets.traffic(rates[-1]), history=history)
    chat = fleets.policy("chat", ("small",), {"all": traffic}, weights={"all": {"small": 1.0}})
    small = fleets.tier("small", "0.6", fleets.variant(ready=ready, memory=OVER))
    return fleets.snapshot((small,), (chat,))


@pytest.mark.parametrize(
    ("rates", "factor"),
    [
        pytest.param([5.0] * 20, 1.0, id="level"),
        pytest.param([8.0] * 10 + [4.0] * 10, 1.0, id="a fall"),
        # 1 req/s in 150 s, 0.5 in the quarter since; 120 s to start and 300 to stay: 2.8 more on 10.5.
        pytest.param([9.0] * 10 + [10.0] * 10, 1 + 2.8 / 10.5, id="a rise goes on"),
        pytest.param([0.0] * 10 + [10.0] * 10, 2.0, id="at most a doubling"),
        pytest.param([1.0, 9.0], 1.0, id="two samples are no slope"),
    ],
)
def test_a_rise_is_taken_to_go_on_for_as_long_as_what_is_bought_again_would_be_paid_for(
    rates: list[float], factor: float
) -> None:
    assert rises.factor(world(*rates), "default/small") == pytest.approx(factor)


def test_a_replica_that_would_be_missed_again_soon_stays() -> None:
    now = 0.8 * fleets.CARRIES
    rising, level = world(*[0.5 * now] * 10, *[now] * 10), world(*[now] * 20)
    kept, given = (
        guards.keep_carrying(fleets.plan(seen, replicas={SMALL: 1}), seen).replicas[SMALL] for seen in (rising, level)
    )
    assert (kept, given) == (2, 1)
