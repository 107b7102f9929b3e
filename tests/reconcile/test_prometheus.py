"""The Prometheus adapter against canned HTTP answers, and the breaker against a dead server."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from trimtab_core import observation, telemetry
from trimtab_core.telemetry import Answer, Operation, Query
from trimtab_operator import errors
from trimtab_operator.observe import combined, prometheus

from tests import loopback

NOW = 1_800_000_000.0
ARRIVALS = Query(telemetry.ARRIVALS, Operation.RATE, ("policy", "class"), window_seconds=60.0)
TABLES = Query(telemetry.TABLE_INFO, Operation.LAST, ("policy", "version"), where=(("policy", 'a"b'),))


class Canned:
    """Answers by what the query contains; records what was asked."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.times: list[Any] = []
        self.status = 200
        self.text = ""
        self.asked: list[dict[str, str]] = []

    def answer(self, query: dict[str, str]) -> tuple[int, bytes]:
        self.asked.append(query)
        if self.text or self.status != 200:
            return self.status, self.text.encode()
        result = self.times if "timestamp(" in query["query"] else self.values
        return 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


@pytest.fixture
def canned() -> Canned:
    return Canned()


@pytest.fixture
def url(canned: Canned) -> Iterator[str]:
    def answer(path: str) -> tuple[int, bytes]:
        return canned.answer(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query)))

    with loopback.answering(answer) as address:
        yield address


def ask(url: str, query: Query = ARRIVALS, now: float = NOW) -> Any:
    metrics = prometheus.PrometheusMetrics(url, timeout_seconds=2.0)
    try:
        return asyncio.run(metrics.answers({"x": query}, now))["x"]
    finally:
        metrics.close()


def series(value: str, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [NOW, value]}


def test_an_answer_carries_the_time_of_its_newest_sample_not_of_the_question(url: str, canned: Canned) -> None:
    canned.values = [series("2.5", policy="ns/p", **{"class": "b"}), series("1", policy="ns/p", **{"class": "a"})]
    canned.times = [
        series(str(NOW - 7), policy="ns/p", **{"class": "b"}),
        series(str(NOW - 3), policy="ns/p", **{"class": "a"}),
    ]
    assert ask(url) == (Answer(("ns/p", "a"), 1.0, NOW - 3), Answer(("ns/p", "b"), 2.5, NOW - 7))
    assert canned.asked[0] == {
        "query": "sum by (policy, class) (rate(trimtab_router_arrivals_total[60s]))",
        "time": "1800000000.000",
    }
    assert canned.asked[1]["query"] == "max by (policy, class) (timestamp(trimtab_router_arrivals_total{}))"


def test_a_group_whose_series_ended_is_as_old_as_the_window(url: str, canned: Canned) -> None:
    canned.values = [series("2.5", policy="ns/p", **{"class": "a"})]
    assert ask(url) == (Answer(("ns/p", "a"), 2.5, NOW - 60),)


def test_matchers_are_escaped_and_missing_labels_are_empty(url: str, canned: Canned) -> None:
    canned.values = [series("1", policy='a"b')]
    canned.times = [series(str(NOW), policy='a"b')]
    assert ask(url, TABLES) == (Answer(('a"b', ""), 1.0, NOW),)
    assert 'policy="a\\"b"' in canned.asked[1]["query"]


def test_nan_is_passed_on_for_the_reader_to_judge(url: str, canned: Canned) -> None:
    canned.values = [series("NaN", policy="ns/p", **{"class": "a"})]
    found = ask(url)
    assert math.isnan(found[0].value)


def test_no_series_is_an_empty_answer_not_a_failure(url: str) -> None:
    assert ask(url) == ()


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (400, '{"error": "bad query"}', "refused a query: HTTP Status Code 400"),
        (503, "starting", "refused a query: HTTP Status Code 503"),
        (200, "<html>", "did not answer"),
        (200, '{"data": 1}', "did not answer"),
        (200, '{"data": {"result": [{"metric": {}}]}}', "no instant vector"),
        (200, '{"data": {"result": [{"metric": {}, "value": [1, "x"]}]}}', "no instant vector"),
        (200, '{"data": {"result": [7]}}', "no instant vector"),
    ],
)
def test_nonsense_is_a_failure_with_its_reason(url: str, canned: Canned, status: int, text: str, why: str) -> None:
    canned.status, canned.text = status, text
    found = ask(url)
    assert isinstance(found, observation.QueryFailure)
    assert why in found.reason


def test_nobody_there_is_a_failure_that_names_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        found = ask(dead)
        assert isinstance(found, observation.QueryFailure)
        assert dead in found.reason


def test_after_three_dead_cycles_prometheus_is_left_alone_and_tried_again_later(url: str, canned: Canned) -> None:
    metrics = prometheus.PrometheusMetrics(url, timeout_seconds=2.0)
    canned.status = 503
    for step in range(3):
        asyncio.run(metrics.answers({"x": ARRIVALS}, NOW + step))
    asked = len(canned.asked)
    alone = asyncio.run(metrics.answers({"x": ARRIVALS}, NOW + 10))["x"]
    assert isinstance(alone, observation.QueryFailure)
    assert "left alone" in alone.reason
    assert "503" in alone.reason
    assert len(canned.asked) == asked
    canned.status = 200
    assert asyncio.run(metrics.answers({"x": ARRIVALS}, NOW + 33))["x"] == ()
    metrics.close()


def test_one_failing_query_among_good_ones_opens_nothing(url: str, canned: Canned) -> None:
    metrics = prometheus.PrometheusMetrics(url, timeout_seconds=2.0)
    original = canned.answer

    def answer(query: dict[str, str]) -> tuple[int, bytes]:
        return (422, b"too many samples") if "table_info" in query["query"] else original(query)

    canned.answer = answer  # type: ignore[method-assign]
    for step in range(6):
        found = asyncio.run(metrics.answers({"x": ARRIVALS, "y": TABLES}, NOW + step))
        assert found["x"] == ()
        assert isinstance(found["y"], observation.QueryFailure)
    metrics.close()


def test_without_prometheus_every_query_fails_and_says_what_to_do() -> None:
    found = asyncio.run(combined.Nothing().answers({"x": ARRIVALS}, NOW))
    assert found == {"x": observation.QueryFailure("there is no Prometheus: give its address with --prometheus-url")}


def test_the_combined_port_asks_each_half_for_its_own() -> None:
    class Half:
        async def answers(self, queries: Any, now: float) -> Any:
            return {"answered": now}

        async def engines(self, addresses: Any, now: float) -> Any:
            return {"read": now}

        async def history(self, query: Any, begin: float, end: float, *, step_seconds: float) -> Any:
            return {("of",): ((begin, step_seconds), (end, step_seconds))}

    both = combined.CombinedMetrics(Half(), Half())
    assert asyncio.run(both.answers({}, 1.0)) == {"answered": 1.0}
    assert asyncio.run(both.engines({}, 2.0)) == {"read": 2.0}
    period = asyncio.run(both.history(ARRIVALS, 3.0, 4.0, step_seconds=5.0))
    assert period == {("of",): ((3.0, 5.0), (4.0, 5.0))}


# A period ----------------------------------------------------------------------------------------------------------


def history(url: str) -> Any:
    metrics = prometheus.PrometheusMetrics(url, timeout_seconds=2.0)
    try:
        return asyncio.run(metrics.history(ARRIVALS, NOW - 60, NOW, step_seconds=30.0))
    finally:
        metrics.close()


def test_a_period_is_asked_for_step_by_step_and_gaps_are_left_out(url: str, canned: Canned) -> None:
    points = [[NOW - 60, "1.5"], [NOW - 30, "NaN"], [NOW, "2"]]
    canned.values = [{"metric": {"policy": "ns/p", "class": "a"}, "values": points}]

    assert history(url) == {("ns/p", "a"): ((NOW - 60, 1.5), (NOW, 2.0))}
    assert canned.asked == [
        {
            "query": "sum by (policy, class) (rate(trimtab_router_arrivals_total[60s]))",
            "start": "1799999940",
            "end": "1800000000",
            "step": "30",
        }
    ]


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (503, "starting", "refused a query: HTTP Status Code 503"),
        (200, "<html>", "did not answer"),
        (200, '{"data": {"result": [{"metric": {}, "values": [[1]]}]}}', "no range vector"),
    ],
)
def test_nonsense_over_a_period_is_an_error(url: str, canned: Canned, status: int, text: str, why: str) -> None:
    canned.status, canned.text = status, text
    with pytest.raises(errors.MetricsError, match=why):
        history(url)
