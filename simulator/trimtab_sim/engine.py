"""The engine of discrete events: a clock and a totally ordered queue. Knows nothing of what the events mean.

Every event has (time, priority, running number). Equal times are settled by priority, equal priorities by the order
of scheduling: never by chance, hashing or addresses, so a run repeats to the last bit. An event is a plain function
without arguments, called at its time; it may schedule further events, at its own time or later.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TypeVar

Action = Callable[[], None]
T = TypeVar("T")


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
    """A scheduled action that can be taken back with ``cancel``."""

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

    def __call__(self) -> None:
        """Run the action, once; nothing if it was cancelled."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Engine:
    """The clock and the queue. Times are seconds; the clock never goes back.

    Args:
        now: where the clock begins.

    Attributes:
        now: the current time in seconds; only the engine sets it.
    """

    __slots__ = ("_number", "_queue", "now")

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._queue: list[tuple[float, int, int, Action]] = []
        self._number = 0

    def at(self, time: float, action: Action, order: Order = Order.CHANGE) -> Event:
        """Schedule ``action`` for ``time``.

        Raises:
            ValueError: if the time lies in the past or is not a number.
        """
        event = Event(time, action)
        self.post(time, event, order)
        return event

    def after(self, delay: float, action: Action, order: Order = Order.CHANGE) -> Event:
        """Schedule ``action`` in ``delay`` seconds. Raises ValueError for a negative delay."""
        return self.at(self.now + delay, action, order)

    def post(self, time: float, action: Action, order: int = Order.CHANGE) -> None:
        """Like ``at`` for what is never taken back: costs less. Pass ``order`` as a plain int where it counts."""
        if not self.now <= time < math.inf:
            raise ValueError(f"an event at {time} s can't be scheduled: the clock stands at {self.now} s")
        self._number = number = self._number + 1
        heapq.heappush(self._queue, (time, order, number, action))

    def feed(
        self, items: Iterator[T], time_of: Callable[[T], float], action: Callable[[T], None], order: Order
    ) -> None:
        """Schedule ``action`` for each item at its time. Only one item waits in the queue, so there may be millions.

        Args:
            items: in order of time.
            time_of: seconds.
            action: told the item.
            order: among events of one moment.

        Raises:
            ValueError: from here or from ``run``, if an item's time lies before that of the item before it.
        """
        rank, coming = int(order), next(items, None)

        def take() -> None:
            nonlocal coming
            item = coming
            assert item is not None
            coming = next(items, None)
            if coming is not None:
                self.post(time_of(coming), take, rank)
            action(item)

        if coming is not None:
            self.post(time_of(coming), take, rank)

    def peek(self) -> float:
        """Time of the next event; infinity when there is none."""
        queue = self._queue
        while queue and isinstance(event := queue[0][3], Event) and not event.pending:
            heapq.heappop(queue)
        return queue[0][0] if queue else math.inf

    def step(self) -> None:
        """Advance the clock to the next event and run it.

        Raises:
            IndexError: when there is no event.
        """
        self.peek()
        self.now, _, _, action = heapq.heappop(self._queue)
        action()

    def run(self, until: float) -> None:
        """Run all events up to and at ``until``, then set the clock to it."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until:
            self.now, _, _, action = pop(queue)
            action()
        self.now = max(self.now, until)

    def halt(self) -> None:
        """Forget all events: a ``run`` under way ends with the current one."""
        self._queue.clear()
