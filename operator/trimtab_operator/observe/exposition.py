"""Prometheus' text format, read for a few wanted series only. Pure.

An engine's page is about 50 KB and some 700 lines, of which the loop wants five: lines are chosen by their
beginning before anything is parsed. Must not know what the numbers mean or where the page came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}


class Line(NamedTuple):
    """One sample of the page: series name, labels and value (NaN and infinity as they are)."""

    name: str
    labels: dict[str, str]
    value: float


def read(page: str, wanted: Iterable[str]) -> Iterator[Line]:
    """The samples of the wanted series, by full series name (``x_total``, ``y_sum``), in the page's order.

    A line that is not in the format is left out: one odd line must not hide the others.
    """
    beginnings = tuple(name + end for name in wanted for end in ("{", " "))
    for text in page.splitlines():
        if text.startswith(beginnings):
            line = _parse(text)
            if line is not None:
                yield line


def _parse(text: str) -> Line | None:
    """One line, or None if it can't be read."""
    match = _LINE.match(text)
    if match is None:
        return None
    name, labels, value = match.groups()
    try:
        number = float(value)
    except ValueError:
        return None
    return Line(name, {key: _unescape(raw) for key, raw in _LABEL.findall(labels or "")}, number)


def _unescape(raw: str) -> str:
    """A label value without its escapes."""
    if "\\" not in raw:
        return raw
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[0]), raw)
