"""Conditions settle: times move only with the status, and people hear of a turn once."""

from __future__ import annotations

from trimtab_core import conditions
from trimtab_core.conditions import FALSE, TRUE, UNKNOWN, Reason, Type, Verdict

GOOD = Verdict(Type.METRICS_AVAILABLE, TRUE, Reason.FRESH)
BAD = Verdict(Type.METRICS_AVAILABLE, FALSE, Reason.QUERY_FAILED, "why")
UNSURE = Verdict(Type.METRICS_AVAILABLE, UNKNOWN, Reason.STALE)


def test_a_transition_time_moves_only_with_the_status() -> None:
    first = conditions.settle([], [BAD], now=100.0, generation=1)
    again = conditions.settle(first, [Verdict(BAD.type, FALSE, Reason.NO_SAMPLES)], now=200.0, generation=2)
    assert (again[0].last_transition_time, again[0].reason, again[0].observed_generation) == (
        "1970-01-01T00:01:40Z",
        "NoSamples",
        2,
    )
    turned = conditions.settle(again, [GOOD], now=300.0, generation=2)
    assert turned[0].last_transition_time == "1970-01-01T00:05:00Z"


def test_a_type_that_is_no_longer_judged_goes() -> None:
    first = conditions.settle([], [BAD, Verdict(Type.READY, TRUE, Reason.SERVING)], now=1.0, generation=1)
    assert [each.type for each in conditions.settle(first, [BAD], now=2.0, generation=1)] == ["MetricsAvailable"]


def test_people_hear_of_bad_turns_and_of_recoveries_once() -> None:
    def settle(before: list[Verdict]) -> object:
        return conditions.settle([], before, now=1.0, generation=1)

    assert conditions.turned(settle([]), [BAD]) == [BAD]  # type: ignore[arg-type]
    assert conditions.turned(settle([BAD]), [BAD]) == []  # type: ignore[arg-type]
    assert conditions.turned(settle([BAD]), [GOOD]) == [GOOD]  # type: ignore[arg-type]
    assert conditions.turned(settle([BAD]), [UNSURE]) == []  # type: ignore[arg-type]
    assert conditions.turned(settle([UNSURE]), [GOOD]) == []  # type: ignore[arg-type]
    assert conditions.turned(settle([]), [GOOD]) == []  # type: ignore[arg-type]


def test_a_conflict_is_bad_when_true_and_being_unready_at_birth_is_no_news() -> None:
    conflict = Verdict(Type.CONFLICTING_SCALER, TRUE, Reason.SECOND_WRITER)
    unready = Verdict(Type.READY, FALSE, Reason.NO_READY_REPLICA)
    assert conflict.bad
    assert not Verdict(Type.PROGRESSING, FALSE, Reason.SETTLED).bad
    assert conditions.turned([], [conflict, unready]) == [conflict]
