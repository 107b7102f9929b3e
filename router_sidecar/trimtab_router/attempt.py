"""One attempt: a request sent to one endpoint, up to an answer or a failure that names its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from trimtab_core.routing import table

from trimtab_router import breaker, compiled, endpoints, errors, relay, upstream

_ERROR_BYTES = 1 << 20
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_MAX_RETRY_AFTER = 3600
_STALE_SECONDS = 1.0
"""After so long without a byte an engine had the request: it did not just close an idle connection."""
_PROVIDER_REST_SECONDS = 1
"""For a provider that says it is too much and not for how long."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt brought no answer.

    Attributes:
        reason: label value of the fallback metric.
        error: what the client is told if no fallback is left.
        blames: counts against the endpoint; a full queue does not.
        at_once: ejects the endpoint without waiting for more: nobody listens there.
        rest_seconds: it asked for so long a rest; 0 if it did not.
    """

    reason: str
    error: errors.RouterError
    blames: bool = True
    at_once: bool = False
    rest_seconds: int = 0


class Owner(Protocol):
    """The exchange, as an attempt sees it. Exactly one of ``done``, ``refused`` and ``failed`` ends an attempt."""

    def relay_for(self, attempt: Attempt, content_type: bytes) -> relay.Relay:
        """What becomes of a good answer of this type."""

    def passed(self, attempt: Attempt, data: bytes) -> None:
        """Bytes for the client."""

    def done(self, attempt: Attempt) -> None:
        """The answer is complete and good."""

    def refused(self, attempt: Attempt, body: bytes) -> None:
        """The engine says that the request itself is wrong."""

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """No answer came of it."""


class Attempt:
    """One request to one endpoint.

    Attributes:
        tier, endpoint: who is asked.
        status, content_type: of the answer, once its head came.
        relay: of the answer, once its head came.
        sent: the endpoint has the request, or most of it.
        started_at: monotonic seconds.
    """

    __slots__ = (
        "_clock", "_connection", "_data", "_flows", "_loop", "_open", "_owner", "_paused", "_resilience",
        "_retry_after", "_streamed", "_task", "content_type", "endpoint", "relay", "sent", "started_at", "status",
        "tier",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        choice: tuple[compiled.Tier, endpoints.Endpoint],
        *,
        resilience: table.Resilience,
        streamed: bool,
        clock: Callable[[], float],
    ) -> None:
        self.tier, self.endpoint = choice
        self._owner = owner
        self._resilience = resilience
        self._clock = clock
        self._connection: upstream.UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._data = b""
        self._open = self._paused = self._flows = self.sent = False
        self._streamed = streamed
        self._retry_after = b""
        self.relay: relay.Relay | None = None
        self.status = 0
        self.content_type = b""
        self.started_at = 0.0

    def start(self, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Send a whole request, over a warm connection if there is one."""
        self._loop = loop
        self._data = data
        self._open = True
        now = self.started_at = self._clock()
        endpoint = self.endpoint
        endpoint.in_flight += 1
        if self._streamed:
            endpoint.expect(now, first=True)
        if endpoint.external is not None or endpoint.breaker.state is not breaker.State.CLOSED:
            endpoint.noticed(now)
        connection = endpoint.pool.take(now)
        if connection is None:
            self._task = loop.create_task(self._connect())
        else:
            self._connection = connection
            self.sent = True
            connection.send(self, data)

    def abort(self) -> None:
        """Break off: nobody wants the answer any more. Reports nothing."""
        if not self._open:
            return
        self._release()
        if self.endpoint.breaker.probing:
            self.endpoint.passed_over(self._clock())
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.abort()

    def expire(self, reason: str, *, at_once: bool = False) -> None:
        """Break off because it takes too long."""
        if self._task is not None and self._connection is None:
            reason = "connect-timeout"
        self._fail(
            Failure(reason, errors.UpstreamTimeout(f"the engine did not answer in time ({reason})"), at_once=at_once)
        )

    def flows(self) -> None:
        """Content has come: from now on its engine should bring more of it all the time."""
        if self._streamed and not self._flows:
            if self._open and not self._paused:
                self.endpoint.excuse(first=True)
                self.endpoint.expect(self._clock())
            self._flows = True

    def pause(self) -> None:
        """The client is slow: read no more. That nothing comes now is no fault of the endpoint."""
        if self._connection is not None:
            self._connection.pause()
            if self._streamed and not self._paused:
                self._paused = True
                self.endpoint.excuse(first=not self._flows)

    def resume(self) -> None:
        """The client has caught up."""
        if self._connection is not None and self._open:
            self._connection.resume()
            if self._paused:
                self._paused = False
                self.endpoint.expect(self._clock(), first=not self._flows)

    # What the connection reports.

    def head(self, status: int, content_type: bytes, retry_after: bytes) -> None:
        """The head of the answer."""
        self.status, self.content_type, self._retry_after = status, content_type, retry_after
        connection = self._connection
        if connection is not None and connection.told:
            self.endpoint.told(connection.told, self._clock())
        if 200 <= status < 300:  # noqa: PLR2004 (the class of success)
            self.relay = self._owner.relay_for(self, content_type)
        else:
            self.relay = relay.WholeRelay(_ERROR_BYTES, judged=False)

    def read(self, data: bytes) -> None:
        """Bytes of the answer."""
        judge = self.relay
        assert judge is not None
        self.endpoint.beats += 1
        committed = judge.committed
        out = judge.feed(data)
        # What came before a failure in one read with it is on the bill, so it is passed on; but it commits to nothing.
        if out and (committed or not judge.failure):
            self._owner.passed(self, out)
        if judge.failure:
            self._fail_verdict(judge)

    def complete(self) -> None:
        """The message is whole; is the answer?"""
        judge = self.relay
        assert judge is not None
        # It is back in the pool by now, and no longer this attempt's to pause or to abort.
        self._connection = None
        judge.close()
        if judge.failure:
            self._fail_verdict(judge)
        elif 200 <= self.status < 300:  # noqa: PLR2004 (the class of success)
            self._release()
            self.endpoint.succeeded(self._clock)
            self._owner.done(self)
        else:
            self._complete_error(judge)

    def lost(self, *, stale: bool) -> None:
        """The connection broke."""
        self._connection = None
        if stale and self._clock() - self.started_at < _STALE_SECONDS:
            # The engine closed it while the request was on its way: not its fault, and nothing was done yet.
            self._task = self._loop.create_task(self._connect())
        elif self.relay is not None and self.relay.ended:
            self._release()
            self.endpoint.succeeded(self._clock)
            self._owner.done(self)
        else:
            self._fail(Failure("disconnected", errors.UpstreamFailed("the engine broke the connection off")))

    # Own steps.

    async def _connect(self) -> None:
        endpoint = self.endpoint
        try:
            async with asyncio.timeout(self._resilience.connect_timeout):
                _, connection = await self._loop.create_connection(
                    lambda: upstream.UpstreamConnection(endpoint.pool, self._clock),
                    endpoint.host,
                    endpoint.port,
                    ssl=endpoint.tls,
                )
        except (OSError, TimeoutError) as error:
            reason = "connect-timeout" if isinstance(error, TimeoutError) else "connect-refused"
            self._task = None
            self._fail(Failure(reason, errors.UpstreamFailed("the engine can't be reached"), at_once=True))
            return
        self._task = None
        if endpoint.external is not None:
            connection.told = {}
        if self._open:
            self._connection = connection
            self.sent = True
            connection.send(self, self._data)
        else:
            connection.close()

    def _complete_error(self, judge: relay.Relay) -> None:
        assert isinstance(judge, relay.WholeRelay)
        status = self.status
        reason = f"status-{status}"
        if status in _BUSY:
            rest = self._wait_seconds() or (_PROVIDER_REST_SECONDS if self.endpoint.external is not None else 0)
            busy = errors.Unavailable("the engines are busy; try again later", retry_after=rest or 1)
            self._fail(Failure(reason, busy, blames=False, rest_seconds=rest))
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or status < HTTPStatus.BAD_REQUEST:
            # Redirects are not followed: nothing but the table chooses where requests go.
            self._fail(Failure(reason, errors.UpstreamFailed(f"the engine answered with status {status}")))
        elif status in _DENIED:
            self._fail(Failure(reason, errors.UpstreamFailed("the engine did not accept the router's credentials")))
        else:
            self._release()
            self.endpoint.succeeded(self._clock)
            self._owner.refused(self, judge.body)

    def _fail_verdict(self, judge: relay.Relay) -> None:
        blames = judge.failure not in ("oversized-event", "oversized-answer")
        error = errors.UpstreamFailed(f"the engine's answer failed: {judge.failure}")
        self._fail(Failure(judge.failure, error, blames=blames))

    def _fail(self, failure: Failure) -> None:
        if not self._open:
            return
        self.abort()
        self._owner.failed(self, failure)

    def _release(self) -> None:
        if self._open:
            self._open = False
            endpoint = self.endpoint
            endpoint.in_flight -= 1
            if self._streamed and not self._paused:
                endpoint.excuse(first=not self._flows)
            if endpoint.freed is not None:
                endpoint.freed()

    def _wait_seconds(self) -> int:
        text = self._retry_after
        return min(int(text), _MAX_RETRY_AFTER) if text.isdigit() else 0
