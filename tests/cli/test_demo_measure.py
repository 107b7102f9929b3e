"""The demo's measurement: money and hours are integrals over lives, shares sum to one, promises are judged per request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_cli.demonstration import measure, outcomes, picture
from trimtab_core import capacity, observation
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase
from trimtab_operator import reconcile, settings
from trimtab_operator.local.process_runner import Life
from trimtab_sim import report

START = 1000.0
SMALL, LARGE = VariantKey("default/small", "l4"), VariantKey("default/large", "h100")


def tier(name: str, variant: str, quality: str, usd: str, count: int) -> v1alpha1.InferenceTier:
    return v1alpha1.InferenceTier.model_validate(
        {
            "metadata": {"name": name},
            "spec": {
                "model": {"name": f"{name}-8b", "quality": quality},
                "slo": {"itl": {"p95": "60ms"}},
                "variants": [
                    {
                        "name": variant,
                        "accelerator": {"type": "L4", "count": count},
                        "price": {"usdPerHour": usd},
                        "replicas": {"min": 1, "max": 4},
                        "profile": {
                            "itlBase": "20ms", "itlPerSequence": "1ms", "prefillTokensPerSecond": 10000,
                            "kvTokens": 100000, "maxSequences": 64, "startup": "5s",
                        },
                    }
                ],
            },
        }
    )  # fmt: skip


POLICY = v1alpha1.RoutingPolicy.model_validate(
    {
        "metadata": {"name": "p"},
        "spec": {
            "tiers": [{"ref": "small"}, {"ref": "large"}],
            "classes": [{"name": "default"}],
            "slo": {"ttft": {"p95": "2s"}, "attainment": "0.9"},
        },
    }
)
TIERS = (tier("small", "l4", "0.6", "0.5", 1), tier("large", "h100", "0.8", "4", 2))


class Ports:
    """A cluster and metrics in which nothing ever happens."""

    async def observe(self) -> observation.Observation:
        return observation.Observation(TIERS, (POLICY,), (), {}, {}, {})

    async def apply(self, objects: Sequence[dict[str, Any]]) -> None: ...

    async def write_status(self, statuses: Any) -> None: ...

    async def emit_event(self, about: Any, reason: str, message: str, *, warning: bool) -> None: ...

    async def answers(self, queries: Any, now: float) -> observation.Answers:
        return dict.fromkeys(queries, observation.QueryFailure("none"))

    async def engines(self, addresses: Any, now: float) -> dict[str, observation.EngineReading]:
        return {}

    async def history(self, query: Any, begin: float, end: float, *, step_seconds: float) -> dict[Any, Any]:
        return {}


def cycle(now: float) -> reconcile.Outcome:
    ports = Ports()
    return asyncio.run(reconcile.reconcile(reconcile.Ports(ports, ports), reconcile.Memory(), settings.Loop(), now))


CYCLE = cycle(START)


def measurement(duration_s: float = 100.0, requests: int = 50) -> measure.Measurement:
    replay = measure.Replay(START, duration_s, "default/p", capacity.Mix(1000, 200), [0.5] * requests)
    made = measure.Measurement(replay)
    made.saw(CYCLE)
    return made


def life(variant: VariantKey, created: float, ended: float | None = None, ready: float | None = None) -> Life:
    ready_at = None if ready is None else START + ready
    return Life(
        f"{variant.variant}-{created}",
        variant,
        START + created,
        ready_at,
        None,
        None if ended is None else START + ended,
        ReplicaPhase.READY,
    )


def end(index: int, **changes: Any) -> outcomes.Outcome:
    values: dict[str, Any] = {
        "index": index, "scheduled_at": START + index, "late": 0.0, "status": 200, "ttft": 0.5, "itl": 0.03, "e2e": 6.0,
        "input_tokens": 1000, "output_tokens": 200, "tier": "small", "request_class": "default",
    }  # fmt: skip
    return outcomes.Outcome(**{**values, **changes})


def finished(made: measure.Measurement, *lives: Life) -> report.Run:
    return made.run(lives, settings="", notes=())


# Money -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lives", "usd", "hours"),
    [
        pytest.param([life(SMALL, -50)], 100 * 0.5 / 3600, 100 / 3600, id="before to after: the replay alone"),
        pytest.param([life(SMALL, 20, 70)], 50 * 0.5 / 3600, 50 / 3600, id="from its creation to its end"),
        pytest.param([life(LARGE, 0, 50)], 50 * 4 / 3600, 2 * 50 / 3600, id="two accelerators"),
        pytest.param([life(SMALL, -50, -10), life(SMALL, 100), life(LARGE, 150)], 0.0, 0.0, id="outside of the replay"),
        pytest.param([life(SMALL, 0, 100), life(LARGE, 0, 100)], 4.5 / 36, 3 / 36, id="two tiers"),
    ],
)
def test_replicas_cost_from_creation_to_end(lives: list[Life], usd: float, hours: float) -> None:
    run = finished(measurement(), *lives)
    assert run.cost_usd == pytest.approx(usd)
    assert run.gpu_hours == pytest.approx(hours)


moments = st.floats(-50, 150, allow_nan=False)


@given(st.lists(st.tuples(st.sampled_from([SMALL, LARGE]), moments, moments), max_size=8))
def test_the_cost_is_the_integral_of_the_course(given_lives: list[tuple[VariantKey, float, float]]) -> None:
    lives = [life(variant, min(one, other), max(one, other)) for variant, one, other in given_lives]
    made = measurement()
    fleets = made._course(lives)
    ends = [fleet.at_s for fleet in fleets[1:]] + [100.0]
    integral = sum(fleet.usd_per_hour * (until - fleet.at_s) / 3600 for fleet, until in zip(fleets, ends, strict=True))
    assert math.isclose(finished(made, *lives).cost_usd, integral, abs_tol=1e-9)


def test_the_course_tells_starting_from_serving_replicas() -> None:
    run = finished(measurement(), life(SMALL, -5, None, ready=50))
    at = {point.t_s: point for point in run.series}
    first, last = min(at), max(at)
    assert (at[first].pending["small"], at[first].ready["small"]) == (1, 0)
    assert (at[last].pending["small"], at[last].ready["small"]) == (0, 1)


# Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        pytest.param({}, True, id="all kept"),
        pytest.param({"ttft": 2.01}, False, id="the policy's first token"),
        pytest.param({"itl": 0.061}, False, id="the tier's time between tokens"),
        pytest.param({"itl": None}, True, id="no second token to measure"),
        pytest.param({"error": "503: no tier", "ttft": None, "itl": None}, False, id="failed"),
        pytest.param({"cache": "hit", "itl": 5.0, "ttft": 0.01}, True, id="a cached answer has no tier to promise"),
    ],
)
def test_a_request_meets_every_promise_or_not(changes: dict[str, Any], *, met: bool) -> None:
    made = measurement()
    made.heard(end(0, **changes))
    assert made.attainment == float(met)


def test_shares_sum_to_one_and_name_cache_and_failures() -> None:
    made = measurement()
    for index, changes in enumerate(({}, {"tier": "large"}, {"cache": "hit"}, {"error": "cut", "ttft": None})):
        made.heard(end(index, **changes))
    run = finished(made)
    assert run.share_by_tier == {"cache": 0.25, "failed": 0.25, "large": 0.25, "small": 0.25}
    assert (run.requests, run.failed, run.slo_attainment) == (4, 1, 0.75)


def test_the_run_in_is_not_counted() -> None:
    made = measurement()
    made.heard(end(-3, scheduled_at=START - 5))
    assert finished(made).requests == 0


def test_what_ends_before_the_first_table_is_judged_by_it() -> None:
    made = measure.Measurement(measure.Replay(START, 100.0, "default/p", capacity.Mix(1000, 200), [0.5]))
    made.heard(end(0))
    assert made.attainment is None
    made.saw(CYCLE)
    assert made.attainment == 1.0


def test_percentiles_are_over_answers_alone() -> None:
    made = measurement()
    for index in range(19):
        made.heard(end(index, ttft=0.1))
    made.heard(end(19, ttft=1.5))
    made.heard(end(20, error="cut", ttft=60.0))
    assert finished(made).ttft_p95_s == pytest.approx(0.1, rel=1e-6)  # the 19th of 20


def test_the_promise_is_that_of_the_policy() -> None:
    assert measurement().promised() == 0.9
    assert measurement().limits() == report.Promise(ttft_s=2.0, itl_s=0.06)  # the tiers' where the policy has none


# The picture -----------------------------------------------------------------------------------------------------


def test_the_picture_counts_what_lives() -> None:
    lives = [life(SMALL, 0), life(SMALL, 0, 10), life(LARGE, 0)]
    drawn = picture.take(CYCLE, lives, None)
    assert drawn.usd_per_hour == 4.5  # one small and one large
    by_name = {line.tier: line for line in drawn.variants}
    assert (by_name["small"].ready, by_name["large"].ready, by_name["large"].hardware) == (1, 1, "2 × L4")
