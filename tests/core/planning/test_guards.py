"""Guards: what each of them promises holds after all of them, in any order, for any plan in any world."""

from __future__ import annotations

import functools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trimtab_core import economics, signals, units
from trimtab_core.planning import cost, guards, limits, optimizer, weight_limits
from trimtab_core.planning.plan import Code, Plan, VariantKey
from trimtab_core.snapshot import Snapshot, TierState, VariantMemory, VariantState

from . import fleets, worlds
from .fleets import CARRIES, NOW, key

thorough = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def free(world: Snapshot) -> list[tuple[TierState, VariantState, VariantKey]]:
    """Variants whose counts are Trimtab's to change."""
    return [
        (tier, variant, VariantKey(tier.key, variant.name))
        for tier in world.tiers.values()
        for variant in tier.variants
        if limits.frozen(tier, variant, world.now) is None
    ]


def floor(variant: VariantState) -> int:
    """What serves, within bounds: fewer than this takes capacity away."""
    return limits.clip(limits.serving(variant, NOW), variant)


def assert_whole(plan: Plan, world: Snapshot) -> None:
    assert set(plan.replicas) == set(fleets.plan(world).replicas)
    assert all(type(count) is int and count >= 0 for count in plan.replicas.values())
    for policy in world.policies.values():
        for request_class in policy.spec.classes:
            shares = plan.weights[policy.key][request_class.name]
            assert all(math.isfinite(share) and 0 <= share <= 1 for share in shares.values())
            allowed = limits.allowed_tiers(world, policy, request_class)
            assert sum(shares.values()) == pytest.approx(1.0 if allowed else 0.0)


def assert_held(plan: Plan, world: Snapshot) -> None:
    for tier in world.tiers.values():
        for variant in tier.variants:
            if limits.frozen(tier, variant, world.now) is not None:
                assert plan.replicas[VariantKey(tier.key, variant.name)] == variant.desired


def assert_bounds(plan: Plan, world: Snapshot) -> None:
    for _, variant, at in free(world):
        assert variant.spec.replicas.min <= plan.replicas[at] <= variant.spec.replicas.max


def assert_evidence(plan: Plan, world: Snapshot) -> None:
    blind = limits.tier_evidence(world)
    assert all(plan.replicas[at] >= floor(variant) for tier, variant, at in free(world) if tier.key in blind)


def assert_window(plan: Plan, world: Snapshot) -> None:
    for tier, variant, at in free(world):
        since = variant.memory.fewer_since
        window = units.duration_seconds(tier.spec.scaling.scale_down_window)
        assert plan.replicas[at] >= floor(variant) or (since is not None and world.now - since >= window)


def assert_step(plan: Plan, world: Snapshot) -> None:
    for tier, variant, at in free(world):
        high = limits.clip(variant.desired + tier.spec.scaling.max_step_up, variant)
        serving = limits.serving(variant, NOW)
        assert limits.clip(serving - max(1, serving // 10), variant) <= plan.replicas[at] <= high


def assert_blocked(plan: Plan, world: Snapshot) -> None:
    for _, variant, at in free(world):
        if limits.blocked(variant, NOW):
            assert plan.replicas[at] <= floor(variant)
        if limits.failed(variant, NOW):
            assert plan.memory[at].blocked_until == NOW + limits.BLOCK_SECONDS


def assert_known(plan: Plan, world: Snapshot) -> None:
    for _, variant, at in free(world):
        if cost.sound_price(variant) is None or cost.sound_profile(variant) is None:
            assert plan.replicas[at] <= limits.clip(variant.desired, variant)


def assert_budget(plan: Plan, world: Snapshot) -> None:
    for policy in world.policies.values():
        ceiling = cost.ceiling_usd_per_hour(policy, world.now)
        reserved = wanted = cost.external_usd_per_hour(world, {})
        for tier in world.tiers.values():
            for variant in tier.variants:
                usd = economics.worst_usd_per_hour(world, tier.key, variant)
                base = max(limits.existing(variant), variant.desired, variant.spec.replicas.min)
                reserved += usd * base
                wanted += usd * max(base, plan.replicas[VariantKey(tier.key, variant.name)])
        assert wanted <= max(ceiling, reserved) + 1e-6


def assert_awake(plan: Plan, world: Snapshot) -> None:
    if not world.policies:
        return
    for tier in world.tiers.values():
        serves = any(limits.serving(v, NOW) > 0 and limits.clip(1, v) > 0 for v in tier.variants)
        if serves and tier.spec.scaling.scale_to_zero is None:
            assert sum(plan.replicas[VariantKey(tier.key, variant.name)] for variant in tier.variants) >= 1


def assert_carrying(plan: Plan, world: Snapshot) -> None:
    demands = cost.tier_demands(world)
    for tier in world.tiers.values():
        counts = {v.name: plan.replicas[VariantKey(tier.key, v.name)] for v in tier.variants}
        if limits.shortfall(tier, demands[tier.key], counts):
            assert all(plan.replicas[at] >= floor(v) for other, v, at in free(world) if other is tier)


def assert_on_demand(plan: Plan, world: Snapshot) -> None:
    demands = cost.tier_demands(world)
    for tier in world.tiers.values():
        lasting = [v for v in tier.variants if v.spec.capacity_type != "Spot"]
        share = units.ratio(tier.spec.scaling.on_demand_share) if len(lasting) < len(tier.variants) else 0.0
        counts = {v.name: plan.replicas[VariantKey(tier.key, v.name)] for v in lasting}
        part = cost.Demand(share * demands[tier.key].requests_per_second, demands[tier.key].mix)
        if share and limits.shortfall(tier, part, counts):
            assert all(plan.replicas[at] >= floor(v) for other, v, at in free(world) if other is tier and v in lasting)


def assert_made_before_broken(plan: Plan, world: Snapshot) -> None:
    for tier in world.tiers.values():
        before = {VariantKey(tier.key, v.name): max(v.desired, limits.clip(v.desired, v)) for v in tier.variants}
        grows = any(plan.replicas[at] > count for at, count in before.items())
        if grows:
            assert all(plan.replicas[at] >= floor(v) for other, v, at in free(world) if other is tier)


def assert_weights(plan: Plan, world: Snapshot) -> None:
    for policy in world.policies.values():
        for request_class in policy.spec.classes:
            rules = weight_limits.rules(world, policy, request_class)
            shares = plan.weights[policy.key][request_class.name]
            assert set(shares) <= set(rules.allowed)
            for tier in rules.allowed:
                share, before = shares.get(tier, 0.0), rules.before.get(tier, 0.0)
                if tier not in rules.usable:
                    assert share <= 1e-6
                    continue
                least = 0.0 if tier in rules.swamped else before - rules.step
                assert least - 1e-5 <= share <= before + rules.step + rules.freed + 1e-5
                assert share >= (min(before, 0.01) if tier in rules.probed else 0.0) - 1e-5


SAFE = (
    assert_whole,
    assert_held,
    assert_bounds,
    assert_evidence,
    assert_window,
    assert_step,
    assert_blocked,
    assert_known,
    assert_budget,
    assert_awake,
    assert_carrying,
    assert_on_demand,
    assert_made_before_broken,
    assert_weights,
)


@thorough
@given(st.data())
def test_any_plan_is_safe_after_the_guards_in_any_order(data: st.DataObject) -> None:
    world = data.draw(worlds.snapshots())
    plan = data.draw(worlds.plans(world))
    for one in data.draw(st.permutations(guards.GUARDS)):
        plan = one(plan, world)
    for safe in SAFE:
        safe(plan, world)


@thorough
@given(st.data())
def test_guarding_twice_changes_nothing_more(data: st.DataObject) -> None:
    world = data.draw(worlds.snapshots())
    once = guards.guard(data.draw(worlds.plans(world)), world)
    twice = guards.guard(once, world)
    assert twice.replicas == once.replicas
    assert twice.weights == once.weights
    assert twice.reasons == once.reasons


@thorough
@given(worlds.snapshots())
def test_the_optimiser_plans_any_world_and_its_guarded_plan_is_safe(world: Snapshot) -> None:
    plan = optimizer.optimize(world)
    assert_bounds(plan, world)
    guarded = guards.guard(plan, world)
    for safe in SAFE:
        safe(guarded, world)
    assert math.isfinite(guarded.prediction.usd_per_hour)


@thorough
@given(worlds.snapshots())
def test_numbers_that_are_none_change_no_decision(world: Snapshot) -> None:
    """A NaN reads as missing: the plan is the one for a world where nobody measured it."""

    def cleaned(found: signals.Signal) -> signals.Signal:
        return found if signals.sound(found) is not None else signals.Missing("none")

    policies = {}
    for name, policy in world.policies.items():
        traffic = {
            one: fleets.ClassTraffic(
                cleaned(t.arrivals_per_second),
                cleaned(t.input_tokens),
                cleaned(t.output_tokens),
                cleaned(t.cache_hit_ratio),
                cleaned(t.burstiness),
            )
            for one, t in policy.traffic.items()
        }
        policies[name] = fleets.PolicyState(name, policy.spec, policy.tiers, traffic, policy.weights)
    clean = Snapshot(world.now, world.epoch, world.tiers, policies)
    one, other = (guards.guard(optimizer.optimize(w), w) for w in (world, clean))
    assert (one.replicas, one.weights) == (other.replicas, other.weights)


def guarded(world: Snapshot, count: int, guard: guards.Guard) -> tuple[int, list[Code]]:
    """What one guard makes of a wanted count for small/l4, and the codes of its reasons."""
    plan = guard(fleets.plan(world, {key("small"): count}), world)
    return plan.replicas[key("small")], [reason.code for reason in plan.reasons]


def one(variant: VariantState, rate: float | signals.Signal = 1.0, **scaling: object) -> Snapshot:
    """One tier, one variant, one policy."""
    small = fleets.tier("small", "0.8", variant, scaling=scaling)
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(rate)}, weights={"all": {"small": 1.0}})
    return fleets.snapshot((small,), (chat,))


def half_on_demand(*, on_demand: int, arriving: float) -> Snapshot:
    """Ten spot replicas, some that aren't, and half of the work must be safe with those."""
    small = fleets.tier(
        "small", "0.8", fleets.variant(ready=on_demand),
        fleets.variant("spot", ready=10, capacity_type="Spot"), scaling={"onDemandShare": "0.5"},
    )  # fmt: skip
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(arriving)}, weights={"all": {"small": 1.0}})
    return fleets.snapshot((small,), (chat,))


@pytest.mark.parametrize(
    ("world", "wanted", "guard", "expected", "code"),
    [
        pytest.param(one(fleets.variant(ready=2, most=5)), 9, guards.keep_bounds, 5, Code.BOUNDS, id="above max"),
        pytest.param(one(fleets.variant(ready=2, least=2)), 0, guards.keep_bounds, 2, Code.BOUNDS, id="below min"),
        pytest.param(one(fleets.variant(ready=2), maxStepUp=3), 9, guards.cap_step, 5, Code.STEP_LIMIT, id="too fast up"),
        pytest.param(one(fleets.variant(ready=5)), 1, guards.cap_step, 4, Code.STEP_LIMIT, id="one fewer at once"),
        pytest.param(
            one(fleets.variant(ready=3), signals.Missing("down")), 1, guards.hold_without_evidence, 3,
            Code.SIGNAL_MISSING, id="missing demand holds",
        ),
        pytest.param(
            one(fleets.variant(ready=3), signals.Stale(0.0, 90.0)), 1, guards.hold_without_evidence, 3,
            Code.SIGNAL_STALE, id="stale demand holds",
        ),
        pytest.param(
            one(fleets.variant(ready=3, memory=VariantMemory(fewer_since=NOW - 299))), 2, guards.wait_scale_down, 3,
            Code.SCALE_DOWN_WINDOW, id="the window isn't over",
        ),
        pytest.param(
            one(fleets.variant(ready=1, memory=VariantMemory(fewer_since=NOW - 599)), scaleToZero={"after": "10m"}), 0,
            guards.wait_scale_down, 1, Code.SCALE_DOWN_WINDOW, id="the last one waits for the idle time",
        ),
        pytest.param(one(fleets.variant(ready=1)), 0, guards.keep_awake, 1, Code.BOUNDS, id="may not sleep"),
        pytest.param(
            one(fleets.variant(ready=3), 2.5 * CARRIES), 2, guards.keep_carrying, 3, Code.CAPACITY_NEEDED,
            id="two can't carry what arrives",
        ),
        pytest.param(
            half_on_demand(on_demand=3, arriving=5 * CARRIES), 2, guards.keep_on_demand, 3, Code.CAPACITY_NEEDED,
            id="two on demand can't carry half of what arrives",
        ),
        pytest.param(
            one(fleets.variant(ready=3, pending=1)), 2, guards.make_before_break, 4, Code.PENDING,
            id="one is starting",
        ),
        pytest.param(
            one(fleets.variant(ready=1, pending=2, age=241)), 3, guards.block_failing, 1, Code.CAPACITY_BLOCKED,
            id="two are overdue by a second",
        ),
        pytest.param(one(fleets.variant(ready=1, usd=None)), 2, guards.refuse_unknown, 1, Code.PRICE_UNKNOWN, id="no price"),
        pytest.param(
            one(fleets.variant(ready=1, has=None)), 2, guards.refuse_unknown, 1, Code.PROFILE_UNKNOWN, id="no profile"
        ),
        pytest.param(
            one(fleets.variant(ready=2), management="Observe"), 5, guards.keep_held, 2, Code.MANAGEMENT, id="only observed"
        ),
        pytest.param(
            one(fleets.variant(ready=2, external_scaler="HPA web")), 5, guards.keep_held, 2, Code.CONFLICTING_SCALER,
            id="another writer",
        ),
        pytest.param(
            one(fleets.variant(ready=2, memory=VariantMemory(override_until=NOW + 60))), 5, guards.keep_held, 2,
            Code.OVERRIDE, id="a manual edit",
        ),
    ],
)  # fmt: skip
def test_one_guard_moves_the_count_and_says_why(
    world: Snapshot, wanted: int, guard: guards.Guard, expected: int, code: Code
) -> None:
    assert guarded(world, wanted, guard) == (expected, [code])


@pytest.mark.parametrize(
    ("world", "wanted", "guard"),
    [
        pytest.param(one(fleets.variant(ready=2)), 4, guards.cap_step, id="a step within the limit"),
        pytest.param(
            one(fleets.variant(ready=3, memory=VariantMemory(fewer_since=NOW - 300))), 2, guards.wait_scale_down,
            id="the window is over",
        ),
        pytest.param(one(fleets.variant(ready=3), 1.5 * CARRIES), 2, guards.keep_carrying, id="two carry what arrives"),
        pytest.param(
            half_on_demand(on_demand=3, arriving=3 * CARRIES), 2, guards.keep_on_demand,
            id="two on demand carry half of what arrives",
        ),
        pytest.param(one(fleets.variant(ready=1, pending=2, age=239)), 3, guards.block_failing, id="still in time"),
        pytest.param(
            one(fleets.variant(ready=3, failed=2)), 3, guards.block_failing, id="failed pods that were replaced already"
        ),
        pytest.param(
            one(fleets.variant(ready=1, pending=2, age=300), signals.Missing("down")), 1, guards.hold_without_evidence,
            id="a pod that never came up isn't capacity, even without signals",
        ),
    ],
)  # fmt: skip
def test_a_guard_leaves_a_safe_count_alone(world: Snapshot, wanted: int, guard: guards.Guard) -> None:
    assert guarded(world, wanted, guard) == (wanted, [])


def budgeted(usd: str, *found: VariantState) -> Snapshot:
    """One tier with a budget per hour."""
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(1.0)}, spec={"budget": {"usdPerHour": usd}})
    return fleets.snapshot((fleets.tier("small", "0.8", *found),), (chat,))


@pytest.mark.parametrize(
    ("world", "wanted", "expected"),
    [
        pytest.param(budgeted("5", fleets.variant(ready=2, usd=1.0)), 9, 5, id="five at a dollar"),
        pytest.param(
            budgeted("5", fleets.variant(ready=2, draining=2, usd=1.0)), 9, 5, id="draining ones are paid as well"
        ),
        pytest.param(
            budgeted("1", fleets.variant(ready=3, usd=1.0)), 4, 3, id="what runs is not this guard's to remove"
        ),
        # Nobody knows the price: it is charged at UNPRICED_USD_PER_HOUR = 100.
        pytest.param(budgeted("50", fleets.variant(ready=0, usd=None)), 2, 0, id="an unknown price at its worst"),
    ],
)
def test_a_budget_refuses_replicas_that_it_cannot_pay(world: Snapshot, wanted: int, expected: int) -> None:
    assert guarded(world, wanted, guards.reserve_budget)[0] == expected


def split(before: dict[str, float], *, large_ready: int = 1, rate: float | signals.Signal = 1.0) -> Snapshot:
    """Two tiers, weights in force, steps of 10 points."""
    small, large = fleets.variant(ready=1), fleets.variant(ready=large_ready)
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(rate)}, weights={"all": before})
    return fleets.snapshot((fleets.tier("small", "0.6", small), fleets.tier("large", "0.9", large)), (chat,))


@pytest.mark.parametrize(
    ("world", "wanted", "expected"),
    [
        pytest.param(split({"small": 0.5, "large": 0.5}), (0.9, 0.1), (0.6, 0.4), id="ten points at once"),
        pytest.param(split({"small": 0.05, "large": 0.95}), (0.0, 1.0), (0.01, 0.99), id="one percent keeps probing"),
        pytest.param(split({"small": 0.3, "large": 0.7}, large_ready=0), (0.3, 0.7), (1.0, 0.0), id="unready: to zero at once"),
        pytest.param(
            split({"small": 0.5, "large": 0.5}, rate=signals.Missing("down")), (0.6, 0.4), (0.5, 0.5), id="no demand known: hold"
        ),
        pytest.param(split({}), (0.2, 0.8), (0.2, 0.8), id="first weights are free"),
        pytest.param(
            split({"small": 0.1, "large": 0.9}, rate=2.0 * fleets.CARRIES), (0.5, 0.5), (0.5, 0.5), id="swamped: left at once"
        ),
        pytest.param(
            split({"small": 0.1, "large": 0.9}, rate=2.0 * fleets.CARRIES), (0.0, 1.0), (0.01, 0.99), id="swamped: no need to leave"
        ),
        pytest.param(
            split({"small": 0.1, "large": 0.9}, rate=fleets.CARRIES), (0.5, 0.5), (0.2, 0.8), id="full, not swamped"
        ),
        pytest.param(
            split({"small": 0.3, "large": 0.7}, rate=9.0 * fleets.CARRIES), (0.9, 0.1), (0.4, 0.6), id="all swamped: no haste"
        ),
        pytest.param(
            split({"small": 0.1, "large": 0.9}, rate=signals.Stale(2.0 * fleets.CARRIES, 60.0)), (0.5, 0.5), (0.1, 0.9),
            id="swamped by stale numbers: hold",
        ),
        pytest.param(split({"small": 0.5, "large": 0.5}), (math.nan, 0.4), (0.5, 0.5), id="no number"),
    ],
)  # fmt: skip
def test_weights_move_within_their_rules(
    world: Snapshot, wanted: tuple[float, float], expected: tuple[float, float]
) -> None:
    shares = {"default/chat": {"all": dict(zip(("default/small", "default/large"), wanted, strict=True))}}
    plan = guards.guard(fleets.plan(world, weights=shares), world)
    found = plan.weights["default/chat"]["all"]
    assert (found.get("default/small", 0.0), found.get("default/large", 0.0)) == pytest.approx(expected)


@pytest.mark.parametrize(("rate", "left"), [(1.0, 0), (signals.Missing("down"), 1)], ids=["known", "unknown"])
def test_a_tier_without_a_share_stays_while_nothing_is_known_of_who_may_need_it(
    rate: float | signals.Signal, left: int
) -> None:
    world = split({"small": 1.0}, rate=rate)
    (large,) = (key for key in fleets.plan(world).replicas if key.tier == "default/large")

    assert guards.hold_without_evidence(fleets.plan(world, {large: 0}), world).replicas[large] == left


def test_a_sensitive_class_never_leaves_its_tiers_and_fails_closed_without_one() -> None:
    spec = {"classes": [{"name": "all", "match": {"sensitive": True}, "allow": ["large"], "onUnavailable": "Reject"}]}
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(1.0)}, spec=spec)
    both = (fleets.tier("small", "0.6", fleets.variant(ready=1)), fleets.tier("large", "0.9", fleets.variant(ready=1)))
    stray = {"default/chat": {"all": {"default/small": 1.0}}}
    world = fleets.snapshot(both, (chat,))
    assert guards.guard(fleets.plan(world, weights=stray), world).weights["default/chat"]["all"] == {
        "default/large": 1.0
    }
    alone = fleets.snapshot(both[:1], (chat,))
    assert guards.guard(fleets.plan(alone, weights=stray), alone).weights["default/chat"]["all"] == {}


def test_the_guarded_plan_says_what_it_costs_and_when_it_scaled() -> None:
    world = one(fleets.variant(ready=2, usd=1.5), maxStepUp=1)
    plan = guards.guard(fleets.plan(world, {key("small"): 5}), world)
    assert plan.prediction.usd_per_hour == pytest.approx(4.5)
    assert plan.memory[key("small")].last_scaled_at == NOW


def test_guards_run_in_the_listed_order() -> None:
    world = one(fleets.variant(ready=2), maxStepUp=1)
    wanted = fleets.plan(world, {key("small"): 50})
    by_hand = functools.reduce(lambda plan, one_guard: one_guard(plan, world), guards.GUARDS, wanted)
    assert guards.guard(wanted, world).reasons == by_hand.reasons


def test_a_variant_that_was_switched_off_keeps_nothing_awake() -> None:
    """2 of spot run, but its max is now 0: the one of l4 is the last that may stay, whatever order the guards have."""
    l4, spot = fleets.variant("l4", ready=1), fleets.variant("spot", ready=2, most=0)
    chat = fleets.policy("chat", ("large",), {}, spec={"classes": [{"name": "all"}]})
    world = fleets.snapshot((fleets.tier("large", "0.9", l4, spot),), (chat,))
    plan = fleets.plan(world, {key("large", "l4"): 0, key("large", "spot"): 2})
    for one in (guards.keep_awake, guards.keep_bounds):
        plan = one(plan, world)
    assert plan.replicas == {key("large", "l4"): 1, key("large", "spot"): 0}
