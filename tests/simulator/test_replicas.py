"""Processor sharing against arithmetic by hand, conservation for any load, and a replica's life."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core.snapshot import CapacityProfile, ReplicaPhase
from trimtab_sim import engine, replicas
from trimtab_sim.workload import Request

A, B, PREFILL = 0.020, 0.001, 10_000.0


def profile(**changes: float) -> CapacityProfile:
    """20 ms + 1 ms a sequence, 10,000 prompt tokens a second, 100,000 tokens of KV, 64 sequences, 30 s to start."""
    values: dict[str, float] = {"kv_tokens": 100_000, "max_sequences": 64, "startup_seconds": 30.0} | changes
    return CapacityProfile(A, B, PREFILL, **values)  # type: ignore[arg-type]


def request(number: int = 0, *, input_tokens: int = 500, output_tokens: int = 101, arrival_s: float = 0.0) -> Request:
    return Request(number, arrival_s, input_tokens, output_tokens)


def serve(requests: list[Request], **changes: float) -> list[replicas.Job]:
    """All requests through one engine, in the order in which they end."""
    clock = engine.Engine()
    processor = replicas.Processor(clock, profile(**changes))
    ended: list[replicas.Job] = []
    for one in requests:
        clock.at(one.arrival_s, lambda one=one: processor.submit(replicas.Job(one, ended.append)))  # type: ignore[misc]
    clock.run(until=1e6)
    assert processor.running == processor.waiting == 0
    assert processor.kv_usage == 0
    return ended


def test_a_lone_request_takes_its_prompt_and_one_step_a_token() -> None:
    (job,) = serve([request(input_tokens=500, output_tokens=101)])

    # first token: 500 / 10,000 for the prompt + one step of 20 + 1 ms; then 100 steps more
    assert job.first_token_at == pytest.approx(0.050 + 0.021)
    assert job.finished_at == pytest.approx(0.050 + 0.021 * 101)
    assert job.itl_seconds == pytest.approx(0.021)


def test_a_prompt_longer_than_a_chunk_takes_a_step_for_each_chunk() -> None:
    (job,) = serve([request(input_tokens=3 * replicas.CHUNK_TOKENS, output_tokens=1)])

    assert job.first_token_at == pytest.approx(3 * (0.021 + replicas.CHUNK_TOKENS / PREFILL))
    assert job.finished_at == job.first_token_at
    assert job.itl_seconds is None


@pytest.mark.parametrize("count", [1, 2, 4, 16, 64])
def test_equal_requests_share_the_steps_by_the_linear_law(count: int) -> None:
    jobs = serve([request(number, input_tokens=20, output_tokens=1001) for number in range(count)])

    # prompts of 20 tokens are all read within the first step, then count sequences run
    assert {round(job.itl_seconds or 0, 6) for job in jobs} == {round(A + B * count, 6)}


def test_a_prompt_in_the_batch_slows_the_others_by_its_chunk() -> None:
    first, second = sorted(
        serve([request(0, input_tokens=1, output_tokens=1001), request(1, input_tokens=2048, arrival_s=5.0)]),
        key=lambda job: job.request.number,
    )

    # reading the second prompt is one step of 2 sequences and a full chunk: 22 ms + 204.8 ms. It waits for the end of the
    # step under way: the first one took 21.1 ms, so another ends at 5.0191 s; after it 100 steps of 22 ms
    assert second.first_token_at is not None
    assert second.first_token_at - 5.0 == pytest.approx(0.2268 + 0.0191)
    assert second.finished_at is not None
    assert second.finished_at - second.first_token_at == pytest.approx(0.022 * 100)
    # the first needs 1001 steps of 21 ms, 101 of which took 1 ms more and one of them 204.8 ms more
    assert first.finished_at == pytest.approx(1001 * 0.021 + 1 / PREFILL + 101 * 0.001 + 0.2048)


def test_slots_are_given_first_come_first_served() -> None:
    jobs = serve([request(number, input_tokens=10, output_tokens=10) for number in range(6)], max_sequences=2)

    assert [job.request.number for job in jobs] == [0, 1, 2, 3, 4, 5]
    # three batches of two, each one step for the prompts and first tokens and nine more
    last = jobs[-1].finished_at
    assert last is not None
    assert last == pytest.approx(3 * 10 * 0.022, rel=0.05)


def test_a_request_waits_for_kv_cache_and_holds_back_those_behind_it() -> None:
    jobs = serve(
        [
            request(0, input_tokens=60, output_tokens=40),
            request(1, input_tokens=60, output_tokens=40),
            request(2, input_tokens=5, output_tokens=5),
        ],
        kv_tokens=150,
    )

    starts = {job.request.number: job.first_token_at for job in jobs}
    assert starts[1] is not None
    assert starts[0] is not None
    assert starts[2] is not None
    assert starts[1] > 40 * 0.021
    assert starts[2] >= starts[1] - 1e-9


def test_a_request_that_never_fits_is_refused() -> None:
    processor = replicas.Processor(engine.Engine(), profile(kv_tokens=100))

    with pytest.raises(ValueError, match="101 tokens don't fit into a KV cache of 100"):
        processor.submit(replicas.Job(request(input_tokens=100, output_tokens=1), lambda _: None))


def test_what_runs_and_what_waits_is_counted() -> None:
    clock = engine.Engine()
    processor = replicas.Processor(clock, profile(max_sequences=2))
    for number in range(5):
        processor.submit(replicas.Job(request(number), lambda _: None))

    assert (processor.running, processor.waiting) == (2, 3)
    assert processor.kv_usage == pytest.approx(2 * 601 / 100_000)

    clock.run(until=1.0)
    processor.advance()

    assert processor.sequence_seconds == pytest.approx(2.0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(1, 5000), st.integers(1, 300)),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 8),
    st.integers(5300, 20_000),
)
def test_every_request_ends_once_and_no_faster_than_alone(
    load: list[tuple[float, int, int]], slots: int, kv_tokens: int
) -> None:
    requests = [
        request(number, arrival_s=time, input_tokens=given_, output_tokens=made)
        for number, (time, given_, made) in enumerate(load)
    ]

    jobs = serve(requests, max_sequences=slots, kv_tokens=kv_tokens)

    assert sorted(job.request.number for job in jobs) == list(range(len(load)))
    for job in jobs:
        assert job.first_token_at is not None
        assert job.finished_at is not None
        alone = job.request.input_tokens / PREFILL + (A + B)
        assert job.first_token_at - job.request.arrival_s >= alone - 1e-6
        assert job.finished_at >= job.first_token_at
        if job.itl_seconds is not None:
            assert job.itl_seconds >= A + B - 1e-9


def test_equal_loads_give_equal_results_to_the_last_bit() -> None:
    rng = random.Random(5)
    requests = [
        request(number, arrival_s=number * 0.1, input_tokens=rng.randint(1, 3000), output_tokens=rng.randint(1, 300))
        for number in range(300)
    ]

    first, second = ([(j.request.number, j.first_token_at, j.finished_at) for j in serve(requests)] for _ in range(2))

    assert first == second


LOAD = [
    request(number, arrival_s=number * 0.11, input_tokens=17 + 97 * number % 3500, output_tokens=1 + 61 * number % 300)
    for number in range(200)
]


def watched(looks: list[float]) -> tuple[replicas.Processor, dict[int, tuple[float, float]]]:
    """The load through one engine whose counters are read at these times; when each request began and ended to answer."""
    clock, ended = engine.Engine(), list[replicas.Job]()
    processor = replicas.Processor(clock, profile(max_sequences=20, kv_tokens=30_000))
    for at in looks:
        clock.at(at, processor.advance, engine.Order.MEASURE)
    clock.feed(
        iter(LOAD), lambda one: one.arrival_s, lambda one: processor.submit(replicas.Job(one, ended.append)),
        engine.Order.ARRIVE,
    )  # fmt: skip
    clock.run(until=1e4)
    return processor, {job.request.number: (job.first_token_at or 0.0, job.finished_at or 0.0) for job in ended}


def test_counters_add_up_to_what_the_requests_saw() -> None:
    processor, seen = watched([])

    assert processor.prompt_tokens == pytest.approx(sum(one.input_tokens for one in LOAD))
    assert processor.gaps == pytest.approx(sum(one.output_tokens - 1 for one in LOAD))
    assert processor.gap_seconds == pytest.approx(sum(finished - first for first, finished in seen.values()))


@given(st.lists(st.floats(0, 60), max_size=30))
@settings(max_examples=25, deadline=None)
def test_looking_changes_nothing(looks: list[float]) -> None:
    (plain, seen), (read, found) = watched([]), watched(looks)

    assert found.keys() == seen.keys()
    for number, times in seen.items():
        assert found[number] == pytest.approx(times, abs=1e-6)
    assert (read.gaps, read.gap_seconds, read.sequence_seconds) == pytest.approx(
        (plain.gaps, plain.gap_seconds, plain.sequence_seconds)
    )


def test_in_the_middle_of_a_step_counters_stand_in_between() -> None:
    clock = engine.Engine()
    processor = replicas.Processor(clock, profile())
    processor.submit(replicas.Job(request(input_tokens=500, output_tokens=101), lambda _: None))

    # the first step takes 21 ms and 50 ms for the prompt, 100 tokens of which are read after a fifth of the reading time:
    # 100/2048 of a step that would take 21 + 204.8 ms with a whole chunk
    clock.run(until=100 / 2048 * 0.2258)
    processor.advance()
    assert processor.prompt_tokens == pytest.approx(100)
    assert processor.gaps == 0

    # the first token comes at 71 ms; 10.5 steps of 21 ms later
    clock.run(until=0.071 + 10.5 * 0.021)
    processor.advance()
    assert processor.prompt_tokens == 500
    assert (processor.gaps, processor.gap_seconds) == pytest.approx((10.5, 10.5 * 0.021))


def test_who_finds_the_chunk_full_joins_the_step_that_has_room() -> None:
    first, second = serve([request(0, input_tokens=2 * 2048, output_tokens=1), request(1, output_tokens=1)])

    # two steps of one sequence and a full chunk; the second request is read in the third, alone by then
    assert first.finished_at == pytest.approx(2 * 0.2258)
    assert second.first_token_at == pytest.approx(2 * 0.2258 + 0.021 + 0.050)


class Life:
    """A replica and the record of its phases."""

    def __init__(self, **changes: float) -> None:
        self.clock = engine.Engine()
        self.phases: list[tuple[float, ReplicaPhase | None]] = []
        self.replica = replicas.Replica(
            "small-1",
            self.clock,
            profile(**changes),
            lambda replica: self.phases.append((self.clock.now, replica.phase)),
        )
        self.ended: list[replicas.Job] = []

    def submit(self, **lengths: int) -> None:
        self.replica.submit(replicas.Job(request(**lengths), self.ended.append))


def test_a_replica_is_pending_for_its_start_up_then_ready() -> None:
    life = Life()

    with pytest.raises(ValueError, match="small-1 is Pending, not Ready"):
        life.submit()
    life.clock.run(until=60)

    assert life.phases == [(30.0, ReplicaPhase.READY)]
    assert (life.replica.created_at, life.replica.ready_at) == (0.0, 30.0)


def test_a_draining_replica_finishes_its_requests_and_goes() -> None:
    life = Life()
    life.clock.run(until=30)
    life.submit(input_tokens=10, output_tokens=100)

    life.replica.drain(timeout_s=120)
    with pytest.raises(ValueError, match="Draining"):
        life.submit()
    life.clock.run(until=200)

    assert [phase for _, phase in life.phases] == [ReplicaPhase.READY, ReplicaPhase.DRAINING, None]
    assert life.ended[0].finished_at is not None
    assert life.replica.gone_at == life.ended[0].finished_at == pytest.approx(30 + 0.001 + 100 * 0.021)


def test_an_empty_replica_is_gone_as_soon_as_it_drains() -> None:
    life = Life()
    life.clock.run(until=40)
    life.replica.drain(timeout_s=120)

    assert life.replica.gone_at == 40


def test_a_drain_ends_at_its_time_limit_with_what_is_unfinished() -> None:
    life = Life()
    life.clock.run(until=30)
    life.submit(input_tokens=10, output_tokens=10_000)
    life.replica.drain(timeout_s=5)

    life.clock.run(until=100)

    assert life.replica.gone_at == 35
    assert [job.finished_at for job in life.ended] == [None]


def test_a_pending_replica_that_is_not_wanted_any_more_never_becomes_ready() -> None:
    life = Life()
    life.clock.run(until=10)

    life.replica.drain(timeout_s=120)
    life.clock.run(until=100)

    assert life.phases == [(10.0, None)]


def test_a_killed_replica_ends_all_its_requests_once() -> None:
    life = Life(max_sequences=2)
    life.clock.run(until=30)
    for _ in range(4):
        life.submit()
    life.clock.run(until=31)

    life.replica.kill()
    life.replica.kill()
    life.clock.run(until=100)

    assert len(life.ended) == 4
    assert all(job.finished_at is None for job in life.ended)
    assert life.replica.processor.running == life.replica.processor.waiting == 0


def ready() -> Life:
    """A replica that is ready at time 0."""
    life = Life()
    life.replica.start_now()
    return life


def test_a_frozen_replica_looks_ready_and_goes_on_where_it_stopped() -> None:
    life = ready()
    life.submit(input_tokens=500, output_tokens=101)
    life.clock.run(until=1.0)

    life.replica.freeze()
    life.submit(input_tokens=500, output_tokens=101)
    life.clock.run(until=101.0)
    assert life.replica.phase is ReplicaPhase.READY
    assert life.replica.frozen
    assert not life.ended
    life.replica.thaw()
    life.clock.run(until=200.0)

    # alone it would have taken 2.171 s; 100 s of standstill, and a second sequence beside it from then on
    first, second = life.ended
    assert first.finished_at is not None
    assert first.finished_at == pytest.approx(102.2, abs=0.15)
    assert second.first_token_at is not None
    assert second.first_token_at > 101.0


def test_a_restarted_engine_drops_its_requests_and_starts_in_its_place() -> None:
    life = ready()
    life.submit()
    life.clock.run(until=1.0)

    life.replica.restart()
    life.clock.run(until=40.0)

    assert life.phases[1:] == [(1.0, ReplicaPhase.PENDING), (31.0, ReplicaPhase.READY)]
    assert [job.finished_at for job in life.ended] == [None]
    assert (life.replica.created_at, life.replica.ready_at) == (1.0, 31.0)


def test_a_preempted_replica_finishes_what_fits_into_the_notice() -> None:
    life = ready()
    life.submit(output_tokens=101)  # 2.2 s
    life.submit(output_tokens=10_001)  # 3.5 min

    life.replica.preempt(30.0)
    life.clock.run(until=100.0)

    assert life.phases[1:] == [(0.0, ReplicaPhase.DRAINING), (30.0, None)]
    assert [job.finished_at is not None for job in life.ended] == [True, False]


def test_a_replica_waits_for_a_machine_then_starts() -> None:
    clock = engine.Engine()
    replica = replicas.Replica("r", clock, profile(), lambda _: None, start=replicas.Start(100.0, 60.0))

    clock.run(until=99.0)
    assert replica.stuck
    clock.run(until=159.0)
    assert not replica.stuck
    assert replica.phase is ReplicaPhase.PENDING
    clock.run(until=160.0)

    assert (replica.phase, replica.placed_at, replica.ready_at) == (ReplicaPhase.READY, 100.0, 160.0)


def test_a_warm_engine_reads_only_what_its_prefix_cache_lacks() -> None:
    clock, ended = engine.Engine(), list[replicas.Job]()
    processor = replicas.Processor(clock, profile(kv_tokens=2000))
    later_turn = Request(0, 0.0, 500, 1, cached_tokens=400)
    for at, one in (
        (0.0, later_turn),  # cold: 500 tokens are read
        (1.0, request(input_tokens=500, output_tokens=1)),  # then 1000 of 2000 have been: half of the 400 is there
        (2.0, later_turn),
        (3.0, request(input_tokens=1500, output_tokens=1)),
        (4.0, later_turn),  # the whole cache has been filled
        (5.0, Request(0, 0.0, 500, 1, cached_tokens=500)),  # the last token is always computed
    ):
        clock.at(at, lambda one=one: processor.submit(replicas.Job(one, ended.append)))  # type: ignore[misc]

    clock.run(until=6.0)

    assert [job.cached_tokens for job in ended] == [0, 0, 200, 0, 400, 499]
    lengths = [500, 500, 300, 1500, 100, 1]
    assert [(job.first_token_at or 0.0) - job.submitted_at for job in ended] == pytest.approx(
        [0.021 + tokens / PREFILL for tokens in lengths]
    )
    assert processor.prompt_tokens == sum(lengths)


def test_an_engine_that_starts_anew_is_cold() -> None:
    clock, ended = engine.Engine(), list[replicas.Job]()
    processor = replicas.Processor(clock, profile(kv_tokens=1000))
    processor.submit(replicas.Job(request(input_tokens=900, output_tokens=1), ended.append))
    clock.run(until=1.0)

    processor.drop_all()
    processor.submit(replicas.Job(Request(0, 1.0, 500, 1, cached_tokens=400), ended.append))
    clock.run(until=2.0)

    assert [job.cached_tokens for job in ended] == [0, 0]
