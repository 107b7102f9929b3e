"""The metrics port in a cluster: Prometheus answers questions, engines are read directly.

Rates and histories are Prometheus' business; a gauge of an engine must be as fresh as the pod list that it is
joined with, and a drain must not wait for a scrape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trimtab_core import observation, telemetry


class Answers(Protocol):
    """Something that answers queries."""

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        """Answer every query; one that can't be answered is a ``QueryFailure``."""
        ...

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        """Answers over a period, by label values. Raises errors.MetricsError."""
        ...


class Engines(Protocol):
    """Something that reads engines."""

    async def engines(self, addresses: Mapping[str, str], now: float) -> Mapping[str, observation.EngineReading]:
        """Read the engines' gauges, by replica name."""
        ...


class Nothing:
    """Answers for a cluster without Prometheus: every query fails and says what to do."""

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        """All failed."""
        del now
        why = observation.QueryFailure("there is no Prometheus: give its address with --prometheus-url")
        return dict.fromkeys(queries, why)

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        """Nothing was kept."""
        del query, begin, end, step_seconds
        return {}


class CombinedMetrics:
    """Implements ``reconcile.Metrics`` from two halves."""

    def __init__(self, answers: Answers, engines: Engines) -> None:
        self._answers = answers
        self._engines = engines

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        """Answer every query."""
        return await self._answers.answers(queries, now)

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        """Answers over a period, by label values. Raises errors.MetricsError."""
        return await self._answers.history(query, begin, end, step_seconds=step_seconds)

    async def engines(self, addresses: Mapping[str, str], now: float) -> Mapping[str, observation.EngineReading]:
        """Read the engines' gauges."""
        return await self._engines.engines(addresses, now)
