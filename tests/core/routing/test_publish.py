"""The table that a plan becomes: who may be sent what, at which price, by whom."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import capacity, economics, observation, signals
from trimtab_core.api import v1alpha1
from trimtab_core.observation import Observation, ObservedReplica, ObservedVariant
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.routing import publish
from trimtab_core.routing import table as tables
from trimtab_core.snapshot import ClassTraffic, ReplicaPhase, Snapshot, Weights

NOW = 1_800_000_000.0
POLICY = "team/chat"
PROFILE = {
    "itlBase": "20ms",
    "itlPerSequence": "1ms",
    "prefillTokensPerSecond": 10000,
    "kvTokens": 100000,
    "maxSequences": 64,
    "startup": "30s",
}


def tier(name: str, quality: str, **spec: object) -> v1alpha1.InferenceTier:
    variant = {"name": "l4", "accelerator": {"type": "L4"}, "price": {"usdPerHour": "3.6"}, "profile": PROFILE}
    whole = {"model": {"name": f"{name}-model", "quality": quality}, "variants": [variant], **spec}
    return v1alpha1.InferenceTier.model_validate({"metadata": {"name": name, "namespace": "team"}, "spec": whole})


EXTERNAL = {
    "url": "https://api.example.com/v1",
    "apiKeySecretRef": {"name": "provider", "key": "token"},
    "price": {"inputUsdPerMillionTokens": "2", "outputUsdPerMillionTokens": "8"},
    "maxRequestsPerSecond": 7,
}


def replica(name: str, phase: ReplicaPhase = ReplicaPhase.READY, address: str = "") -> ObservedReplica:
    return ObservedReplica(name, phase, NOW - 100, NOW - 50, address or f"{name}:8000")


def world(*replicas: ObservedReplica, cache: bool = False, **spec: object) -> Snapshot:
    tiers = (tier("small", "0.7"), tier("large", "0.9"), tier("frontier", "0.95", variants=[], external=EXTERNAL))
    whole = {"tiers": [{"ref": each.metadata.name} for each in tiers], **spec}
    if cache:
        whole["cache"] = {"ref": "answers"}
    policy = v1alpha1.RoutingPolicy.model_validate({"metadata": {"name": "chat", "namespace": "team"}, "spec": whole})
    answers = v1alpha1.CachePolicy.model_validate(
        {"metadata": {"name": "answers", "namespace": "team"}, "spec": {"ttl": "10m", "maxEntries": 5}}
    )
    variants = {VariantKey("team/small", "l4"): ObservedVariant(len(replicas), replicas)}
    seen = Observation(tiers, (policy,), (answers,), variants, {}, {})
    return observation.snapshot(seen, now=NOW, epoch=4)


def plan(weights: Weights | None = None) -> Plan:
    return Plan({}, {POLICY: weights or {}}, {}, Prediction(0, 0, 1, 0), Source.OPTIMAL)


def table(snapshot: Snapshot, weights: Weights | None = None, **more: object) -> tables.RoutingTable:
    return publish.table(snapshot, plan(weights), POLICY, epoch=4, revision=2, **more)  # type: ignore[arg-type]


def test_a_router_accepts_what_is_published() -> None:
    made = table(world(replica("a")), {"default": {"team/small": 0.25, "team/large": 0.75}})
    assert tables.decode(tables.encode(made)) == made
    assert made.version.startswith("4.2-")
    assert made.issued_at == NOW
    assert made.classes[0].weights == {"small": 0.25, "large": 0.75}


def test_only_replicas_that_are_ready_and_have_an_address_are_named() -> None:
    found = table(
        world(
            replica("b"),
            replica("a"),
            replica("p", ReplicaPhase.PENDING),
            replica("d", ReplicaPhase.DRAINING),
            replica("f", ReplicaPhase.FAILED),
            ObservedReplica("n", ReplicaPhase.READY, NOW),
        )
    ).tiers[0]
    assert [(end.name, end.address, end.variant) for end in found.endpoints] == [
        ("a", "a:8000", "l4"),
        ("b", "b:8000", "l4"),
    ]


def test_an_endpoint_may_hold_what_keeps_the_promise() -> None:
    snapshot = world(replica("a"))
    profile = snapshot.tiers["team/small"].variants[0].profile
    assert profile is not None
    load = capacity.admissible_load(
        profile, capacity.DEFAULT_MIX, capacity.limits(snapshot.tiers["team/small"].spec.slo)
    )
    assert table(snapshot).tiers[0].endpoints[0].capacity == int(load.sequences)


def test_own_replicas_are_priced_so_that_a_full_hour_costs_its_price() -> None:
    snapshot = world(replica("a"))
    state = snapshot.tiers["team/small"]
    profile = state.variants[0].profile
    assert profile is not None
    load = capacity.admissible_load(profile, capacity.DEFAULT_MIX, capacity.limits(state.spec.slo))
    one = economics.request_usd(
        table(snapshot).tiers[0].rates,
        input_tokens=capacity.DEFAULT_MIX.input_tokens,
        cached_input_tokens=0,
        output_tokens=capacity.DEFAULT_MIX.output_tokens,
    )
    assert one * load.requests_per_second * 3600 == pytest.approx(3.6, rel=0.01)


def test_an_external_tier_has_its_list_price_and_the_file_of_its_key() -> None:
    found = table(world(), secrets=publish.Secrets(key_folder="/keys")).tiers[2]
    assert found.external == tables.External("https://api.example.com", "/keys/frontier", 7.0)
    assert found.rates == tables.Rates(2e-6, 8e-6, 2e-6)
    assert found.endpoints == []


def test_what_is_agreed_with_a_provider_reaches_the_table() -> None:
    agreed = {
        **EXTERNAL,
        "price": {**EXTERNAL["price"], "batchDiscount": "0.5"},  # type: ignore[dict-item]
        "models": {"coder": "x-code"},
        "maxTokensPerMinute": 9,
    }
    snapshot = world()
    spec = tier("frontier", "0.95", variants=[], external=agreed).spec
    state = dataclasses.replace(snapshot.tiers["team/frontier"], spec=spec)
    external = table(dataclasses.replace(snapshot, tiers={**snapshot.tiers, "team/frontier": state})).tiers[2].external
    assert external is not None
    assert (external.max_tokens_per_minute, external.models) == (9.0, {"coder": "x-code"})
    assert (external.batch_discount, external.batch_service_tier) == (0.5, "flex")


@pytest.mark.parametrize(("named", "expected"), [(None, "frontier"), ("small", "small")])
def test_savings_are_measured_against_the_named_tier_or_the_best(named: str | None, expected: str) -> None:
    made = table(world(baselineTier=named))
    assert made.baseline == next(each.rates for each in made.tiers if each.name == expected)


CLASSES = [
    {"name": "secret", "match": {"sensitive": True}, "allow": ["large"], "onUnavailable": "Reject"},
    {"name": "hard", "match": {"complexity": {"min": "0.5"}}, "slo": {"e2e": {"p95": "9s"}, "attainment": "0.9"}},
    {"name": "rest"},
]


def test_classes_keep_their_bounds_their_promise_and_their_order() -> None:
    made = table(world(classes=CLASSES, slo={"ttft": {"p95": "2s"}}), {"hard": {"team/large": 1.0}})
    secret, hard, rest = made.classes
    assert (secret.allow, secret.reject_when_unavailable, secret.match.sensitive) == (["large"], True, True)
    assert (hard.match.complexity_min, hard.match.complexity_max) == (0.5, 1.0)
    assert hard.slo == tables.Slo(None, None, 9.0, 0.9)
    assert rest.slo == tables.Slo(2.0, None, None, 0.95)
    assert rest.allow == ["small", "large", "frontier"]


def test_a_class_without_a_plan_goes_where_quality_is_best_among_its_tiers() -> None:
    made = table(world(classes=CLASSES))
    assert [each.weights for each in made.classes] == [{"large": 1.0}, {"frontier": 1.0}, {"frontier": 1.0}]


def test_a_plan_can_not_send_a_class_where_it_must_not_go() -> None:
    made = table(world(classes=CLASSES), {"secret": {"team/small": 0.9, "team/large": 0.1}})
    assert made.classes[0].weights == {"large": 1.0}


def test_tenants_are_known_by_the_hash_of_their_key_alone() -> None:
    hashes = {"a-team": (publish.key_hash("sk-secret-key"), publish.key_hash("sk-next-key"))}
    tenants = {"required": True, "known": [{"name": "b-team"}, {"name": "a-team"}]}
    made = table(world(tenants=tenants), secrets=publish.Secrets(hashes))
    first, further = hashes["a-team"]
    assert made.tenants.known == [tables.Tenant("a-team", first, [further]), tables.Tenant("b-team", "")]
    assert b"sk-secret-key" not in tables.encode(made)


def test_a_cache_starts_afresh_with_another_model() -> None:
    snapshot = world(cache=True)
    made = table(snapshot).cache
    assert made is not None
    assert (made.name, made.ttl_seconds, made.max_entries, made.shared) == ("answers", 600.0, 5, False)
    small = snapshot.tiers["team/small"]
    other = tier("small", "0.7", model={"name": "another-model", "quality": "0.7"})
    moved = dataclasses.replace(
        snapshot, tiers={**snapshot.tiers, "team/small": dataclasses.replace(small, spec=other.spec)}
    )
    again = table(moved).cache
    assert again is not None
    assert again.generation != made.generation


def test_a_policy_that_names_no_cache_or_a_missing_one_has_none() -> None:
    assert table(world()).cache is None
    assert table(dataclasses.replace(world(cache=True), caches={})).cache is None


def with_lengths(snapshot: Snapshot, tokens: float) -> Snapshot:
    policy = snapshot.policies[POLICY]
    fresh = signals.Fresh(tokens, 1.0)
    traffic = {"default": ClassTraffic(signals.Fresh(3.0, 1.0), fresh, fresh)}
    return dataclasses.replace(snapshot, policies={POLICY: dataclasses.replace(policy, traffic=traffic)})


def test_the_noise_of_a_measurement_makes_no_new_table() -> None:
    snapshot = world(replica("a"))
    first = table(with_lengths(snapshot, 1500.0))
    for tokens in (1400.0, 1450.0, 1550.0, 1600.0):
        assert table(with_lengths(snapshot, tokens), previous=first).content_hash == first.content_hash
    assert table(with_lengths(snapshot, 9000.0), previous=first).content_hash != first.content_hash


def test_noise_never_adds_up_unseen() -> None:
    snapshot = world(replica("a"))
    made = first = table(with_lengths(snapshot, 1000.0))
    for step in range(1, 60):
        made = table(with_lengths(snapshot, 1000.0 * 1.05**step), previous=made)
    now, then = made.tiers[0].rates.output_usd_per_token, first.tiers[0].rates.output_usd_per_token
    exact = table(with_lengths(snapshot, 1000.0 * 1.05**59)).tiers[0].rates.output_usd_per_token
    assert now != then
    assert now == pytest.approx(exact, rel=publish.NOISE * 1.2)


def test_another_price_is_told_at_once() -> None:
    snapshot = world(replica("a"))
    first = table(snapshot)
    small = snapshot.tiers["team/small"]
    dearer = dataclasses.replace(
        small.variants[0], price=dataclasses.replace(small.variants[0].price, usd_per_hour=4.2)
    )  # type: ignore[type-var]
    moved = dataclasses.replace(
        snapshot, tiers={**snapshot.tiers, "team/small": dataclasses.replace(small, variants=(dearer,))}
    )
    assert table(moved, previous=first).tiers[0].rates.output_usd_per_token > first.tiers[0].rates.output_usd_per_token


@given(
    st.dictionaries(
        st.sampled_from(["team/small", "team/large", "team/frontier", "team/gone"]), st.floats(0, 1), max_size=4
    )
)
def test_any_plan_gives_a_table_that_routers_accept(weights: dict[str, float]) -> None:
    made = table(world(replica("a"), classes=CLASSES), {"rest": weights, "secret": weights, "hard": weights})
    tables.check(made)
    assert tables.decode(tables.encode(made)).content_hash == made.content_hash
