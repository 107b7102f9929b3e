"""Plots as inline SVG, drawn from numbers: lines, steps and stacked areas over time. Pure.

Colours are CSS variables (``--s1`` …) of the page that holds the plot, so that one drawing serves light and dark.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
"""Seconds since the start, value."""

WIDTH, HEIGHT = 520, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 28
_TICKS = 4
_TIME_TICKS = 7
_LABEL_HEIGHT = 14
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_HOUR, _DAY = 3600, 86400
_SECONDS_TICKS = (
    *(10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 7 * _DAY),
)


@dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        name: for the legend.
        points: in order of time; NaN values leave a gap.
        colour: number of the page's colour, from 1.
        step: the value holds until the next point.
        dashed: drawn as a dashed line, for what was not measured.
    """

    name: str
    points: Sequence[Point]
    colour: int
    step: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot.

    Attributes:
        title: says what is to be seen, for people and screen readers.
        unit: of the vertical axis, such as ``$/h``.
        limit: a promised value, drawn as a line across, with its label.
        stacked: series are areas on top of each other.
        whole: the values are counts, so that the axis shows whole numbers only.
        top: where the axis ends, such as 100 for shares; None fits it to the values.
    """

    title: str
    unit: str
    series: Sequence[Series]
    limit: tuple[float, str] | None = None
    stacked: bool = False
    whole: bool = False
    top: float | None = None


def draw(chart: Chart, duration_seconds: float) -> str:
    """The plot as an ``<svg>`` element, from 0 to ``duration_seconds``."""
    layers = _stack(chart.series) if chart.stacked else [(one, None) for one in chart.series]
    tops = [value for one, _ in layers for _, value in one.points if math.isfinite(value)]
    if chart.limit:
        tops.append(chart.limit[0] * 1.1)
    frame = _Frame(duration_seconds, *_axis(chart.top or max(tops, default=1.0), whole=chart.whole))
    parts = [frame.grid(chart.unit)]
    for one, floor in reversed(layers):  # the first one on top: areas stand on those before, lines cross the others
        parts.append(frame.area(one, floor) if floor is not None else frame.line(one))
    if chart.limit:
        parts.append(frame.limit(*chart.limit))
    label = html.escape(chart.title, quote=True)
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def _axis(top: float, *, whole: bool) -> tuple[float, float]:
    """Upper end and distance of the ticks of an axis that shows ``top``."""
    top = top if top > 0 else 1.0
    magnitude = 10 ** math.floor(math.log10(top / _TICKS))
    step = next(nice * magnitude for nice in _NICE if nice * magnitude * _TICKS >= top * (1 - 1e-9))
    step = math.ceil(step) if whole else step
    return step * math.ceil(top / step - 1e-9), step


def _stack(series: Sequence[Series]) -> list[tuple[Series, Sequence[Point] | None]]:
    """Each series on top of those before it, with the line that it stands on; all must share their times."""
    floor: list[Point] = [(at, 0.0) for at, _ in series[0].points] if series else []
    layers: list[tuple[Series, Sequence[Point] | None]] = []
    for one in series:
        summed = [(at, low + value) for (at, low), (_, value) in zip(floor, one.points, strict=True)]
        layers.append((Series(one.name, summed, one.colour, step=one.step), floor))
        floor = summed
    return layers


@dataclass(frozen=True, slots=True)
class _Frame:
    """The mapping from values to the drawing."""

    duration: float
    top: float
    tick: float

    def x(self, at: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(at / self.duration, 0.0), 1.0)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(max(value / self.top, 0.0), 1.0)

    def grid(self, unit: str) -> str:
        """Lines, numbers and the unit."""
        rows = []
        for count in range(round(self.top / self.tick) + 1):
            value = count * self.tick
            rows.append(f'<path class="grid" d="M{_LEFT} {self.y(value):.1f}H{WIDTH - _RIGHT}"/>')
            rows.append(_text(_LEFT - 6, self.y(value) + 4, f"{value:g}", "end"))
        step = next((s for s in _SECONDS_TICKS if self.duration / s <= _TIME_TICKS), math.ceil(self.duration))
        rows += [
            _text(self.x(at), HEIGHT - 10, _moment(at, step), "middle") for at in range(0, int(self.duration) + 1, step)
        ]
        rows.append(
            f'<text class="unit" transform="translate(12 {HEIGHT / 2:g}) rotate(-90)">{html.escape(unit)}</text>'
        )
        return "".join(rows)

    def line(self, series: Series) -> str:
        """A line, broken where values are missing."""
        dashes = " dashed" if series.dashed else ""
        path = "".join(_path(self._corners(run, step=series.step)) for run in _runs(series.points))
        return f'<path class="line{dashes}" style="stroke:var(--s{series.colour})" d="{path}"/>'

    def area(self, series: Series, floor: Sequence[Point]) -> str:
        """An area between a line and the one that it stands on."""
        upper = self._corners(series.points, step=series.step)
        lower = self._corners(floor, step=series.step)
        path = _path([*upper, *reversed(lower)])
        return f'<path class="area" style="fill:var(--s{series.colour})" d="{path}Z"/>' if path else ""

    def limit(self, value: float, label: str) -> str:
        """A line across at a promised value."""
        y = self.y(value)
        beside = y - 5 if y > _TOP + _LABEL_HEIGHT else y + _LABEL_HEIGHT
        text = _text(WIDTH - _RIGHT - 4, beside, label, "end", css="limit-label")
        return f'<path class="limit" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>{text}'

    def _corners(self, points: Sequence[Point], *, step: bool) -> list[Point]:
        """Points of the drawing; for steps with the corners, and on to the right edge."""
        if not step:
            return [(self.x(at), self.y(value)) for at, value in points]
        ends = [at for at, _ in points[1:]] + [self.duration]
        return [
            (self.x(at), self.y(value)) for (begin, value), end in zip(points, ends, strict=True) for at in (begin, end)
        ]


def _moment(at: int, step: int) -> str:
    """A time on the axis, as exact as the ticks are apart: ``2d``, ``6h`` or ``5:30``."""
    if step >= _DAY:
        return f"{at // _DAY}d"
    return f"{at // _HOUR}h" if step >= _HOUR else f"{at // 60}:{at % 60:02d}"


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """The stretches without missing values."""
    grouped = itertools.groupby(points, key=lambda point: math.isfinite(point[1]))
    return [list(group) for finite, group in grouped if finite]


def _path(corners: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) if corners else ""


def _text(x: float, y: float, text: str, anchor: str, *, css: str = "tick") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
