"""An outbox: a bounded queue of what is to be told aside of the traffic. What does not fit is dropped and counted."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from trimtab_core import telemetry

from trimtab_router import metrics

T = TypeVar("T")


class Outbox(Generic[T]):
    """Keeps at most so many items; the newest give way, because what went wrong first tells most.

    Args:
        sink: label value of where they go.
        most: items.
        registry: for the count of those that are dropped.
    """

    def __init__(self, sink: str, most: int, registry: metrics.Registry) -> None:
        self._sink, self._most, self._registry = sink, most, registry
        self._items: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Keep one if there is room."""
        if len(self._items) >= self._most:
            self.dropped(1, "full")
        else:
            self._items.append(item)

    def take(self, most: int) -> list[T]:
        """The oldest ones, taken out."""
        items = self._items
        return [items.popleft() for _ in range(min(most, len(items)))]

    def dropped(self, count: int, reason: str) -> None:
        """Count items that nobody will be told of."""
        self._registry.counter(telemetry.UNTOLD, self._sink, reason).add(count)
