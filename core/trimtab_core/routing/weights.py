"""Weights are shares; this is how they come true: the easiest share of a class goes to its cheapest tier.

Scores have no fixed scale, so a threshold on them would give no fixed share. Instead each class keeps a
streaming histogram of its scores; a request's rank in it is uniform in [0, 1) whatever the scores look like,
and tiers, ordered by quality, own consecutive intervals of the rank.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

BINS = 128
_BLOCK = 16
MEMORY = 4096
"""Once this many scores are counted all counts are halved: the histogram follows traffic that changes."""


@dataclass(slots=True)
class RankHistogram:
    """Scores of one class as they came.

    Attributes:
        counts: by bin.
        blocks: sums of ``_BLOCK`` bins each, so that a rank adds up few numbers.
        total: of all counts.
    """

    counts: list[float] = field(default_factory=lambda: [0.0] * BINS)
    blocks: list[float] = field(default_factory=lambda: [0.0] * (BINS // _BLOCK))
    total: float = 0.0

    def rank(self, score: float, rng: random.Random) -> float:
        """The score's rank among those before it, in [0, 1), and count it.

        Ties (one bin) are broken at random, so that equal prompts still split by the shares. The first
        request's rank is a plain random number.
        """
        counts, blocks = self.counts, self.blocks
        bin_ = min(int(score * BINS), BINS - 1)
        block = bin_ // _BLOCK
        here = counts[bin_] + 1
        below = sum(blocks[:block]) + sum(counts[block * _BLOCK : bin_])
        self.total = total = self.total + 1
        rank = (below + rng.random() * here) / total
        counts[bin_] = here
        blocks[block] += 1
        if total >= MEMORY:
            self.counts = [count / 2 for count in self.counts]
            self.blocks = [sum(self.counts[at : at + _BLOCK]) for at in range(0, BINS, _BLOCK)]
            self.total = sum(self.blocks)
        return rank


@dataclass(frozen=True, slots=True)
class Intervals:
    """Consecutive shares of [0, 1): ``tiers[i]`` owns the ranks up to ``bounds[i]``."""

    bounds: tuple[float, ...]
    tiers: tuple[str, ...]

    def owner(self, rank: float) -> str:
        """The tier that owns a rank."""
        return self.tiers[min(bisect.bisect_right(self.bounds, rank), len(self.tiers) - 1)]


def intervals(shares: Mapping[str, float], by_quality: Iterable[str]) -> Intervals | None:
    """Lay shares end to end, the tier of least quality first; None if no tier has a share.

    Args:
        shares: tier → share; need not sum to 1.
        by_quality: all tier names, quality ascending.
    """
    tiers = [name for name in by_quality if shares.get(name, 0.0) > 0]
    total = sum(shares[name] for name in tiers)
    if not tiers:
        return None
    bounds, upper = [], 0.0
    for name in tiers:
        upper += shares[name] / total
        bounds.append(upper)
    return Intervals(tuple(bounds), tuple(tiers))
