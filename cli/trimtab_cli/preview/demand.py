"""What a Prometheus shows of demand now and in the last hour, and of what runs, through the shipped queries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import answers, observation, telemetry
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ClassName, PolicyKey, TierKey, Weights
from trimtab_operator import errors
from trimtab_operator.observe import prometheus

WINDOW_SECONDS = 300.0
"""Rates are taken over so long: a plan for the hours to come should not follow a minute's burst."""
HISTORY_SECONDS, STEP_SECONDS = 3600.0, 60.0
TIMEOUT_SECONDS = 10.0
_REPLICAS, _WEIGHTS = "replicas", "weights"
_FLEET = {
    _REPLICAS: telemetry.Query(telemetry.REPLICAS_READY, telemetry.Operation.LAST, (telemetry.TIER, telemetry.VARIANT)),
    _WEIGHTS: telemetry.Query(
        telemetry.WEIGHT, telemetry.Operation.LAST, (telemetry.POLICY, telemetry.CLASS, telemetry.TIER)
    ),
}
"""What the operator shows of the fleet."""

History = Mapping[tuple[PolicyKey, ClassName], tuple[tuple[float, float], ...]]
"""(epoch seconds, arrivals per second) of each class, oldest first."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found.

    Attributes:
        now: epoch seconds.
        answers: to the queries of one cycle.
        history: arrivals of the last hour.
        replicas: ready ones; empty where no operator shows any.
        weights: in force; the same.
    """

    now: float
    answers: observation.Answers
    history: History
    replicas: Mapping[VariantKey, int]
    weights: Mapping[PolicyKey, Weights]


def look(url: str, now: float) -> Seen:
    """Ask everything as of ``now`` (epoch seconds). Raises errors.MetricsError with the first reason."""
    return asyncio.run(_look(url, now))


async def _look(url: str, now: float) -> Seen:
    queries = answers.queries(WINDOW_SECONDS)
    metrics = prometheus.PrometheusMetrics(url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        found = await metrics.answers({**queries, **_FLEET}, now)
        for answer in found.values():
            if isinstance(answer, observation.QueryFailure):
                raise errors.MetricsError(answer.reason)
        begin, arrivals = now - HISTORY_SECONDS, queries["arrivals_per_second"]
        past = await metrics.history(arrivals, begin, now, step_seconds=STEP_SECONDS)
    finally:
        metrics.close()
    return Seen(
        now=now,
        answers={name: found[name] for name in queries},
        history={(policy, name): points for (policy, name), points in past.items()},
        replicas={
            VariantKey(tier, variant): max(0, round(answer.value))
            for answer in _answered(found[_REPLICAS])
            for tier, variant in (answer.labels,)
        },
        weights=_weights(_answered(found[_WEIGHTS])),
    )


def _answered(answer: tuple[telemetry.Answer, ...] | observation.QueryFailure) -> tuple[telemetry.Answer, ...]:
    """The groups of an answer that hold a number."""
    if isinstance(answer, observation.QueryFailure):
        return ()
    return tuple(one for one in answer if one.value >= 0)  # NaN is not


def _weights(answers_: tuple[telemetry.Answer, ...]) -> dict[PolicyKey, dict[ClassName, dict[TierKey, float]]]:
    found: dict[PolicyKey, dict[ClassName, dict[TierKey, float]]] = {}
    for answer in answers_:
        policy, name, tier = answer.labels
        found.setdefault(policy, {}).setdefault(name, {})[tier] = answer.value
    return found
