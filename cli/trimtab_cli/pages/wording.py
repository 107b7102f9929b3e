"""How numbers are written for people, the same in every table, page and sentence. Pure."""

from __future__ import annotations

from trimtab_core import units
from trimtab_core.planning import inputs

NOTHING = "–"
"""Stands where there is no number."""
SAME = "same"
"""Stands for a difference that rounds to nothing."""
_NO_BREAK = "\u00a0"
_MINUS = "\u2212"
_CENT = 0.005
_LARGE = 1000


def percent(value: float, digits: int = 0) -> str:
    """A share as ``97 %``, with a space that doesn't break."""
    return f"{100 * value:.{digits}f}{_NO_BREAK}%"


def attainment(value: float, promised: float) -> str:
    """The share that met its SLO, with so many digits that a miss can't look like a hit."""
    return percent(value, 1 if value >= promised or round(value, 3) < promised else 2)


def seconds(value: float | None) -> str:
    """A duration to three digits."""
    return NOTHING if value is None else units.format_duration(float(f"{value:.3g}"))


def clock(value: float) -> str:
    """Seconds since the start as ``m:ss``, from an hour on ``h:mm:ss``."""
    minutes, rest = divmod(max(0, int(value)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: float) -> str:
    """Three digits, and never an exponent."""
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.3g}"


def given(one: inputs.Input) -> str:
    """An input's number with its unit."""
    if one.value is None:
        return NOTHING
    if one.unit in {inputs.SHARE, "ratio"}:
        return f"{percent(one.value, 1)} {one.unit.removeprefix('ratio')}".rstrip()
    unit = f"({one.unit})" if " is " in one.unit else one.unit
    return f"{number(one.value)} {unit}"


def age(value: float | None) -> str:
    """How old a measurement is; empty for what is not measured."""
    return "" if value is None else f"{max(0, round(value))}s old"


def usd(value: float) -> str:
    """Dollars; whole ones from a thousand on."""
    return f"${value:,.0f}" if abs(value) >= _LARGE else units.format_usd(value)


def signed(value: float, unit: str, digits: int = 0) -> str:
    """A difference with its sign, such as ``+1.2 points``."""
    size = f"{abs(value):,.{digits}f}"
    if not size.strip("0.,"):
        return SAME
    return f"{_MINUS if value < 0 else '+'}{size}{_NO_BREAK}{unit}".strip(_NO_BREAK)


def usd_change(before: float, after: float) -> str:
    """A difference of two amounts with its share, such as ``+$1.20 (+12.0 %)``."""
    difference = after - before
    if abs(difference) < _CENT:
        return SAME
    amount = f"{_MINUS if difference < 0 else '+'}{usd(abs(difference))}"
    return f"{amount} ({signed(100 * difference / before, '%', 1)})" if before else amount


def count(number: int, one: str, many: str = "") -> str:
    """Such as ``1 replica`` and ``2 replicas``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
