"""What the process runner asks its processes over HTTP: are you up, and do you still work on something?"""

from __future__ import annotations

from typing import Protocol

import aiohttp
from trimtab_core import signals

from trimtab_operator.observe import scrape

_TIMEOUT_SECONDS = 1.5


class Probe(Protocol):
    """How the runner looks at a process."""

    async def healthy(self, address: str, path: str) -> bool:
        """Whether a GET of the path is answered 200."""
        ...

    async def in_flight(self, address: str) -> float | None:
        """Requests in the engine, running or waiting; None if it doesn't say."""
        ...


class HttpProbe:
    """Asks over plain HTTP, a connection per question, as a kubelet does."""

    async def healthy(self, address: str, path: str) -> bool:
        """Whether a GET of the path is answered 200."""
        return await self._get(address, path) is not None

    async def in_flight(self, address: str) -> float | None:
        """Requests in the engine, running or waiting; None if it doesn't say."""
        page = await self._get(address, "/metrics")
        if page is None:
            return None
        reading = scrape.read_engine(page, 0.0)
        return sum_known(reading.running, reading.waiting)

    async def _get(self, address: str, path: str) -> str | None:
        """The body of a 200, or None."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)) as session,
                session.get(f"http://{address}{path}") as response,
            ):
                return await response.text() if response.status == 200 else None  # noqa: PLR2004 (HTTP OK)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


def sum_known(*samples: signals.Sample | None) -> float | None:
    """The sum, or None if a part is missing."""
    values = [sample.value for sample in samples if sample is not None]
    return sum(values) if len(values) == len(samples) else None
