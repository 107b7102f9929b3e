"""The circuit breaker of one endpoint, and how it is let back in. No clock, no I/O: time comes in as an argument.

::

    closed ──failures in a row, too large a share of failures, or nobody listens──▶ open
       ▲                                                                            │ its time is over
       └──the probe answers; its share grows back──  half open  ◀───────────────────┘
                                                     │ the probe fails: open again, for twice as long

While half open one request at a time is let through. What is asked for and not brought about by the endpoint itself,
such as a client that leaves, says nothing about it.
"""

from __future__ import annotations

from enum import Enum, auto

from trimtab_core.routing import table

LONGEST = 16.0
"""Most that the time of an ejection is lengthened by."""

FIRST_SHARE = 0.1
"""Of its capacity, that an endpoint may use as soon as it is back."""


class State(Enum):
    """Whether requests get through."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class Breaker:
    """What one endpoint's answers say of it.

    Attributes:
        state: as drawn above.
        failures: in a row.
        good, bad: answers and failures since the window's last half began.
        opened_until: monotonic seconds; 0 if it never opened.
        probing: half open, and its probe is under way.
    """

    __slots__ = (
        "_before", "_closed_at", "_half_since", "_openings", "bad", "failures", "good", "opened_until", "probing",
        "state",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.failures = self.good = self.bad = 0
        self.opened_until = 0.0
        self.probing = False
        self._before = (0, 0)
        self._half_since = 0.0
        self._openings = 0
        self._closed_at = -1e9

    @property
    def broken(self) -> bool:
        """Nothing more gets through now."""
        return self.state is State.OPEN or self.probing

    def succeeded(self, now: float) -> None:
        """It answered: failures before that were not in a row any more, and a probe has done its work."""
        self.good += 1
        self.failures = 0
        if self.state is not State.CLOSED:
            self.state, self.probing = State.CLOSED, False
            self._closed_at = now
            self._forget()

    def failed(self, rules: table.Resilience, *, at_once: bool = False) -> bool:
        """Count a failure; returns whether it should open now."""
        self.bad += 1
        self.failures += 1
        if self.state is State.OPEN:
            return False
        if at_once or self.state is State.HALF_OPEN or self.failures >= rules.eject_after:
            return True
        good, bad = self._before[0] + self.good, self._before[1] + self.bad
        return good + bad >= rules.failure_requests and bad >= rules.failure_ratio * (good + bad)

    def open(self, rules: table.Resilience, now: float) -> None:
        """Let nothing through for a while; for longer if it was not long ago that it opened last."""
        calm = now - self._closed_at > rules.ease_in_seconds and self.state is State.CLOSED
        self._openings = 1 if calm else self._openings + 1
        self.state, self.probing = State.OPEN, False
        self.opened_until = now + rules.eject_seconds * min(LONGEST, 2.0 ** (self._openings - 1))
        self._forget()

    def released(self) -> None:
        """A request ended that says nothing about the endpoint; if it was the probe, another one may be sent."""
        self.probing = False

    def tick(self, rules: table.Resilience, now: float) -> bool:
        """Let time pass; returns whether ``broken`` changed."""
        if now - self._half_since >= rules.failure_window / 2:
            self._before, self._half_since = (self.good, self.bad), now
            self.good = self.bad = 0
        if self.state is State.OPEN and now >= self.opened_until:
            self.state = State.HALF_OPEN
            return True
        return False

    def share(self, rules: table.Resilience, now: float) -> float:
        """Of its capacity, that may be used: 1 but for the time after an ejection."""
        if self.state is not State.CLOSED:
            return FIRST_SHARE
        if rules.ease_in_seconds <= 0:
            return 1.0
        return min(1.0, max(FIRST_SHARE, (now - self._closed_at) / rules.ease_in_seconds))

    def _forget(self) -> None:
        self.good = self.bad = 0
        self._before = (0, 0)
