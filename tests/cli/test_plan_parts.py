"""What ``trimtab plan`` computes: fields that differ, means over time, the dearest hour, promises that broke."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_cli import manifests
from trimtab_cli.preview import changes, watch
from trimtab_core.planning.plan import Code, Reason, VariantKey

from . import samples
from .samples import POLICY

L4 = VariantKey("default/small", "l4")


def moment(at_s: float, count: int, *broken: Reason) -> watch.Moment:
    """A moment with so many replicas at 2 USD/h."""
    return watch.Moment(at_s, {L4: count}, {L4.tier: 2.0 * count}, broken)


def loaded(folder: Path, text: str) -> manifests.Bundle:
    folder.mkdir()
    path = samples.manifests(folder)
    (path / "all.yaml").write_text(text)
    return manifests.load([path])


def whole(policy: str = POLICY, small: str = "") -> str:
    tier = samples.TIER.format(name="small", quality="0.60", usd="1.00", most=20)
    return tier.replace("    replicas:", f"{small}\n    replicas:") + samples.TIER.format(
        name="large", quality="0.80", usd="8.00", most=20
    ) + policy  # fmt: skip


CLASSES = """  classes:
  - {name: first, match: {priority: batch}}
  - {name: second, match: {}}
"""
SWAPPED = """  classes:
  - {name: second, match: {}}
  - {name: first, match: {priority: batch}}
"""


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        pytest.param(whole(), whole(), [], id="nothing"),
        pytest.param(
            whole(), whole(small="    quantization: fp8"),
            [("InferenceTier default/small", "spec.variants[one].quantization", "", "fp8")], id="a field is added",
        ),
        pytest.param(
            whole(POLICY + CLASSES), whole(POLICY + SWAPPED),
            [("RoutingPolicy default/chat", "spec.classes (order)", "first, second", "second, first")],
            id="the order of classes counts",
        ),
        pytest.param(
            whole(POLICY), whole(POLICY.replace(", {ref: large}", "")),
            [("RoutingPolicy default/chat", "spec.tiers[large]", '{"ref": "large"}', "")], id="an element is removed",
        ),
        pytest.param(
            whole(), whole(""), [("RoutingPolicy default/chat", "", "there", "absent")], id="an object goes",
        ),
    ],
)  # fmt: skip
def test_what_differs_is_named_by_object_and_field(
    tmp_path: Path, before: str, after: str, found: list[tuple[str, str, str, str]]
) -> None:
    told = changes.between(loaded(tmp_path / "a", before), loaded(tmp_path / "b", after))

    assert [(one.about, one.field, one.before, one.after) for one in told] == found


def test_the_mean_weighs_by_time_and_the_most_is_kept() -> None:
    # 1 replica for 10 s, 4 for 20 s: (10 + 80) / 30 = 3
    assert watch.mean_replicas([moment(0.0, 1), moment(10.0, 4)], 30.0) == {L4: (3.0, 4)}


@pytest.mark.parametrize(
    ("moments", "duration_s", "usd"),
    [
        pytest.param([], 100.0, 0.0, id="nothing was seen"),
        pytest.param([moment(0.0, 1), moment(900.0, 3)], 1800.0, 4.0, id="a short run is one window: (2 + 6) / 2"),
        # half an hour at 2, an hour at 8, the rest at 2
        pytest.param([moment(0.0, 1), moment(1800.0, 4), moment(5400.0, 1)], 10800.0, 8.0, id="the hour in the middle"),
        # the last hour holds 40 minutes at 2 and 20 at 8
        pytest.param([moment(0.0, 1), moment(6000.0, 4)], 7200.0, 4.0, id="the rise at the end: (40·2 + 20·8) / 60"),
    ],
)
def test_the_dearest_hour_slides(moments: list[watch.Moment], duration_s: float, usd: float) -> None:
    assert watch.dearest_hour(moments, duration_s, [L4.tier]) == pytest.approx(usd)


def test_tiers_of_others_don_t_count_towards_a_budget() -> None:
    assert watch.dearest_hour([moment(0.0, 5)], 60.0, ["default/large"]) == 0.0


def test_a_broken_promise_is_told_once_with_its_share_of_the_time() -> None:
    def over(usd: int) -> Reason:
        return Reason(Code.BUDGET, f"the cheapest plan exceeds the budget by ${usd}/h", policy="default/chat")

    found = watch.broken_share([moment(0.0, 1), moment(10.0, 1, over(1)), moment(20.0, 1, over(2))], 40.0)

    assert found == [(over(2), 0.75)]  # 30 of 40 s


def test_notes_outlive_a_change_of_leader() -> None:
    planner = watch.Watched()

    copy.deepcopy(planner).moments.add(moment(0.0, 1))  # as the world copies the controller that takes over

    assert [one.at_s for one in planner.moments] == [0.0]


def test_what_stays_as_it_is_is_kept_once() -> None:
    notes = watch.Notes()
    for at in range(3):
        notes.add(moment(float(at), 2))

    assert notes[2].replicas is notes[0].replicas
    assert [one.at_s for one in notes] == [0.0, 1.0, 2.0]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    gaps=st.lists(st.floats(1.0, 2000.0), min_size=30, max_size=30),
)
def test_the_dearest_hour_lies_between_the_mean_and_the_dearest_moment(counts: list[int], gaps: list[float]) -> None:
    times = [0.0, *itertools.accumulate(gaps)][: len(counts)]
    moments = [moment(at, count) for at, count in zip(times, counts, strict=True)]
    duration_s = times[-1] + gaps[-1]

    dearest = watch.dearest_hour(moments, duration_s, [L4.tier])

    mean, _ = watch.mean_replicas(moments, duration_s)[L4]
    assert dearest <= 2.0 * max(counts) + 1e-6
    # Whole hours cover the run, the last one partly: one of them is at least as dear as their mean.
    hours = max(1.0, math.ceil(duration_s / 3600))
    assert dearest >= 2.0 * mean * min(1.0, duration_s / (3600 * hours)) - 1e-6
