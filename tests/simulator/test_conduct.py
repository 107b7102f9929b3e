"""Wrong-way moves are told from the truth and the orders alone, and reversals from the direction of orders."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import capacity, observation, telemetry
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.snapshot import CapacityProfile, Snapshot, VariantMemory
from trimtab_sim import conduct, objects
from trimtab_sim.truth import Truth

from tests.simulator import scenarios

SMALL, LARGE = VariantKey("default/small", "l4"), VariantKey("default/large", "h100")
PROFILE = CapacityProfile(0.020, 0.001, 10_000, 200_000, 128, 20.0)
PROFILES = {SMALL: PROFILE, LARGE: PROFILE}
MIX = capacity.Mix(1000.0, 200.0)
"""Of this, a replica serves 128 / (200 · 0.148 + 128 · 0.1) = 3.02 req/s with all its 128 slots in use."""
SHARES = {"small": 0.75, "large": 0.25}


def seen(
    small: int = 4, large: int = 2, *, shown: float | None = None, policy: dict[str, Any] | None = None
) -> Snapshot:
    """Both tiers under the policy, with so many replicas asked for and three quarters of the requests on the small.

    Of class ``default``, so many arrivals a second are shown; without them nothing is.
    """
    made = objects.Objects((scenarios.SMALL, scenarios.LARGE), (scenarios.policy(**(policy or {})),), ())
    desired = {SMALL: small, LARGE: large}
    variants = {key: observation.ObservedVariant(count, told=count) for key, count in desired.items()}
    first = made.look(objects.EPOCH_SECONDS, variants, {}, {})
    made.remember(ordered({}, SHARES), first)
    now = objects.EPOCH_SECONDS + 15
    answers = {
        "arrivals_per_second": (telemetry.Answer(("default/chat", "default"), shown or 0.0, now),),
        "tables": (telemetry.Answer(("default/chat", "1-1", "router-0"), 1.0, now),),
    }
    return made.look(now, variants, {} if shown is None else answers, {})


def ordered(replicas: dict[VariantKey, int], shares: dict[str, float] | None = None) -> Plan:
    """A plan that orders these replicas, and these shares of both classes where they are given."""
    weights: dict[str, dict[str, dict[str, float]]] = {}
    if shares is not None:
        found = {f"default/{tier}": share for tier, share in shares.items()}
        weights = {"default/chat": {"default": found, "sensitive": {"default/large": 1.0}}}
    memory: dict[VariantKey, VariantMemory] = {}
    return Plan(replicas, weights, memory, Prediction(0.0, 0.0, 1.0, 0.0), Source.FLOOR)


def so(age: float = 6.0, **changes: Any) -> Truth:
    """Four and two replicas that serve, 4 req/s, numbers that are 6 s old."""
    values: dict[str, Any] = {
        "at": 100.0,
        "ready": {SMALL: 4, LARGE: 2},
        "demand": {"default": 4.0},
        "mean": MIX,
    }
    ages = dict.fromkeys(("default", "sensitive"), age)
    return Truth(age=ages, **(values | changes))


def wrong(plan: Plan, truth: Truth, snapshot: Snapshot | None = None) -> list[str]:
    found = conduct.wrong_moves(snapshot or seen(), plan, "default/chat", truth=truth, profiles=PROFILES)
    return [str(move) for move in found]


def test_fewer_replicas_by_fresh_numbers_are_right_while_the_rest_can_serve() -> None:
    assert wrong(ordered({SMALL: 3, LARGE: 1}), so()) == []


def test_fewer_replicas_without_fresh_numbers_are_wrong() -> None:
    (move,) = wrong(ordered({SMALL: 3}), so(age=conduct.FRESH_SECONDS + 1))

    assert move == "small/l4 4 → 3 at 100 s: the last true number of default is 46 s old"


@pytest.mark.parametrize(
    ("shown", "noise", "count"),
    [(4.0, 0.0, 0), (3.3, 0.0, 0), (3.1, 0.0, 2), (3.1, 1.0, 0), (9.0, 0.0, 0)],
    ids=["true", "a little less", "less", "less by chance", "more"],
)
def test_moves_by_understated_arrivals_are_wrong(shown: float, noise: float, count: int) -> None:
    truth = so(arrivals={"default": 4.0}, noise={"default": noise})
    plan = ordered({SMALL: 3}, {"small": 0.60, "large": 0.40})

    assert len(wrong(plan, truth, seen(shown=shown))) == count


def test_only_the_classes_of_a_tier_count_for_its_replicas() -> None:
    truth = so(arrivals={"sensitive": 4.0})  # of which nothing is shown, and which go to the large tier alone

    assert wrong(ordered({SMALL: 3}), truth, seen(shown=4.0)) == []
    assert wrong(ordered({LARGE: 1}), truth, seen(shown=4.0)) == [
        "large/h100 2 → 1 at 100 s: 4 req/s of sensitive arrived, 0 are shown"
    ]


def test_more_replicas_need_no_fresh_numbers() -> None:
    assert wrong(ordered({SMALL: 9, LARGE: 2}, SHARES), so(age=1e9)) == []


def test_fewer_replicas_than_can_serve_what_arrives_are_wrong_however_fresh_the_numbers() -> None:
    # three quarters of 10 req/s come to the small tier, two replicas serve 6.04 at most
    (move,) = wrong(ordered({SMALL: 2}), so(demand={"default": 10.0}))

    assert move == "small/l4 4 → 2 at 100 s: 7.5 req/s arrive, what stays can serve 6.04"


def test_a_full_batch_is_the_most_that_can_be_served() -> None:
    assert conduct.full_batch(PROFILE, MIX) == pytest.approx(128 / (200 * 0.148 + 128 * 0.1))
    few = dataclasses.replace(PROFILE, kv_tokens=11_000)  # ten requests of 1,000 + 200 / 2 tokens
    assert conduct.full_batch(few, MIX) == pytest.approx(10 / (200 * 0.030 + 10 * 0.1))


def test_what_starts_or_makes_no_progress_can_not_serve() -> None:
    assert len(wrong(ordered({SMALL: 3}), so(ready={SMALL: 1, LARGE: 2}, demand={"default": 6.0}))) == 1
    assert wrong(ordered({SMALL: 3}), so(ready={SMALL: 2, LARGE: 2}, demand={"default": 6.0})) == []


def test_demand_is_taken_at_the_weights_that_are_ordered() -> None:
    moved = ordered({SMALL: 1}, {"small": 0.25, "large": 0.75})

    assert wrong(moved, so(demand={"default": 10.0})) == []


def test_giving_back_what_is_stuck_is_right_and_no_more_than_that() -> None:
    stuck = so(age=1e9, stuck={SMALL: 2})

    assert wrong(ordered({SMALL: 2}), stuck) == []
    assert len(wrong(ordered({SMALL: 1}), stuck)) == 1


def test_what_the_user_does_not_allow_any_more_may_go() -> None:
    snapshot = seen(small=24)  # max is 20

    assert wrong(ordered({SMALL: 20}), so(age=1e9), snapshot) == []
    assert len(wrong(ordered({SMALL: 19}), so(age=1e9), snapshot)) == 1


def test_saving_above_the_budgets_ceiling_is_right() -> None:
    budget = {"budget": {"usdPerHour": "10"}}  # 4 at 1 USD and 2 at 8 USD are 20
    snapshot = seen(policy=budget)

    assert wrong(ordered({LARGE: 1}), so(age=1e9), snapshot) == []
    assert len(wrong(ordered({LARGE: 0}), so(age=1e9), seen())) == 1


@pytest.mark.parametrize(
    ("shares", "ready", "age", "count"),
    [
        ({"small": 0.60, "large": 0.40}, {SMALL: 1, LARGE: 1}, 60.0, 1),  # away from a healthy tier
        ({"small": 0.60, "large": 0.40}, {SMALL: 0, LARGE: 1}, 60.0, 0),  # away from one that can't serve
        ({"small": 0.60, "large": 0.40}, {SMALL: 1, LARGE: 1}, 10.0, 0),  # by fresh numbers
        ({"small": 0.745, "large": 0.255}, {SMALL: 1, LARGE: 1}, 60.0, 0),  # noise
        ({"small": 1.0}, {SMALL: 1, LARGE: 1}, 60.0, 1),  # the large tier loses all
    ],
    ids=["healthy", "unhealthy", "fresh", "noise", "all"],
)
def test_shares_move_away_from_a_healthy_tier_by_fresh_numbers_alone(
    shares: dict[str, float], ready: dict[VariantKey, int], age: float, count: int
) -> None:
    assert len(wrong(ordered({}, shares), so(ready=ready, age=age))) == count


def watch(truths: list[Truth]) -> conduct.Watch:
    """A watch that is told these truths, one a cycle; a small replica carries 1 req/s, a large one 4."""
    told = iter(truths)
    return conduct.Watch("default/chat", PROFILES, {SMALL: 1.0, LARGE: 4.0}, lambda _: next(told))


def followed(counts: list[int], *, every: float = 60.0, begin: float = 0.0, **truth: Any) -> conduct.Watch:
    """The small tier is ordered to these counts, one after the other."""
    watching = watch([so(demand={}, **truth)] * len(counts))
    for number, (before, after) in enumerate(itertools.pairwise(counts)):
        watching.cycle(begin + every * number, seen(small=before), ordered({SMALL: after}))
    return watching


@pytest.mark.parametrize(
    ("counts", "reversals"),
    [
        ([2, 3, 4, 5], 0),
        ([2, 3, 2], 1),
        ([2, 3, 3, 3, 2], 1),  # standing still is no direction
        ([2, 3, 2, 3, 2], 3),
        ([5, 4, 3, 2, 3, 4, 5], 1),
    ],
)
def test_a_reversal_is_an_order_against_the_direction_of_the_one_before(counts: list[int], reversals: int) -> None:
    watching = followed(counts)

    assert watching.reversals_per_hour(3600.0) == reversals
    assert watching.reversals_10min_max == reversals


def test_reversals_within_ten_minutes_are_told_from_those_of_the_whole_run() -> None:
    watching = followed([2, 3, 2, 3, 2], every=400.0)  # at 400, 800 and 1200 s

    assert watching.reversals_per_hour(1800.0) == 6.0
    assert watching.reversals_10min_max == 2


def test_giving_back_what_is_stuck_is_no_reversal() -> None:
    assert followed([2, 4, 2], stuck={SMALL: 2}).reversals_10min_max == 0


def test_a_swap_within_a_tier_turns_by_its_capacity() -> None:
    watching = watch([so(demand={})] * 2)
    watching.cycle(0.0, seen(small=2, large=2), ordered({SMALL: 6}))
    watching.cycle(60.0, seen(small=6, large=2), ordered({LARGE: 1}))

    assert watching.reversals_10min_max == 0  # each tier has its own direction


def test_before_the_run_directions_are_learned_and_nothing_is_counted() -> None:
    watching = followed([4, 5, 4], begin=-100.0, age=1e9)

    assert watching.wrong == []
    assert watching.reversals_10min_max == 0


@given(st.lists(st.tuples(st.floats(0, 3600), st.integers(-3, 3)), max_size=40))
def test_no_window_holds_more_reversals_than_there_are(orders: list[tuple[float, int]]) -> None:
    directions = conduct.Directions()
    for at, change in sorted(orders):
        directions.order(at, "small", change)

    changes = [change > 0 for _, change in sorted(orders) if change]
    turns = sum(before != after for before, after in itertools.pairwise(changes))
    assert directions.most() == turns
    assert directions.most_within(3601.0) == turns
    assert directions.most_within(600.0) <= turns
