"""
The running engine: the edge that asks a clock, steps the scheduler and wakes whoever waits for tokens.

One timer drives all sequences. While nothing runs there is no timer, so an idle engine costs nothing. Steps follow
the ideal schedule (each ends `step_seconds` after the one before, not after the timer fired), so coarse timers do not
slow the tokens down; only when the process is far behind does the schedule start anew, as a slow engine's would.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable

from trimtab_sim.engine_sim import blocks, faults, metrics, scheduler, settings

_FAR_BEHIND_SECONDS = 0.25
DEAD_MESSAGE = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class EngineBusyError(Exception):
    """A queue limit was reached; nothing was queued."""


class EngineDeadError(Exception):
    """The engine failed while the request was in it, or had failed before."""


class EngineClosedError(Exception):
    """The engine drains: it takes no new requests."""


@dataclasses.dataclass(eq=False, slots=True)
class Ticket:
    """
    One request in the engine: its sequences and a way to wait for news of them.

    Attributes:
        sequences: In the order of choices; filled before submission.
        max_tokens: Of each sequence.
        choices: The request's `n`, for each prompt.
        failed: Set when the engine died under it.

    """

    sequences: list[scheduler.Sequence]
    max_tokens: int
    choices: int
    failed: bool = False
    _news: asyncio.Future[None] | None = None

    @property
    def done(self) -> bool:
        """Whether every sequence has ended."""
        return all(sequence.finish_reason is not None for sequence in self.sequences)

    def wake(self) -> None:
        """Let the waiter look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def news(self) -> None:
        """
        Wait until something has happened since the last look.

        Raises:
            EngineDeadError: The engine died.

        """
        if self.failed:
            raise EngineDeadError(DEAD_MESSAGE)
        self._news = asyncio.get_running_loop().create_future()
        await self._news
        if self.failed:
            raise EngineDeadError(DEAD_MESSAGE)


class Engine:
    """One simulated engine."""

    def __init__(
        self, config: settings.Settings, board: faults.Board, *, clock: Callable[[], float], born: float
    ) -> None:
        """
        Make an idle engine.

        Args:
            config: Its limits and timing.
            board: Faults in force; only `freeze` concerns the engine itself.
            clock: Monotonic seconds.
            born: Unix time, for `_created` metrics.

        """
        self.metrics = metrics.EngineMetrics(config, born=born)
        self.sleep_level: int | None = None
        self.paused = False
        self._config = config
        self._board = board
        self._clock = clock
        self._law = config.clock
        pool = blocks.BlockPool(
            num_blocks=config.num_blocks, block_size=config.block_size, prefix_caching=config.enable_prefix_caching
        )
        self.scheduler = scheduler.Scheduler(
            pool,
            max_sequences=config.max_num_seqs,
            max_batched_tokens=config.max_num_batched_tokens,
            by_priority=config.scheduling_policy == "priority",
        )
        self._held: list[scheduler.Sequence] = []
        self._tickets: set[Ticket] = set()
        self._step: scheduler.Step | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None  # when the step under way, or the last one, ends; None while idle
        self._closed = False
        self._dead = False
        self._halted = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._tickets)

    def submit(self, ticket: Ticket) -> None:
        """
        Queue a request.

        Raises:
            EngineClosedError: The engine drains.
            EngineDeadError: The engine has failed.
            EngineBusyError: A queue limit is reached; the rejection is counted.

        """
        if self._closed:
            raise EngineClosedError("cannot schedule new futures after shutdown")
        if self._dead:
            raise EngineDeadError(DEAD_MESSAGE)
        self._check_limits(ticket)
        now = self._clock()
        self._tickets.add(ticket)
        self._idle.clear()
        for sequence in ticket.sequences:
            sequence.arrived = now
            if self.paused:
                self._held.append(sequence)
            else:
                self.scheduler.add(sequence)
        self._start_step()

    def _check_limits(self, ticket: Ticket) -> None:
        most = self._config.max_num_queued_reqs
        if most is not None and len(self._tickets) >= most:
            self.metrics.add("admission_rejections_total", 1.0, "max_num_queued_reqs")
            raise EngineBusyError
        most = self._config.max_num_queued_tokens
        if most is not None:
            prompts = (len(sequence.prompt) for one in (*self._tickets, ticket) for sequence in one.sequences)
            if sum(prompts) > most:
                self.metrics.add("admission_rejections_total", 1.0, "max_num_queued_tokens")
                raise EngineBusyError

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request whose client has gone: slots and blocks are freed and no success is counted."""
        if ticket not in self._tickets:
            return
        for sequence in ticket.sequences:
            if sequence.finish_reason is None:
                self._take_out(sequence)
                sequence.finish_reason = "abort"
        self._leave(ticket)
        ticket.wake()

    def abort(self, tickets: Iterable[Ticket]) -> int:
        """End requests with finish_reason `abort`, as an answer that the client gets; return how many."""
        count = 0
        now = self._clock()
        for ticket in list(tickets):
            if ticket not in self._tickets:
                continue
            count += 1
            for sequence in ticket.sequences:
                if sequence.finish_reason is None:
                    self._take_out(sequence)
                    sequence.finish_reason = "abort"
                    self.metrics.sequence_finished(sequence, now, max_tokens=ticket.max_tokens)
            self._finish(ticket)
        return count

    def abort_ids(self, request_ids: Iterable[str]) -> int:
        """Abort requests by their external ids; unknown ids are ignored; return how many were aborted."""
        wanted = set(request_ids)
        return self.abort(ticket for ticket in self._tickets if ticket.sequences[0].request_id in wanted)

    def abort_all(self) -> int:
        """Abort every request; return how many there were."""
        return self.abort(self._tickets)

    async def pause(self, mode: str) -> None:
        """Stop, and hold new requests: `keep` freezes what runs, `wait` lets it end first, `abort` ends it now."""
        self.paused = True
        if mode == "abort":
            self.abort(self._tickets)
        elif mode == "wait":
            await self._quiet.wait()
        self._halted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Go on after a pause, held requests first."""
        self.paused = self._halted = False
        held, self._held = self._held, []
        for sequence in held:
            self.scheduler.add(sequence)
        self._start_step()

    async def sleep(self, level: int) -> None:
        """Go to sleep: running requests are aborted, the prefix cache is dropped, new requests hang."""
        await self.pause("abort")
        self.scheduler.pool.forget()
        self.sleep_level = level
        self.metrics.set_sleep(level)

    def wake_up(self) -> None:
        """End the sleep."""
        self.sleep_level = None
        self.metrics.set_sleep(None)
        self.resume()

    def close(self) -> None:
        """Take no new requests; those in flight go on."""
        self._closed = True

    def die(self) -> None:
        """Fail every request in flight and all to come."""
        self._dead = True
        if self._timer is not None:
            self._timer.cancel()
        for ticket in list(self._tickets):
            ticket.failed = True
            self._leave(ticket)
            ticket.wake()

    async def drained(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    def thaw(self) -> None:
        """Look again whether the engine may step; called when faults have changed."""
        self._start_step()

    def _take_out(self, sequence: scheduler.Sequence) -> None:
        if sequence in self._held:
            self._held.remove(sequence)
        self.scheduler.abort(sequence)
        if not self.scheduler.busy:
            self._quiet.set()

    def _leave(self, ticket: Ticket) -> None:
        self._tickets.discard(ticket)
        if not self._tickets:
            self._idle.set()

    def _finish(self, ticket: Ticket) -> None:
        per_prompt = max(1, ticket.choices)
        for start in range(0, len(ticket.sequences), per_prompt):
            group = ticket.sequences[start : start + per_prompt]
            self.metrics.request_finished(choices=ticket.choices, longest=max(one.generated for one in group))
        self._leave(ticket)
        ticket.wake()

    def _start_step(self) -> None:
        """Begin a step unless one is under way, nothing is to do, or the engine may not run."""
        if self._timer is not None or self._dead or self._halted:
            return
        now = self._clock()
        if self._step is None:
            if not self.scheduler.busy:
                self._quiet.set()
                return
            self._quiet.clear()
            self._step = self.scheduler.plan(now)
            begin = self._deadline
            if begin is None or begin < now - _FAR_BEHIND_SECONDS or not self._step.work:
                begin = now
            self._deadline = begin + self._law.step_seconds(
                running=self._step.running, prefill_tokens=self._step.prefill_tokens
            )
        delay = max(0.0, (self._deadline or now) - now)
        self._timer = asyncio.get_running_loop().call_later(delay, self._end_step)

    def _end_step(self) -> None:
        self._timer = None
        step, self._step = self._step, None
        if step is None:
            return
        now = self._clock()
        if self._board.acts("freeze", now):
            self._step = step
            self._deadline = now + _FAR_BEHIND_SECONDS
            self._start_step()
            return
        advanced = self.scheduler.complete(step)
        self.metrics.step_done(advanced, now)
        for sequence in advanced:
            self._report(sequence, now)
        if not self.scheduler.busy:
            self._deadline = None
            self._quiet.set()
        self._start_step()

    def _report(self, sequence: scheduler.Sequence, now: float) -> None:
        ticket = sequence.owner
        if sequence.finish_reason is not None and isinstance(ticket, Ticket):
            self.metrics.sequence_finished(sequence, now, max_tokens=ticket.max_tokens)
            if ticket.done and ticket in self._tickets:
                self._finish(ticket)
                return
        if sequence.finish_reason is not None or (sequence.generated - 1) % self._config.stream_interval == 0:
            ticket.wake()
