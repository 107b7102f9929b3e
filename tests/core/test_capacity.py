"""The capacity model: its limits, its arithmetic, and the engine simulated step by step beside it."""

from __future__ import annotations

import collections
import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core import capacity, units
from trimtab_core.api import v1alpha1
from trimtab_core.capacity import Limits, Mix
from trimtab_core.snapshot import CapacityProfile

H100 = CapacityProfile(0.0063, 0.00013, 40_000.0, 400_000, 256, 60.0)
L4 = CapacityProfile(0.020, 0.0008, 8_000.0, 120_000, 128, 60.0)
CHAT = Mix(1000.0, 200.0)


@pytest.mark.parametrize(
    ("limits", "binding"),
    [
        pytest.param(Limits(), "sequences", id="no promise: the slots"),
        pytest.param(Limits(itl_seconds=0.03), "itl", id="tokens must come fast"),
        pytest.param(Limits(ttft_seconds=0.15), "ttft", id="the first token must come fast"),
        pytest.param(Limits(e2e_seconds=8.0), "e2e", id="the whole answer must come fast"),
    ],
)
def test_the_binding_limit_is_named(limits: Limits, binding: str) -> None:
    found = capacity.admissible_load(H100, CHAT, limits)
    assert (found.feasible, found.limit) == (True, binding)


def test_a_small_cache_binds_before_the_slots() -> None:
    small = dataclasses.replace(H100, kv_tokens=24_000)  # 24,000 / (1,000 + 200) = 20 sequences
    found = capacity.admissible_load(small, CHAT, Limits())
    assert found.limit == "kv"
    assert found.sequences == pytest.approx(20.0, rel=1e-3)


def test_the_work_of_a_request_is_prefill_and_its_share_of_decoding() -> None:
    found = capacity.admissible_load(H100, CHAT, Limits(itl_seconds=0.03))
    tokens = CHAT.input_tokens * found.seconds_per_input_token + CHAT.output_tokens * found.seconds_per_output_token
    assert tokens == pytest.approx(found.seconds_per_request) == pytest.approx(1 / found.requests_per_second)
    assert found.seconds_per_input_token == pytest.approx(1 / 40_000)


def test_a_promise_below_a_lone_request_is_infeasible_and_says_what_is_possible() -> None:
    # A lone request's step takes 20.8 ms.
    found = capacity.admissible_load(L4, CHAT, Limits(itl_seconds=0.015))
    assert not found.feasible
    assert found.reason.startswith("inter-token latency of 15ms can't be met")
    assert "takes 21ms at the 95% tail" in found.reason
    assert found.requests_per_second > 0
    assert capacity.best_achievable(L4, CHAT).itl_seconds == pytest.approx(0.0208)


def test_the_best_achievable_is_the_edge_of_the_feasible() -> None:
    best = capacity.best_achievable(L4, CHAT)
    for name in ("ttft_seconds", "itl_seconds", "e2e_seconds"):
        edge = getattr(best, name)
        assert capacity.admissible_load(L4, CHAT, Limits(**{name: edge * 1.001})).feasible
        assert not capacity.admissible_load(L4, CHAT, Limits(**{name: edge * 0.999})).feasible


def test_the_strictest_of_several_promises_counts_part_by_part() -> None:
    tier = v1alpha1.LatencySlo.model_validate({"ttft": {"p95": "1s"}, "itl": {"p95": "60ms"}})
    own = v1alpha1.LatencySlo.model_validate({"ttft": {"p95": "2s"}, "e2e": {"p95": "20s"}, "attainment": "0.99"})
    assert capacity.limits(tier, None, own) == Limits(1.0, 0.06, 20.0, 0.99)


profiles = st.builds(
    CapacityProfile,
    st.floats(0.002, 0.05),
    st.floats(0.0, 0.005),
    st.floats(500.0, 100_000.0),
    st.integers(10_000, 2_000_000),
    st.integers(1, 512),
    st.just(60.0),
)
mixes = st.builds(Mix, st.floats(1.0, 20_000.0), st.floats(1.0, 4_000.0), st.floats(0.0, 1.0), st.floats(1.0, 8.0))
promises = st.builds(
    Limits, st.none() | st.floats(0.01, 10.0), st.none() | st.floats(0.005, 0.5), st.none() | st.floats(0.1, 100.0)
)


@settings(deadline=None)
@given(profiles, mixes, promises)
def test_any_replica_has_a_finite_positive_capacity_that_stricter_promises_never_raise(
    profile: CapacityProfile, mix: Mix, limits: Limits
) -> None:
    found = capacity.admissible_load(profile, mix, limits)
    assert 0 < found.requests_per_second < float("inf")
    assert found.sequences >= 1
    assert min(found.seconds_per_input_token, found.seconds_per_output_token) >= 0
    assert bool(found.reason) is not found.feasible
    if found.feasible and limits.itl_seconds is not None:
        relaxed = dataclasses.replace(limits, itl_seconds=limits.itl_seconds * 1.5)
        assert capacity.admissible_load(profile, mix, relaxed).requests_per_second >= found.requests_per_second * 0.999


@settings(deadline=None)
@given(profiles, mixes, promises)
def test_burstier_or_longer_requests_never_raise_the_capacity(
    profile: CapacityProfile, mix: Mix, limits: Limits
) -> None:
    found = capacity.admissible_load(profile, mix, limits)
    for heavier in (
        dataclasses.replace(mix, burstiness=mix.burstiness * 2),
        dataclasses.replace(mix, input_tokens=mix.input_tokens * 1.5),
    ):
        other = capacity.admissible_load(profile, heavier, limits)
        if found.feasible and other.feasible:
            assert other.requests_per_second <= found.requests_per_second * 1.001


@dataclasses.dataclass
class Sequence:
    """One request of the step-by-step engine."""

    arrived: float
    input_left: float
    output_tokens: int
    started: float = 0.0
    generated: int = 0


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def run_steps(profile: CapacityProfile, mix: Mix, rate: float, count: int) -> tuple[list[float], list[float]]:
    """TTFT and ITL of requests through an engine simulated step by step: Poisson arrivals, exponential lengths."""
    rng, at = random.Random(7), 0.0
    coming: collections.deque[Sequence] = collections.deque()
    for _ in range(count):
        at += rng.expovariate(rate)
        lengths = rng.expovariate(1 / mix.input_tokens), rng.expovariate(1 / mix.output_tokens)
        coming.append(Sequence(at, max(1.0, lengths[0]), max(2, round(lengths[1]))))
    now, waiting, running, done = 0.0, collections.deque[Sequence](), list[Sequence](), list[tuple[float, float]]()
    while coming or waiting or running:
        if not waiting and not running:
            now = max(now, coming[0].arrived)
        while coming and coming[0].arrived <= now:
            waiting.append(coming.popleft())
        room, admitted = capacity.CHUNK_TOKENS, []
        while waiting and room > 0:
            take = min(room, waiting[0].input_left)
            waiting[0].input_left -= take
            room -= take
            if waiting[0].input_left:
                break
            admitted.append(waiting.popleft())
        prefill = (capacity.CHUNK_TOKENS - room) / profile.prefill_tokens_per_second
        now += profile.itl_base_seconds + profile.itl_per_sequence_seconds * (len(running) + len(admitted)) + prefill
        for sequence in running:
            sequence.generated += 1
            if sequence.generated == sequence.output_tokens:
                first = sequence.started
                done.append((first - sequence.arrived, (now - first) / (sequence.output_tokens - 1)))
        running = [sequence for sequence in running if sequence.generated < sequence.output_tokens]
        for sequence in admitted:
            sequence.started, sequence.generated = now, 1
        running += admitted
    settled = done[len(done) // 5 :]
    return [ttft for ttft, _ in settled], [itl for _, itl in settled]


@pytest.mark.parametrize(
    ("profile", "mix", "limits"),
    [
        pytest.param(H100, Mix(1024.0, 256.0), Limits(itl_seconds=0.03), id="8B on H100, ITL binds"),
        pytest.param(L4, CHAT, Limits(itl_seconds=0.06), id="8B on L4, ITL binds"),
        pytest.param(L4, CHAT, Limits(ttft_seconds=0.7), id="8B on L4, TTFT binds"),
    ],
)
def test_at_the_largest_load_the_simulated_engine_just_keeps_the_promise(
    profile: CapacityProfile, mix: Mix, limits: Limits
) -> None:
    """The promised 95th percentile, within 15 % (one run of 4,000 requests has a noise of about 5 %)."""
    load = capacity.admissible_load(profile, mix, limits).requests_per_second
    ttft, itl = run_steps(profile, mix, load, 4000)
    measured, promised = (
        (percentile(itl, 0.95), limits.itl_seconds)
        if limits.itl_seconds
        else (percentile(ttft, 0.95), limits.ttft_seconds)
    )
    assert measured == pytest.approx(promised, rel=0.15)


def test_the_reason_is_readable_with_units() -> None:
    reason = capacity.admissible_load(L4, CHAT, Limits(ttft_seconds=0.1)).reason
    assert reason.startswith("time to first token of 100ms can't be met: a lone request of 1000 in and 200 out tokens")
    assert units.format_duration(0.1) in reason
