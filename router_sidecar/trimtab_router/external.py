"""External tiers: what an OpenAI-compatible provider is sent, at which pace, with which key.

A provider's limits are kept to twice: our own buckets for requests and tokens, and what its answers say is left. Where
either runs out the endpoint rests, and requests go elsewhere meanwhile.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
from trimtab_core.routing import classes, table

from trimtab_router import file_marks

log = logging.getLogger("trimtab.router")

_BATCH = b"batch"
_BURST_SECONDS = 1.0
_MINUTE_SECONDS = 60.0
_LONGEST_REST_SECONDS = 300.0
_LOW_SHARE = 0.5
"""Of a provider's limit: with less than that left our pace follows its own."""
_REFILL_SHARE = 0.05
"""Of the time in which all tokens come back: enough are there for a request."""


class Provider:
    """What one external endpoint has beside those of engines.

    Args:
        spec: of the table.
        head: header lines that every request begins with, but for the key's.
        before: the same provider by the table before: what was sent stays counted.

    Attributes:
        models: name that the client sent → name at the provider.
        requests, tokens: our own limits; None for no limit of tokens.

    Raises:
        table.TableError: if the key's file holds none.
    """

    __slots__ = ("_batch_field", "_head", "_key", "_rate", "models", "requests", "tokens")

    def __init__(self, spec: table.External, head: bytes, before: Provider | None = None) -> None:
        self.models = spec.models
        self._head = head
        self._key = KeyFile(spec.api_key_file) if spec.api_key_file else None
        self._batch_field = b',"service_tier":"%b"' % spec.batch_service_tier.encode() if spec.batch_discount else b""
        rate, tokens_per_minute = spec.max_requests_per_second, spec.max_tokens_per_minute
        self.requests: Bucket = before.requests if before is not None else Bucket()
        self._rate = rate
        self.requests.resize(rate, rate * _BURST_SECONDS)
        self.tokens: Bucket | None = None
        if tokens_per_minute is not None:
            self.tokens = (before.tokens if before is not None else None) or Bucket()
            self.tokens.resize(tokens_per_minute / _MINUTE_SECONDS, tokens_per_minute)

    def fields(self, headers: dict[bytes, bytes]) -> bytes:
        """Fields of the body that only this provider is sent, for a request with these headers."""
        return self._batch_field if self._batch_field and _is_batch(headers) else b""

    @property
    def head(self) -> bytes:
        """Header lines of every request, that with the key among them."""
        key = self._key.value if self._key is not None else b""
        return self._head + (b"authorization: Bearer %b\r\n" % key if key else b"")

    def reread(self) -> bool:
        """Look whether the key has changed; returns whether it has."""
        return self._key is not None and self._key.look()

    def sent(self, now: float) -> float:
        """Count a request; returns when (monotonic seconds) the next one may go out."""
        self.requests.take(1.0, now)
        free = self.requests.free_at(1.0, now)
        return free if self.tokens is None else max(free, self.tokens.free_at(0.0, now))

    def told(self, told: dict[bytes, bytes], now: float) -> float:
        """Take in what an answer says of the provider's limits; returns when the next request may go out.

        A bucket of which ``limit - left`` comes back in ``seconds`` refills at their quotient: where little is left
        our own pace falls to it, and where nothing is, requests wait for the first bit of it.

        Args:
            told: values of the ``x-ratelimit-…`` headers by name.
            now: monotonic seconds.
        """
        until = now
        found = _told(told, b"requests")
        if found is not None:
            limit, left, seconds = found
            refill = max(0.0, limit - left) / seconds
            is_low = left < limit * _LOW_SHARE and refill > 0
            self.requests.slow(refill if is_low else self._rate)
            if left < 1 and refill > 0:
                until = now + min(1.0 / refill, _LONGEST_REST_SECONDS)
        found = _told(told, b"tokens")
        if found is not None and found[1] < 1:
            until = max(until, now + min(found[2] * _REFILL_SHARE, _LONGEST_REST_SECONDS))
        return until

    def used(self, tokens: int, now: float) -> float:
        """Count the tokens of an answer; returns when the next request may go out."""
        if self.tokens is None:
            return now
        self.tokens.take(tokens, now)
        return self.tokens.free_at(0.0, now)


def _told(told: dict[bytes, bytes], kind: bytes) -> tuple[float, float, float] | None:
    """What an answer says of its provider's limit: limit, what is left, seconds until all of it is; None if unknown."""
    values = (told.get(b"x-ratelimit-limit-" + kind, b""), told.get(b"x-ratelimit-remaining-" + kind, b""))
    if not all(each.isdigit() for each in values):
        return None
    limit, left = (float(each[:18]) for each in values)
    seconds = span_seconds(told.get(b"x-ratelimit-reset-" + kind, b""))
    return (limit, left, seconds) if limit > 0 and seconds > 0 else None


def billed(tier: table.Tier, headers: dict[bytes, bytes]) -> table.Tier:
    """The tier with the rates that hold for a request with these headers: a provider's batch tier costs less."""
    external = tier.external
    if external is None or not external.batch_discount or not _is_batch(headers):
        return tier
    share, rates = 1.0 - external.batch_discount, tier.rates
    discounted = table.Rates(
        rates.input_usd_per_token * share,
        rates.output_usd_per_token * share,
        rates.cached_input_usd_per_token * share,
    )
    return msgspec.structs.replace(tier, rates=discounted)


def _is_batch(headers: dict[bytes, bytes]) -> bool:
    return headers.get(classes.PRIORITY) == _BATCH


class Bucket:
    """Drains at ``rate`` a second and holds ``size``; it may be overfull, and then nothing goes until it is not."""

    __slots__ = ("_at", "_level", "_most", "_rate", "_size")

    def __init__(self) -> None:
        self._level = self._at = 0.0
        self._rate = self._size = self._most = 1.0

    def resize(self, rate: float, size: float) -> None:
        """Take another rate and size; one that is as before stays as slow as it was told to be."""
        most = self._most
        self._most, self._size = max(rate, 1e-9), max(1.0, size)
        self._rate = min(self._rate, self._most) if self._most == most else self._most

    def slow(self, rate: float) -> None:
        """Drain at this rate, or at the one that was set if that is lower."""
        self._rate = max(min(rate, self._most), 1e-9)

    def take(self, amount: float, now: float) -> None:
        """Fill in."""
        self._level = self._drained(now) + amount
        self._at = now

    def free_at(self, amount: float, now: float) -> float:
        """When there is room for so much."""
        return now + max(0.0, self._drained(now) + amount - self._size) / self._rate

    def _drained(self, now: float) -> float:
        return max(0.0, self._level - max(0.0, now - self._at) * self._rate)


class KeyFile:
    """A file that holds an API key. It is read again when it changes; while it can't be read, the last key stays.

    Raises:
        table.TableError: if it holds none at first.
    """

    __slots__ = ("_complained", "_mark", "path", "value")

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._complained = False
        try:
            self._mark = file_marks.of(self.path)
            self.value = self._read()
        except OSError as error:
            raise table.TableError(f"apiKeyFile {path}: {error.strerror}") from error
        except ValueError as error:
            raise table.TableError(f"apiKeyFile {path}: {error}") from error

    def look(self) -> bool:
        """Read it if it has changed; returns whether the key is another one."""
        before = self.value
        try:
            mark = file_marks.of(self.path)
            if mark == self._mark:
                return False
            self.value = self._read()
            self._mark, self._complained = mark, False
        except (OSError, ValueError) as error:
            if not self._complained:
                self._complained = True
                log.warning("API key %s can't be read, so the last one stays in use: %s", self.path, error)
        return self.value != before

    def _read(self) -> bytes:
        key = self.path.read_bytes().strip()
        if not key or not key.isascii() or not key.decode().isprintable():
            raise ValueError("holds no key of one line")
        return key


_UNITS = ((b"ms", 0.001), (b"h", 3600.0), (b"m", 60.0), (b"s", 1.0))


def span_seconds(text: bytes) -> float:
    """Seconds of a time as OpenAI writes it, such as ``6m0s`` or ``20ms``, or of a bare number; 0 for anything else."""
    total, number, rest = 0.0, b"", text[:32]
    try:
        while rest:
            if rest[:1].isdigit() or rest[:1] == b".":
                number, rest = number + rest[:1], rest[1:]
                continue
            unit = next((each for each in _UNITS if rest.startswith(each[0])), None)
            if unit is None:
                return 0.0
            total, number, rest = total + float(number) * unit[1], b"", rest[len(unit[0]) :]
        return total + (float(number) if number else 0.0)
    except ValueError:
        return 0.0
