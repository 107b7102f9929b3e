"""One replica in simulated time: an engine that serves by processor sharing, and its life from start to end.

The law is that of ``engine_sim``'s token clock, in its fluid limit. One step of the engine gives every running sequence
one token and reads a chunk of waiting prompts:

    step_seconds = a + b·running + chunk / prefill_rate

``V`` counts steps, so a sequence that has got its first token at ``V₁`` ends at ``V₁ + output_tokens - 1`` however the
load moves in between: a request costs a few heap operations, O(log n), not one event for each token.

Approximations, each against continuous batching: steps are a continuum, so an arrival waits for half of the step under
way (its mean, not its distribution); KV cache is reserved for the whole answer at admission, so requests wait where
a real engine might preempt; no prefix cache. ``tests/simulator/test_step_by_step.py`` holds it to an engine that makes
every step.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from trimtab_core.snapshot import CapacityProfile, ReplicaPhase

from trimtab_sim import engine
from trimtab_sim.workload import Request

CHUNK_TOKENS = 2048
"""Prompt tokens read in one step: vLLM's default ``--max-num-batched-tokens`` for serving."""
_EPSILON = 1e-6
"""Steps and tokens nearer than this count as reached: far below one token, far above rounding noise."""
_FROZEN_STEP_SECONDS = 1e12
"""A step that ends long after every run."""


class Job:
    """One request in one engine; times are the engine clock's seconds, None until they happen."""

    __slots__ = ("_admitted_at_step", "_read_until", "done", "finished_at", "first_token_at", "request", "submitted_at")

    def __init__(self, request: Request, done: Callable[[Job], None]) -> None:
        self.request = request
        self.done = done
        self.submitted_at = 0.0
        self.first_token_at: float | None = None
        self.finished_at: float | None = None
        self._admitted_at_step = 0.0
        self._read_until = 0.0

    @property
    def itl_seconds(self) -> float | None:
        """Mean time between two output tokens; None for an answer that is unfinished or has one token."""
        if self.finished_at is None or self.first_token_at is None or self.request.output_tokens < 2:  # noqa: PLR2004
            return None
        return (self.finished_at - self.first_token_at) / (self.request.output_tokens - 1)


class Processor:
    """The engine of one replica: first come, first served into a batch whose members share each step.

    Args:
        clock: the engine of events.
        profile: the law of this hardware and model.
        chunk_tokens: prompt tokens read in one step.
    """

    def __init__(self, clock: engine.Engine, profile: CapacityProfile, *, chunk_tokens: int = CHUNK_TOKENS) -> None:
        self._clock = clock
        self._profile = profile
        self._chunk = chunk_tokens
        self._chunk_seconds = chunk_tokens / profile.prefill_tokens_per_second
        self._waiting: deque[Job] = deque()
        self._reading: deque[Job] = deque()  # admitted, prompt not yet read; in order
        self._first: list[tuple[float, int, Job]] = []  # (step of the first token, number, job)
        self._last: list[tuple[float, int, Job]] = []  # (step of the last token, number, job)
        self._number = 0
        self.running = 0
        """Sequences in the batch."""
        self._kv_reserved = 0
        self._steps = 0.0  # V
        self._read = 0.0  # prompt tokens read, ever
        self._admitted = 0.0  # prompt tokens admitted, ever
        self._at = self._busy_since = clock.now
        self._event: engine.Event | None = None
        self.sequence_seconds = 0.0
        """Sequences in the batch, integrated over time."""
        self.gap_seconds = 0.0
        """Times between two output tokens, summed up."""
        self.gaps = 0.0
        """Their number."""

    @property
    def waiting(self) -> int:
        """Requests that are not in the batch yet."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is reserved."""
        return self._kv_reserved / self._profile.kv_tokens

    @property
    def prompt_tokens(self) -> float:
        """Input tokens computed, ever."""
        return self._read

    def fits(self, request: Request) -> bool:
        """Whether the request can ever be served here."""
        return request.tokens <= self._profile.kv_tokens

    def submit(self, job: Job) -> None:
        """Queue a job. Raises ValueError if it never fits into the KV cache."""
        if not self.fits(job.request):
            raise ValueError(f"{job.request.tokens} tokens don't fit into a KV cache of {self._profile.kv_tokens}")
        self.advance()
        job.submitted_at = self._clock.now
        self._waiting.append(job)
        # The step under way can't take it any more; half of it is left on average.
        self._admit(residual=0.5 if self.running and self._clock.now > self._busy_since else 0.0)
        self._schedule()

    def advance(self) -> None:
        """Bring the progress up to the clock; rates have been constant since the last change."""
        since, self._at = self._at, self._clock.now
        elapsed = self._at - since
        if not self.running or elapsed <= 0:
            return
        step_seconds = self._step_seconds()
        steps = elapsed / step_seconds
        if self._reading:
            self._read_on(steps * self._chunk)
        reached = self._steps + steps + _EPSILON
        while self._first and self._first[0][0] <= reached:
            due, _, job = heapq.heappop(self._first)
            job.first_token_at = min(since + (due - self._steps) * step_seconds, self._at)
        self._steps += steps
        self.sequence_seconds += elapsed * self.running
        decoding = len(self._last)  # of those whose prompt was read meanwhile, the whole stretch: short beside it
        self.gap_seconds += elapsed * decoding
        self.gaps += steps * decoding

    def _read_on(self, read: float) -> None:
        """Read so many prompt tokens; whose prompt ends among them gets his tokens from there on."""
        reading, reached = self._reading, self._read + read + _EPSILON
        while reading and reading[0]._read_until <= reached:  # noqa: SLF001 (kept in the job for speed)
            job = reading.popleft()
            at_step = self._steps + (job._read_until - self._read) / self._chunk  # noqa: SLF001
            # a prompt shorter than a chunk is read within one step, whose end brings the first token
            first = max(job._admitted_at_step + 1, at_step)  # noqa: SLF001
            self._number += 1
            heapq.heappush(self._last, (first + job.request.output_tokens - 1, self._number, job))
            if job.request.output_tokens > 1:
                heapq.heappush(self._first, (first, self._number, job))
        self._read = self._read + read if reading else self._admitted

    def drop_all(self) -> list[Job]:
        """Forget every job, as a killed engine does, and return them."""
        self.advance()
        jobs = [*(job for _, _, job in sorted(self._last, key=lambda due: due[1])), *self._reading, *self._waiting]
        self._first.clear()
        self._last.clear()
        self._reading.clear()
        self._waiting.clear()
        self.running = self._kv_reserved = 0
        self._read = self._admitted
        self._schedule()
        return jobs

    def obey(self, profile: CapacityProfile) -> None:
        """From now on follow the law of another profile: an engine that has become slow, or fast again."""
        self.advance()
        self._profile = profile
        self._chunk_seconds = self._chunk / profile.prefill_tokens_per_second
        self._schedule()

    def _step_seconds(self) -> float:
        decode = self._profile.itl_base_seconds + self._profile.itl_per_sequence_seconds * self.running
        return decode + self._chunk_seconds if self._reading else decode

    def _admit(self, residual: float = 0.0) -> None:
        """Let waiting jobs in, in order, while there are slots, KV cache and room in the chunk.

        Args:
            residual: how much of a step must pass before they take part.
        """
        profile, waiting = self._profile, self._waiting
        while waiting and self.running < profile.max_sequences and self._admitted - self._read < self._chunk:
            job = waiting[0]
            if self._kv_reserved + job.request.tokens > profile.kv_tokens:
                return
            waiting.popleft()
            self._kv_reserved += job.request.tokens
            self._admitted += job.request.input_tokens
            job._read_until = self._admitted  # noqa: SLF001
            job._admitted_at_step = self._steps + residual  # noqa: SLF001
            self._reading.append(job)
            if not self.running:
                self._busy_since = self._clock.now
            self.running += 1

    def _schedule(self) -> None:
        """One event for what changes the rates next: a last token is due, or prompts are read.

        Of prompts only the last one matters, unless somebody waits for room in the chunk.
        """
        if self._event is not None:
            self._event.cancel()
            self._event = None
        if not self.running:
            return
        steps = self._last[0][0] - self._steps if self._last else math.inf
        if self._reading:
            job = self._reading[0 if self._waiting else -1]
            steps = min(steps, (job._read_until - self._read) / self._chunk)  # noqa: SLF001
        self._event = self._clock.after(max(steps, 0.0) * self._step_seconds(), self._wake, engine.Order.FINISH)

    def _wake(self) -> None:
        self._event = None
        self.advance()
        ended = []
        while self._last and self._last[0][0] <= self._steps + _EPSILON:
            _, _, job = heapq.heappop(self._last)
            job.finished_at = self._clock.now
            if job.first_token_at is None:  # the only one
                job.first_token_at = self._clock.now
            self.running -= 1
            self._kv_reserved -= job.request.tokens
            ended.append(job)
        self._admit()
        self._schedule()
        for job in ended:
            job.done(job)


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
        self.processor = Processor(clock, profile)
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
        done = job.done

        def settle(finished: Job) -> None:
            done(finished)
            self._leave_if_empty()

        job.done = settle
        self.processor.submit(job)

    def drain(self, timeout_s: float) -> None:
        """Take no more requests; finish those that are here, at most ``timeout_s``, then go."""
        self._next.cancel()
        if self.phase is ReplicaPhase.PENDING:
            self._set(None)
        elif self.phase is ReplicaPhase.READY:
            self._next = self._clock.after(timeout_s, self.kill)
            self._set(ReplicaPhase.DRAINING)
            self._leave_if_empty()

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

    def _leave_if_empty(self) -> None:
        idle = not self.processor.running and not self.processor.waiting
        if self.phase is ReplicaPhase.DRAINING and idle and not self.preempted:
            self._next.cancel()
            self._set(None)

    def _set(self, phase: ReplicaPhase | None) -> None:
        self.phase = phase
        if phase is None:
            self.gone_at = self._clock.now
        self._changed(self)
