"""How numbers read on every page and in every table."""

from __future__ import annotations

import pytest
from trimtab_cli.pages import plots, wording


def plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u2212", "-")


@pytest.mark.parametrize(
    ("value", "promised", "text"),
    [
        pytest.param(0.9512, 0.95, "95.1 %", id="kept"),
        pytest.param(0.9498, 0.95, "94.98 %", id="a near miss does not round to a hit"),
        pytest.param(0.842, 0.95, "84.2 %", id="a clear miss"),
    ],
)
def test_a_miss_never_looks_like_a_hit(value: float, promised: float, text: str) -> None:
    assert plain(wording.attainment(value, promised)) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (10.0, 8.0, "-$2.00 (-20.0 %)"),
        (0.0, 3.0, "+$3.00"),
        (5.0, 5.004, "same"),  # less than a cent
        (40_000.0, 41_000.0, "+$1,000 (+2.5 %)"),
    ],
)
def test_a_change_of_cost_has_a_sign_and_a_share(before: float, after: float, text: str) -> None:
    assert plain(wording.usd_change(before, after)) == text


@pytest.mark.parametrize(("value", "text"), [(1234.6, "1,235"), (0.03456, "0.0346"), (0.0, "0"), (12.0, "12")])
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(65.9, "1:05"), (3725.0, "1:02:05"), (-1.0, "0:00")])
def test_times_count_from_the_start(seconds: float, text: str) -> None:
    assert wording.clock(seconds) == text


@pytest.mark.parametrize(
    ("duration_s", "last"),
    [
        pytest.param(600.0, "10:00", id="minutes"),
        pytest.param(12 * 3600.0, "12h", id="hours"),
        pytest.param(14 * 86400.0, "14d", id="days"),
    ],
)
def test_the_time_axis_is_as_fine_as_the_run_is_long(duration_s: float, last: str) -> None:
    drawing = plots.draw(plots.Chart("t", "u", [plots.Series("x", [(0.0, 1.0), (duration_s, 1.0)], 1)]), duration_s)

    labels = [
        part.rpartition(">")[2]
        for part in drawing.split('text-anchor="middle"')
        for part in [part.partition("</text>")[0]]
    ]
    assert last in labels
    assert len(labels) <= 10


def test_the_main_line_is_drawn_over_the_others() -> None:
    lines = [plots.Series("ours", [(0.0, 1.0)], 1), plots.Series("other", [(0.0, 1.0)], 2, dashed=True)]

    drawing = plots.draw(plots.Chart("t", "u", lines), 1.0)

    assert drawing.index("var(--s2)") < drawing.index("var(--s1)")
