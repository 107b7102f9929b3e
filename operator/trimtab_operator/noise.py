"""What of a status is noise: how numbers are rounded for people, and which movements are no change. Pure."""

from __future__ import annotations

from trimtab_core import units

UNWATCHED = frozenset({"age", "learning", "spend"})
"""Fields that move all the time: once they are there, they are written with the next change of something else."""
MEASURED = frozenset(
    {"value", "arrivalsPerSecond", "baselineUsdPerHour", "savedRatio", "sloAttainment", "exactHitRate", "startup"}
)
"""Fields whose small movements are noise: they are written with the next change that is more than that."""
NOISE_RATIO = 0.05
NOISE_ABSOLUTE = 0.005


def decimal(value: float, digits: int) -> str:
    """A number of at least 0 with so many significant digits, as a plain decimal."""
    rounded = float(f"{max(0.0, value):.{digits}g}")
    return f"{rounded:.9f}".rstrip("0").rstrip(".")


def same(new: object, old: object, name: str = "") -> bool:
    """Whether two statuses say the same: ages don't count, and measured numbers may differ by noise."""
    if isinstance(new, dict) and isinstance(old, dict):
        keys = (new.keys() | old.keys()) - (UNWATCHED & new.keys() & old.keys())
        return all(key in new and key in old and same(new[key], old[key], key) for key in keys)
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(same(one, other) for one, other in zip(new, old, strict=True))
    if name in MEASURED and isinstance(new, str) and isinstance(old, str):
        return _near(new, old)
    return new == old


def _near(new: str, old: str) -> bool:
    """Whether two numbers, or durations, differ by no more than noise."""
    try:
        one, other = _number(new), _number(old)
    except units.UnitError:
        return new == old
    return abs(one - other) <= max(NOISE_ABSOLUTE, NOISE_RATIO * max(abs(one), abs(other)))


def _number(text: str) -> float:
    """The value of a decimal, which may be negative, or of a duration in seconds."""
    negative = text.startswith("-")
    plain = text.removeprefix("-")
    value = units.duration_seconds(plain) if plain[-1:].isalpha() else units.decimal_number(plain)
    return -value if negative else value
