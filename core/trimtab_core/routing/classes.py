"""Which class takes a request, which tiers may serve that class, and in which order they are tried. Pure.

Compiled once for a table and asked for every request, by the HTTP router and the simulated one alike. Must not know
how a request travels or whether an endpoint is up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from trimtab_core.routing import table, weights

PRIORITY = b"x-trimtab-priority"


class Traits(Protocol):
    """What a class may look at in a request."""

    @property
    def sensitive(self) -> bool:
        """Marked, or found to be."""

    @property
    def model(self) -> str:
        """That it asks for."""

    @property
    def tenant(self) -> str:
        """That sent it; empty if unknown."""

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """By lower-case name, as they came."""

    @property
    def complexity(self) -> float:
        """Score in [0, 1]; read only if a class asks for it, so that it may be worked out then."""


Test = Callable[[Traits], bool]


def compile_match(match: table.Match) -> tuple[Test, ...]:
    """One test for each part that is given, the dear one last; none for a class that takes everything."""
    tests: list[Test] = []
    if match.sensitive is not None:
        tests.append(lambda traits: traits.sensitive == match.sensitive)
    if match.priority is not None:
        tests.append(_has_header(PRIORITY, match.priority))
    if match.models:
        tests.append(lambda traits: traits.model in match.models)
    if match.tenants:
        tests.append(lambda traits: traits.tenant in match.tenants)
    tests += [_has_header(name.lower().encode(), value) for name, value in match.headers.items()]
    if match.complexity_min > 0 or match.complexity_max < 1:
        # The range is half-open, but the hardest score of all belongs to the range that ends at 1.
        above = match.complexity_max if match.complexity_max < 1 else float("inf")
        tests.append(lambda traits: match.complexity_min <= traits.complexity < above)
    return tuple(tests)


def _has_header(name: bytes, value: str) -> Test:
    return lambda traits: traits.headers.get(name, b"").decode("latin-1") == value


class Live(Protocol):
    """A tier with whatever serves it, as a router keeps it."""

    @property
    def spec(self) -> table.Tier:
        """What the table says of it."""


C = TypeVar("C")
T = TypeVar("T", bound=Live)

Rule = tuple[tuple[Test, ...], C]
"""What a class asks (``compile_match``), and what stands for the class."""


def first(rules: Iterable[Rule[C]], traits: Traits) -> C | None:
    """The first class whose tests all hold; None if there is none.

    Args:
        rules: of all classes, in the table's order.
        traits: of the request.
    """
    for tests, class_ in rules:
        for test in tests:
            if not test(traits):
                break
        else:
            return class_
    return None


@dataclass(frozen=True, slots=True)
class Reach(Generic[T]):
    """The tiers of one class.

    Attributes:
        allowed: tiers that may serve it by its own word, the one of least quality first.
        intervals: shares of the rank of complexity; None if no tier may serve it.
        own: name of the first tier → allowed ones to try: itself, better ones upwards, lesser ones downwards.
        wider: the same, and then those that are not allowed, for classes that fall back to any.
        hold_seconds: how long a request may wait for a tier to wake: the longest hold of the allowed ones.
    """

    allowed: tuple[T, ...]
    intervals: weights.Intervals | None
    own: Mapping[str, tuple[T, ...]]
    wider: Mapping[str, tuple[T, ...]]
    hold_seconds: float

    @property
    def needs_score(self) -> bool:
        """Whether more than one tier has a share, so that complexity decides inside the class."""
        return self.intervals is not None and len(self.intervals.tiers) > 1

    def order(self, chosen: str, *, closed: bool) -> tuple[T, ...]:
        """The tiers to try after the weights have chosen one; a sensitive request is ``closed`` in any class."""
        return self.own[chosen] if closed else self.wider[chosen]


def reach(class_: table.Class, tiers: Iterable[T]) -> Reach[T]:
    """Work out where a class may go.

    A class without weights goes to the best tier it may use. One that rejects when nothing is up, or that takes
    sensitive requests, fails closed: it never leaves the tiers it names, and if it names none, has none.
    """
    by_quality = sorted(tiers, key=lambda tier: (tier.spec.quality, tier.spec.name))
    closed = class_.reject_when_unavailable or bool(class_.match.sensitive)
    everywhere = not class_.allow and not closed
    allowed = [tier for tier in by_quality if everywhere or tier.spec.name in class_.allow]
    others = [] if closed else [tier for tier in by_quality if tier not in allowed]
    given = class_.weights
    shares = given if any(given.values()) else {tier.spec.name: 1.0 for tier in allowed[-1:]}
    # Tiers of equal quality: the cheaper one first, so that the easiest prompts go there.
    cheap_first = sorted(allowed, key=lambda tier: (tier.spec.quality, tier.spec.rates.output_usd_per_token))
    own = {tier.spec.name: (tier, *_around(tier, allowed)) for tier in allowed}
    return Reach(
        allowed=tuple(allowed),
        intervals=weights.intervals(shares, [tier.spec.name for tier in cheap_first]),
        own=own,
        wider={tier.spec.name: own[tier.spec.name] + _around(tier, others) for tier in allowed},
        hold_seconds=max((tier.spec.hold_seconds for tier in allowed), default=0.0),
    )


def _around(tier: T, by_quality: list[T]) -> tuple[T, ...]:
    """Other tiers of no less quality upwards, then those of less downwards."""
    better = [each for each in by_quality if each is not tier and each.spec.quality >= tier.spec.quality]
    lesser = [each for each in reversed(by_quality) if each.spec.quality < tier.spec.quality]
    return (*better, *lesser)
