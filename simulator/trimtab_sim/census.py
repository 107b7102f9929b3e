"""The requests of a scenario counted by slot of time, class and complexity, with their work and their quality.

Ranks of complexity, and with them qualities, are those that the simulated router finds: the prologue comes first, the
same histogram ranks. Knows nothing of controllers, prices or capacity.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from trimtab_core import quality, units
from trimtab_core.api.v1alpha1 import routing_policy
from trimtab_core.planning import limits
from trimtab_core.planning.plan import Plan, Prediction, Source
from trimtab_core.routing import publish, weights
from trimtab_core.snapshot import TierKey

from trimtab_sim import arrivals, dispatch, laboratory
from trimtab_sim.workload import Request

SEGMENTS = 10
"""Parts of equal mass into which the ranks of a class are cut."""
SAMPLE = 250_000
"""Of a longer trace every n-th request is counted, for n: so many tell means to within half a percent."""
UNCLASSED = ""
"""Stands for requests that no class takes: they fail, whatever is run."""


@dataclass(slots=True)
class Group:
    """Requests of one slot, class and segment.

    Attributes:
        requests: how many that a replica or a provider must serve.
        inputs, outputs: their tokens.
        qualities: by tier, the sum of what their answers would be worth.
        best: the same for the best tier of each.
    """

    requests: int = 0
    inputs: int = 0
    outputs: int = 0
    qualities: dict[TierKey, float] = field(default_factory=dict)
    best: float = 0.0

    def add(self, other: Group) -> None:
        """Take the requests of another group in."""
        self.requests += other.requests
        self.inputs += other.inputs
        self.outputs += other.outputs
        self.best += other.best
        for tier, value in other.qualities.items():
            self.qualities[tier] = self.qualities.get(tier, 0.0) + value


@dataclass(slots=True)
class Census:
    """All requests of a run.

    Attributes:
        slots: by slot, then by class and segment.
        total: requests of the run.
        spared: requests that need no capacity in any slot: possible cache hits, and those whose work may be put off
            beyond their slot.
        lost: requests of no class.
        best: the quality of always the best tier, over all of them.
    """

    slots: list[dict[tuple[str, int], Group]]
    total: int = 0
    spared: int = 0
    lost: int = 0
    spared_best: float = 0.0
    best: float = 0.0

    def totals(self) -> dict[tuple[str, int], Group]:
        """The groups of all slots together, by class and segment."""
        found: dict[tuple[str, int], Group] = {}
        for groups in self.slots:
            for key, group in sorted(groups.items()):
                found.setdefault(key, Group()).add(group)
        return found


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a class may go, and what answers are worth there.

    Attributes:
        tiers: keys.
        priors: quality of each.
        models: name of each tier's model.
        best: the tier of best quality.
        low, width: the class's range of complexity.
        m: how well complexity separates good from bad answers.
    """

    tiers: tuple[TierKey, ...]
    priors: tuple[float, ...]
    models: tuple[str, ...]
    best: TierKey
    low: float
    width: float
    m: float


def take(lab: laboratory.Laboratory, *, slots: int, shift_seconds: float) -> Census:
    """Count all requests.

    Args:
        lab: the scenario.
        slots: equal parts of the run.
        shift_seconds: how long the promise lets work wait; what arrives later than this before the end of its slot
            could be served in the next one, and is counted as spared.
    """
    counter = _Counter(lab, slots, shift_seconds)
    settings = lab.scenario.settings
    duration = max(lab.scenario.trace.duration_s, 1.0)
    for request in arrivals.with_prologue(lab.trace, settings.prologue / settings.shorten, duration):
        counter.count(request)
    return counter.census


class _Counter:
    """State of one count."""

    def __init__(self, lab: laboratory.Laboratory, slots: int, shift_seconds: float) -> None:
        self.census = Census([{} for _ in range(slots)])
        self._stride = math.ceil(len(lab.trace) / SAMPLE)
        self._number = 0
        self._source = lab.scenario.prompts
        self._router = router(lab)
        self._reaches = reaches(lab)
        self._length = max(lab.trace.duration_s, 1.0) / slots
        self._shift = shift_seconds
        self._cached = has_cache(lab)
        self._prompts: set[int] = set()
        self._known: dict[object, tuple[str, float, bool]] = {}
        self._ranks: dict[str, weights.RankHistogram] = {}
        self._rng = random.Random(f"seen {lab.scenario.settings.seed}")

    def count(self, request: Request) -> None:
        """Count one request, and rank one of the prologue."""
        self._number += 1
        if self._number % self._stride:
            return
        of = self._source.key(request)
        found = self._known.get(of)
        if found is None:
            judgement = self._router.judge(request)
            class_ = self._router.classify(judgement)
            found = self._known[of] = (class_.name if class_ else UNCLASSED, judgement.complexity, request.sensitive)
        name, complexity, sensitive = found
        reach = self._reaches.get(name)
        rank = 0.0
        if reach is not None:
            rank = self._ranks.setdefault(name, weights.RankHistogram()).rank(complexity, self._rng)
        if request.arrival_s < 0:
            return
        times = self._stride
        self.census.total += times
        if reach is None:
            self.census.lost += times
            return
        values = self._qualities(request, reach, rank)
        best = values[reach.best]
        self.census.best += times * best
        slot = min(int(request.arrival_s / self._length), len(self.census.slots) - 1)
        if self._repeats(request, sensitive=sensitive) or request.arrival_s + self._shift > (slot + 1) * self._length:
            self.census.spared += times
            self.census.spared_best += times * max(best, *values.values())
            return
        part = min(int(rank * SEGMENTS), SEGMENTS - 1)
        group = self.census.slots[slot].setdefault((name, part), Group())
        group.requests += times
        group.inputs += times * request.input_tokens
        group.outputs += times * request.output_tokens
        group.best += times * max(best, *values.values())
        for tier, value in values.items():
            group.qualities[tier] = group.qualities.get(tier, 0.0) + times * value

    def _repeats(self, request: Request, *, sensitive: bool) -> bool:
        """Whether a cache could answer it. In a sample, any whose prompt is not its own could."""
        if not self._cached or sensitive:
            return False
        if self._stride > 1:
            return request.prompt != request.number
        again = request.prompt in self._prompts
        self._prompts.add(request.prompt)
        return again

    def _qualities(self, request: Request, reach: Reach, rank: float) -> dict[TierKey, float]:
        at = reach.low + reach.width * rank
        values = {}
        for tier, prior, model in zip(reach.tiers, reach.priors, reach.models, strict=True):
            known = self._source.outcome(request, model)
            values[tier] = quality.expected(prior, at, at, reach.m) if known is None else known
        return values


def router(lab: laboratory.Laboratory) -> dispatch.Dispatcher:
    """A router with the policy's table, for what it finds in prompts."""
    nothing = Plan({}, {}, {}, Prediction(0.0, 0.0, 1.0, 0.0), Source.FLOOR)
    found = dispatch.Dispatcher(lab.scenario.settings.seed, lab.scenario.prompts)
    found.install(publish.table(lab.snapshot, nothing, lab.scenario.policy_key, epoch=1, revision=1))
    return found


def reaches(lab: laboratory.Laboratory) -> dict[str, Reach]:
    """By class, the tiers that it may use; a class without any is left out, since its requests fail.

    What a class that falls back to any tier gets while its own are down is no permission that a controller may rely on.
    """
    found = {}
    for each in lab.policy.spec.classes:
        tiers = limits.allowed_tiers(lab.snapshot, lab.policy, each)
        closed = each.on_unavailable is routing_policy.OnUnavailable.REJECT or bool(each.match.sensitive)
        if not tiers or (closed and not each.allow):
            continue
        specs = [lab.snapshot.tiers[key].spec for key in tiers]
        priors = tuple(units.ratio(spec.model.quality) for spec in specs)
        span = each.match.complexity
        low, high = (units.ratio(span.min), units.ratio(span.max)) if span is not None else (0.0, 1.0)
        _, best = max(zip(priors, tiers, strict=True))
        models = tuple(spec.model.name for spec in specs)
        found[each.name] = Reach(tiers, priors, models, best, low, high - low, quality.discrimination(priors))
    return found


def has_cache(lab: laboratory.Laboratory) -> bool:
    """Whether the policy's routers may answer an equal prompt from memory."""
    cache = lab.policy.spec.cache
    if cache is None:
        return False
    spec = lab.snapshot.caches.get(f"{lab.policy.key.partition('/')[0]}/{cache.ref}")
    return spec is not None and spec.exact.enabled


def rounding(found: Iterable[Reach]) -> float:
    """By how much segments can understate the mean quality of a split by rank.

    Of a segment of width w, in which two tiers differ by Δq, the lower share f goes to the lesser tier: that is worth
    ``f·(1 - f)·m·Δq·w²`` more than f times the segment's mean, at most ``m·Δq·w²/4``; k tiers cut k - 1 segments.
    """
    return max(
        ((len(each.tiers) - 1) * (max(each.priors) - min(each.priors)) * each.m / (4 * SEGMENTS**2) for each in found),
        default=0.0,
    )
