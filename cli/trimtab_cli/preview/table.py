"""A preview as lines: before, after and the difference; for the terminal, Markdown and the page alike. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab_cli.pages import page, wording
from trimtab_cli.preview.side import Side


@dataclass(frozen=True, slots=True)
class Line:
    """One number of both sides; ``before`` and ``difference`` are empty where there is one side only."""

    name: str
    before: str
    after: str
    difference: str


def lines(before: Side | None, after: Side) -> list[Line]:
    """All numbers: money, promises, latency, replicas, shares."""
    tiers = sorted({*after.shares, *(before.shares if before else ())})
    return [
        _money("cost per hour", before, after, lambda side: side.usd_per_hour),
        _money("cost per month", before, after, lambda side: side.usd_per_month),
        *([_share("SLO met", before, after, lambda side: side.attainment)] if after.attainment is not None else ()),
        _share("quality kept", before, after, lambda side: side.quality_retention),
        *_latencies(before, after),
        *_replicas(before, after),
        *(_share(f"share of {tier}", before, after, _share_of(tier), digits=0) for tier in tiers),
    ]


def _share_of(tier: str) -> Callable[[Side], float | None]:
    """A tier's share; None where no shares are known at all."""
    return lambda side: side.shares.get(tier, 0.0) if side.shares else None


def _money(name: str, before: Side | None, after: Side, of: Callable[[Side], float]) -> Line:
    now = wording.usd(of(after))
    if before is None:
        return Line(name, "", now, "")
    return Line(name, wording.usd(of(before)), now, wording.usd_change(of(before), of(after)))


def _share(name: str, before: Side | None, after: Side, of: Callable[[Side], float | None], *, digits: int = 1) -> Line:
    past, now = of(before) if before else None, of(after)
    told = wording.NOTHING if now is None else wording.percent(now, digits)
    if past is None or now is None:
        return Line(name, "", told, "")
    return Line(name, wording.percent(past, digits), told, wording.signed(100 * (now - past), "points", digits))


def _latencies(before: Side | None, after: Side) -> Iterable[Line]:
    earlier = dict(before.latencies) if before else {}
    for name, value in after.latencies:
        past = earlier.get(name)
        change = "" if past is None or value is None or not past else wording.signed(100 * (value / past - 1), "%")
        yield Line(name, wording.seconds(past) if before else "", wording.seconds(value), change)


def _replicas(before: Side | None, after: Side) -> Iterable[Line]:
    for key in sorted({*after.replicas, *(before.replicas if before else ())}):
        mean, most = after.replicas.get(key, (0.0, 0))
        if before is None:
            yield Line(f"replicas of {key}", "", _count(mean, most), "")
            continue
        past, past_most = before.replicas.get(key, (0.0, 0))
        if mean or past or most or past_most:
            change = wording.signed(mean - past, "", 0 if mean == most and past == past_most else 1)
            yield Line(f"replicas of {key}", _count(past, past_most), _count(mean, most), change)


def _count(mean: float, most: int) -> str:
    """The mean, and the most where that is another number."""
    text = f"{mean:.1f}".removesuffix(".0")
    return text if abs(mean - most) < 0.05 else f"{text}, most {most}"  # noqa: PLR2004 (what the text rounds to)


def show(console: Console, told: Sequence[Line], changes: Sequence[page.Change], titles: Sequence[str]) -> None:
    """Print the changed fields and the numbers; ``titles`` are those of one or of both sides."""
    if changes:
        fields = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("changed", "field", "before", "after"):
            fields.add_column(title, overflow="fold")
        for one in changes:
            cells = (one.about, one.field, one.before or wording.NOTHING, one.after or wording.NOTHING)
            fields.add_row(*(Text(cell) for cell in cells))
        console.print(fields)
        console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in (*titles, "difference") if len(titles) > 1 else titles:
        table.add_column(title, justify="right", no_wrap=True)
    for line in told:
        table.add_row(*_cells(line, titles))
    console.print(table)


def _cells(line: Line, titles: Sequence[str]) -> tuple[str, ...]:
    return (line.name, line.before, line.after, line.difference) if len(titles) > 1 else (line.name, line.after)


def markdown(told: Sequence[Line], changes: Sequence[page.Change], titles: Sequence[str]) -> str:
    """The same as Markdown tables, for a comment on a pull request."""
    parts: list[str] = []
    if changes:
        rows = [(f"`{c.about}`", f"`{c.field}`" if c.field else "", c.before, c.after) for c in changes]
        parts.append(_markdown_table(("changed", "field", "before", "after"), rows, "llll"))
    heads = ("", *titles, "difference") if len(titles) > 1 else ("", *titles)
    parts.append(_markdown_table(heads, [_cells(line, titles) for line in told], "lrrr"))
    return "\n".join(parts)


def _markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> str:
    head = f"| {' | '.join(titles)} |"
    rule = f"| {' | '.join('---:' if side == 'r' else '---' for side in sides[: len(titles)])} |"
    body = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([head, rule, *body, ""])
