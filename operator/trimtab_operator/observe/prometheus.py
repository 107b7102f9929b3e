"""The metrics port on Prometheus: instant queries in threads, each answer with the time of its newest sample.

A failed query is a ``QueryFailure`` with its reason; after several failures in a row Prometheus is left alone for a
while, so that a dead one costs no cycle its time. NaN is passed on: ``signals.read`` judges. The only module that
touches ``prometheus_api_client``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import math
from collections.abc import Iterator, Mapping
from typing import Any

import requests
import urllib3.util
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from trimtab_core import observation, telemetry

from trimtab_operator import errors

WORKERS = 6
FAILURES_TO_OPEN = 3
"""Cycles in which every query failed, after which it is left alone."""
OPEN_SECONDS = 30.0
_MESSAGE_LENGTH = 200

Series = tuple[str, ...]


class PrometheusMetrics:
    """Implements the answering half of ``reconcile.Metrics``.

    Args:
        url: base address of Prometheus.
        timeout_seconds: for one query.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 5.0) -> None:
        self._url = url
        once = urllib3.util.Retry(total=0, raise_on_status=False)  # the next cycle asks again
        self._connection = PrometheusConnect(url=url, timeout=timeout_seconds, retry=once)
        self._threads = concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="prometheus")
        self._failed_cycles = 0
        self._closed_until = 0.0
        self._last_failure = ""

    def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        """Ask everything as of ``now`` (epoch seconds)."""
        if now < self._closed_until:
            why = observation.QueryFailure(
                f"Prometheus is left alone for {OPEN_SECONDS:.0f} s after: {self._last_failure}"
            )
            return dict.fromkeys(queries, why)
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(
            *(loop.run_in_executor(self._threads, self._answer, query, now) for query in queries.values())
        )
        failures = [answer for answer in found if isinstance(answer, observation.QueryFailure)]
        self._count(failures, len(queries), now)
        return dict(zip(queries, found, strict=True))

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[Series, tuple[tuple[float, float], ...]]:
        """A query's answers over a period, by label values: (epoch seconds, value) pairs, oldest first, without NaN.

        Args:
            query: what is asked.
            begin: of the period, epoch seconds.
            end: of the period, epoch seconds.
            step_seconds: between two answers.

        Raises:
            errors.MetricsError: saying why there is no answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask_period, query, (begin, end), step_seconds)

    def _count(self, failures: list[observation.QueryFailure], asked: int, now: float) -> None:
        """Remember cycles without any answer, and leave Prometheus alone after several."""
        self._failed_cycles = self._failed_cycles + 1 if failures and len(failures) == asked else 0
        if failures:
            self._last_failure = failures[0].reason
        if self._failed_cycles >= FAILURES_TO_OPEN:
            self._closed_until = now + OPEN_SECONDS
            self._failed_cycles = FAILURES_TO_OPEN - 1  # one more failure after the pause is enough

    def _answer(self, query: telemetry.Query, now: float) -> tuple[telemetry.Answer, ...] | observation.QueryFailure:
        """One query with the times of its newest samples; blocking, runs in a thread."""
        try:
            values = self._ask(query.promql(), query.by, now)
            times = self._ask(newest(query), query.by, now)
        except errors.MetricsError as error:
            return observation.QueryFailure(str(error))
        # A group without a living series has a value only from its past in the window: as old as that at most.
        oldest = now - (query.window_seconds if query.operation is not telemetry.Operation.LAST else 0.0)
        return tuple(
            telemetry.Answer(labels, value, min(now, times.get(labels, oldest)))
            for labels, value in sorted(values.items())
        )

    def _ask(self, promql: str, by: Series, now: float) -> dict[Series, float]:
        """Values by label values. Raises errors.MetricsError."""
        with self._translated():
            result = self._connection.custom_query(promql, params={"time": f"{now:.3f}"})
        return dict(_read(entry, by) for entry in result or ())

    def _ask_period(
        self, query: telemetry.Query, period: tuple[float, float], step_seconds: float
    ) -> dict[Series, tuple[tuple[float, float], ...]]:
        """The same at every step of a period."""
        begin, end = (dt.datetime.fromtimestamp(at, dt.UTC) for at in period)
        with self._translated():
            result = self._connection.custom_query_range(query.promql(), begin, end, f"{step_seconds:g}")
        return dict(_read_period(entry, query.by) for entry in result or ())

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The library's errors as ours."""
        try:
            yield
        except PrometheusApiClientException as error:
            raise errors.MetricsError(f"Prometheus {self._url} refused a query: {_line(error)}") from error
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            raise errors.MetricsError(f"Prometheus {self._url} did not answer: {_line(_cause(error))}") from error


def newest(query: telemetry.Query) -> str:
    """PromQL for the time of the newest sample in each group of a query."""
    matchers = ",".join(f'{label}="{telemetry.escape(value)}"' for label, value in query.where)
    return f"max by ({', '.join(query.by)}) (timestamp({query.series}{{{matchers}}}))"


def _read(entry: Any, by: Series) -> tuple[Series, float]:  # noqa: ANN401 (JSON)
    """One element of an instant vector. Raises errors.MetricsError."""
    try:
        _, text = entry["value"]
        return tuple(str(entry["metric"].get(label, "")) for label in by), float(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.MetricsError(f"an answer that is no instant vector: {_line(error)}") from error


def _read_period(entry: Any, by: Series) -> tuple[Series, tuple[tuple[float, float], ...]]:  # noqa: ANN401 (JSON)
    """One element of a range vector. Raises errors.MetricsError."""
    try:
        points = ((float(at), float(text)) for at, text in entry["values"])
        kept = tuple(point for point in points if math.isfinite(point[1]))
        return tuple(str(entry["metric"].get(label, "")) for label in by), kept
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.MetricsError(f"an answer that is no range vector: {_line(error)}") from error


def _cause(error: Exception) -> object:
    """What went wrong without the question: its text holds the time, and status would change with every cycle."""
    if isinstance(error, requests.Timeout):
        return "timed out"
    inner = error.args[0] if error.args else error
    reason = getattr(inner, "reason", inner)
    return str(reason).rpartition("object at ")[2].partition(">: ")[2] or reason


def _line(error: object) -> str:
    return " ".join(str(error).split())[:_MESSAGE_LENGTH]
