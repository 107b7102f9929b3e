"""Fault files: what they may say, and how they are told what is wrong with them."""

from __future__ import annotations

import math
import pathlib

import pytest
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_sim import faults

EXAMPLE = pathlib.Path(__file__).parent / "data" / "faults.yaml"


def test_a_file_becomes_values_in_seconds() -> None:
    found = faults.load(EXAMPLE)

    wave, rate = found.preemptions
    assert (wave.at, wave.share, wave.notice, wave.no_capacity_for) == (600.0, 0.5, 30.0, 300.0)
    assert wave.capacity_type is CapacityType.SPOT
    assert (rate.per_replica_hour, rate.begins, rate.ends) == (0.2, 1200.0, 3000.0)
    assert found.failures[0].kind is faults.FailureKind.FROZEN
    assert found.metric_loss[0].of is faults.Readings.ALL
    assert found.leader_handover == (faults.Handover(at=3000.0, gap=15.0),)
    assert str(found).startswith("2 × preemptions, 2 × failures, 1 × neverReady")


def test_the_modules_own_example_holds_every_kind_of_fault() -> None:
    text = (faults.__doc__ or "").split("::\n", 1)[1].split("\n\nUnknown keys")[0]

    found = faults.parse(text, "the docstring")

    assert found.model_fields_set == set(faults.Faults.model_fields)


def test_an_empty_file_is_a_world_without_faults() -> None:
    assert faults.parse("# nothing\n") == faults.NONE
    assert not str(faults.NONE)


def test_a_period_begins_with_its_first_moment_and_ends_before_its_last() -> None:
    period = faults.of({"outage": [{"from": "1m", "until": "2m"}]}, "here").outage[0]

    assert [period.holds(at) for at in (59.9, 60.0, 119.9, 120.0)] == [False, True, True, False]
    assert faults.Period().ends == math.inf


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nan: [{from: 5, until: 9m}]", "f.yaml:1: nan[0].from = 5: not a duration; write a number with a unit"),
        ("nan: [{from: 5 min}]", "f.yaml:1: nan[0].from = \"5 min\": '5 min' is not a duration"),
        ("nan: [{from: -5m}]", "f.yaml:1: nan[0].from = \"-5m\": '-5m' is not a duration"),
        ("\nnan: [{share: 1.5}]", "f.yaml:2: nan[0].share = 1.5: input should be less than or equal to 1"),
        ("nan: [{share: .nan}]", "f.yaml:1: nan[0].share = NaN: input should be a finite number"),
        ("nan: [{from: 9m, until: 5m}]", "f.yaml:1: nan[0]: until must come after from"),
        ("nan: 3", "f.yaml:1: nan = 3: write a list"),
        ("storm: []", "f.yaml:1: storm: unknown; there are preemptions, failures, neverReady"),
        ("coldCache: [{at: 1m, of: all}]", 'f.yaml:1: coldCache[0].of = "all": unknown; there are at'),
        ("outage: []\noutage: []", "f.yaml:2: outage: given twice; join the lists"),
        ("priceChanges: [{at: 1m, variant: l4, factor: 2}]", "write tier/variant, such as small/l4"),
        ("priceChanges: [{at: 1m, variant: a/b}]", "priceChanges[0]: give either usdPerHour or factor"),
        ("priceChanges: [{at: 1m, variant: a/b, usdPerHour: -1}]", "usdPerHour = -1: input should be greater than 0"),
        ("preemptions: [{share: 0.5}]", "give either at, for one moment, or perReplicaHour, for a rate"),
        ("preemptions: [{at: 1m, share: 0.5, count: 2}]", "give share or count, not both"),
        ("preemptions: [{perReplicaHour: 1, count: 2}]", "share and count go with at"),
        ("preemptions: [{at: 1m, until: 2m}]", "from and until go with perReplicaHour; at is one moment"),
        ("neverReady: [{variant: a/b, capacityType: Spot}]", "give variant or capacityType, not both"),
        ("failures: [{at: 1m, kind: Tired}]", "failures[0].kind = \"Tired\": input should be 'Lost', 'Restart' or"),
        ("failures: [{at: 1m, lasts: 1m}]", "failures[0]: lasts goes with kind Frozen"),
        ("nan: [", "f.yaml:1: not YAML"),
        ("- nan", "f.yaml:1: not lists of faults by kind"),
        ("nan: []\n---\nnan: []", "f.yaml:3: a second document"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_line_and_field(text: str, told: str) -> None:
    with pytest.raises(faults.FaultError) as error:
        faults.parse(text, "f.yaml")

    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(faults.FaultError, match=r"nowhere\.yaml: can't be read: No such file"):
        faults.load("nowhere.yaml")


def test_a_part_of_a_larger_file_is_told_by_its_place() -> None:
    with pytest.raises(faults.FaultError, match=r"week.yaml, faults: outage\[0\].until = 5: not a duration"):
        faults.of({"outage": [{"until": 5}]}, "week.yaml, faults")
