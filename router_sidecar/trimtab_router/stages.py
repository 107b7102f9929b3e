"""Where the time of one request went: for ``X-Trimtab-Debug: 1`` of peers that may be believed, in the answer's head.

As a ``server-timing`` header (W3C Server Timing), which browsers' tools and others show; milliseconds.
"""

from __future__ import annotations

HEADER = b"x-trimtab-debug"


class Stages:
    """The moments of one request, in monotonic seconds.

    Attributes:
        arrived_at: its first byte.
        read_at: its last one.
        admitted_at: it was identified, classified, and looked up in the cache.
    """

    __slots__ = ("admitted_at", "arrived_at", "read_at")

    def __init__(self, arrived_at: float, read_at: float) -> None:
        self.arrived_at, self.read_at, self.admitted_at = arrived_at, read_at, read_at

    def lines(self, now: float, *, asked_at: float | None, endpoint: str, score: float | None) -> bytes:
        """Header lines, each with its end.

        Args:
            now: the answer begins.
            asked_at: when the engine was asked whose answer it is; None if none was.
            endpoint: its name.
            score: complexity; None if nothing needed it.
        """
        spans = [("read", self.read_at - self.arrived_at), ("admit", self.admitted_at - self.read_at)]
        if asked_at is not None:
            # Limits, waiting for room, and attempts that failed.
            spans += [("wait", asked_at - self.admitted_at), ("engine", now - asked_at)]
        spans.append(("total", now - self.arrived_at))
        timing = ", ".join(f"{name};dur={max(0.0, seconds) * 1e3:.3f}" for name, seconds in spans)
        more = f"x-trimtab-endpoint: {endpoint}\r\n" if endpoint else ""
        more += f"x-trimtab-score: {score:.4f}\r\n" if score is not None else ""
        return f"server-timing: {timing}\r\n{more}".encode()
