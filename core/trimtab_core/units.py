"""Units as people write them in YAML, and as the code computes with them.

Money is USD, time is seconds, text length is tokens. YAML carries durations as ``800ms`` and money or
ratios as decimal strings, so that no tool on the way rounds them; the code computes with floats whose
names end in the unit. Must not know about Kubernetes or HTTP.
"""

from __future__ import annotations

import functools
import math
import re
from decimal import Decimal, InvalidOperation

# Days are left out on purpose: CEL's duration() in the API server reads hours at most, and a day has no fixed length.
DURATION_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,9})?(us|ms|s|m|h))+$"
DECIMAL_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,9})?$"
RATIO_PATTERN = r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$"

_SECONDS_PER_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")

SECONDS_PER_HOUR = 3600.0
HOURS_PER_MONTH = 730.0
TOKENS_PER_MILLION = 1_000_000


class UnitError(ValueError):
    """A text that is not the quantity it should be; the message says what to write instead."""


@functools.lru_cache(maxsize=4096)
def duration_seconds(text: str) -> float:
    """Seconds of a duration such as ``800ms``, ``10m`` or ``1h30m``.

    Raises:
        UnitError: if the text has no unit, an unknown unit or anything else around it.
    """
    if not re.fullmatch(DURATION_PATTERN, text):
        raise UnitError(f"{text!r} is not a duration; write a number with a unit, such as 800ms, 15s, 10m or 24h")
    return sum(float(number) * _SECONDS_PER_UNIT[unit] for number, unit in _DURATION_PART.findall(text))


def format_duration(seconds: float) -> str:
    """The shortest usual spelling of a duration, to the microsecond: ``0.8`` → ``800ms``, ``90`` → ``1m30s``."""
    microseconds = round(seconds * 1e6)
    if microseconds < 1_000_000:  # noqa: PLR2004 (one second)
        return f"{_plain(microseconds / 1e3)}ms"
    if microseconds % 1_000_000:
        return f"{_plain(microseconds / 1e6)}s"
    whole, parts = microseconds // 1_000_000, []
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _plain(value: float) -> str:
    """A decimal without exponent and without zeros at its end."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


@functools.lru_cache(maxsize=4096)
def decimal_number(text: str) -> float:
    """The value of a decimal string such as ``"0.35"``; never negative, never NaN.

    Raises:
        UnitError: if the text is not a plain non-negative decimal.
    """
    try:
        value = float(Decimal(text))
    except (InvalidOperation, ValueError) as error:
        raise UnitError(f"{text!r} is not a decimal number; write digits in quotes, such as '0.35'") from error
    if not math.isfinite(value) or value < 0:
        raise UnitError(f"{text!r} must be a finite number of at least 0")
    return value


def ratio(text: str) -> float:
    """The value of a ratio string such as ``"0.99"``, from 0 to 1.

    Raises:
        UnitError: if the text is not a decimal in that range.
    """
    value = decimal_number(text)
    if value > 1:
        raise UnitError(f"{text!r} is not a ratio; write a value from 0 to 1, such as '0.99' for 99 %")
    return value


def format_usd(value: float) -> str:
    """Dollars for people: four significant digits below one dollar, cents above."""
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4g}"
