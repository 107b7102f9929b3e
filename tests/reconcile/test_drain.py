"""Draining as arithmetic: from what runs and what is wanted to counts and marks, one step at a time."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import observation
from trimtab_core.observation import EngineReading, Observation, ObservedReplica, ObservedVariant
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.signals import Sample
from trimtab_core.snapshot import ReplicaPhase
from trimtab_operator import drain

from . import world

NOW = 1_800_000_000.0
KEY = VariantKey("default/small", "l4")
TIMEOUT = 120.0  # the tier's drain.timeout
SETTLE = 5.0
READY, PENDING, DRAINING = ReplicaPhase.READY, ReplicaPhase.PENDING, ReplicaPhase.DRAINING


@dataclasses.dataclass(frozen=True)
class R:
    """A replica in short: busy requests (None: its engine can't be read), told to leave so many seconds ago."""

    name: str
    phase: ReplicaPhase = READY
    busy: float | None = 0.0
    told: float | None = None


def step(count: int | None, wanted: int, *replicas: R) -> drain.Step:
    observed = tuple(
        ObservedReplica(
            r.name,
            DRAINING if r.told is not None else r.phase,
            NOW - 1000 + number,
            NOW - 900,
            f"{r.name}:8000",
            None if r.told is None else NOW - r.told,
        )
        for number, r in enumerate(replicas)
    )
    engines = {r.name: EngineReading(Sample(r.busy, NOW), Sample(0.0, NOW)) for r in replicas if r.busy is not None}
    seen = Observation((world.tier(),), (), (), {KEY: ObservedVariant(count, observed)}, {}, engines)
    snapshot = observation.snapshot(seen, now=NOW, epoch=1)
    plan = Plan({KEY: wanted}, {}, {}, Prediction(0, 0, 1, 0), Source.OPTIMAL)
    return drain.step(seen, snapshot, plan, settle_seconds=SETTLE)


def marks(found: drain.Step) -> dict[str, tuple[float | None, int]]:
    """Name → (told so many seconds ago, cost)."""
    return {m.replica: (None if m.since is None else NOW - m.since, m.deletion_cost) for m in found.marks}


def test_no_deployment_yet_gets_what_is_wanted() -> None:
    assert step(None, 3) == drain.Step({KEY: 3}, (), frozenset())


def test_more_is_asked_for_at_once() -> None:
    assert step(2, 5, R("a"), R("b")) == drain.Step({KEY: 5}, (), frozenset())


def test_the_emptiest_is_told_and_the_count_stays() -> None:
    found = step(3, 2, R("a", busy=5), R("b", busy=1), R("c", busy=3))
    assert found.scale == {KEY: 3}
    assert marks(found) == {"b": (0.0, -1000)}
    assert found.leaving == {"b"}


def test_of_equals_the_newest_goes_and_one_that_can_not_be_read_goes_last() -> None:
    found = step(3, 1, R("a", busy=2), R("b", busy=None), R("c", busy=2))
    assert set(marks(found)) == {"c", "a"}


def test_what_is_not_ready_goes_at_once_and_first() -> None:
    found = step(4, 2, R("a"), R("b"), R("p", PENDING), R("q", PENDING))
    assert found == drain.Step({KEY: 2}, (), frozenset())
    found = step(4, 1, R("a", busy=1), R("b"), R("p", PENDING), R("q", PENDING))
    assert found.scale == {KEY: 2}
    assert set(marks(found)) == {"b"}


def test_replicas_that_were_never_made_go_at_once() -> None:
    assert step(5, 3, R("a"), R("b"), R("c")) == drain.Step({KEY: 3}, (), frozenset())


@pytest.mark.parametrize(
    ("told", "busy", "gone"),
    [
        pytest.param(3.0, 0.0, False, id="empty, but routers may not have let go"),
        pytest.param(6.0, 0.0, True, id="empty after they had"),
        pytest.param(60.0, 2.0, False, id="still works"),
        pytest.param(120.0, 2.0, True, id="its time is up"),
        pytest.param(60.0, None, False, id="can't be read, so not known to be empty"),
        pytest.param(130.0, None, True, id="can't be read and its time is up"),
    ],
)
def test_a_marked_replica_goes_when_it_is_empty_or_out_of_time(told: float, busy: float | None, *, gone: bool) -> None:
    found = step(2, 1, R("a", busy=4), R("b", busy=busy, told=told))
    assert found.scale == {KEY: 1 if gone else 2}
    assert marks(found) == ({"b": (told, -2000)} if gone else {})
    assert found.leaving == {"b"}


def test_a_mark_is_taken_away_when_its_replica_is_wanted_again() -> None:
    found = step(2, 2, R("a"), R("b", busy=3, told=9.0))
    assert found.scale == {KEY: 2}
    assert marks(found) == {"b": (None, 0)}
    assert found.leaving == frozenset()


def test_when_fewer_must_leave_the_longest_told_go_on() -> None:
    found = step(3, 2, R("a"), R("b", busy=3, told=9.0), R("c", busy=3, told=30.0))
    assert marks(found) == {"b": (None, 0)}
    assert found.leaving == {"c"}


def test_a_pod_that_its_deployment_has_given_up_keeps_its_mark_until_it_is_deleted() -> None:
    """The count fell to 1 and the controller has not deleted b yet: released now, a might be deleted instead."""
    found = step(1, 1, R("a", busy=4), R("b", told=30.0))
    assert found.scale == {KEY: 1}
    assert marks(found) == {"b": (30.0, -2000)}


def test_what_is_marked_leaves_the_table_in_the_same_cycle() -> None:
    seen = Observation((world.tier(),), (), (), {KEY: ObservedVariant(1, (ObservedReplica("a", READY, 0.0),))}, {}, {})
    snapshot = observation.snapshot(seen, now=NOW, epoch=1)
    after = drain.marked(snapshot, frozenset({"a"}))
    assert after.tiers[KEY.tier].variants[0].replicas[0].phase is DRAINING
    assert snapshot.tiers[KEY.tier].variants[0].replicas[0].phase is READY


replicas = st.lists(
    st.builds(
        lambda phase, busy, told: (phase, busy, told if phase is READY else None),
        st.sampled_from([READY, PENDING]),
        st.one_of(st.none(), st.integers(0, 5)),
        st.one_of(st.none(), st.floats(0, 200)),
    ),
    max_size=8,
)


@given(replicas, st.integers(-3, 3), st.integers(0, 8))
def test_no_step_cuts_what_works_and_every_step_goes_the_wanted_way(
    given_replicas: list[tuple[ReplicaPhase, int | None, float | None]], off: int, wanted: int
) -> None:
    made = [R(f"r{n}", phase, busy, told) for n, (phase, busy, told) in enumerate(given_replicas)]
    count = max(0, len(made) + off)
    found = step(count, wanted, *made)
    told = found.scale[KEY]
    assert min(count, wanted) <= told <= max(count, wanted)
    if wanted >= count:
        assert told == wanted
    working = [
        r
        for r in made
        if r.phase is READY and not (r.told is not None and (r.told >= TIMEOUT or (r.busy == 0 and r.told >= SETTLE)))
    ]
    if wanted < count:
        assert told >= min(count, len(working)), "a replica that works, or was not told, is never cut"
    staying = [r for r in made if r.phase is READY and r.name not in found.leaving]
    assert len(staying) >= min(wanted, sum(1 for r in made if r.phase is READY and r.told is None))
