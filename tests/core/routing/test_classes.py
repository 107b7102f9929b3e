"""Classes: which one takes a request, which tiers may serve it, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import classes, table, weights

# Which class takes a request -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traits:
    complexity: float = 0.5
    sensitive: bool = False
    model: str = "auto"
    tenant: str = ""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)


PLAIN = Traits()


@pytest.mark.parametrize(
    ("match", "traits", "expected"),
    [
        pytest.param(table.Match(), PLAIN, True, id="everything"),
        pytest.param(table.Match(sensitive=True), PLAIN, False, id="only sensitive"),
        pytest.param(table.Match(sensitive=True), Traits(sensitive=True), True, id="sensitive"),
        pytest.param(table.Match(sensitive=False), PLAIN, True, id="not sensitive"),
        pytest.param(table.Match(sensitive=False), Traits(sensitive=True), False, id="only not sensitive"),
        pytest.param(table.Match(complexity_min=0.5), PLAIN, True, id="at the lower bound"),
        pytest.param(table.Match(complexity_min=0.5), Traits(0.49), False, id="below the lower bound"),
        pytest.param(table.Match(complexity_max=0.5), Traits(0.49), True, id="below the upper bound"),
        pytest.param(table.Match(complexity_max=0.5), PLAIN, False, id="at the upper bound"),
        pytest.param(table.Match(complexity_min=0.5, complexity_max=1.0), Traits(1.0), True, id="the hardest of all"),
        pytest.param(table.Match(complexity_min=0.5), Traits(float("nan")), False, id="no number"),
        pytest.param(table.Match(priority="batch"), PLAIN, False, id="no priority given"),
        pytest.param(table.Match(priority="batch"), Traits(headers={b"x-trimtab-priority": b"batch"}), True,
                     id="the priority"),
        pytest.param(table.Match(priority="batch"), Traits(headers={b"x-trimtab-priority": b"high"}), False,
                     id="another priority"),
        pytest.param(table.Match(tenants=["a"]), PLAIN, False, id="unknown tenant"),
        pytest.param(table.Match(tenants=["a", "b"]), Traits(tenant="b"), True, id="one of its tenants"),
        pytest.param(table.Match(headers={"x-kind": "a"}), PLAIN, False, id="no header"),
        pytest.param(table.Match(headers={"X-Kind": "é"}), Traits(headers={b"x-kind": b"\xe9"}), True,
                     id="header, whatever its case, in Latin-1"),
        pytest.param(table.Match(headers={"x-kind": "a"}), Traits(headers={b"x-kind": b"A"}), False,
                     id="another value"),
        pytest.param(table.Match(headers={"x-kind": "€"}), Traits(headers={b"x-kind": b"?"}), False,
                     id="a value that no header can have"),
        pytest.param(table.Match(headers={"x-a": "1", "x-b": "2"}), Traits(headers={b"x-a": b"1"}), False,
                     id="one of two headers"),
        pytest.param(table.Match(models=["auto"]), PLAIN, True, id="the model"),
        pytest.param(table.Match(models=["other"]), PLAIN, False, id="another model"),
        pytest.param(table.Match(models=["auto"], tenants=["a"]), PLAIN, False, id="one part of two"),
    ],
)  # fmt: skip
def test_a_class_takes_what_matches_in_every_part(match: table.Match, traits: Traits, *, expected: bool) -> None:
    assert (classes.first([(classes.compile_match(match), "it")], traits) == "it") is expected


def test_the_first_class_that_matches_takes_it() -> None:
    matches = {
        "hard": table.Match(complexity_min=0.8),
        "vip": table.Match(tenants=["a"]),
        "rest": table.Match(),
        "never": table.Match(),
    }
    rules = [(classes.compile_match(match), name) for name, match in matches.items()]

    assert classes.first(rules, Traits(complexity=0.9, tenant="a")) == "hard"
    assert classes.first(rules, Traits(tenant="a")) == "vip"
    assert classes.first(rules, PLAIN) == "rest"
    assert classes.first(rules[:2], PLAIN) is None


@dataclass
class Counting:
    """Traits that count how often their complexity is asked for."""

    tenant: str
    sensitive: bool = False
    model: str = "auto"
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    asked: int = 0

    @property
    def complexity(self) -> float:
        self.asked += 1
        return 0.9


def test_complexity_is_worked_out_only_for_a_class_that_nothing_else_rules_out() -> None:
    hard_for_a = classes.compile_match(table.Match(complexity_min=0.5, tenants=["a"]))
    rules = [(hard_for_a, "hard"), (classes.compile_match(table.Match()), "rest")]
    stranger, known = Counting("b"), Counting("a")

    assert (classes.first(rules, stranger), stranger.asked) == ("rest", 0)
    assert (classes.first(rules, known), known.asked) == ("hard", 1)


# Which tiers, and in which order ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Live:
    spec: table.Tier


def tier(name: str, quality: float, usd: float = 2e-6, **fields: Any) -> Live:
    return Live(table.Tier(name, name, quality, table.Rates(1e-6, usd), **fields))


def class_(allow: tuple[str, ...] = (), **fields: Any) -> table.Class:
    weights_ = fields.pop("weights", {})
    return table.Class("one", fields.pop("match", table.Match()), list(allow), weights_, **fields)


def names(tiers: tuple[Live, ...]) -> str:
    return " ".join(each.spec.name for each in tiers)


# Listed out of order on purpose: quality decides, not the table.
TIERS = (tier("c", 0.7), tier("e", 0.9), tier("a", 0.5), tier("d", 0.8), tier("b", 0.6))
SECRET = table.Match(sensitive=True)


@pytest.mark.parametrize(
    ("of", "first", "own", "wider"),
    [
        pytest.param(class_(tuple("abcde")), "c", "c d e b a", "c d e b a", id="better upwards, lesser downwards"),
        pytest.param(class_(tuple("abcde")), "e", "e d c b a", "e d c b a", id="from the best only downwards"),
        pytest.param(class_(tuple("bd")), "b", "b d", "b d c e a", id="its own first, then the rest the same way"),
        pytest.param(class_(tuple("bd")), "d", "d b", "d b e c a", id="the same from the better one"),
        pytest.param(class_(), "c", "c d e b a", "c d e b a", id="no list means all"),
        pytest.param(class_(tuple("bd"), reject_when_unavailable=True), "b", "b d", "b d", id="rejects"),
        pytest.param(class_(tuple("bd"), match=SECRET), "b", "b d", "b d", id="takes sensitive requests"),
        pytest.param(class_(tuple("bd"), match=table.Match(sensitive=False)), "b", "b d", "b d c e a",
                     id="takes none that is sensitive"),
    ],
)  # fmt: skip
def test_tiers_are_tried_from_the_chosen_one(of: table.Class, first: str, own: str, wider: str) -> None:
    reach = classes.reach(of, TIERS)

    assert names(reach.order(first, closed=False)) == wider
    assert names(reach.order(first, closed=True)) == own


@pytest.mark.parametrize(
    ("of", "allowed"),
    [
        (class_(), "a b c d e"),
        (class_(("d", "b")), "b d"),
        (class_(match=SECRET), ""),
        (class_(reject_when_unavailable=True), ""),
    ],
    ids=["no list means all", "a list", "sensitive, names none", "rejects, names none"],
)
def test_who_fails_closed_must_name_the_tiers_it_trusts(of: table.Class, allowed: str) -> None:
    reach = classes.reach(of, TIERS)

    assert names(reach.allowed) == allowed
    assert (reach.intervals is None) == (not allowed)
    assert set(reach.own) == set(reach.wider) == set(allowed.split())


@pytest.mark.parametrize(
    ("shares", "expected", "needs_score"),
    [
        ({"d": 0.25, "b": 0.75}, weights.Intervals((0.75, 1.0), ("b", "d")), True),
        ({"b": 1.0, "d": 0.0}, weights.Intervals((1.0,), ("b",)), False),
        ({}, weights.Intervals((1.0,), ("d",)), False),
        ({"b": 0.0}, weights.Intervals((1.0,), ("d",)), False),
    ],
    ids=["the easiest share to the least tier", "all to one", "without weights the best", "weights of zero are none"],
)
def test_weights_become_shares_of_the_rank(
    shares: dict[str, float], expected: weights.Intervals, *, needs_score: bool
) -> None:
    reach = classes.reach(class_(("b", "d"), weights=shares), TIERS)

    assert reach.intervals == expected
    assert reach.needs_score is needs_score


def test_among_tiers_of_equal_quality_the_cheaper_gets_the_easiest_prompts() -> None:
    twins = (tier("dear", 0.5, usd=9e-6), tier("easy", 0.5, usd=1e-6))

    reach = classes.reach(class_(("dear", "easy"), weights={"dear": 0.5, "easy": 0.5}), twins)

    assert reach.intervals == weights.Intervals((0.5, 1.0), ("easy", "dear"))


def test_a_request_may_wait_for_the_longest_hold_of_the_tiers_that_may_serve_it() -> None:
    tiers = (tier("a", 0.5, hold_seconds=5.0), tier("b", 0.6, hold_seconds=7.0), tier("c", 0.7, hold_seconds=30.0))

    assert classes.reach(class_(("a", "b")), tiers).hold_seconds == 7.0
    assert classes.reach(class_(match=SECRET), tiers).hold_seconds == 0.0


@given(
    qualities=st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1),
    allow=st.sets(st.sampled_from("abcdef")),
    rejects=st.booleans(),
)
def test_every_order_names_each_tier_that_may_serve_once_and_its_own_first(
    qualities: dict[str, float], allow: set[str], *, rejects: bool
) -> None:
    live = [tier(name, quality) for name, quality in qualities.items()]
    trusted = allow & set(qualities)

    reach = classes.reach(class_(tuple(trusted), reject_when_unavailable=rejects), live)

    for first, order in reach.wider.items():
        own = reach.own[first]
        assert order[: len(own)] == own
        assert order[0].spec.name == first
        assert sorted(own, key=str) == sorted(reach.allowed, key=str)
        assert len({each.spec.name for each in order}) == len(order)
        assert len(order) == (len(own) if rejects else len(live))
