"""The headline experiment as one SVG: cost and latency of the three rows, and cost against the repeat rate."""

from __future__ import annotations

import html
from collections.abc import Sequence

from headline.experiment import Row

WIDTH, HEIGHT, EDGE, GAP = 760, 300, 46, 56
PANEL = (WIDTH - 2 * EDGE - GAP) / 2
PLOT_TOP, PLOT_BOTTOM = 48.0, 252.0
COLOURS = ("#6b7280", "#1f6feb", "#0f8a6d")
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#5b6470}.title{font-size:14px;font-weight:600;fill:#1b1f24}"
    ".value{font-weight:600;fill:#1b1f24}.grid{stroke:#dde2e8}.line{fill:none;stroke:#0f8a6d;stroke-width:2}"
)

Curve = Sequence[tuple[float, float]]
"""(share of repeats, USD per month)."""


def draw(rows: Sequence[Row], curve: Curve, title: str) -> str:
    """The picture as the text of an SVG file."""
    most = max(row.usd_per_month for row in rows)
    parts = [_text(EDGE, 20, title, kind="title"), *_bars(rows, most), *_curve(curve, most)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img"><style>{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _bars(rows: Sequence[Row], most: float) -> list[str]:
    parts = [_text(EDGE, 38, "USD a month; beneath: mean latency")]
    step = PANEL / len(rows)
    for at, row in enumerate(rows):
        x, height = EDGE + at * step + step * 0.15, row.usd_per_month / most * (PLOT_BOTTOM - PLOT_TOP - 18)
        middle = x + step * 0.35
        parts += [
            _bar(x, height, step * 0.7, COLOURS[at % len(COLOURS)]),
            _text(middle, PLOT_BOTTOM - height - 5, f"{row.usd_per_month / 1000:.0f}k", kind="value", anchor="middle"),
            _text(middle, PLOT_BOTTOM + 16, row.name, anchor="middle"),
            _text(middle, PLOT_BOTTOM + 30, f"{row.e2e_mean_s:.1f} s", anchor="middle"),
        ]
    return parts


def _curve(curve: Curve, most: float) -> list[str]:
    left = EDGE + PANEL + GAP
    widest = max((share for share, _ in curve), default=0.0) or 1.0

    def place(share: float, usd: float) -> tuple[float, float]:
        return left + share / widest * PANEL, PLOT_BOTTOM - usd / most * (PLOT_BOTTOM - PLOT_TOP - 18)

    top = max((usd for _, usd in curve), default=most)
    most = min(most, 1.25 * top)
    points = [place(share, usd) for share, usd in curve]
    parts = [_text(left, 38, "The last row, USD a month, by share of repeated prompts")]
    parts.append(f'<path class="grid" d="M{left:.1f} {PLOT_BOTTOM}H{left + PANEL:.1f}"/>')
    parts.append(f'<path class="line" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')
    for (x, y), (share, usd) in zip(points, curve, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#0f8a6d"/>')
        parts.append(_text(x, y - 8, f"{usd / 1000:.1f}k", kind="value", anchor="middle"))
        parts.append(_text(x, PLOT_BOTTOM + 16, f"{share:.0%}", anchor="middle"))
    return parts


def _bar(x: float, height: float, width: float, colour: str) -> str:
    y = PLOT_BOTTOM - height
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" fill="{colour}"/>'


def _text(x: float, y: float, told: str, *, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{html.escape(told)}</text>'
