"""
Counters, gauges, histograms and summaries as Prometheus text, sample for sample as vLLM's library renders them.

Written here and not taken from prometheus_client because twelve simulators share two cores: sample names are spliced
once, an observation is a bisect, and a scrape is string joins. Two habits of the copied output are kept: label names
are sorted, and counters, histograms and summaries have a `_created` twin, a gauge with the Unix time of the child's
birth.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_EXPONENT_FROM = 7  # digits before the point from which Go's shortest form turns to an exponent


def format_value(value: float) -> str:
    """Return a number in the form Go's strconv gives it: 3.0, 1.79531180776e+09, +Inf."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    text = repr(float(value))
    point = text.find(".")
    if value > 0 and point >= _EXPONENT_FROM and "e" not in text:
        mantissa = f"{text[0]}.{text[1:point]}{text[point + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{point - 1:02d}"
    return text


def _braces(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = (
        (name, value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"'))
        for name, value in sorted(labels.items())
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


class Value:
    """One child of a counter or gauge; `value` may be set by anyone who owns it."""

    __slots__ = ("_sample", "born", "value")

    def __init__(self, name: str, labels: Mapping[str, str], born: float) -> None:
        """Make the sample `name{labels}`, born at Unix time `born`."""
        self._sample = f"{name}{_braces(labels)} "
        self.born = born
        self.value = 0.0

    def lines(self) -> Iterable[str]:
        """Return the child's one line."""
        return (self._sample + format_value(self.value),)


class Distribution:
    """One child of a histogram, or of a summary when it has no buckets."""

    __slots__ = ("_bounds", "_counts", "_heads", "_tail", "born", "count", "sum")

    def __init__(self, name: str, labels: Mapping[str, str], born: float, bounds: Sequence[float]) -> None:
        """Make a distribution with these upper bounds, +Inf left out; born at Unix time `born`."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        edges = (*self._bounds, math.inf) if self._bounds else ()
        self._heads = [f"{name}_bucket{_braces({**labels, 'le': format_value(edge)})} " for edge in edges]
        self._tail = (f"{name}_count{_braces(labels)} ", f"{name}_sum{_braces(labels)} ")
        self.born = born
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value`, `times` times."""
        self._counts[bisect.bisect_left(self._bounds, value)] += times
        self.count += times
        self.sum += value * times

    def lines(self) -> Iterable[str]:
        """Return cumulative buckets, then count, then sum."""
        total = 0
        for head, count in zip(self._heads, self._counts, strict=False):
            total += count
            yield head + format_value(total)
        yield self._tail[0] + format_value(self.count)
        yield self._tail[1] + format_value(self.sum)


class Family:
    """All children of one metric name."""

    def __init__(
        self, kind: str, name: str, documentation: str, *, bounds: Sequence[float] = (), created: bool = True
    ) -> None:
        """
        Make an empty family.

        Args:
            kind: `counter`, `gauge`, `histogram` or `summary`.
            name: As exposed, with `_total` for a counter.
            documentation: The HELP text.
            bounds: Upper bounds of a histogram, +Inf left out.
            created: Whether a `_created` twin is exposed; gauges never have one.

        """
        self.kind = kind
        self.name = name
        self._documentation = documentation
        self._bounds = bounds
        self._created = created and kind != "gauge"
        self._values: dict[tuple[str, ...], Value] = {}
        self._distributions: dict[tuple[str, ...], Distribution] = {}
        self._twins: list[Value] = []

    def value(self, now: float = 0.0, /, **labels: str) -> Value:
        """Return the child of a counter or gauge with these labels, born now (Unix time) if it is new."""
        key = tuple(labels.values())
        if key not in self._values:
            self._values[key] = Value(self.name, labels, now)
            self._add_twin(now, labels)
        return self._values[key]

    def distribution(self, now: float = 0.0, /, **labels: str) -> Distribution:
        """Return the child of a histogram or summary with these labels, born now (Unix time) if it is new."""
        key = tuple(labels.values())
        if key not in self._distributions:
            self._distributions[key] = Distribution(self.name, labels, now, self._bounds)
            self._add_twin(now, labels)
        return self._distributions[key]

    def _add_twin(self, born: float, labels: Mapping[str, str]) -> None:
        if self._created:
            twin = Value(self._twin_name(), labels, born)
            twin.value = born
            self._twins.append(twin)

    def _twin_name(self) -> str:
        stem = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return f"{stem}_created"

    def lines(self) -> Iterable[str]:
        """Return the family's lines: HELP, TYPE, samples, then those of the twin."""
        yield f"# HELP {self.name} {self._documentation}"
        yield f"# TYPE {self.name} {self.kind}"
        for value in self._values.values():
            yield from value.lines()
        for distribution in self._distributions.values():
            yield from distribution.lines()
        if self._twins:
            yield f"# HELP {self._twin_name()} {self._documentation}"
            yield f"# TYPE {self._twin_name()} gauge"
            for twin in self._twins:
                yield from twin.lines()


def render(families: Iterable[Family]) -> bytes:
    """Return the exposition of families in order."""
    return ("\n".join(line for family in families for line in family.lines()) + "\n").encode()
