"""Accounts that several routers share, in a Redis or Valkey server: the rules of ``accounts``, in one script.

The server's clock counts for all of them. What was settled while the server was away waits here and is booked when it
is back; a mark of what was settled makes it safe to say so twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import msgspec
from trimtab_core.routing import table

from trimtab_router import accounts, endpoints, quotas, resp

log = logging.getLogger("trimtab.router")

_SCRIPT = resources.files("trimtab_router").joinpath("accounts.lua").read_bytes()
_BACKLOG = 20_000
_BATCH = 64
_RETRY_SECONDS = 0.5
_CLOCK_SECONDS = 60.0
MARK_SECONDS = 3600.0
"""How long it is remembered that something was settled: longer than anybody tries to say it."""


class Settlement(msgspec.Struct, frozen=True):
    """A truth on its way to the server; ``reserved`` is False for what was granted without it."""

    held: accounts.Held
    truth: quotas.Need
    reserved: bool


class SharedAccounts:
    """The counts of all tenants, for all routers.

    Args:
        store: where, and what to do without it.
        scope: what tells its keys apart from others', such as the policy.
        clock: monotonic seconds.
        wall_clock: epoch seconds of this machine.
        trust: makes what a server behind TLS is checked by.
    """

    def __init__(
        self,
        store: table.Store,
        scope: str,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._store = store
        self._scope = scope
        self._clock, self._wall_clock = clock, wall_clock
        self._ahead: float | None = None
        self._asked_at = 0.0
        self._digest = b""
        self._client = resp.Client(lambda: _address(store, trust), store.timeout_seconds, clock=clock)
        self._backlog: deque[Settlement] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.lost = 0

    def now(self) -> float:
        """Epoch seconds by the server's clock, as far as it is known."""
        return self._wall_clock() + (self._ahead or 0.0)

    async def reserve(self, held: accounts.Held, seconds: float) -> quotas.Verdict:
        """Take the worst case of every rule, or nothing at all.

        Args:
            held: what is wanted.
            seconds: after which it is given back unless it is settled.

        Raises:
            resp.StoreDownError: if the server does not say.
        """
        now = await self._time()
        reply = await self._run(b"reserve", held, seconds, need=held.need, before=held.need, now=now)
        if not isinstance(reply, list) or len(reply) < 2:  # noqa: PLR2004 (the two that every answer has)
            raise resp.StoreDownError("the store's script answered nonsense")
        used = [float(each) for each in reply[2:] if isinstance(each, bytes)]
        standings = tuple(accounts.standing(rule, each, now) for rule, each in zip(held.rules, used, strict=False))
        if reply[0] == 1:
            return quotas.Verdict(standings)
        denied = standings[-1]
        wait = accounts.wait_seconds(denied.rule, denied.used, denied.rule.amount(held.need), now=now)
        return quotas.Verdict(standings, denied, wait)

    def settle(self, settlement: Settlement) -> None:
        """Book a truth, now or as soon as the server is there."""
        if len(self._backlog) >= _BACKLOG:
            self._backlog.popleft()
            self.lost += 1
        self._backlog.append(settlement)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    @property
    def waiting(self) -> int:
        """Settlements that are not booked yet."""
        return len(self._backlog)

    @property
    def down(self) -> bool:
        """Whether the server did not answer when it was last asked."""
        return self._client.down

    async def close(self, seconds: float) -> None:
        """Book what waits, for so long at most, and leave."""
        worker = self._worker
        if worker is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker, seconds)
        self._client.close()
        await asyncio.sleep(0)  # in which the loop closes what was aborted

    async def _work(self) -> None:
        """Book until nothing waits. Many at a time: the server answers in order."""
        while self._backlog:
            batch = [self._backlog.popleft() for _ in range(min(_BATCH, len(self._backlog)))]
            done = await asyncio.gather(*(self._book(each) for each in batch))
            failed = [each for each, booked in zip(batch, done, strict=True) if not booked]
            self._backlog.extendleft(reversed(failed))
            if failed:
                await asyncio.sleep(_RETRY_SECONDS)
        self._worker = None

    async def _book(self, settlement: Settlement) -> bool:
        held, truth = settlement.held, settlement.truth
        before = held.need if settlement.reserved else quotas.Need(requests=0)
        try:
            now = await self._time()
            await self._run(b"settle", held, MARK_SECONDS, need=truth, before=before, now=now)
        except resp.StoreDownError:
            return False
        return True

    async def _time(self) -> float:
        """Asked of the server now and then, and carried on by this machine's clock."""
        if self._ahead is None or self._client.down or self._clock() - self._asked_at > _CLOCK_SECONDS:
            reply = await self._execute(b"TIME")
            if not isinstance(reply, list) or not all(isinstance(each, bytes) for each in reply):
                raise resp.StoreDownError("the store does not tell the time")
            seconds, micros = (int(each) for each in reply if isinstance(each, bytes))
            self._ahead, self._asked_at = seconds + micros / 1e6 - self._wall_clock(), self._clock()
        return self.now()

    async def _run(
        self,
        operation: bytes,
        held: accounts.Held,
        seconds: float,
        *,
        need: quotas.Need,
        before: quotas.Need,
        now: float,
    ) -> resp.Reply:
        arguments = [operation, repr(now).encode(), held.id.encode(), b"%.3f" % seconds]
        for rule, window in zip(held.rules, held.windows, strict=True):
            amounts = (rule.limit, rule.amount(need), rule.amount(before), window)
            arguments += [rule.name.encode(), rule.kind.encode(), *(b"%d" % each for each in amounts)]
        # The braces keep one account's keys together in a cluster.
        key = f"trimtab:{{{self._scope}/{held.account}}}".encode()
        keys = (key, key + b":open", key + b":settled:" + held.id.encode())
        for _ in range(2):
            if not self._digest:
                loaded = await self._execute(b"SCRIPT", b"LOAD", _SCRIPT)
                self._digest = loaded if isinstance(loaded, bytes) else b""
            try:
                return await self._execute(b"EVALSHA", self._digest, b"3", *keys, *arguments)
            except resp.ServerError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise _refused(error) from error
                self._digest = b""
        raise resp.StoreDownError("the store forgets its scripts")

    async def _execute(self, *parts: bytes) -> resp.Reply:
        try:
            return await self._client.execute(*parts)
        except resp.ServerError as error:
            if parts[0] == b"EVALSHA":
                raise
            raise _refused(error) from error


def _refused(error: resp.ServerError) -> resp.StoreDownError:
    return resp.StoreDownError(f"the store refuses: {str(error)[:120]}")


def _address(store: table.Store, trust: Callable[[], ssl.SSLContext]) -> resp.Address:
    """Where the server is; its password is read for every connection, as it may have changed."""
    host, port = endpoints.parse_address(store.address)
    setup: list[tuple[bytes, ...]] = []
    if store.password_file:
        password = Path(store.password_file).read_bytes().strip()
        setup.append((b"AUTH", *((store.username.encode(),) if store.username else ()), password))
    if store.database:
        setup.append((b"SELECT", b"%d" % store.database))
    return resp.Address(host, port, trust() if store.tls else None, tuple(setup))
