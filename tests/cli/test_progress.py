"""Progress: two bars on a terminal, and nothing at all in a pipe."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress
from trimtab_cli import progress, simulate

from . import samples


@pytest.fixture
def drawn() -> Progress:
    return Progress(console=Console(file=io.StringIO(), force_terminal=True), auto_refresh=False)


def test_the_present_run_and_the_whole_are_drawn_apart(drawn: Progress) -> None:
    bars = progress.Bars(drawn, "Trimtab and 1 baseline", 3)

    bars.run("trimtab")(0.5)

    whole, part = drawn.tasks
    assert (whole.description, whole.completed, whole.total) == ("Trimtab and 1 baseline", 0, 3)
    assert (part.description, part.completed, part.total) == ("trimtab", 0.5, 1.0)


def test_a_run_without_progress_of_its_own_only_moves(drawn: Progress) -> None:
    bars = progress.Bars(drawn, "all", 3)

    bars.run("trimtab")(1.0)
    bars.told("hpa-queue: target 1")

    whole, part = drawn.tasks
    assert whole.completed == 1
    assert (part.description, part.completed, part.total) == ("hpa-queue: target 1", 0, None)


def test_more_runs_than_expected_never_fill_the_whole(drawn: Progress) -> None:
    bars = progress.Bars(drawn, "all", 2)

    for number in range(5):
        bars.told(f"run {number}")

    assert drawn.tasks[0].completed == 1  # of 2


def test_a_pipe_sees_no_progress(tmp_path: Path) -> None:
    result = samples.run(
        simulate.command, "-f", samples.manifests(tmp_path), "--trace", samples.trace(tmp_path), "--baselines", "none"
    )

    assert result.stderr == ""
    with progress.meter("all", 1) as meter:
        assert isinstance(meter, progress.Quiet)
        meter.run("quiet")(0.5)
        meter.told("quiet")
