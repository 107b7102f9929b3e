"""Durations, decimals and ratios as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import units

DURATIONS = {
    "800ms": 0.8,
    "98us": 98e-6,
    "15s": 15.0,
    "1.5s": 1.5,
    "10m": 600.0,
    "1h30m": 5400.0,
    "24h": 86400.0,
    "1m0.5s": 60.5,
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items(), ids=DURATIONS.keys())
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert units.duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "800", "1d", "1 s", "-1s", "1,5s", "1e3s", "ms", "\u0661s", "1s\n"])
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(units.UnitError, match="write a number with a unit, such as 800ms"):
        units.duration_seconds(text)


SPELLINGS = {
    0.0: "0ms",
    0.000098: "0.098ms",
    0.8: "800ms",
    1.0: "1s",
    1.5: "1.5s",
    90.0: "1m30s",
    86400.0: "24h",
    3661.0: "1h1m1s",
}


@pytest.mark.parametrize(("seconds", "text"), SPELLINGS.items(), ids=SPELLINGS.values())
def test_a_duration_is_spelled_as_people_do(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**14))
def test_every_spelling_is_read_back_to_the_microsecond(microseconds: int) -> None:
    text = units.format_duration(microseconds / 1e6)
    assert re.fullmatch(units.DURATION_PATTERN, text)
    assert units.duration_seconds(text) == pytest.approx(microseconds / 1e6, abs=1e-6)


@pytest.mark.parametrize(("text", "value"), [("0.35", 0.35), ("0", 0.0), ("20000", 20000.0)])
def test_a_decimal_is_read(text: str, value: float) -> None:
    assert units.decimal_number(text) == value


@pytest.mark.parametrize("text", ["", "NaN", "inf", "-1", "$1", "1,5"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(units.UnitError):
        units.decimal_number(text)


def test_a_ratio_ends_at_one() -> None:
    assert units.ratio("0.99") == 0.99
    assert units.ratio("1") == 1.0
    with pytest.raises(units.UnitError, match="from 0 to 1"):
        units.ratio("1.01")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "$0.00"), (0.000425, "$0.000425"), (1.861, "$1.86"), (12907.13, "$12,907.13")]
)
def test_dollars_have_cents_above_one_and_digits_below(value: float, text: str) -> None:
    assert units.format_usd(value) == text
