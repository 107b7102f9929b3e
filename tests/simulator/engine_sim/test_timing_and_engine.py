"""The token clock and the engine that runs by it, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim.engine_sim import answers, engine, faults, sampling, scheduler, settings, timing

from . import virtual_time

BASE, PER_SEQUENCE, RATE = 0.010, 0.001, 1000.0


def make_engine(*given: faults.Fault, **fields: object) -> engine.Engine:
    values = {
        "sim_itl_base_ms": BASE * 1000,
        "sim_itl_per_seq_ms": PER_SEQUENCE * 1000,
        "sim_prefill_tokens_per_second": RATE,
        **fields,
    }
    loop = asyncio.get_running_loop()
    board = faults.Board(0)
    for fault in given:
        board.add(fault, loop.time())
    return engine.Engine(settings.Settings(**values), board, clock=loop.time, born=0.0)  # type: ignore[arg-type]


def ticket_of(
    one: engine.Engine, *, prompt: int = 10, output: int = 5, first: int = 7, **options: object
) -> engine.Ticket:
    wanted = sampling.Sampling(max_tokens=output, ignore_eos=True, **options)  # type: ignore[arg-type]
    return sampling.make_ticket(f"id-{first}", [[first] * prompt], wanted, one._config)


async def finish(*tickets: engine.Ticket) -> None:
    for ticket in tickets:
        while not ticket.done:
            await ticket.news()


def total(one: engine.Engine, name: str) -> float:
    return one.metrics._distributions[f"vllm:{name}"].sum


def count(one: engine.Engine, name: str, label: str = "") -> float:
    return one.metrics._values[f"vllm:{name}", label].value


@pytest.mark.parametrize(
    ("running", "prefill", "scale", "seconds"),
    [
        pytest.param(1, 0, 1.0, 0.011, id="one sequence: 10 + 1·1 ms"),
        pytest.param(32, 0, 1.0, 0.042, id="thirty-two sequences: 10 + 1·32 ms"),
        pytest.param(1, 500, 1.0, 0.511, id="a prompt of 500 tokens at 1,000 a second adds 500 ms"),
        pytest.param(32, 500, 10.0, 0.0542, id="a time scale of ten divides all of it"),
    ],
)
def test_a_step_is_as_long_as_the_law_says(running: int, prefill: int, scale: float, seconds: float) -> None:
    law = timing.TokenClock(BASE, PER_SEQUENCE, RATE, scale)
    assert law.step_seconds(running=running, prefill_tokens=prefill) == pytest.approx(seconds)


@pytest.mark.parametrize("together", [1, 2, 7])
def test_inter_token_latency_is_a_plus_b_times_running(together: int) -> None:
    async def measured() -> tuple[float, float]:
        one = make_engine()
        tickets = [ticket_of(one, output=11, first=7 + at) for at in range(together)]
        for ticket in tickets:
            one.submit(ticket)
        await finish(*tickets)
        gaps = [(each.last_token - (each.first_token or 0)) / 10 for ticket in tickets for each in ticket.sequences]
        return min(gaps[1:] or gaps), max(gaps[1:] or gaps)

    low, high = virtual_time.run(measured())
    # All join at the first step that starts after they came; the first request's own first step was alone.
    assert low == pytest.approx(BASE + PER_SEQUENCE * together, rel=0.02)
    assert high == pytest.approx(BASE + PER_SEQUENCE * together, rel=0.02)


def test_the_first_token_comes_after_the_prompt_is_computed() -> None:
    async def first_token() -> float:
        one = make_engine()
        ticket = ticket_of(one, prompt=400)
        one.submit(ticket)
        await ticket.news()
        return asyncio.get_running_loop().time()

    assert virtual_time.run(first_token()) == pytest.approx(BASE + PER_SEQUENCE + 400 / RATE)


def test_a_long_prompt_is_computed_in_chunks_between_the_tokens_of_others() -> None:
    """With 100 tokens a step, 400 prompt tokens take four steps beside a running answer, which gets a token in each."""

    async def tokens_meanwhile() -> int:
        one = make_engine(max_num_batched_tokens=101)
        short, long = ticket_of(one, prompt=10, output=50), ticket_of(one, prompt=400, first=8)
        one.submit(short)
        await short.news()
        before = short.sequences[0].generated
        one.submit(long)
        await long.news()
        return short.sequences[0].generated - before

    assert virtual_time.run(tokens_meanwhile()) == 5  # the step under way, then four with 100 prompt tokens each


def test_requests_beyond_max_num_seqs_wait_in_line() -> None:
    async def order() -> tuple[int, int, list[float]]:
        one = make_engine(max_num_seqs=2)
        tickets = [ticket_of(one, first=7 + at) for at in range(4)]
        for ticket in tickets:
            one.submit(ticket)
        await tickets[0].news()
        await tickets[0].news()
        running, waiting = len(one.scheduler.running), len(one.scheduler.waiting)
        await finish(*tickets)
        return running, waiting, [ticket.sequences[0].first_token or 0.0 for ticket in tickets]

    running, waiting, firsts = virtual_time.run(order())
    assert (running, waiting) == (2, 2)
    assert firsts == sorted(firsts)
    assert firsts[2] > firsts[1]


def test_an_urgent_request_overtakes_under_the_priority_policy_only() -> None:
    async def urgent_first(policy: str) -> bool:
        one = make_engine(max_num_seqs=1, scheduling_policy=policy)
        low = [ticket_of(one, first=7 + at, priority=5) for at in range(3)]
        urgent = ticket_of(one, first=20, priority=-1)
        for ticket in (*low, urgent):
            one.submit(ticket)
        await finish(*low, urgent)
        return urgent.sequences[0].last_token < low[1].sequences[0].last_token

    assert virtual_time.run(urgent_first("priority"))
    assert not virtual_time.run(urgent_first("fcfs"))


def test_metrics_tell_times_tokens_and_success() -> None:
    """One request, 100 prompt tokens, 5 generated: first token after 111 ms, then four steps of 11 ms."""

    async def counted() -> engine.Engine:
        one = make_engine()
        ticket = ticket_of(one, prompt=100)
        one.submit(ticket)
        await finish(ticket)
        return one

    one = virtual_time.run(counted())
    assert total(one, "time_to_first_token_seconds") == pytest.approx(0.111)
    assert total(one, "inter_token_latency_seconds") == pytest.approx(0.044)
    assert total(one, "e2e_request_latency_seconds") == pytest.approx(0.155)
    assert total(one, "request_queue_time_seconds") == 0
    assert total(one, "iteration_tokens_total") == 105
    assert count(one, "prompt_tokens_total") == 100
    assert count(one, "generation_tokens_total") == 5
    assert count(one, "request_success_total", "length") == 1


def test_n_choices_are_one_request_in_the_parameters_and_several_in_success() -> None:
    async def counted() -> engine.Engine:
        one = make_engine()
        ticket = ticket_of(one, choices=3)
        one.submit(ticket)
        await finish(ticket)
        return one

    one = virtual_time.run(counted())
    assert one.metrics._distributions["vllm:request_params_n"].count == 1
    assert total(one, "request_params_n") == 3
    assert count(one, "request_success_total", "length") == 3


def test_prefix_hits_are_counted_in_tokens_and_isolated_by_salt() -> None:
    """100 prompt tokens make 6 full blocks of 16: a repeat finds 96 tokens, another salt none."""

    async def hits() -> list[int]:
        one = make_engine()
        found = []
        for salt in ("", "", "tenant"):
            ticket = ticket_of(one, prompt=100, cache_salt=salt)
            one.submit(ticket)
            await finish(ticket)
            found.append(ticket.sequences[0].cached)
        assert one.scheduler.prefix_queries == 300
        assert one.scheduler.prefix_hits == sum(found)
        return found

    assert virtual_time.run(hits()) == [0, 96, 0]


def test_a_cached_prompt_is_computed_faster() -> None:
    async def waits() -> list[float]:
        one = make_engine()
        found = []
        for _ in range(2):
            ticket = ticket_of(one, prompt=160)
            one.submit(ticket)
            await finish(ticket)
            found.append((ticket.sequences[0].first_token or 0.0) - ticket.sequences[0].arrived)
        return found

    cold, warm = virtual_time.run(waits())
    assert cold == pytest.approx(BASE + PER_SEQUENCE + 160 / RATE)
    assert warm == pytest.approx(BASE + PER_SEQUENCE + 16 / RATE)  # nine of ten blocks; the last must be computed


def test_cancelling_frees_slot_and_blocks_and_moves_no_success() -> None:
    async def after_cancel() -> engine.Engine:
        one = make_engine()
        ticket = ticket_of(one, output=100)
        one.submit(ticket)
        await ticket.news()
        one.cancel(ticket)
        assert ticket.done
        return one

    one = virtual_time.run(after_cancel())
    assert one.in_flight == 0
    assert not one.scheduler.busy
    assert one.scheduler.pool.usage == 0
    assert count(one, "generation_tokens_total") == 1
    assert all(count(one, "request_success_total", reason) == 0 for reason in ("stop", "length", "abort", "error"))


def test_queue_limits_reject_and_count() -> None:
    async def rejected() -> engine.Engine:
        one = make_engine(max_num_queued_reqs=2, max_num_queued_tokens=1000)
        for at in range(2):
            one.submit(ticket_of(one, first=7 + at))
        with pytest.raises(engine.EngineBusyError):
            one.submit(ticket_of(one, first=30))
        return one

    assert count(virtual_time.run(rejected()), "admission_rejections_total", "max_num_queued_reqs") == 1


def test_a_token_limit_rejects_and_counts() -> None:
    async def rejected() -> engine.Engine:
        one = make_engine(max_num_queued_tokens=25)
        for at in range(2):
            one.submit(ticket_of(one, first=7 + at))
        with pytest.raises(engine.EngineBusyError):
            one.submit(ticket_of(one, first=30))  # 30 prompt tokens would be in flight
        return one

    assert count(virtual_time.run(rejected()), "admission_rejections_total", "max_num_queued_tokens") == 1


def test_a_frozen_engine_makes_no_token_until_the_fault_ends() -> None:
    async def first_token() -> float:
        one = make_engine(faults.Fault("freeze", seconds=5))
        ticket = ticket_of(one)
        one.submit(ticket)
        await finish(ticket)
        return ticket.sequences[0].first_token or 0.0

    assert 5 <= virtual_time.run(first_token()) < 6


def test_a_dead_engine_fails_what_it_has_and_what_comes() -> None:
    async def failures() -> None:
        one = make_engine()
        ticket = ticket_of(one, output=100)
        one.submit(ticket)
        await ticket.news()
        one.die()
        with pytest.raises(engine.EngineDeadError):
            await ticket.news()
        with pytest.raises(engine.EngineDeadError):
            one.submit(ticket_of(one))
        await one.drained()

    virtual_time.run(failures())


def test_a_draining_engine_finishes_and_takes_nothing_new() -> None:
    async def drained() -> str | None:
        one = make_engine()
        ticket = ticket_of(one)
        one.submit(ticket)
        one.close()
        with pytest.raises(engine.EngineClosedError, match="cannot schedule new futures after shutdown"):
            one.submit(ticket_of(one))
        await one.drained()
        return ticket.sequences[0].finish_reason

    assert virtual_time.run(drained()) == "length"


def test_a_kept_pause_freezes_running_requests_and_holds_new_ones() -> None:
    async def states() -> list[tuple[int, int]]:
        one = make_engine()
        running, held = ticket_of(one), ticket_of(one, first=9)
        one.submit(running)
        await running.news()
        await one.pause("keep")
        made = running.sequences[0].generated
        one.submit(held)
        await asyncio.sleep(10)
        seen = [(running.sequences[0].generated - made, held.sequences[0].generated)]
        assert not one.scheduler.waiting
        one.resume()
        await finish(running, held)
        return [*seen, (running.sequences[0].generated, held.sequences[0].generated)]

    assert virtual_time.run(states()) == [(0, 0), (5, 5)]


def test_sleep_empties_the_cache_and_waking_serves_again() -> None:
    async def cached() -> int:
        one = make_engine()
        for at in range(2):
            ticket = ticket_of(one, prompt=100)
            one.submit(ticket)
            await finish(ticket)
            if at == 0:
                await one.sleep(1)
                assert one.sleep_level == 1
                one.wake_up()
        return ticket.sequences[0].cached

    assert virtual_time.run(cached()) == 0


def test_an_idle_engine_has_no_timer() -> None:
    async def timer() -> object:
        one = make_engine()
        ticket = ticket_of(one)
        one.submit(ticket)
        await finish(ticket)
        return one._timer

    assert virtual_time.run(timer()) is None


def test_a_late_timer_does_not_slow_the_tokens() -> None:
    """Steps follow their ideal times: a callback that comes 3 ms late does not push the next ones."""

    async def end() -> float:
        one = make_engine()
        loop = asyncio.get_running_loop()
        exact = one._end_step
        one._end_step = lambda: loop.call_later(0.003, exact) and None  # type: ignore[method-assign]
        ticket = ticket_of(one, prompt=1, output=101)
        one.submit(ticket)
        await finish(ticket)
        return ticket.sequences[0].last_token - (ticket.sequences[0].first_token or 0.0)

    assert virtual_time.run(end()) == pytest.approx(100 * (BASE + PER_SEQUENCE))


@given(prompts=st.lists(st.integers(1, 60), min_size=1, max_size=6), output=st.integers(1, 40), seats=st.integers(1, 4))
def test_every_request_gets_exactly_its_tokens_whatever_the_limits(prompts: list[int], output: int, seats: int) -> None:
    async def generated() -> list[int]:
        one = make_engine(max_num_seqs=seats, max_num_batched_tokens=16, sim_kv_tokens=160, max_model_len=100)
        tickets = [ticket_of(one, prompt=length, output=output, first=7 + at) for at, length in enumerate(prompts)]
        for ticket in tickets:
            one.submit(ticket)
        await finish(*tickets)
        assert one.scheduler.pool.usage == 0
        assert one.in_flight == 0
        return [ticket.sequences[0].generated for ticket in tickets]

    assert virtual_time.run(generated()) == [output] * len(prompts)


def test_a_sequence_keeps_who_waits_for_it() -> None:
    async def owners() -> bool:
        one = make_engine()
        ticket = ticket_of(one)
        return all(isinstance(each, scheduler.Sequence) and each.owner is ticket for each in ticket.sequences)

    assert virtual_time.run(owners())
    assert answers.AnswerRequest(prompt=[1], max_tokens=1, mean_tokens=1).choice == 0
