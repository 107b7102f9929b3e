"""The view of a running local mode: redrawn on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from trimtab_core import units

from trimtab_cli.demonstration.picture import Picture

PLAIN_SECONDS = 10.0
_NEWS_LINES = 6
_BAR = 20


@dataclass(frozen=True, slots=True)
class Status:
    """What a command adds to the picture.

    Attributes:
        title: what runs, such as ``replay 1:20 of 3:00``.
        progress: share done, or None.
        facts: (name, value) pairs, such as requests and latencies so far.
        note: what is shortened, or empty.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    note: str = ""
    progress: float | None = None


class View:
    """Shows pictures and says things. Use as a context manager.

    Args:
        console: where to; a terminal is redrawn, anything else gets lines.
        clock: seconds, for the pace of plain lines.

    """

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._news: list[str] = []
        self._told_at = float("-inf")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def is_drawn(self) -> bool:
        """Whether it is redrawn in place; otherwise everything is told line by line."""
        return self._live is not None

    def say(self, message: str) -> None:
        """Tell one thing: among the last lines of the view, or as a line of its own."""
        if self._live is None:
            self._console.print(Text(message), soft_wrap=True)
        else:
            self._news = [*self._news, *message.splitlines()][-_NEWS_LINES:]

    def show(self, status: Status, picture: Picture | None) -> None:
        """Show a moment; in a pipe one line every ``PLAIN_SECONDS``."""
        if self._live is not None:
            self._live.update(self._drawn(status, picture), refresh=True)
        elif self._clock() - self._told_at >= PLAIN_SECONDS:
            self._told_at = self._clock()
            self._console.print(Text(line(status, picture)), soft_wrap=True)

    def _drawn(self, status: Status, picture: Picture | None) -> RenderableType:
        parts: list[RenderableType] = [_head(status)]
        if picture is not None:
            parts += [_fleet(picture), _weights(picture), _money(status, picture)]
            if picture.decision is not None:
                parts.append(_decision(picture))
        parts += [Text(text, style="dim") for text in self._news]
        return Group(*parts)


def line(status: Status, picture: Picture | None) -> str:
    """A moment in one line."""
    parts = [status.title]
    if picture is not None:
        fleet = ", ".join(
            f"{v.tier}/{v.name} {v.ready}{f'+{v.pending}' if v.pending else ''}" for v in picture.variants
        )
        parts += [fleet or "no replicas", f"{_usd(picture.usd_per_hour)}/h"]
        if picture.baseline_usd_per_hour > 0:
            parts.append(f"baseline {_usd(picture.baseline_usd_per_hour)}/h")
    parts += [f"{name} {value}" for name, value in status.facts]
    return " | ".join(parts)


def _head(status: Status) -> Text:
    text = Text.assemble(("trimtab ", "bold cyan"), (status.title, "bold"))
    if status.progress is not None:
        done = round(_BAR * min(max(status.progress, 0.0), 1.0))
        text.append("  " + "━" * done, style="cyan").append("━" * (_BAR - done), style="dim")
    if status.note:
        text.append(f"\n{status.note}", style="yellow")
    return text


def _fleet(picture: Picture) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("tier")
    table.add_column("variant")
    table.add_column("hardware")
    for column in ("ready", "starting", "leaving", "running", "$/h each"):
        table.add_column(column, justify="right")
    for one in picture.variants:
        table.add_row(
            one.tier,
            one.name,
            one.hardware,
            Text(f"{'●' * min(one.ready, 12)} {one.ready}", style="green"),
            Text(str(one.pending or ""), style="yellow"),
            Text(str(one.draining or ""), style="magenta"),
            "" if one.running is None else f"{one.running:.0f}",
            "?" if one.usd_per_hour is None else _usd(one.usd_per_hour),
        )
    return table


def _weights(picture: Picture) -> Table:
    tiers = list(dict.fromkeys(tier for one in picture.classes for tier in one.weights))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("class")
    table.add_column("req/s", justify="right")
    for tier in tiers:
        table.add_column(f"→ {tier}", justify="right")
    for one in picture.classes:
        shares = [one.weights.get(tier, 0.0) for tier in tiers]
        rate = "" if one.arrivals_per_second is None else f"{one.arrivals_per_second:.1f}"
        table.add_row(one.name, rate, *(f"{share:.0%}" if share else "·" for share in shares))
    return table


def _money(status: Status, picture: Picture) -> Text:
    text = Text.assemble((f"{_usd(picture.usd_per_hour)}/h", "bold"))
    if picture.baseline_usd_per_hour > 0:
        saved = 1 - picture.usd_per_hour / picture.baseline_usd_per_hour
        text.append(f" now, all on the baseline tier {_usd(picture.baseline_usd_per_hour)}/h")
        text.append(f" ({saved:+.0%} saved)", style="green" if saved > 0 else "red")
    for name, value in status.facts:
        text.append(f"  {name} ", style="dim").append(value)
    return text


def _decision(picture: Picture) -> Text:
    told = picture.decision
    assert told is not None
    text = Text.assemble(("last decision  ", "dim"), (told.action, "bold"))
    if told.reasons:
        text.append(f"\n  because {told.reasons[0]}", style="italic")
    return text


def _usd(value: float) -> str:
    return units.format_usd(value)
