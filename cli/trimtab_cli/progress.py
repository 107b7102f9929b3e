"""Progress of long work on a terminal: the whole and the part that runs. In a pipe nothing is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from trimtab_sim import world


class Meter(Protocol):
    """Where progress is told."""

    def run(self, what: str) -> world.Progress:
        """A run begins; the function takes the share that is done."""
        ...

    def told(self, what: str) -> None:
        """A run begins whose own progress nobody knows."""
        ...


class Quiet:
    """Tells nobody."""

    def run(self, what: str) -> world.Progress:
        """Nothing is shown."""
        del what
        return lambda _: None

    def told(self, what: str) -> None:
        """Nothing is shown."""


class Bars:
    """Two lines: how many of the runs are done, and how far the present one is.

    Args:
        progress: draws them.
        whole: what all of it is, such as ``3 controllers``.
        parts: how many runs are expected; it may become a few more or less.
    """

    def __init__(self, progress: Progress, whole: str, parts: int) -> None:
        self._progress = progress
        self._whole = progress.add_task(whole, total=parts)
        self._part = progress.add_task("", total=1.0)
        self._parts = parts
        self._begun = 0

    def run(self, what: str) -> world.Progress:
        """Its bar fills as the run goes on."""
        self._begin(what, total=1.0)
        part = self._part
        return lambda share: self._progress.update(part, completed=share)

    def told(self, what: str) -> None:
        """Its bar only moves."""
        self._begin(what, total=None)

    def _begin(self, what: str, *, total: float | None) -> None:
        self._begun += 1
        self._progress.update(self._whole, completed=min(self._begun, self._parts) - 1)
        self._progress.remove_task(self._part)  # a known total can't be made unknown again
        self._part = self._progress.add_task(what, total=total)


@contextmanager
def meter(whole: str, parts: int) -> Iterator[Meter]:
    """A meter for work of about so many runs, on a terminal's standard error; a quiet one elsewhere."""
    if not sys.stderr.isatty():
        yield Quiet()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress, whole, parts)
