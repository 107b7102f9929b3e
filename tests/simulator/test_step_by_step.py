"""Steps counted in virtual time against the HTTP simulator's scheduler, which makes every single step.

Both have the same law; one jumps from event to event, the other generates each token. What they say must agree, or the
demo's engines and the simulated ones would not be the same machines.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from trimtab_core.snapshot import CapacityProfile
from trimtab_sim import engine, replicas
from trimtab_sim.engine_sim import answers, blocks, scheduler, timing
from trimtab_sim.workload import Request

PROFILE = CapacityProfile(0.020, 0.0008, 9000, 400_000, 96, 0.0)
Latencies = dict[int, tuple[float, float]]
"""Request number → (TTFT, end to end), seconds."""


class Silent:
    def wake(self) -> None:
        pass


def poisson(rate: float, *, seconds: float = 150.0, seed: int = 1) -> list[Request]:
    rng, at, made = random.Random(seed), 0.0, list[Request]()
    while (at := at + rng.expovariate(rate)) < seconds:
        made.append(Request(len(made), at, rng.randint(20, 2500), rng.randint(5, 400)))
    return made


def in_events(requests: Sequence[Request]) -> Latencies:
    clock, ended = engine.Engine(), list[replicas.Job]()
    processor = replicas.Processor(clock, PROFILE)
    for one in requests:
        clock.at(one.arrival_s, lambda one=one: processor.submit(replicas.Job(one, ended.append)))  # type: ignore[misc]
    clock.run(until=1e5)
    return {
        job.request.number: (job.first_token_at - job.request.arrival_s, job.finished_at - job.request.arrival_s)
        for job in ended
        if job.first_token_at is not None and job.finished_at is not None
    }


def in_steps(requests: Sequence[Request]) -> Latencies:
    law = timing.TokenClock(
        PROFILE.itl_base_seconds, PROFILE.itl_per_sequence_seconds, PROFILE.prefill_tokens_per_second
    )
    pool = blocks.BlockPool(num_blocks=PROFILE.kv_tokens // 16, block_size=16, prefix_caching=False)
    engine_ = scheduler.Scheduler(pool, max_sequences=PROFILE.max_sequences, max_batched_tokens=replicas.CHUNK_TOKENS)
    now, coming, first, found = 0.0, list(reversed(requests)), dict[str, float](), Latencies()
    arrival = {str(one.number): one.arrival_s for one in requests}
    while coming or engine_.busy:
        if not engine_.busy:
            now = max(now, coming[-1].arrival_s)
        while coming and coming[-1].arrival_s <= now:
            engine_.add(sequence(coming.pop()))
        step = engine_.plan(now)
        now += law.step_seconds(running=step.running, prefill_tokens=step.prefill_tokens)
        for done in engine_.complete(step):
            first.setdefault(done.request_id, now)
            if done.finish_reason is not None:
                begun = arrival[done.request_id]
                found[int(done.request_id)] = (first[done.request_id] - begun, now - begun)
    return found


def sequence(request: Request) -> scheduler.Sequence:
    prompt = [7 + (request.number * 31 + at) % 200 for at in range(request.input_tokens)]
    answer = answers.plan_answer(
        answers.AnswerRequest(prompt, max_tokens=request.output_tokens, mean_tokens=1, ignore_eos=True)
    )
    return scheduler.Sequence(Silent(), str(request.number), 0, prompt, answer)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def tail(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


@pytest.mark.parametrize("rate", [0.3, 1.5, 2.5, 4.0], ids=["nearly alone", "half load", "heavy", "overload"])
def test_events_and_steps_tell_the_same_story(rate: float) -> None:
    requests = poisson(rate)

    events, steps = in_events(requests), in_steps(requests)

    assert set(events) == set(steps) == {one.number for one in requests}
    ttft, whole = ([[times[at] for times in found.values()] for found in (events, steps)] for at in (0, 1))
    assert mean(whole[0]) == pytest.approx(mean(whole[1]), rel=0.01)
    assert tail(whole[0]) == pytest.approx(tail(whole[1]), rel=0.01)
    # what decoding takes of the chunk is left out: under heavy load some prompts take a step less
    assert mean(ttft[0]) == pytest.approx(mean(ttft[1]), rel=0.02)
    assert tail(ttft[0]) == pytest.approx(tail(ttft[1]), rel=0.04)
