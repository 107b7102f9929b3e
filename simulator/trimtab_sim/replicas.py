"""One replica in simulated time: an engine that serves in steps, and its life from start to end.

The law is that of ``engine_sim``'s token clock. One step of the engine gives every running sequence one token and reads
a chunk of waiting prompts:

    step_seconds = a + b·running + tokens read / prefill_rate

``V`` counts steps. Requests join at the start of a step, read their prompts in turn, get their first token at the end
of the step in which their prompt has been read, and one token in each step from then on. So both steps are known when
a request joins, however long the steps will take: it costs a few heap operations, O(log n), not one event a token.

Approximations, each against continuous batching: decoding takes no room in the chunk; KV cache is reserved for the
whole answer at admission, so requests wait where a real engine might preempt. ``tests/simulator/test_step_by_step.py``
holds it to an engine that makes every step.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trimtab_core.snapshot import CapacityProfile, ReplicaPhase

from trimtab_sim import engine
from trimtab_sim.workload import Request

CHUNK_TOKENS = 2048
"""Prompt tokens read in one step: vLLM's default ``--max-num-batched-tokens`` for serving."""
_EPSILON = 1e-9
"""Steps nearer than this count as one: far below a token's share of a step, far above rounding noise."""
_FULL = 1 - _EPSILON
"""From this many steps of reading ahead on, the chunk of the next step has no room."""
_FROZEN_STEP_SECONDS = 1e12
"""A step that ends long after every run."""
_FINISH = int(engine.Order.FINISH)


class Job:
    """One request in one engine; times are the engine clock's seconds, None until they happen.

    Attributes:
        tokens: that the KV cache must hold in the end.
        cached_tokens: prompt tokens that the prefix cache saved.
        done: told the job once, when the request has ended or the engine has died (``finished_at`` is None then).
    """

    __slots__ = (
        "cached_tokens", "done", "finished_at", "first_step", "first_token_at", "request", "submitted_at", "tokens",
    )  # fmt: skip

    def __init__(self, request: Request, done: Callable[[Any], None]) -> None:
        self.request = request
        self.done = done
        self.tokens = request.input_tokens + request.output_tokens
        self.cached_tokens = 0
        self.first_step = 0
        self.submitted_at = 0.0
        self.first_token_at: float | None = None
        self.finished_at: float | None = None

    @property
    def itl_seconds(self) -> float | None:
        """Mean time between two output tokens; None for an answer that is unfinished or has one token."""
        if self.finished_at is None or self.first_token_at is None or self.request.output_tokens < 2:  # noqa: PLR2004
            return None
        return (self.finished_at - self.first_token_at) / (self.request.output_tokens - 1)


class Processor:
    """The engine of one replica: first come, first served into a batch whose members share each step.

    Between two moments at which requests join or end, all rates are constant. So the state is that of the last such
    moment (``_at``), at which a step began, and everything else follows from the time that has passed.

    Args:
        clock: the engine of events.
        profile: the law of this hardware and model.
        chunk_tokens: prompt tokens read in one step.
        emptied: called whenever the last request has ended.

    Attributes:
        running: sequences in the batch.
        sequence_seconds: sequences in the batch, integrated over time; right after ``advance``, as are the next two.
        gap_seconds: times between two output tokens, summed up.
        gaps: their number.
    """

    __slots__ = (
        "_at", "_awake", "_base_seconds", "_chunk", "_chunk_seconds", "_clock", "_cold_until", "_decoding",
        "_due", "_emptied", "_first", "_kv_reserved", "_last", "_max_sequences", "_number", "_post",
        "_read_until", "_read_whole", "_sequence_seconds", "_step_seconds", "_steps", "_target", "_waiting",
        "gap_seconds", "gaps", "kv_tokens", "running", "sequence_seconds",
    )  # fmt: skip

    def __init__(
        self,
        clock: engine.Engine,
        profile: CapacityProfile,
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        emptied: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._chunk = chunk_tokens
        self._chunk_seconds = chunk_tokens / profile.prefill_tokens_per_second
        self._base_seconds = profile.itl_base_seconds
        self._sequence_seconds = profile.itl_per_sequence_seconds
        self._max_sequences = profile.max_sequences
        self._emptied = emptied or (lambda: None)
        self._post = clock.post
        self._awake = self._wake  # bound once, not at each call
        self.kv_tokens = profile.kv_tokens
        self._waiting: deque[Job] = deque()
        self._first: deque[Job] = deque()  # those without a first token, in order of it
        self._last: list[tuple[int, int, Job]] = []  # (step of the last token, number, job) of all that run
        self._number = 0
        self.running = 0
        self._decoding = 0  # those that have their first token, and another to come
        self._kv_reserved = 0
        self._at = clock.now
        self._steps = 0.0  # V at that time
        self._read_until = 0.0  # V at which all prompts of the batch are read
        self._read_whole = 0.0  # prompt tokens read by then, ever
        self._cold_until = 0.0  # of these, read before the engine's start
        self._step_seconds = profile.itl_base_seconds  # of a step in which nothing is read
        self._target = 0  # V at which requests join or end next, and when that is
        self._due = math.inf
        self.sequence_seconds = 0.0
        self.gap_seconds = 0.0
        self.gaps = 0.0

    @property
    def waiting(self) -> int:
        """Requests that are not in the batch yet."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is reserved."""
        return self._kv_reserved / self.kv_tokens

    @property
    def prompt_tokens(self) -> float:
        """Input tokens computed, ever; right after ``advance``."""
        return self._read_whole - max(0.0, self._read_until - self._steps) * self._chunk

    def fits(self, request: Request) -> bool:
        """Whether the request can ever be served here."""
        return request.tokens <= self.kv_tokens

    def submit(self, job: Job) -> None:
        """Queue a job. Raises ValueError if it never fits into the KV cache."""
        if job.tokens > self.kv_tokens:
            raise ValueError(f"{job.tokens} tokens don't fit into a KV cache of {self.kv_tokens}")
        waiting, now = self._waiting, self._clock.now
        job.submitted_at = now
        waiting.append(job)
        if not self.running:
            self._at = now
            self._begin_step()
        elif now == self._at and self._steps.is_integer():  # what comes as a step begins is part of it
            self._begin_step()
        elif len(waiting) == 1 and self.running < self._max_sequences:
            # it can join the next step, or else the first one whose chunk has room; whoever is before it sees to that
            step = max(math.floor(self._steps_by(now)) + 1, math.floor(self._read_until))
            if step < self._target:
                self._wake_at(step)

    def advance(self) -> None:
        """Bring counters and first tokens up to the clock."""
        now = self._clock.now
        if now > self._at:
            self._move(now, self._steps_by(now))

    def drop_all(self) -> list[Job]:
        """Forget every job, as a killed engine does, and return them in the order in which they came."""
        self.advance()
        jobs = [*(job for _, _, job in sorted(self._last, key=lambda due: due[1])), *self._waiting]
        self._first.clear()
        self._last.clear()
        self._waiting.clear()
        self.running = self._decoding = self._kv_reserved = 0
        self._read_whole, self._steps = self.prompt_tokens, float(math.ceil(self._steps))
        self._cold_until = self._read_whole
        self._read_until = self._steps
        self._due = math.inf
        return jobs

    def obey(self, profile: CapacityProfile) -> None:
        """From now on follow the law of another profile: an engine that has become slow, or fast again."""
        self.advance()
        self._chunk_seconds = self._chunk / profile.prefill_tokens_per_second
        self._base_seconds = profile.itl_base_seconds
        self._sequence_seconds = profile.itl_per_sequence_seconds
        self._step_seconds = self._base_seconds + self._sequence_seconds * self.running
        if self.running:
            self._wake_at(self._target)

    def _steps_by(self, now: float) -> float:
        """V at a time from ``_at`` to the next wake."""
        elapsed, ahead = now - self._at, self._read_until - self._steps
        if not self.running:
            return self._steps
        if ahead > 0:
            read = ahead * self._chunk_seconds
            if elapsed > ahead * self._step_seconds + read:
                return self._steps + (elapsed - read) / self._step_seconds
            return self._steps + elapsed / (self._step_seconds + self._chunk_seconds)
        return self._steps + elapsed / self._step_seconds

    def _time_of(self, step: float) -> float:
        """The inverse: when V reaches a step."""
        ahead, steps = self._read_until - self._steps, step - self._steps
        seconds = self._at + steps * self._step_seconds
        if ahead <= 0:
            return seconds
        return seconds + (ahead if ahead < steps else steps) * self._chunk_seconds  # noqa: FURB136 (once an event)

    def _move(self, now: float, steps: float) -> None:
        """Count what has happened since ``_at``: until ``now``, when V is ``steps``."""
        elapsed, decoding, first = now - self._at, self._decoding, self._first
        self.sequence_seconds += elapsed * self.running
        self.gap_seconds += elapsed * decoding
        self.gaps += (steps - self._steps) * decoding
        while first and first[0].first_step <= steps:
            job = first.popleft()
            job.first_token_at = at = self._time_of(job.first_step)
            if job.request.output_tokens > 1:
                self._decoding += 1
                self.gap_seconds += now - at
                self.gaps += steps - job.first_step
        self._at, self._steps = now, steps

    def _wake_at(self, step: int) -> None:
        """Wake at a step. An earlier call is overruled: its event finds another time due and does nothing."""
        self._target = step
        now, due = self._clock.now, self._time_of(step)
        self._due = due = due if due > now else now  # noqa: FURB136 (once an event)
        self._post(due, self._awake, _FINISH)

    def _wake(self) -> None:
        """A step begins at which requests end or join."""
        now = self._clock.now
        if now != self._due:
            return
        self._due = math.inf
        step, last = self._target, self._last
        self._move(now, float(step))
        if last[0][0] > step:
            self._begin_step()
            return
        ended = []
        while last and last[0][0] <= step:
            job = heapq.heappop(last)[2]
            job.finished_at = now
            self.running -= 1
            self._decoding -= job.request.output_tokens > 1
            self._kv_reserved -= job.tokens
            ended.append(job)
        self._begin_step()
        for job in ended:
            job.done(job)
        if not self.running and not self._waiting:
            self._emptied()

    def _begin_step(self) -> None:
        """Let waiting jobs join, in order, while there are slots, KV cache and room in the chunk; see what is next."""
        waiting, start, kv_tokens = self._waiting, self._steps, self.kv_tokens
        running, read_until = self.running, max(self._read_until, start)
        while waiting and running < self._max_sequences and read_until - start < _FULL:
            job = waiting[0]
            reserved = self._kv_reserved + job.tokens
            if reserved > kv_tokens:
                break
            waiting.popleft()
            self._kv_reserved = reserved
            running += 1
            request = job.request
            tokens = request.input_tokens
            if request.cached_tokens:
                job.cached_tokens = cached = self._found(request)
                tokens -= cached
            self._read_whole += tokens
            read_until += tokens / self._chunk
            job.first_step = first = math.ceil(read_until - _EPSILON)
            self._first.append(job)
            self._number = number = self._number + 1
            heapq.heappush(self._last, (first + request.output_tokens - 1, number, job))
        self.running = running
        self._read_until = read_until
        self._step_seconds = self._base_seconds + self._sequence_seconds * running
        if running:
            step = self._last[0][0]
            if waiting and read_until - start >= _FULL:
                step = min(step, math.floor(read_until + _EPSILON))
            self._wake_at(step)

    def _found(self, request: Request) -> int:
        """Input tokens of a request that the prefix cache holds; one token is always computed.

        An engine starts with an empty cache, which later holds what was read last: of what a warm one would find, a
        share is there as large as the share of the cache that has been filled since the start.
        """
        warm = min(1.0, (self._read_whole - self._cold_until) / self.kv_tokens)
        return int(min(request.cached_tokens, request.input_tokens - 1) * warm)


@dataclass(frozen=True, slots=True)
class Start:
    """How a replica comes up.

    Attributes:
        waits: seconds until a machine is found for it; infinite for never.
        takes: seconds from there until it is ready; infinite for never.
    """

    waits: float
    takes: float


class Replica:
    """One replica: pending until it has started, then ready, maybe draining, then gone.

    Args:
        name: unique among all replicas ever.
        clock: the engine of events.
        profile: of its variant.
        changed: told after every change of phase; ``phase`` is None once it is gone.
        start: how it comes up; at once on a machine and in the profile's ``startup_seconds`` where not given.
    """

    def __init__(
        self,
        name: str,
        clock: engine.Engine,
        profile: CapacityProfile,
        changed: Callable[[Replica], None],
        *,
        start: Start | None = None,
    ) -> None:
        self.name = name
        self.profile = profile
        self._start = start or Start(0.0, profile.startup_seconds)
        self.created_at = clock.now
        """When the start that is under way, or the last one, began."""
        self.placed_at = clock.now + self._start.waits
        """When its machine is found, from when on it is paid for."""
        self.ready_at: float | None = None
        self.gone_at: float | None = None
        self.preempted = False
        """The provider takes its machine."""
        self.frozen = False
        """It looks well and makes no progress."""
        self.phase: ReplicaPhase | None = ReplicaPhase.PENDING
        self.processor = Processor(clock, profile, emptied=self._leave_if_drained)
        self._clock = clock
        self._changed = changed
        self._next = self._ready_after(self._start.waits + self._start.takes)

    @property
    def stuck(self) -> bool:
        """Pending without a machine, or for ever: it carries nothing, and nothing is lost by giving it back."""
        pending = self.phase is ReplicaPhase.PENDING
        return pending and (self.placed_at > self._clock.now or math.isinf(self._next.time))

    def start_now(self) -> None:
        """Be ready at once, as if started long ago; nothing if it is not pending."""
        if self.phase is ReplicaPhase.PENDING:
            self._next.cancel()
            self.created_at = self.placed_at = self._clock.now - self.profile.startup_seconds
            self._ready()

    def preempt(self, notice_s: float) -> None:
        """The machine is taken: at once from a replica that starts, after the notice from one that is ready.

        It takes no new requests from now on, and stays until the end of the notice even with nothing to do.
        """
        if self.phase is ReplicaPhase.PENDING:
            self.kill()
        elif self.phase is ReplicaPhase.READY:
            self.preempted = True
            self._next = self._clock.after(notice_s, self.kill)
            self._set(ReplicaPhase.DRAINING)

    def restart(self) -> None:
        """The engine of a ready replica dies and starts anew on the same machine."""
        if self.phase is ReplicaPhase.READY:
            jobs = self.processor.drop_all()
            self.created_at, self.ready_at = self._clock.now, None
            self._next = self._ready_after(self._start.takes)
            self._set(ReplicaPhase.PENDING)
            for job in jobs:
                job.done(job)

    def freeze(self) -> None:
        """Make no more progress."""
        self.frozen = True
        self.processor.obey(dataclasses.replace(self.profile, itl_base_seconds=_FROZEN_STEP_SECONDS))

    def thaw(self) -> None:
        """Go on as before."""
        self.frozen = False
        self.processor.obey(self.profile)

    def submit(self, job: Job) -> None:
        """Serve a request. Raises ValueError unless the replica is ready, or if the request never fits."""
        if self.phase is not ReplicaPhase.READY:
            raise ValueError(f"{self.name} is {self.phase or 'gone'}, not Ready")
        self.processor.submit(job)

    def drain(self, timeout_s: float) -> None:
        """Take no more requests; finish those that are here, at most ``timeout_s``, then go."""
        self._next.cancel()
        if self.phase is ReplicaPhase.PENDING:
            self._set(None)
        elif self.phase is ReplicaPhase.READY:
            self._next = self._clock.after(timeout_s, self.kill)
            self._set(ReplicaPhase.DRAINING)
            if not self.processor.running and not self.processor.waiting:
                self._leave_if_drained()

    def kill(self) -> None:
        """Go at once. Requests under way end unfinished: ``done`` is called with ``finished_at`` None."""
        self._next.cancel()
        if self.phase is None:
            return
        jobs = self.processor.drop_all()
        self._set(None)
        for job in jobs:
            job.done(job)

    def _ready_after(self, seconds: float) -> engine.Event:
        """The event of being ready; one that is never due has no place in the queue."""
        if math.isinf(seconds):
            return engine.Event(math.inf, self._ready)
        return self._clock.after(seconds, self._ready)

    def _ready(self) -> None:
        self.ready_at = self._clock.now
        self._set(ReplicaPhase.READY)

    def _leave_if_drained(self) -> None:
        """The last request has ended: go, unless the notice of the provider is waited for."""
        if self.phase is ReplicaPhase.DRAINING and not self.preempted:
            self._next.cancel()
            self._set(None)

    def _set(self, phase: ReplicaPhase | None) -> None:
        self.phase = phase
        if phase is None:
            self.gone_at = self._clock.now
        self._changed(self)
