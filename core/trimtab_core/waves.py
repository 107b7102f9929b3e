"""Replicas of one pool that are taken together: how often that happens, and how much of the pool goes. Pure.

Losses of a spot pool come in waves, as what one customer is asked to give back others are as well. All that one variant
loses within a start-up time, before anything could replace it, is one event. It is a *wave* when more than one replica
went, or when no machine is found for the successor: then the pool is what was taken, and not one machine. A pool of a
single replica can't tell whether others would have gone with it: unless its successor isn't found, that counts as half
a wave.

How often pools are struck differs by orders of magnitude, from one to the next and from one day to another, so the rate
looks back on a few hours only: a wave says that machines are asked for now, and a quiet day that they no longer are. Of
the share that goes an upper value is kept: it rises with the largest wave at once and falls by a quarter with each
smaller one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from trimtab_core import units

PRIOR_PER_HOUR = 0.05
"""Waves per pool and hour assumed before any was seen: as often as a single spot replica is lost (``losses``)."""
PRIOR_SHARE = 0.5
"""Share of a pool that goes in a wave, assumed before any was seen."""
MEMORY_HOURS = 4.0
"""Time that the rate looks back on. Assumed: machines that were scarce an hour ago mostly still are."""
LONE = 0.5
"""Part of a wave that the loss of a pool of one replica counts as."""
TOLD_STARTUPS = 3.0
"""After so many start-up times it is known whether successors come up."""
FALL = 0.25
"""Part of the way by which the share follows a wave that is smaller."""
MOST_PER_HOUR = 60.0
"""No rate is believed above this."""


@dataclass(frozen=True, slots=True)
class Waves:
    """What is known of one pool.

    Attributes:
        per_hour: waves per hour.
        share: of the pool that goes in one, an upper value.
        at: epoch seconds of the last look; None before the first of this process.
        began: epoch seconds at which the event that may still go on began; None without one.
        served, lost: replicas that served when it began, and those that it has taken.
        counted: part of a wave that it has been counted as.
    """

    per_hour: float = PRIOR_PER_HOUR
    share: float = PRIOR_SHARE
    at: float | None = None
    began: float | None = None
    served: int = 0
    lost: int = 0
    counted: float = 0.0


UNSEEN = Waves()
"""A pool of which nothing was seen."""


def known(per_hour: float | None, share: float | None) -> Waves:
    """What status says; the prior for what it doesn't, or says in no number that can be used."""
    usable_rate = per_hour is not None and math.isfinite(per_hour) and per_hour >= 0
    usable_share = share is not None and math.isfinite(share) and 0 <= share <= 1
    return Waves(
        min(MOST_PER_HOUR, per_hour) if usable_rate and per_hour is not None else PRIOR_PER_HOUR,
        share if usable_share and share is not None else PRIOR_SHARE,
    )


def learn(before: Waves, now: float, *, served: int, lost: int, scarce: bool, startup_seconds: float) -> Waves:
    """One look further.

    Args:
        before: what was known.
        now: epoch seconds.
        served: replicas that served at the look before.
        lost: of these, how many have gone untold since then.
        scarce: no machine is found for replicas that are asked for.
        startup_seconds: how long a successor takes.
    """
    hours = max(0.0, now - before.at) / units.SECONDS_PER_HOUR if before.at is not None else 0.0
    rate = PRIOR_PER_HOUR + (before.per_hour - PRIOR_PER_HOUR) * math.exp(-hours / MEMORY_HOURS)
    after = dataclasses.replace(before, per_hour=rate, at=now)
    age = now - before.began if before.began is not None else math.inf
    if not 0 <= age <= (startup_seconds if lost else TOLD_STARTUPS * startup_seconds):
        after = dataclasses.replace(after, began=None, served=0, lost=0, counted=0.0)
    if lost > 0:
        began = now if after.began is None else after.began
        taken = after.lost + lost
        after = dataclasses.replace(after, began=began, served=max(after.served, served, taken), lost=taken)
    return _counted(after, scarce=scarce)


def _counted(event: Waves, *, scarce: bool) -> Waves:
    """The event counted as the wave that it has turned out to be."""
    part = 0.0
    if event.began is not None:
        part = 1.0 if event.lost > 1 or scarce else LONE if event.served == 1 else 0.0
    if not part:
        return event
    found, share = event.lost / event.served, event.share
    return dataclasses.replace(
        event,
        per_hour=min(MOST_PER_HOUR, event.per_hour + max(0.0, part - event.counted) / MEMORY_HOURS),
        share=max(found, share if event.counted else share + FALL * (found - share)),
        counted=max(part, event.counted),
    )
