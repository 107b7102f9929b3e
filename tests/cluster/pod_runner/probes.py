"""Startup, readiness and liveness probes of one container, with the kubelet's rules for thresholds and order."""

import asyncio
import collections.abc
import dataclasses
import logging

import aiohttp

from .api import Object

log = logging.getLogger(__name__)

KINDS = ("startup", "readiness", "liveness")
Execute = collections.abc.Callable[[list[str], float], collections.abc.Awaitable[int]]  # argv, seconds -> exit status


@dataclasses.dataclass(frozen=True)
class Timing:
    """When a probe runs and what its results mean; the API server has already filled in Kubernetes' defaults."""

    initial_delay: float
    period: float
    timeout: float
    successes: int
    failures: int

    @classmethod
    def of(cls, probe: Object) -> "Timing":
        """Read the fields of a v1.Probe."""
        return cls(
            probe.get("initialDelaySeconds", 0),
            probe.get("periodSeconds", 10),
            probe.get("timeoutSeconds", 1),
            probe.get("successThreshold", 1),
            probe.get("failureThreshold", 3),
        )


class Verdict:
    """Turns single results into a state: it changes only after enough equal results in a row."""

    def __init__(self, timing: Timing, *, state: bool) -> None:
        self.state = state
        self._timing = timing
        self._last: bool | None = None
        self._in_a_row = 0

    def add(self, good: bool) -> bool:  # noqa: FBT001 - one result, one argument
        """Count one result; return whether it crossed a threshold, the first time or again."""
        self._in_a_row = self._in_a_row + 1 if good == self._last else 1
        self._last = good
        if self._in_a_row < (self._timing.successes if good else self._timing.failures):
            return False
        self.state = good
        return True


class Prober:
    """Runs one action of a probe or of a lifecycle hook against a container."""

    def __init__(self, container: Object, address: str, execute: Execute, session: aiohttp.ClientSession) -> None:
        self._container = container
        self._address = address
        self._execute = execute
        self._session = session

    async def check(self, action: Object, timeout: float) -> str:
        """Do the action once; return "" when it went well, else what went wrong."""
        try:
            async with asyncio.timeout(timeout):
                return await self._act(action, timeout)
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return str(error) or repr(error)

    async def _act(self, action: Object, timeout: float) -> str:
        if "httpGet" in action:
            return await self._get(action["httpGet"])
        if "tcpSocket" in action:
            where = action["tcpSocket"]
            _, writer = await asyncio.open_connection(where.get("host") or self._address, self.port(where["port"]))
            writer.close()
            return ""
        if "exec" in action:
            status = await self._execute(action["exec"]["command"], timeout)
            return "" if status == 0 else f"exit status {status}"
        if "sleep" in action:
            await asyncio.sleep(action["sleep"]["seconds"])
            return ""
        return f"{', '.join(action)} is not supported by the pod runner"

    async def _get(self, get: Object) -> str:
        host = get.get("host") or self._address
        url = f"{get.get('scheme', 'HTTP').lower()}://{host}:{self.port(get['port'])}{get.get('path') or '/'}"
        headers = {header["name"]: header["value"] for header in get.get("httpHeaders") or []}
        headers.setdefault("User-Agent", "kube-probe/1.36")
        async with self._session.get(url, headers=headers, allow_redirects=False, ssl=False) as answer:
            return "" if 200 <= answer.status < 400 else f"HTTP status {answer.status}"

    def port(self, wanted: int | str) -> int:
        """Return the number of a port that may be given by its name."""
        for port in self._container.get("ports") or []:
            if port.get("name") == wanted:
                return int(port["containerPort"])
        return int(wanted)


@dataclasses.dataclass
class Health:
    """What the probes of one run of a container say; `unhealthy` holds the reason once it has to be restarted."""

    started: bool
    ready: bool
    unhealthy: str = ""

    @classmethod
    def at_start(cls, container: Object) -> "Health":
        """Return the state before any probe ran: not probed means good, except that nothing is ready before it has started."""
        started = "startupProbe" not in container
        return cls(started, started and "readinessProbe" not in container)


async def watch(
    container: Object, prober: Prober, health: Health, changed: collections.abc.Callable[[str, str], None]
) -> None:
    """Probe until cancelled or until the container has to be restarted (`health.unhealthy`).

    `changed` is called with a probe's kind and message after each failure, and with an empty message when the state became good.
    """
    if "startupProbe" in container:
        await _follow("startup", container["startupProbe"], prober, health, changed)
        if health.unhealthy:
            return
        health.started = True
        health.ready = "readinessProbe" not in container
        changed("startup", "")
    loops = [
        _follow(kind, container[f"{kind}Probe"], prober, health, changed)
        for kind in ("readiness", "liveness")
        if f"{kind}Probe" in container
    ]
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        # Readiness never ends by itself, so the first to end is the liveness probe that gave up.
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _follow(
    kind: str, probe: Object, prober: Prober, health: Health, changed: collections.abc.Callable[[str, str], None]
) -> None:
    timing = Timing.of(probe)
    verdict = Verdict(timing, state=kind == "liveness")
    await asyncio.sleep(timing.initial_delay)
    while True:
        problem = await prober.check(probe, timing.timeout)
        if problem:
            changed(kind, problem)
        crossed = verdict.add(not problem)
        if kind == "readiness" and health.ready != verdict.state:
            health.ready = verdict.state
            changed(kind, "")
        elif crossed and kind == "startup" and verdict.state:
            return
        elif crossed and kind != "readiness" and not verdict.state:
            health.unhealthy = f"Container failed {kind} probe: {problem}"
            return
        await asyncio.sleep(timing.period)
