"""The shipped planner with somebody who takes notes: what ran in each cycle, its cost, and broken promises. Pure."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab_core import economics, units
from trimtab_core.planning import limits
from trimtab_core.planning.plan import Code, Plan, Reason, VariantKey
from trimtab_core.snapshot import Snapshot, TierKey
from trimtab_sim import control, world


@dataclass(frozen=True, slots=True)
class Moment:
    """What ran when one cycle looked.

    Attributes:
        at_s: seconds since the start of the run.
        replicas: that cost money: starting and leaving ones included.
        usd_per_hour: by tier.
        broken: promises that the plan of this cycle could not keep.
    """

    at_s: float
    replicas: Mapping[VariantKey, int]
    usd_per_hour: Mapping[TierKey, float]
    broken: tuple[Reason, ...]


class Notes(list[Moment]):
    """What was noted; shared by copies of its controller, so that it outlives a change of leader."""

    def add(self, found: Moment) -> None:
        """Note a moment; what is as in the one before is kept once, since weeks have many."""
        if self and self[-1].replicas == found.replicas and self[-1].usd_per_hour == found.usd_per_hour:
            found = dataclasses.replace(found, replicas=self[-1].replicas, usd_per_hour=self[-1].usd_per_hour)
        self.append(found)

    def __deepcopy__(self, memo: object) -> Notes:
        return self


class Watched(control.Trimtab):
    """The shipped planner; ``moments`` are its cycles from the start of the trace on."""

    def __init__(self) -> None:
        super().__init__()
        self.moments = Notes()

    def step(self, snapshot: Snapshot) -> control.Orders:
        """Decide as shipped, and note it."""
        orders = super().step(snapshot)
        at_s = snapshot.now - world.EPOCH_SECONDS
        if at_s >= 0:
            self.moments.add(moment(at_s, snapshot, broken(orders.plan)))
        return orders


def moment(at_s: float, snapshot: Snapshot, unkept: tuple[Reason, ...]) -> Moment:
    """What a snapshot shows of replicas and their cost."""
    replicas: dict[VariantKey, int] = {}
    usd: dict[TierKey, float] = {}
    for tier in snapshot.tiers.values():
        for variant in tier.variants:
            count = limits.existing(variant)
            replicas[VariantKey(tier.key, variant.name)] = count
            price = economics.worst_usd_per_hour(snapshot, tier.key, variant)
            usd[tier.key] = usd.get(tier.key, 0.0) + count * price
    return Moment(at_s, replicas, usd, unkept)


def broken(plan: Plan) -> tuple[Reason, ...]:
    """Promises that the plan can't keep: the optimiser says so of a whole policy, not of a tier or variant."""
    return tuple(
        reason
        for reason in plan.reasons
        if reason.code in {Code.INFEASIBLE, Code.BUDGET} and reason.policy and not reason.tier and not reason.guard
    )


def spans(moments: Sequence[Moment], duration_s: float) -> list[float]:
    """How long each moment held, seconds."""
    ends = [moment.at_s for moment in moments[1:]] + [max(duration_s, moments[-1].at_s)] if moments else []
    return [end - moment.at_s for moment, end in zip(moments, ends, strict=True)]


def mean_replicas(moments: Sequence[Moment], duration_s: float) -> dict[VariantKey, tuple[float, int]]:
    """For each variant, the mean over time and the most."""
    held = spans(moments, duration_s)
    whole = sum(held)
    found: dict[VariantKey, tuple[float, int]] = {}
    for key in sorted({key for moment in moments for key in moment.replicas}):
        counts = [moment.replicas.get(key, 0) for moment in moments]
        total = sum(count * span for count, span in zip(counts, held, strict=True))
        found[key] = (total / whole if whole else float(counts[-1]), max(counts))
    return found


def dearest_hour(moments: Sequence[Moment], duration_s: float, tiers: Iterable[TierKey]) -> float:
    """The highest mean of USD per hour of these tiers over any hour, or over the whole of a shorter run."""
    if not moments:
        return 0.0
    kept = set(tiers)
    times = [moment.at_s for moment in moments]
    rates = [sum(usd for tier, usd in moment.usd_per_hour.items() if tier in kept) for moment in moments]
    spent = [0.0]  # USD × s until each moment
    for rate, span in zip(rates, spans(moments, duration_s), strict=True):
        spent.append(spent[-1] + rate * span)
    end = max(duration_s, times[-1])
    window = min(units.SECONDS_PER_HOUR, end - times[0])
    if window <= 0:
        return max(rates)

    def until(at: float) -> float:
        place = max(0, bisect.bisect_right(times, at) - 1)
        return spent[place] + rates[place] * (at - times[place])

    begins = [at for at in (*times, end - window) if at + window <= end + 1e-6]
    return max(until(at + window) - until(at) for at in begins) / window


def broken_share(moments: Sequence[Moment], duration_s: float) -> list[tuple[Reason, float]]:
    """Each broken promise with the share of time for which it was, the most lasting first; its last words."""
    held = spans(moments, duration_s)
    whole = sum(held) or math.inf
    seconds: dict[tuple[str, str], float] = {}
    last: dict[tuple[str, str], Reason] = {}
    for moment, span in zip(moments, held, strict=True):
        for reason in moment.broken:
            key = (reason.policy, kind(reason))
            seconds[key] = seconds.get(key, 0.0) + span
            last[key] = reason
    ordered = sorted(seconds, key=lambda key: (-seconds[key], key))
    return [(last[key], seconds[key] / whole) for key in ordered]


def kind(reason: Reason) -> str:
    """What is broken, without its numbers."""
    return f"{reason.code.value} {reason.message.partition(' ')[0]}"
