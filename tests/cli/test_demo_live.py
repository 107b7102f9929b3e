"""The live view: redrawn on a terminal, sparse lines in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from trimtab_cli.demonstration import live, picture
from trimtab_core.planning.plan import Decision

DRAWN = picture.Picture(
    variants=[
        picture.VariantLine("small", "l4", "L4", 3, 1, 0, 0.4, 12.0),
        picture.VariantLine("large", "h100", "8 × H100", 1, 0, 2, None, None),
    ],
    classes=[picture.ClassLine("chat", "simple", 4.25, {"small": 0.7, "large": 0.3})],
    usd_per_hour=12.5,
    baseline_usd_per_hour=50.0,
    attainment=0.99,
    decision=Decision(0.0, "default/small", "small/l4 3 → 4", ("arrivals rose", "more"), 12.1, 12.5),
)
STATUS = live.Status("replay 0:10 of 3:00", [("requests", "41 ended")], "start-ups ÷ 20", 0.05)


def shown(*, terminal: bool, moments: tuple[float, ...] = (0.0,), said: str = "") -> str:
    """What the view prints when it is shown a picture at each moment."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, color_system=None, legacy_windows=False)
    with live.View(console, lambda: 0.0) as view:
        if said:
            view.say(said)
        for _ in moments:
            view.show(STATUS, DRAWN)
    return output.getvalue()


def test_a_terminal_shows_fleet_weights_money_and_the_last_decision() -> None:
    drawn = shown(terminal=True, said="an engine died")
    for text in (
        "replay 0:10 of 3:00", "start-ups ÷ 20", "8 × H100", "●●● 3", "$0.4", "→ small", "70%", "30%", "4.2",
        "$12.50/h now, all on the baseline tier $50.00/h (+75% saved)", "41 ended",
        "small/l4 3 → 4", "because arrivals rose", "an engine died",
    ):  # fmt: skip
        assert text in drawn


def test_an_unknown_price_is_a_question_mark_and_not_zero() -> None:
    assert "?" in shown(terminal=True)


def test_a_pipe_gets_one_line_that_can_be_read() -> None:
    assert shown(terminal=False) == (
        "replay 0:10 of 3:00 | small/l4 3+1, large/h100 1 | $12.50/h | baseline $50.00/h | requests 41 ended\n"
    )


@pytest.mark.parametrize(
    ("moments", "lines"),
    [
        pytest.param((0.0, 0.5, 9.9), 1, id="within ten seconds"),
        pytest.param((0.0, 10.0, 20.0), 3, id="every ten seconds"),
    ],
)
def test_a_pipe_is_not_flooded(moments: tuple[float, ...], lines: int) -> None:
    clock = {"now": 0.0}
    output = io.StringIO()
    with live.View(Console(file=output, width=200), lambda: clock["now"]) as view:
        for clock["now"] in moments:
            view.show(STATUS, DRAWN)
    assert output.getvalue().count("\n") == lines


def test_a_message_in_a_pipe_is_a_line_of_its_own_and_never_markup() -> None:
    assert (
        shown(terminal=False, moments=(), said="[red]x[/red] small--l4-1 ended") == "[red]x[/red] small--l4-1 ended\n"
    )
