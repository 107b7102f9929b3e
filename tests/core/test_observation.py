"""From readings to the snapshot: what is fresh, what is missing, what is remembered, what counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import answers, observation, signals, telemetry
from trimtab_core.api import v1alpha1
from trimtab_core.observation import EngineReading, Observation, ObservedReplica, ObservedVariant
from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh, Missing, Sample, Stale
from trimtab_core.snapshot import ClassTraffic, ReplicaPhase, Snapshot

NOW = 1_800_000_000.0
KEY = VariantKey("team/small", "l4")
POLICY = "team/chat"


def tier(status: Mapping[str, object] | None = None, **variant: Any) -> v1alpha1.InferenceTier:
    one = {"name": "l4", "accelerator": {"type": "L4"}, **variant}
    spec = {"model": {"name": "llama-8b", "quality": "0.6"}, "variants": [one]}
    metadata = {"name": "small", "namespace": "team"}
    return v1alpha1.InferenceTier.model_validate({"metadata": metadata, "spec": spec, "status": status or {}})


def policy(status: dict[str, object] | None = None, **spec: object) -> v1alpha1.RoutingPolicy:
    whole = {"tiers": [{"ref": "small"}, {"ref": "large"}], **spec}
    metadata = {"name": "chat", "namespace": "team"}
    return v1alpha1.RoutingPolicy.model_validate({"metadata": metadata, "spec": whole, "status": status or {}})


def answer(*labels: str, value: float, age: float = 5.0) -> telemetry.Answer:
    return telemetry.Answer(labels, value, NOW - age)


def seen(
    *,
    tiers: tuple[v1alpha1.InferenceTier, ...] = (),
    policies: tuple[v1alpha1.RoutingPolicy, ...] = (),
    variant: ObservedVariant | None = None,
    engines: dict[str, EngineReading] | None = None,
    **found: object,
) -> Observation:
    variants = {KEY: variant} if variant else {}
    return Observation(tiers, policies, (), variants, {**found}, engines or {})  # type: ignore[dict-item]


def take(observed: Observation, previous: Snapshot | None = None, now: float = NOW) -> Snapshot:
    return observation.snapshot(observed, now=now, epoch=4, previous=previous)


def traffic(observed: Observation, previous: Snapshot | None = None, now: float = NOW) -> ClassTraffic:
    return take(observed, previous, now).policies[POLICY].traffic["default"]


def arrivals(value: float, age: float = 5.0) -> tuple[telemetry.Answer, ...]:
    return (answer(POLICY, "default", value=value, age=age),)


@pytest.mark.parametrize(
    ("value", "age", "expected"),
    [
        pytest.param(3.0, 5.0, Fresh(3.0, 5.0), id="recent"),
        pytest.param(3.0, 45.0, Fresh(3.0, 45.0), id="just fresh"),
        pytest.param(3.0, 46.0, Stale(3.0, 46.0), id="old"),
        pytest.param(0.0, 5.0, Fresh(0.0, 5.0), id="measured zero"),
        pytest.param(math.nan, 5.0, Missing("unusable value nan"), id="NaN"),
        pytest.param(math.inf, 5.0, Missing("unusable value inf"), id="infinite"),
        pytest.param(-1.0, 5.0, Missing("unusable value -1.0"), id="negative"),
        pytest.param(3.0, 301.0, Missing("last sample is 301 s old"), id="too old"),
        pytest.param(3.0, -20.0, Fresh(3.0, 0.0), id="from the future"),
    ],
)
def test_arrivals_are_judged_by_their_age(value: float, age: float, expected: signals.Signal) -> None:
    assert traffic(seen(policies=(policy(),), arrivals_per_second=arrivals(value, age))).arrivals_per_second == expected


def test_a_failed_query_an_empty_answer_and_a_quiet_class_are_three_things() -> None:
    failed = seen(policies=(policy(),), arrivals_per_second=observation.QueryFailure("refused"))
    assert traffic(failed).arrivals_per_second == Missing("refused")
    assert traffic(seen(policies=(policy(),), arrivals_per_second=())).arrivals_per_second == Missing("no series")
    tables = (answer(POLICY, "1.1-abc", "router-1", value=1.0, age=7.0),)
    quiet = seen(policies=(policy(),), arrivals_per_second=(), tables=tables)
    assert traffic(quiet).arrivals_per_second == Fresh(0.0, 7.0)


def test_a_router_of_another_policy_is_no_evidence() -> None:
    tables = (answer("team/other", "1.1-abc", "router-1", value=1.0),)
    assert traffic(seen(policies=(policy(),), arrivals_per_second=(), tables=tables)).arrivals_per_second == Missing(
        "no series"
    )


def test_means_are_tokens_over_requests_that_a_tier_answered() -> None:
    observed = seen(
        policies=(policy(),),
        requests_per_second=(
            answer(POLICY, "default", "small", "ok", value=2.0),
            answer(POLICY, "default", "large", "ok", value=2.0),
            answer(POLICY, "default", "cache", "hit", value=50.0),
        ),
        input_tokens_per_second=(
            answer(POLICY, "default", "small", value=1000.0),
            answer(POLICY, "default", "large", value=3000.0),
        ),
        output_tokens_per_second=(answer(POLICY, "default", "small", value=400.0, age=60.0),),
    )
    found = traffic(observed)
    assert found.input_tokens == Fresh(1000.0, 5.0)  # (1000 + 3000) / (2 + 2)
    assert found.output_tokens == Stale(100.0, 60.0)  # 400 / 4, as old as its oldest part


def test_no_request_ended_and_the_mean_is_missing_not_infinite() -> None:
    observed = seen(
        policies=(policy(),),
        requests_per_second=(answer(POLICY, "default", "small", "ok", value=0.0),),
        input_tokens_per_second=(answer(POLICY, "default", "small", value=0.0),),
    )
    assert traffic(observed).input_tokens == Missing("nothing to divide by")


def test_what_was_known_ages_from_fresh_to_stale_to_missing() -> None:
    before = take(seen(policies=(policy(),), arrivals_per_second=arrivals(8.0, age=5.0)))
    gone = seen(policies=(policy(),), arrivals_per_second=observation.QueryFailure("down"))
    assert traffic(gone, before, NOW + 15).arrivals_per_second == Fresh(8.0, 20.0)
    assert traffic(gone, before, NOW + 60).arrivals_per_second == Stale(8.0, 65.0)
    assert traffic(gone, before, NOW + 400).arrivals_per_second == Missing("down")


def test_what_was_known_ages_over_several_cycles_too() -> None:
    taken = take(seen(policies=(policy(),), arrivals_per_second=arrivals(8.0, age=0.0)))
    gone = seen(policies=(policy(),), arrivals_per_second=observation.QueryFailure("down"))
    for step in range(1, 25):
        taken = take(gone, taken, NOW + 15.0 * step)
        signal = taken.policies[POLICY].traffic["default"].arrivals_per_second
        expected = Fresh if step <= 3 else Stale if step <= 20 else Missing  # 45 s fresh, 300 s stale
        assert isinstance(signal, expected), step


def test_only_fresh_arrivals_enter_the_history_and_old_ones_leave_it() -> None:
    first = take(seen(policies=(policy(),), arrivals_per_second=arrivals(1.0)))
    second = take(seen(policies=(policy(),), arrivals_per_second=arrivals(2.0, age=100.0)), first, NOW + 15)
    third = take(seen(policies=(policy(),), arrivals_per_second=arrivals(3.0, age=-30.0)), second, NOW + 30)
    assert third.policies[POLICY].traffic["default"].history == ((NOW, 1.0), (NOW + 30, 3.0))
    later = take(seen(policies=(policy(),), arrivals_per_second=()), third, NOW + 7215)
    assert later.policies[POLICY].traffic["default"].history == ((NOW + 30, 3.0),)


def test_the_cache_ratio_is_hits_over_arrivals_and_never_above_one() -> None:
    observed = seen(
        policies=(policy(cache={"ref": "answers"}),),
        arrivals_per_second=arrivals(10.0),
        cache_results_per_second=(
            answer(POLICY, "default", "hit", value=12.0),
            answer(POLICY, "default", "miss", value=3.0),
        ),
    )
    assert traffic(observed).cache_hit_ratio == Fresh(1.0, 5.0)
    assert traffic(seen(policies=(policy(),), arrivals_per_second=arrivals(10.0))).cache_hit_ratio == Missing(
        "no cache"
    )


def test_attainment_is_that_of_the_promise_that_was_met_least() -> None:
    def counts(ttft: float, e2e: float) -> tuple[telemetry.Answer, ...]:
        return (
            answer(POLICY, "default", "small", "ttft", value=ttft),
            answer(POLICY, "default", "small", "e2e", value=e2e),
        )

    observed = seen(
        tiers=(tier(),),
        policies=(policy(),),
        slo_measured_per_second=counts(10.0, 10.0),
        slo_met_per_second=counts(9.9, 8.0),
    )
    taken = take(observed)
    assert taken.tiers["team/small"].slo_attainment == Fresh(0.8, 5.0)
    assert taken.policies[POLICY].slo_attainment == Fresh(0.8, 5.0)


def test_a_promise_that_was_never_met_is_zero_not_missing() -> None:
    observed = seen(
        tiers=(tier(),),
        slo_measured_per_second=(answer(POLICY, "default", "small", "ttft", value=4.0),),
        slo_met_per_second=(),
    )
    assert take(observed).tiers["team/small"].slo_attainment == Fresh(0.0, 5.0)


def replica(name: str, phase: ReplicaPhase = ReplicaPhase.READY, **more: object) -> ObservedReplica:
    given = {"created_at": NOW - 500, "ready_at": NOW - 460, "address": f"{name}:8000", **more}
    return ObservedReplica(name, phase, **given)  # type: ignore[arg-type]


def test_engine_gauges_belong_to_replicas_that_exist() -> None:
    variant = ObservedVariant(2, (replica("a"), replica("b")))
    engines = {
        "a": EngineReading(Sample(3.0, NOW - 1), Sample(math.nan, NOW), None),
        "gone": EngineReading(Sample(99.0, NOW), Sample(99.0, NOW), Sample(1.0, NOW)),
    }
    first, second = (
        take(seen(tiers=(tier(),), variant=variant, engines=engines)).tiers["team/small"].variants[0].replicas
    )
    assert first.running == Fresh(3.0, 1.0)
    assert first.waiting == Missing("unusable value nan")
    assert first.kv_usage == Missing("no sample")
    assert second.running == Missing("no sample")


def test_a_sleeping_engine_is_no_capacity() -> None:
    variant = ObservedVariant(1, (replica("a"),))
    taken = take(seen(tiers=(tier(),), variant=variant, engines={"a": EngineReading(asleep=True)}))
    assert taken.tiers["team/small"].variants[0].count(ReplicaPhase.READY) == 0


@pytest.mark.parametrize(
    ("desired", "marked", "others", "asked_for"),
    [
        pytest.param(None, 0, 0, 0, id="no Deployment yet"),
        pytest.param(3, 0, 3, 3, id="nobody leaves"),
        pytest.param(3, 1, 2, 2, id="one was told to leave"),
        pytest.param(2, 1, 2, 2, id="its count fell already, its pod is not yet deleted"),
        pytest.param(3, 2, 2, 2, id="one of two is given up by the count"),
        pytest.param(3, 1, 1, 2, id="a pod is still missing"),
    ],
)
def test_replicas_told_to_leave_are_not_asked_for(
    desired: int | None, marked: int, others: int, asked_for: int
) -> None:
    replicas = [replica(f"m{n}", ReplicaPhase.DRAINING, drain_since=NOW - 9) for n in range(marked)]
    replicas += [replica(f"r{n}") for n in range(others)]
    observed = ObservedVariant(desired, tuple(replicas))
    assert observed.asked_for == asked_for
    assert take(seen(tiers=(tier(),), variant=observed)).tiers["team/small"].variants[0].desired == asked_for


def test_memory_comes_from_status_and_an_edit_is_noticed() -> None:
    status = {
        "variants": [{"name": "l4", "lastScaled": "2027-01-15T07:59:00Z", "fewerSince": "2027-01-15T07:58:30.500Z"}]
    }
    told = ObservedVariant(3, (), told=3)
    memory = take(seen(tiers=(tier(status),), variant=told)).tiers["team/small"].variants[0].memory
    assert memory.last_scaled_at == NOW - 60  # 2027-01-15T08:00:00Z
    assert memory.fewer_since == NOW - 89.5
    assert memory.override_until is None
    edited = ObservedVariant(5, (), told=3)
    assert (
        take(seen(tiers=(tier(status),), variant=edited)).tiers["team/small"].variants[0].memory.override_until
        == NOW + 1800
    )
    scaled = ObservedVariant(5, (), "HorizontalPodAutoscaler x", told=3)
    assert (
        take(seen(tiers=(tier(status),), variant=scaled)).tiers["team/small"].variants[0].memory.override_until is None
    )


@pytest.mark.parametrize(
    ("ready_after", "status", "expected"),
    [
        pytest.param((40.0, 90.0, 50.0), None, 50.0, id="median of those that run"),
        pytest.param((), "75s", 75.0, id="as measured before"),
        pytest.param((), None, 33.0, id="as given"),
    ],
)
def test_start_up_is_measured_then_remembered_then_given(
    ready_after: tuple[float, ...], status: str | None, expected: float
) -> None:
    replicas = tuple(replica(f"r{n}", ready_at=NOW - 500 + after) for n, after in enumerate(ready_after))
    remembered = {"variants": [{"name": "l4", "startup": status}]} if status else {}
    given_tier = tier(remembered, profile={"startup": "33s"})
    found = take(seen(tiers=(given_tier,), variant=ObservedVariant(3, replicas))).tiers["team/small"].variants[0]
    assert found.profile is not None
    assert found.profile.startup_seconds == expected


def counters(at: float, *, sequences: float = 10.0, itl: float = 0.060, **changes: Any) -> EngineReading:
    """Of an engine that has run so many sequences at this speed for a day."""
    seconds = 86_400.0 + at - NOW
    gap_seconds, gaps = Sample(sequences * seconds, at), Sample(sequences * seconds / itl, at)
    reading = EngineReading(gap_seconds=gap_seconds, gaps=gaps, prompt_tokens=Sample(300.0 * seconds, at))
    return dataclasses.replace(reading, **changes)


def observed_for(cycles: int, *, status: Mapping[str, object] | None = None, age: float = 1.0, **spec: Any) -> Snapshot:
    """Cycles of 15 s up to now of one L4, whose prior is 74 ms + 0.7 ms a sequence; the engine takes 60 ms."""
    variant, taken = ObservedVariant(1, (replica("a"),)), None
    for number in range(cycles):
        now = NOW - 15.0 * (cycles - 1 - number)
        taken = take(
            seen(tiers=(tier(status, **spec),), variant=variant, engines={"a": counters(now - age)}), taken, now
        )
    assert taken is not None
    return taken


def test_what_engines_count_becomes_the_profile() -> None:
    variant = observed_for(30).tiers["team/small"].variants[0]
    assert variant.learned is not None
    assert variant.learned.samples == 29
    assert variant.profile is not None
    step = variant.profile.itl_base_seconds + 10 * variant.profile.itl_per_sequence_seconds
    assert step == pytest.approx(0.060 * (1 - 300 / variant.profile.prefill_tokens_per_second), rel=0.02)


@pytest.mark.parametrize(
    ("squares", "samples"),
    [
        pytest.param(210.0, 28, id="steady arrivals"),  # 10/s in windows of 2 s: (210/10 - 20)·30/29 = 1.03
        pytest.param(400.0, 0, id="bursts, between which the engine idles"),  # 20.7
    ],
)
def test_engines_are_learned_from_while_work_is_steady(squares: float, samples: int) -> None:
    variant, taken = ObservedVariant(1, (replica("a"),)), None
    for number in range(30):
        now = NOW + 15.0 * number
        counted = {"arrivals_per_second": 10.0, "arrival_squares_per_second": squares}
        rates = {name: (telemetry.Answer((POLICY, "default"), value, now),) for name, value in counted.items()}
        observed = seen(
            tiers=(tier(),), policies=(policy(),), variant=variant, engines={"a": counters(now - 1.0)}, **rates
        )
        taken = take(observed, taken, now)

    assert taken is not None
    learned = taken.tiers["team/small"].variants[0].learned
    assert learned is not None
    assert learned.samples == pytest.approx(samples, abs=1)  # the first cycle knows of no bursts yet


def test_what_the_user_wrote_stays_and_the_rest_is_learned() -> None:
    profile = observed_for(30, profile={"itlBase": "70ms"}).tiers["team/small"].variants[0].profile
    assert profile is not None
    assert profile.itl_base_seconds == pytest.approx(0.070)


def test_old_counters_teach_nothing() -> None:
    learned = observed_for(30, age=46.0).tiers["team/small"].variants[0].learned
    assert learned is not None
    assert (learned.samples, dict(learned.readings)) == (0, {})


def test_counters_of_two_moments_are_no_reading() -> None:
    reading = counters(NOW, gaps=Sample(1000.0, NOW - 10))
    observed = seen(tiers=(tier(),), variant=ObservedVariant(1, (replica("a"),)), engines={"a": reading})
    learned = take(observed).tiers["team/small"].variants[0].learned
    assert learned is not None
    assert dict(learned.readings) == {}


def test_a_model_that_nobody_knows_is_known_once_it_has_served_for_a_while() -> None:
    named, taken = tier(), None
    model = named.spec.model.model_copy(update={"name": "our-model"})
    named = named.model_copy(update={"spec": named.spec.model_copy(update={"model": model})})
    replicas = ObservedVariant(1, (replica("a", ready_at=NOW - 400),))  # made at NOW - 500
    gap_seconds = gaps = 0.0
    for number in range(60):
        now, sequences = NOW + 15.0 * number, 5.0 + 7.0 * (number // 10)
        gap_seconds, gaps = gap_seconds + 15.0 * sequences, gaps + 15.0 * sequences / (0.030 + 0.001 * sequences)
        told = {"gap_seconds": gap_seconds, "gaps": gaps, "prompt_tokens": 0.0, "kv_tokens": 50_000.0}
        reading = EngineReading(**{name: Sample(value, now) for name, value in told.items()})  # type: ignore[arg-type]
        taken = take(seen(tiers=(named,), variant=replicas, engines={"a": reading}), taken, now)
        if number == 5:
            assert taken.tiers["team/small"].variants[0].profile is None
    assert taken is not None
    profile = taken.tiers["team/small"].variants[0].profile
    assert profile is not None
    assert (profile.kv_tokens, profile.startup_seconds) == (50_000, 100.0)
    step = profile.itl_base_seconds + 40 * profile.itl_per_sequence_seconds
    assert step == pytest.approx(0.070, rel=0.1)


def test_another_process_goes_on_with_what_status_says() -> None:
    learned = {"itlBase": "50ms", "itlPerSequence": "0.9ms", "prefillTokensPerSecond": 4000, "kvTokens": 77_000}
    trust = {"samples": 40, "error": "0.03", "sequences": 12}
    status = {"variants": [{"name": "l4", "profile": learned, "learning": trust}]}
    variant = observed_for(1, status=status).tiers["team/small"].variants[0]
    assert variant.profile is not None
    assert variant.profile.itl_base_seconds == pytest.approx(0.050)
    assert variant.profile.itl_per_sequence_seconds == pytest.approx(0.0009)
    assert variant.profile.prefill_tokens_per_second == pytest.approx(4000)
    assert variant.profile.kv_tokens == 77_000


def test_another_model_forgets_what_was_learned_of_the_one_before() -> None:
    before = observed_for(30)
    other = tier()
    model = other.spec.model.model_copy(update={"name": "llama-3b"})
    other = other.model_copy(update={"spec": other.spec.model_copy(update={"model": model})})
    observed = seen(tiers=(other,), variant=ObservedVariant(1, (replica("a"),)), engines={"a": counters(NOW + 14)})
    learned = take(observed, before, NOW + 15).tiers["team/small"].variants[0].learned
    assert learned is not None
    assert (learned.samples, learned.law) == (1, None)


def test_a_price_comes_from_spec_then_catalogue_by_the_nodes_labels_and_else_from_nowhere() -> None:
    def price(variant: ObservedVariant, **spec: object) -> object:
        found = take(seen(tiers=(tier(**spec),), variant=variant)).tiers["team/small"].variants[0].price
        return found and (found.usd_per_hour, found.source)

    nowhere = ObservedVariant(1)
    assert price(nowhere, price={"usdPerHour": "0.35"}) == (0.35, "spec")
    assert price(nowhere) == (0.8048, "catalogue aws us-east-1 g6.xlarge")
    google = ObservedVariant(1, node_labels={"topology.kubernetes.io/region": "us-central1"})
    assert price(google) == (0.706832, "catalogue gcp us-central1 g2-standard-4")
    assert price(nowhere, accelerator={"type": "TPU-v9"}) is None


def test_an_external_tier_has_rates_per_token() -> None:
    external = {
        "url": "https://api.example.com/v1",
        "price": {"inputUsdPerMillionTokens": "2", "outputUsdPerMillionTokens": "8"},
    }
    spec = {"model": {"name": "frontier", "quality": "0.95"}, "external": external}
    made = v1alpha1.InferenceTier.model_validate({"metadata": {"name": "frontier", "namespace": "team"}, "spec": spec})
    rates = take(seen(tiers=(made,))).tiers["team/frontier"].token_rates
    assert rates is not None
    assert (rates.input_usd_per_token, rates.output_usd_per_token, rates.cached_input_usd_per_token) == (
        2e-6,
        8e-6,
        2e-6,
    )


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=6),
    st.floats(min_value=-1e4, max_value=1e4),
)
def test_no_reading_ever_makes_a_signal_that_is_no_number(values: list[float], age: float) -> None:
    names = answers.queries(60.0)
    found = {
        name: tuple(
            answer(*(f"{POLICY}" if label == "policy" else "default" for label in query.by), value=value, age=age)
            for value in values
        )
        for name, query in names.items()
    }
    taken = take(Observation((tier(),), (policy(),), (), {}, found, {}))
    every = [*vars_of(taken.policies[POLICY].traffic["default"]), taken.policies[POLICY].slo_attainment]
    for signal in every:
        number = signals.known(signal)
        assert number is None or (math.isfinite(number) and number >= 0)


def vars_of(found: ClassTraffic) -> list[signals.Signal]:
    return [found.arrivals_per_second, found.input_tokens, found.output_tokens, found.cache_hit_ratio]
