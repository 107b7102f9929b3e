"""How good a tier's answers are expected to be on prompts of a given complexity.

The model. A tier has one prior, the probability q that an answer is as good as wanted, averaged over all prompts
(complexity d uniform in 0 to 1: scores are ranks). Its failures grow linearly with d:

    quality(d) = 1 - (1 - q) · (1 + m·(2d - 1)),   0 ≤ m ≤ 1.

The mean over d is q for every m. At m = 1 all tiers are equally good on the easiest prompt; at m = 0 the score says
nothing. The gap between two tiers, ``Δq·(1 + m·(2d - 1))``, never falls with d, so sending the lowest
scores to the cheapest tier is the best way to realise any split, and the expected quality is concave in the split.

m is measurable: sending the share f of highest scores to the better tier recovers ``f·(1 + m - m·f)`` of the gap,
whose mean over f, the *area*, is ``1/2 + m/6``. The built-in score reaches an area of 0.61 within a set of prompts on
average over five public sets, each half judged by a fit on the other: m = 0.6 (``benchmarks/fit/complexity.py``). It is
1 and more on mixed traffic and 0.1 to 0.2 inside one hard exam, so a policy may state what was measured on its own
traffic. Overstating m costs quality that nobody sees; understating it costs money. An S-shaped item-response curve was
tried first: its gap falls again on hard prompts that no tier solves, which contradicts these areas and would make
rank-ordered splits no longer the best ones.
"""

from __future__ import annotations

from collections.abc import Sequence

DISCRIMINATION = 0.6
"""m of the built-in complexity score (``classifier.BUILTIN``), where nobody has measured it on a policy's traffic."""


def discrimination(priors: Sequence[float], measured: float = DISCRIMINATION) -> float:
    """The m in force among tiers of these priors.

    The weakest tier must not fail more often than always: ``(1 - q)·(1 + m) ≤ 1`` gives ``m ≤ q / (1 - q)``.
    """
    weakest = min(priors, default=1.0)
    ceiling = weakest / (1.0 - weakest) if weakest < 1.0 else 1.0
    return max(0.0, min(measured, ceiling, 1.0))


def expected(prior: float, low: float, high: float, m: float) -> float:
    """Mean quality over prompts of complexity low to high; exact, as the curve is linear."""
    return 1.0 - (1.0 - prior) * (1.0 + m * (low + high - 1.0))


def segments(low: float, high: float, count: int) -> tuple[tuple[float, float], ...]:
    """The range cut into parts of equal mass, easiest first."""
    step = (high - low) / count
    return tuple((low + step * index, low + step * (index + 1)) for index in range(count))


def of_split(shares: Sequence[tuple[float, float]], low: float, high: float, m: float) -> float:
    """Expected quality of a class whose requests are split by rank.

    Args:
        shares: (prior, share) of each tier; the tier of the lowest prior gets the lowest scores. Shares sum to 1.
        low: where the class's range of complexity begins.
        high: where it ends.
        m: discrimination.
    """
    total, at = 0.0, low
    for prior, share in sorted(shares):
        until = at + (high - low) * share
        total += share * expected(prior, at, until, m)
        at = until
    return total
