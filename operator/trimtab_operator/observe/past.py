"""What Prometheus knows of arrivals from before this process led, so that a restart forgets neither trend nor season.

Asked once, at the first cycle of a term: two queries over a period, of a few hundred points for each class. While
the process leads it keeps the past itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trimtab_core import answers, season, traffic

if TYPE_CHECKING:
    from trimtab_operator import reconcile, settings

RECENT_STEP_SECONDS = 60.0
"""Rates are taken over a minute: closer points would say the same twice."""
WEEKS = 2
"""How far back the season goes; Prometheus keeps 15 days unless it is told otherwise."""

Points = tuple[tuple[float, float], ...]


async def arrivals(
    metrics: reconcile.Metrics, loop: settings.Loop, now: float
) -> Mapping[traffic.PastKey, traffic.Past]:
    """The past of every class that Prometheus knows.

    Args:
        metrics: where to ask.
        loop: settings of the loop.
        now: epoch seconds; the present itself is left to this cycle's own reading.

    Raises:
        errors.MetricsError: saying why there is no answer.
    """
    query = answers.queries(loop.window_seconds)["arrivals_per_second"]
    recent = await metrics.history(
        query, now - loop.judging.history_seconds, now - RECENT_STEP_SECONDS, step_seconds=RECENT_STEP_SECONDS
    )
    whole_bins = now // season.BIN_SECONDS * season.BIN_SECONDS
    binned = await metrics.history(
        dataclasses.replace(query, window_seconds=season.BIN_SECONDS),
        whole_bins - WEEKS * season.WEEK_BINS * season.BIN_SECONDS,
        whole_bins,
        step_seconds=season.BIN_SECONDS,
    )
    return {
        (policy, name): traffic.Past(recent.get((policy, name), ()), binned.get((policy, name), ()))
        for policy, name in {*_pairs(recent), *_pairs(binned)}
    }


def _pairs(found: Mapping[tuple[str, ...], Points]) -> set[traffic.PastKey]:
    """Policies and classes that are both named: a series of something else may lack a label."""
    return {(labels[0], labels[1]) for labels in found if all(labels)}
