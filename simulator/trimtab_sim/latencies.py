"""Latencies of any number of requests in bounded memory: all of them while they are few, buckets from then on.

A bucket is 2 % wide, so a percentile read from buckets is at most 1 % off (the bound of DDSketch: C. Masson, J. E. Rim,
H. K. Lee, VLDB 2019); one of few values is one of them. Knows nothing of requests.
"""

from __future__ import annotations

import bisect
import itertools
import math
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

TAIL = 0.95
EXACT = 20_000
"""Values that are kept as they are: 80 kB."""
_GROWTH = 1.02
_LEAST_SECONDS = 1e-6
"""Whatever is shorter counts as nothing."""
_LOWEST = math.ceil(math.log(_LEAST_SECONDS) / math.log(_GROWTH))


class Latencies:
    """A collection of latencies in seconds.

    Attributes:
        fresh: the newest values, as 4-byte floats. Append to it, and call ``fold`` before it is longer than ``EXACT``.
    """

    __slots__ = ("_buckets", "fresh")

    def __init__(self) -> None:
        self.fresh: array[float] = array("f")
        self._buckets: Counter[int] = Counter()

    def fold(self) -> None:
        """Put the fresh values into buckets."""
        if not self.fresh:
            return
        values = np.maximum(np.frombuffer(self.fresh, dtype=np.float32).astype(np.float64), _LEAST_SECONDS)
        numbers = np.ceil(np.log(values) / math.log(_GROWTH)).astype(np.int64)
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            self._buckets[int(number)] += int(count)
        self.fresh = array("f")

    def join(self, other: Latencies) -> None:
        """Take over what another collection holds; exact as long as neither has buckets, however many there are."""
        self._buckets.update(other._buckets)
        self.fresh.extend(other.fresh)

    def percentile(self, share: float = TAIL) -> float | None:
        """The value that at least ``share`` of the values don't exceed, to 1 % if there are many; None without any."""
        if not self._buckets:
            return percentile(self.fresh, share)
        self.fold()
        numbers = sorted(self._buckets)
        below = list(itertools.accumulate(self._buckets[number] for number in numbers))
        number = numbers[min(bisect.bisect_left(below, share * below[-1] - 1e-9), len(numbers) - 1)]
        # the value whose relative distance to both edges of the bucket is the same
        return 2 * _GROWTH**number / (1 + _GROWTH) if number > _LOWEST else 0.0


def percentile(values: Sequence[float], share: float = TAIL) -> float | None:
    """The smallest value that at least ``share`` of the values don't exceed (nearest rank); None without values."""
    if not values:
        return None
    at = max(0, math.ceil(share * len(values) - 1e-9) - 1)
    return float(np.partition(np.asarray(values), at)[at])
