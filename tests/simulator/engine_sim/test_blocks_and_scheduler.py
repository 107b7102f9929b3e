"""KV blocks, the prefix cache, and who runs in which step; time is a step number here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim.engine_sim import answers, blocks, scheduler

SIZE = 4


class Nobody:
    def wake(self) -> None:
        """Nobody waits in these tests."""


def pool_of(usable: int, *, caching: bool = True) -> blocks.BlockPool:
    return blocks.BlockPool(num_blocks=usable + 1, block_size=SIZE, prefix_caching=caching)


def sequence(prompt: list[int], output: int, **fields: object) -> scheduler.Sequence:
    request = answers.AnswerRequest(prompt=prompt, max_tokens=output, mean_tokens=1, ignore_eos=True)
    return scheduler.Sequence(Nobody(), "id", 0, prompt, answers.plan_answer(request), **fields)  # type: ignore[arg-type]


def scheduler_of(
    pool: blocks.BlockPool, *, seats: int = 8, budget: int = 1000, by_priority: bool = False
) -> scheduler.Scheduler:
    return scheduler.Scheduler(pool, max_sequences=seats, max_batched_tokens=budget, by_priority=by_priority)


def run(one: scheduler.Scheduler, *, most: int = 10_000) -> int:
    """Step until nothing is left; return the number of steps."""
    for step in range(most):
        if not one.busy:
            return step
        one.complete(one.plan(float(step)))
    raise AssertionError("it does not end")


def test_keys_chain_so_that_a_block_depends_on_all_before_it() -> None:
    one = blocks.block_keys([1, 2, 3, 4, 5, 6, 7, 8], block_size=SIZE)
    other = blocks.block_keys([9, 2, 3, 4, 5, 6, 7, 8], block_size=SIZE)
    assert len(one) == 2
    assert not set(one) & set(other)


def test_a_salt_changes_every_key() -> None:
    ids = list(range(12))
    assert not set(blocks.block_keys(ids, block_size=SIZE)) & set(
        blocks.block_keys(ids, block_size=SIZE, salt="tenant")
    )


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 7))
def test_a_chain_can_be_continued(ids: list[int], cut: int) -> None:
    whole = blocks.block_keys(ids, block_size=SIZE)
    head = whole[:cut]
    tail = blocks.block_keys(ids[len(head) * SIZE :], block_size=SIZE, parent=head[-1] if head else None)
    assert head + tail == whole


def test_one_block_is_reserved() -> None:
    assert blocks.BlockPool(num_blocks=64, block_size=32).usable == 63
    with pytest.raises(ValueError, match="at least 2 blocks"):
        blocks.BlockPool(num_blocks=1, block_size=32)


def test_released_blocks_stay_findable_until_others_need_them() -> None:
    pool = pool_of(4)
    keys = blocks.block_keys(list(range(8)), block_size=SIZE)
    holding = blocks.Holding()
    assert pool.grow(holding, 8)
    assert pool.publish(holding, keys) == 2
    pool.release(holding)
    assert pool.cached_prefix(keys) == 2
    assert pool.usage == 0
    other = blocks.Holding()
    assert pool.grow(other, 12)  # two blank ones, then the idle block that ends the prefix
    assert pool.cached_prefix(keys) == 1
    assert pool.grow(other, 16)
    assert pool.cached_prefix(keys) == 0
    assert not pool.grow(other, 17)


def test_equal_blocks_computed_at_once_are_not_shared_but_later_ones_are() -> None:
    pool = pool_of(8)
    keys = blocks.block_keys(list(range(8)), block_size=SIZE)
    first, second, third = (blocks.Holding() for _ in range(3))
    for holding in (first, second):
        pool.grow(holding, 8)
    assert [pool.publish(first, keys), pool.publish(second, keys)] == [2, 0]
    pool.take_cached(third, keys)
    assert pool.free == 8 - 2 - 2
    for holding in (first, second, third):
        pool.release(holding)
    assert pool.free == 8


def test_a_cache_in_use_is_not_forgotten() -> None:
    pool = pool_of(4)
    holding = blocks.Holding()
    pool.grow(holding, 4)
    assert not pool.forget()
    pool.release(holding)
    assert pool.forget()


def test_without_prefix_caching_nothing_is_found() -> None:
    one = scheduler_of(pool_of(8, caching=False))
    for _ in range(2):
        one.add(sequence(list(range(8)), 1))
        run(one)
    assert one.prefix_hits == 0


def test_a_whole_cached_prompt_still_computes_its_last_block() -> None:
    """Eight tokens are two full blocks, but one token must be computed to have something to sample from."""
    one = scheduler_of(pool_of(8))
    for _ in range(2):
        one.add(sequence(list(range(8)), 1))
        run(one)
    assert (one.prefix_queries, one.prefix_hits) == (16, 4)


def test_prompt_logprobs_do_not_read_the_cache_and_are_not_counted_as_queries() -> None:
    one = scheduler_of(pool_of(8))
    for reads in (True, False):
        one.add(sequence(list(range(8)), 1, reads_cache=reads))
        run(one)
    assert (one.prefix_queries, one.prefix_hits) == (8, 0)


def test_generated_tokens_are_cached_too() -> None:
    """A next turn that repeats the answer finds its blocks."""
    one = scheduler_of(pool_of(16))
    first = sequence([1, 2, 3, 4], 9)
    one.add(first)
    run(one)
    turn = sequence([1, 2, 3, 4, *first.answer.ids], 1)
    one.add(turn)
    run(one)
    assert turn.cached == 12  # 4 + 9 tokens, the last generated one was never computed: three blocks of four


def test_created_cache_tokens_are_the_new_full_blocks_of_the_prompt() -> None:
    one = scheduler_of(pool_of(16))
    first, again = sequence(list(range(10)), 9), sequence(list(range(10)), 9)
    for each in (first, again):
        one.add(each)
        run(one)
    assert (first.cached, first.created) == (0, 8)
    assert (again.cached, again.created) == (8, 0)


def test_the_budget_of_a_step_cuts_prompts_into_chunks() -> None:
    one = scheduler_of(pool_of(32), budget=6)
    long = sequence(list(range(20)), 1)
    one.add(long)
    chunks = []
    while one.busy:
        step = one.plan(0.0)
        chunks.append(step.prefill_tokens)
        one.complete(step)
    assert chunks == [6, 6, 6, 2]


def test_running_sequences_come_before_new_prompts_in_the_budget() -> None:
    one = scheduler_of(pool_of(32), budget=5)
    one.add(sequence([1], 10))
    one.complete(one.plan(0.0))
    one.add(sequence(list(range(20)), 1))
    step = one.plan(1.0)
    assert [count for _, count in step.work] == [1, 4]
    assert step.prefill_tokens == 4


def test_the_youngest_is_preempted_and_computed_again() -> None:
    """Five blocks of four: two prompts of 8 tokens fill four, and both need a block at once."""
    one = scheduler_of(pool_of(5))
    old, young = sequence([1] * 8, 8), sequence([2] * 8, 8)
    one.add(old)
    one.add(young)
    run(one)
    assert (old.preemptions, one.preemptions) == (0, young.preemptions)
    assert young.preemptions > 0
    assert [len(each.answer.ids) - each.generated for each in (old, young)] == [0, 0]


def test_the_least_urgent_is_preempted_under_priority() -> None:
    one = scheduler_of(pool_of(5), by_priority=True)
    unimportant, urgent = sequence([1] * 8, 8, priority=9), sequence([2] * 8, 8, priority=0)
    one.add(unimportant)
    one.add(urgent)
    run(one)
    assert (urgent.preemptions, unimportant.preemptions > 0) == (0, True)


def test_a_full_cache_shows_usage_one() -> None:
    one = scheduler_of(pool_of(4))
    one.add(sequence([1] * 8, 8))
    highest = 0.0
    while one.busy:
        one.complete(one.plan(0.0))
        highest = max(highest, one.pool.usage)
    assert highest == 1.0  # 8 + 8 tokens, the last of them never computed, in 4 blocks


def test_memory_pressure_runs_as_in_the_recorded_engine() -> None:
    """
    Eight equal prompts of 8 tokens, 600 generated each, 64 blocks of 32: the real engine took 773 steps with 30 preemptions.

    Its requests did not arrive in the very same step; arriving so, or one after another, gives these ranges.
    """
    seen = []
    for apart in range(3):
        one = scheduler.Scheduler(
            blocks.BlockPool(num_blocks=64, block_size=32), max_sequences=8, max_batched_tokens=8192
        )
        steps = 0
        for at in range(8):
            one.add(sequence(list(range(8)), 600))
            if at < apart:
                one.complete(one.plan(0.0))
                steps += 1
        seen.append((steps + run(one), one.preemptions))
    assert all(773 * 0.98 <= steps <= 773 * 1.02 for steps, _ in seen)
    assert all(28 <= preemptions <= 34 for _, preemptions in seen)


def test_an_aborted_sequence_is_gone_in_the_middle_of_a_step() -> None:
    one = scheduler_of(pool_of(8))
    stays, goes = sequence([1], 3), sequence([2], 3)
    one.add(stays)
    one.add(goes)
    step = one.plan(0.0)
    one.abort(goes)
    assert one.complete(step) == [stays]
    assert one.running == [stays]


@given(
    work=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=8),
    usable=st.integers(8, 20),
    seats=st.integers(1, 4),
    budget=st.integers(1, 30),
    by_priority=st.booleans(),
)
def test_everything_ends_and_every_block_comes_back(
    *, work: list[tuple[int, int, int]], usable: int, seats: int, budget: int, by_priority: bool
) -> None:
    one = scheduler_of(pool_of(usable), seats=seats, budget=budget, by_priority=by_priority)
    all_of_them = [sequence([kind] * prompt, output, priority=kind) for prompt, output, kind in work]
    for each in all_of_them:
        one.add(each)
    for step in range(5000):
        if not one.busy:
            break
        planned = one.plan(float(step))
        assert sum(count for _, count in planned.work) <= budget
        assert len(one.running) <= seats
        assert 0 <= one.pool.free <= usable
        one.complete(planned)
    assert [each.generated for each in all_of_them] == [output for _, output, _ in work]
    assert one.pool.free == usable
    assert one.pool.forget()
