"""
Continuous batching with chunked prefill, priorities and preemption. Pure: time comes in as an argument.

A step has a budget of tokens. Running sequences come first, in order; then waiting ones are admitted while budget,
sequence slots and KV blocks last. When a running sequence needs a block and none is free, the youngest running
sequence (or, under the priority policy, the least urgent one) loses its blocks and waits again; it recomputes prompt
and generated tokens later. `plan` decides a step, `complete` says that its time has passed.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from typing import Protocol

from trimtab_sim.engine_sim import answers, blocks


class Owner(Protocol):
    """Whoever waits for a sequence's tokens."""

    def wake(self) -> None:
        """Take note that a sequence has new tokens or has finished."""


@dataclasses.dataclass(slots=True, eq=False)
class Sequence:
    """
    One choice of one prompt on its way through the engine. All times are seconds of the caller's monotonic clock.

    Attributes:
        owner: Woken after each token.
        request_id: External id, shared by the choices of a request.
        index: Choice index in the response.
        prompt: Prompt token ids.
        answer: What will be generated.
        priority: Lower is served first under the priority policy.
        salt: `cache_salt` of the request.
        reads_cache: Whether prefix-cache hits may be used (prompt logprobs forbid it).
        arrived: When it was queued.
        generated: Tokens generated so far.
        computed: Tokens whose keys and values are in the cache.
        cached: Prompt tokens found in the prefix cache at first admission.
        created: Prompt tokens that this sequence added to the prefix cache.
        finish_reason: Set once it has ended.

    """

    owner: Owner
    request_id: str
    index: int
    prompt: list[int]
    answer: answers.Answer
    priority: int = 0
    salt: str = ""
    reads_cache: bool = True
    arrived: float = 0.0
    generated: int = 0
    computed: int = 0
    cached: int = 0
    created: int = 0
    preemptions: int = 0
    scheduled: float | None = None
    first_token: float | None = None
    last_token: float = 0.0
    finish_reason: str | None = None
    order: int = 0
    keys: list[bytes] = dataclasses.field(default_factory=list)
    holding: blocks.Holding = dataclasses.field(default_factory=blocks.Holding)

    @property
    def total(self) -> int:
        """Tokens known so far: the prompt and what was generated."""
        return len(self.prompt) + self.generated

    def urgency(self) -> tuple[int, float, int]:
        """Sort key of the priority policy; the smallest goes first."""
        return (self.priority, self.arrived, self.order)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One engine step: who computes how many tokens, and how many of those are prompt or recomputed tokens."""

    work: list[tuple[Sequence, int]]
    running: int
    prefill_tokens: int


class Scheduler:
    """Waiting and running sequences of one engine over one block pool."""

    def __init__(
        self, pool: blocks.BlockPool, *, max_sequences: int, max_batched_tokens: int, by_priority: bool = False
    ) -> None:
        """
        Make an empty scheduler.

        Args:
            pool: KV blocks to hand out.
            max_sequences: Most sequences running at once.
            max_batched_tokens: Most tokens computed in one step.
            by_priority: Serve by (priority, arrival) in place of first come, first served.

        """
        self.pool = pool
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.preemptions = 0
        self._max_sequences = max_sequences
        self._max_batched_tokens = max_batched_tokens
        self._by_priority = by_priority
        self._order = itertools.count()

    @property
    def busy(self) -> bool:
        """Whether any sequence runs or waits."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence; its `arrived` must be set."""
        sequence.order = next(self._order)
        sequence.keys = blocks.block_keys(sequence.prompt, block_size=self.pool.block_size, salt=sequence.salt)
        self._enqueue(sequence, front=False)

    def abort(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and free its blocks; one that is not here is ignored."""
        for queue in (self.running, self.waiting):
            if sequence in queue:
                queue.remove(sequence)
                self.pool.release(sequence.holding)

    def plan(self, now: float) -> Step:
        """Decide the next step at time `now`; it may be empty when nothing fits."""
        work: list[tuple[Sequence, int]] = []
        budget, preempted = self._plan_running(work)
        if not preempted:
            self._admit(work, budget, now)
        prefill = sum(count for sequence, count in work if sequence.generated == 0 or count > 1)
        return Step(work=work, running=len(self.running), prefill_tokens=prefill)

    def complete(self, step: Step) -> list[Sequence]:
        """Apply a step whose time has passed; return the sequences that got a token. Finished ones have left."""
        advanced = []
        for sequence, count in step.work:
            if sequence.finish_reason is not None or not sequence.holding.blocks:
                continue  # aborted while the step ran
            sequence.computed += count
            self._publish(sequence)
            if sequence.computed < sequence.total:
                continue
            sequence.generated += 1
            advanced.append(sequence)
            if sequence.generated >= len(sequence.answer.ids):
                sequence.finish_reason = sequence.answer.finish_reason
                self.running.remove(sequence)
                self.pool.release(sequence.holding)
        return advanced

    def _enqueue(self, sequence: Sequence, *, front: bool) -> None:
        if self._by_priority:
            bisect.insort(self.waiting, sequence, key=Sequence.urgency)
        elif front:
            self.waiting.insert(0, sequence)
        else:
            self.waiting.append(sequence)

    def _plan_running(self, work: list[tuple[Sequence, int]]) -> tuple[int, bool]:
        """Give running sequences their tokens and blocks; return the budget left and whether one was preempted."""
        budget = self._max_batched_tokens
        preempted = False
        for sequence in list(self.running):
            if budget <= 0:
                break
            if not sequence.holding.blocks:
                continue  # preempted by one before it in this very loop
            count = min(sequence.total - sequence.computed, budget)
            while not self.pool.grow(sequence.holding, sequence.computed + count):
                victim = max(self.running, key=Sequence.urgency) if self._by_priority else self.running[-1]
                budget += self._preempt(victim, work)
                preempted = True
                if victim is sequence:
                    break
            if sequence.holding.blocks:
                work.append((sequence, count))
                budget -= count
        return budget, preempted

    def _preempt(self, victim: Sequence, work: list[tuple[Sequence, int]]) -> int:
        """Send a running sequence back to the queue; return the tokens that it had been given in this step."""
        self.running.remove(victim)
        self.pool.release(victim.holding)
        victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        self._enqueue(victim, front=True)
        given = sum(count for sequence, count in work if sequence is victim)
        work[:] = [entry for entry in work if entry[0] is not victim]
        return given

    def _admit(self, work: list[tuple[Sequence, int]], budget: int, now: float) -> None:
        while self.waiting and budget > 0 and len(self.running) < self._max_sequences:
            sequence = self.waiting[0]
            keys = self._cached_keys(sequence)
            hit = len(keys) * self.pool.block_size
            count = min(sequence.total - hit, budget)
            needed = -(-(hit + count) // self.pool.block_size) - len(keys)
            if needed > self.pool.free - self.pool.idle_among(keys):
                break
            self.waiting.pop(0)
            self.pool.take_cached(sequence.holding, keys)
            self.pool.grow(sequence.holding, hit + count)
            sequence.computed = hit
            if sequence.scheduled is None:
                self._first_admission(sequence, hit, now)
            self.running.append(sequence)
            work.append((sequence, count))
            budget -= count

    def _first_admission(self, sequence: Sequence, hit: int, now: float) -> None:
        sequence.scheduled = now
        sequence.cached = hit
        if sequence.reads_cache:
            self.prefix_queries += len(sequence.prompt)
            self.prefix_hits += hit

    def _cached_keys(self, sequence: Sequence) -> list[bytes]:
        """Return the keys of the cached leading blocks, leaving at least one token to compute."""
        if not sequence.reads_cache:
            return []
        usable = (sequence.total - 1) // self.pool.block_size
        keys = sequence.keys[:usable]
        return keys[: self.pool.cached_prefix(keys)]

    def _publish(self, sequence: Sequence) -> None:
        size = self.pool.block_size
        have = sequence.holding.full
        full = sequence.computed // size
        if full <= have:
            return
        known = len(sequence.keys)
        if full > known:
            ids = (sequence.prompt + sequence.answer.ids[: sequence.generated])[known * size : full * size]
            parent = sequence.keys[-1] if sequence.keys else None
            sequence.keys += blocks.block_keys(ids, block_size=size, salt=sequence.salt, parent=parent)
        new = self.pool.publish(sequence.holding, sequence.keys[have:full])
        if sequence.generated == 0:  # the prompt's own blocks, not the one that it shares with the answer
            sequence.created += new * size
