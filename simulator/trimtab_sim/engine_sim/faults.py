"""
Failures on command: what kinds there are, how they are written, and which request draws one. Pure; time is an argument.

A fault is written `KIND[,name=value]…`, for example `cut-stream,after_tokens=20,share=0.1`. Kinds of the process act by
themselves (`refuse`, `slow-start`, `never-ready`, `freeze`); kinds of a request are drawn once for each new request.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

KINDS: Mapping[str, str] = {
    "refuse": "close the listening socket; connections already open go on",
    "slow-start": "wait `seconds` more before the port opens",
    "never-ready": "never open the port",
    "die-mid-stream": "end the whole process after `after_tokens` tokens of an answer, as a crash would",
    "cut-stream": "close the connection after `after_tokens` tokens, without an end of the body",
    "freeze": "stop the engine while /health goes on to answer 200",
    "abort": 'finish after `after_tokens` tokens with finish_reason "abort"',
    "busy": "answer 503 without Retry-After",
    "bad-json": "send a body or events that are no JSON",
    "stream-error": "after `after_tokens` tokens send an error event, then [DONE]; plain requests get 500",
}
OF_PROCESS = frozenset(("refuse", "slow-start", "never-ready", "freeze"))


class FaultError(ValueError):
    """A fault is written wrong; the message says how to write it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """
    One fault to inject.

    Attributes:
        kind: One of `KINDS`.
        after_tokens: Tokens of an answer that still come.
        seconds: How long it lasts, wall seconds; None is without end. Of `slow-start` how long it delays, which the
            time scale divides like every delay of the engine.
        share: Share of requests that draw it, 0 to 1.
        count: Most requests that draw it; None is without limit.

    """

    kind: str
    after_tokens: int = 0
    seconds: float | None = None
    share: float = 1.0
    count: int | None = None

    def __post_init__(self) -> None:
        """Check the values; raise FaultError."""
        if self.kind not in KINDS:
            raise FaultError(f"unknown fault {self.kind!r}: use one of {', '.join(KINDS)}")
        if (
            self.after_tokens < 0
            or (self.count is not None and self.count < 0)
            or (self.seconds is not None and not self.seconds >= 0)
        ):
            raise FaultError(f"{self.kind}: after_tokens, seconds and count must not be negative")
        if not 0 <= self.share <= 1:
            raise FaultError(f"{self.kind}: share must be between 0 and 1, got {self.share}")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as /sim/faults shows them."""
        return dataclasses.asdict(self)


def parse(text: str) -> Fault:
    """Return the fault written as `KIND[,name=value]…`. Raises FaultError."""
    kind, *rest = (part.strip() for part in text.split(","))
    fields: dict[str, Any] = {"kind": kind}
    for part in rest:
        name, equals, value = part.partition("=")
        if not equals:
            raise FaultError(f"fault {text!r}: write {name!r} as name=value")
        fields[name.strip()] = value.strip()
    return from_fields(fields)


def from_fields(fields: Mapping[str, Any]) -> Fault:
    """Return the fault with these fields (text or numbers), as /sim/faults gets them. Raises FaultError."""
    readers: dict[str, type] = {"kind": str, "after_tokens": int, "seconds": float, "share": float, "count": int}
    values: dict[str, Any] = {}
    for name, raw in fields.items():
        if name not in readers:
            raise FaultError(f"a fault has no field {name!r}: use {', '.join(readers)}")
        if raw is None:
            continue
        try:
            values[name] = readers[name](raw)
        except (TypeError, ValueError) as error:
            raise FaultError(f"fault field {name} must be {readers[name].__name__}, got {raw!r}") from error
    if "kind" not in values:
        raise FaultError("a fault needs its kind")
    return Fault(**values)


@dataclasses.dataclass(slots=True)
class _Active:
    fault: Fault
    since: float
    left: int | None


class Board:
    """The faults in force."""

    def __init__(self, seed: int) -> None:
        """Make an empty board; `seed` fixes which requests draw a fault with a share."""
        self._random = random.Random(seed)
        self._active: list[_Active] = []

    def add(self, fault: Fault, now: float) -> None:
        """Put a fault in force from `now`, monotonic seconds."""
        self._active.append(_Active(fault, since=now, left=fault.count))

    def clear(self) -> None:
        """Lift all faults."""
        self._active.clear()

    def in_force(self, now: float) -> list[Fault]:
        """Return the faults that still act at `now`, and forget the others."""
        self._active = [entry for entry in self._active if not _over(entry, now)]
        return [entry.fault for entry in self._active]

    def acts(self, kind: str, now: float) -> bool:
        """Return whether a fault of this kind acts at `now`."""
        return bool(self._active) and any(fault.kind == kind for fault in self.in_force(now))

    def draw(self, now: float) -> Fault | None:
        """Return the fault that a request arriving at `now` meets, the first that hits, or None."""
        if not self._active:
            return None
        self.in_force(now)
        for entry in self._active:
            if entry.fault.kind in OF_PROCESS or self._random.random() >= entry.fault.share:
                continue
            if entry.left is not None:
                entry.left -= 1
            return entry.fault
        return None


def _over(entry: _Active, now: float) -> bool:
    expired = entry.fault.seconds is not None and now - entry.since >= entry.fault.seconds
    return expired or entry.left == 0
