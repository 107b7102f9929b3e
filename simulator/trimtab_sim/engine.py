"""The engine of discrete events: a clock and a totally ordered queue. Knows nothing of what the events mean.

Every event has (time, priority, running number). Equal times are settled by priority, equal priorities by the order
of scheduling: never by chance, hashing or addresses, so a run repeats to the last bit. An event is a plain function
without arguments, called at its time; it may schedule further events, at its own time or later.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from enum import IntEnum

Action = Callable[[], None]


class Order(IntEnum):
    """What goes first among events of one moment."""

    FINISH = 0
    """What ends, ends first: a slot that is freed at 12.0 s can be taken at 12.0 s."""
    CHANGE = 1
    """Replicas become ready or go."""
    ARRIVE = 2
    """Requests come in."""
    MEASURE = 3
    """Scrapes see everything that has happened by then."""
    DECIDE = 4
    """Controllers see the scrape of the same moment."""


class Event:
    """A scheduled action; ``cancel`` takes it back."""

    __slots__ = ("_action", "time")

    def __init__(self, time: float, action: Action) -> None:
        self.time = time
        self._action: Action | None = action

    @property
    def pending(self) -> bool:
        """Whether it has neither run nor been cancelled."""
        return self._action is not None

    def cancel(self) -> None:
        """Never run it. Costs nothing now: its place in the queue is skipped when its time comes."""
        self._action = None

    def run(self) -> None:
        """Run the action, once; nothing if it was cancelled."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Engine:
    """The clock and the queue. Times are seconds; the clock never goes back.

    Args:
        now: where the clock begins.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._queue: list[tuple[float, int, int, Event]] = []
        self._number = 0

    @property
    def now(self) -> float:
        """The current time in seconds."""
        return self._now

    def at(self, time: float, action: Action, order: Order = Order.CHANGE) -> Event:
        """Schedule ``action`` for ``time``.

        Raises:
            ValueError: if the time lies in the past or is not a number.
        """
        if not time >= self._now or math.isinf(time):
            raise ValueError(f"an event at {time} s can't be scheduled: the clock stands at {self._now} s")
        event = Event(time, action)
        self._number += 1
        heapq.heappush(self._queue, (time, order, self._number, event))
        return event

    def after(self, delay: float, action: Action, order: Order = Order.CHANGE) -> Event:
        """Schedule ``action`` in ``delay`` seconds. Raises ValueError for a negative delay."""
        return self.at(self._now + delay, action, order)

    def peek(self) -> float:
        """Time of the next event; infinity when there is none."""
        while self._queue and not self._queue[0][3].pending:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else math.inf

    def step(self) -> None:
        """Advance the clock to the next event and run it.

        Raises:
            IndexError: when there is no event.
        """
        self.peek()
        time, _, _, event = heapq.heappop(self._queue)
        self._now = time
        event.run()

    def run(self, until: float) -> None:
        """Run all events up to and at ``until``, then set the clock to it."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until:
            time, _, _, event = pop(queue)
            if event.pending:
                self._now = time
                event.run()
        self._now = max(self._now, until)

    def halt(self) -> None:
        """Forget all events: a ``run`` under way ends with the current one."""
        self._queue.clear()
