"""Direct scraping: the metrics port without Prometheus, for local mode and for clusters that have none.

Each router keeps a ring of samples of just the series that were asked about; ``series.Store`` answers from it as
Prometheus would. A router that stops answering is judged as of its last answer: its numbers get older, never
smaller. Engines are read for their present gauges and counters. Must not know who started the processes; the clock
comes in as an argument.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Self

import aiohttp
from trimtab_core import observation, series, signals, telemetry

from trimtab_operator.observe import exposition

PAGE_LIMIT_BYTES = 8 * 1024 * 1024
"""A longer page is refused: no metrics page of ours or of vLLM's comes near."""

_SUM, _COUNT = "_sum", "_count"
_ENGINE_FAMILIES = (
    telemetry.VLLM_RUNNING, telemetry.VLLM_WAITING, telemetry.VLLM_KV_USAGE, telemetry.VLLM_SLEEP,
    telemetry.VLLM_PROMPT, telemetry.VLLM_PROMPT_CACHED, telemetry.VLLM_CACHE_CONFIG,
)  # fmt: skip
_NEW_NAMES = telemetry.VLLM_OLD_NAMES | {
    old + end: new + end for old, new in telemetry.VLLM_OLD_NAMES.items() for end in (_SUM, _COUNT)
}
_ENGINE_SERIES = (
    *(family.name for family in _ENGINE_FAMILIES), telemetry.VLLM_ITL.name + _SUM, telemetry.VLLM_ITL.name + _COUNT,
    *_NEW_NAMES,
)  # fmt: skip


Combine = Callable[[list[float]], float]


class ScrapeError(Exception):
    """A target that could not be read; the message says why, in a few words."""


class Scraper:
    """Answers queries from routers' ``/metrics`` and reads engines' gauges, over plain HTTP.

    Args:
        routers: gives the routers of the moment, name → ``host:port`` that serves ``/metrics``.
        timeout_seconds: for one page.
        concurrency: pages read at once.
        retention_seconds: how long samples are kept; at least the longest window asked about.

    """

    def __init__(
        self,
        routers: Callable[[], Mapping[str, str]],
        *,
        timeout_seconds: float = 2.0,
        concurrency: int = 32,
        retention_seconds: float = 900.0,
    ) -> None:
        self._routers = routers
        self._timeout_seconds = timeout_seconds
        self._gate = asyncio.Semaphore(concurrency)
        self._retention_seconds = retention_seconds
        self._session: aiohttp.ClientSession | None = None
        self._targets: dict[str, _Router] = {}
        self._readings: dict[str, observation.EngineReading] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the scraper may not be used afterwards."""
        if self._session is not None:
            await self._session.close()

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        """Read all routers, then answer every query as of ``now`` (epoch seconds).

        With no router that ever answered, every query is a ``QueryFailure`` that says why.
        """
        wanted = {query.series: query.family.kind for query in queries.values()}
        await self._scrape_routers(wanted, now)
        heard = [target for target in self._targets.values() if target.answered_at is not None]
        if not heard:
            return dict.fromkeys(queries, observation.QueryFailure(self._why_silent()))
        return {
            name: _merge([answer for target in heard for answer in target.answer(query, now)])
            for name, query in queries.items()
        }

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        """Nothing: the rings begin with this process."""
        del query, begin, end, step_seconds
        return {}

    async def engines(self, addresses: Mapping[str, str], now: float) -> Mapping[str, observation.EngineReading]:
        """Read the gauges of engines, replica name → ``host:port``.

        An engine that doesn't answer keeps its last reading, whose samples carry their own time; one that never
        answered has a reading without samples.
        """
        results = await asyncio.gather(*(self._read_engine(address, now) for address in addresses.values()))
        self._readings = {
            name: found or self._readings.get(name, observation.EngineReading())
            for name, found in zip(addresses, results, strict=True)
        }
        return self._readings

    async def _read_engine(self, address: str, now: float) -> observation.EngineReading | None:
        """One engine's gauges, or None if it did not answer."""
        try:
            page = await self._page(address)
        except ScrapeError:
            return None
        return read_engine(page, now)

    async def _scrape_routers(self, wanted: Mapping[str, telemetry.Kind], now: float) -> None:
        """One pass over the routers of the moment; those that are gone end here."""
        routers = self._routers()
        for name in self._targets.keys() - routers.keys():
            self._targets[name].gone = True
            answered_at = self._targets[name].answered_at
            if answered_at is None or answered_at < now - self._retention_seconds:
                del self._targets[name]
        for name in routers:
            target = self._targets.setdefault(name, _Router(series.Store(retention_seconds=self._retention_seconds)))
            target.gone = False
        await asyncio.gather(*(self._scrape_router(name, address, wanted, now) for name, address in routers.items()))

    async def _scrape_router(self, name: str, address: str, wanted: Mapping[str, telemetry.Kind], now: float) -> None:
        """Read one router into its ring, or note why that failed."""
        try:
            page = await self._page(address)
        except ScrapeError as error:
            self._targets[name].failure = f"{name} at {address}: {error}"
        else:
            self._targets[name].take(page, wanted, now)

    async def _page(self, address: str) -> str:
        """The metrics page of one target. Raises ScrapeError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_seconds))
        try:
            async with self._gate, self._session.get(f"http://{address}/metrics") as response:
                if response.status != 200:  # noqa: PLR2004 (HTTP OK)
                    raise ScrapeError(f"answered {response.status}")
                body = await response.content.read(PAGE_LIMIT_BYTES + 1)
                while len(body) <= PAGE_LIMIT_BYTES and (more := await response.content.read(PAGE_LIMIT_BYTES)):
                    body += more
        except TimeoutError as error:
            raise ScrapeError(f"no answer within {self._timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ScrapeError(str(error) or type(error).__name__) from error
        if len(body) > PAGE_LIMIT_BYTES:
            raise ScrapeError(f"its page is longer than {PAGE_LIMIT_BYTES} bytes")
        return body.decode(errors="replace")

    def _why_silent(self) -> str:
        """Why there is nothing to answer from."""
        failures = sorted(target.failure for target in self._targets.values() if target.failure)
        return "; ".join(failures) or "no router runs"


@dataclasses.dataclass(slots=True)
class _Router:
    """One router's ring.

    Attributes:
        samples: its series.
        seen: series that it has shown, so that one that is new since the last answer is known to start from zero.
        watched: series names that the last answer was read for.
        answered_at: epoch seconds of its last answer.
        failure: why the last scrape failed, or empty.
        gone: it no longer runs, so that only its past inside windows counts.
    """

    samples: series.Store
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = dataclasses.field(default_factory=set)
    watched: frozenset[str] = frozenset()
    answered_at: float | None = None
    failure: str = ""
    gone: bool = False

    def take(self, page: str, wanted: Mapping[str, telemetry.Kind], now: float) -> None:
        """Add the wanted series of one page.

        A labelled counter appears with its first event: where an earlier answer of this router did not show it, it
        stood at zero then, and the growth since counts.
        """
        for name, labels, value in exposition.read(page, wanted):
            key = (name, tuple(sorted(labels.items())))
            if key not in self.seen:
                self.seen.add(key)
                counts = wanted[name] is not telemetry.Kind.GAUGE
                if counts and self.answered_at is not None and name in self.watched:
                    self.samples.add(name, labels, signals.Sample(0.0, self.answered_at))
            self.samples.add(name, labels, signals.Sample(value, now))
        self.samples.end_absent("", now)
        self.answered_at, self.failure, self.watched = now, "", frozenset(wanted)

    def answer(self, query: telemetry.Query, now: float) -> tuple[telemetry.Answer, ...]:
        """Its part of an answer: as of its last answer while it should run, as of now once it is gone."""
        if self.gone:
            return () if query.operation is telemetry.Operation.LAST else self.samples.answer(query, now)
        return self.samples.answer(query, now if self.answered_at is None else self.answered_at)


def _merge(parts: list[telemetry.Answer]) -> tuple[telemetry.Answer, ...]:
    """Add up the routers' parts by labels; a sum is as old as its oldest part."""
    groups: dict[tuple[str, ...], list[telemetry.Answer]] = {}
    for part in parts:
        groups.setdefault(part.labels, []).append(part)
    return tuple(
        telemetry.Answer(labels, math.fsum(p.value for p in group), min(p.observed_at for p in group))
        for labels, group in sorted(groups.items())
    )


def read_engine(page: str, now: float) -> observation.EngineReading:
    """An engine's gauges and counters from its metrics page; its data-parallel parts add up, the fullest KV counts."""
    found: dict[str, list[exposition.Line]] = {}
    for line in exposition.read(page, _ENGINE_SERIES):
        found.setdefault(_NEW_NAMES.get(line.name, line.name), []).append(line)

    def sample(family: telemetry.Family, combine: Combine = math.fsum, suffix: str = "") -> signals.Sample | None:
        lines = found.get(family.name + suffix)
        return signals.Sample(combine([line.value for line in lines]), now) if lines else None

    awake = [
        line.value for line in found.get(telemetry.VLLM_SLEEP.name, ()) if line.labels.get("sleep_state") == "awake"
    ]
    caches = [_kv_tokens(line.labels) for line in found.get(telemetry.VLLM_CACHE_CONFIG.name, ())]
    return observation.EngineReading(
        running=sample(telemetry.VLLM_RUNNING),
        waiting=sample(telemetry.VLLM_WAITING),
        kv_usage=sample(telemetry.VLLM_KV_USAGE, max),
        asleep=bool(awake) and not any(awake),
        gap_seconds=sample(telemetry.VLLM_ITL, suffix=_SUM),
        gaps=sample(telemetry.VLLM_ITL, suffix=_COUNT),
        prompt_tokens=_less(sample(telemetry.VLLM_PROMPT), sample(telemetry.VLLM_PROMPT_CACHED)),
        kv_tokens=signals.Sample(math.fsum(caches), now) if caches and all(caches) else None,
    )


def _less(whole: signals.Sample | None, part: signals.Sample | None) -> signals.Sample | None:
    """The whole without a part of it, as far as engines tell that apart: cached prompt tokens are not computed."""
    if whole is None or part is None:
        return whole
    return signals.Sample(max(0.0, whole.value - part.value), whole.observed_at)


def _kv_tokens(labels: Mapping[str, str]) -> float:
    """The size of a KV cache as its settings tell it, in tokens: new engines say it, old ones say their blocks."""
    for sizes in (("kv_cache_size_tokens",), ("num_gpu_blocks", "block_size")):
        texts = [labels.get(name, "") for name in sizes]
        if all(text.isdecimal() for text in texts):
            return math.prod(float(text) for text in texts)
    return 0.0
