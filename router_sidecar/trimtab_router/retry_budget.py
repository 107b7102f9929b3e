"""The retry budget: further attempts as a share of the requests, so that a failing fleet isn't asked many times over.

A count per request multiplies the load just when engines can bear it least: with two retries each, three times as much.
A share bounds it, whatever fails. Fallbacks, retries and hedges all draw on it; a request sent again because a pooled
connection was already closed does not, for no engine saw it. No clock: time comes in as an argument.
"""

from __future__ import annotations

from collections import deque

from trimtab_core.routing import table

_SLOTS = 10


class RetryBudget:
    """What may be asked again, over a sliding window.

    Attributes:
        arrived: requests so far; whoever takes one in counts it here.
        refused: attempts that were not made because nothing was left.
    """

    __slots__ = ("_floor", "_share", "_slots", "_spent", "_window", "arrived", "refused")

    def __init__(self, rules: table.Resilience) -> None:
        self.arrived = self.refused = 0
        self._spent = 0
        self._slots: deque[tuple[float, int, int]] = deque([(float("-inf"), 0, 0)])
        self.follow(rules)

    def follow(self, rules: table.Resilience) -> None:
        """Go by the numbers of a new table from now on."""
        self._share = rules.retry_share
        self._floor = rules.retry_floor_per_second * rules.retry_window
        self._window = rules.retry_window

    def left(self, now: float) -> float:
        """Attempts that may be made now.

        In any window no more are made than ``retry_share`` of the requests that came in it, or in the tenth of a
        window before it, and what the floor gives.
        """
        self.slide(now)
        _, arrived, spent = self._slots[0]
        return self._share * (self.arrived - arrived) + self._floor - (self._spent - spent)

    def withdraw(self, now: float) -> bool:
        """Take one further attempt; False if none is left."""
        if self.left(now) < 1.0:
            self.refused += 1
            return False
        self._spent += 1
        return True

    def slide(self, now: float) -> None:
        """Let the window move on; to be called many times in each."""
        slots = self._slots
        if now - slots[-1][0] >= self._window / _SLOTS:
            slots.append((now, self.arrived, self._spent))
        while len(slots) > 1 and slots[1][0] <= now - self._window:
            slots.popleft()
