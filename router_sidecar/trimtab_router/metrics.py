"""The router's own metrics in Prometheus' text format. Names, labels and buckets come from ``telemetry`` alone.

A child (one series) is looked up once, when a table is compiled, and then held: counting is an addition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from trimtab_core import telemetry

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """One series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float) -> None:
        """Count up."""
        self.value += amount


class Histogram:
    """One series of a histogram; ``counts`` are not cumulative until they are written out."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Labels = tuple[str, ...]
GaugeReader = Callable[[], Iterable[tuple[Labels, float]]]


class Registry:
    """All series of one router process."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, Counter]] = {family.name: {} for family in telemetry.ROUTER_FAMILIES}
        self._histograms: dict[str, dict[Labels, Histogram]] = {
            family.name: {} for family in telemetry.ROUTER_FAMILIES if family.kind is telemetry.Kind.HISTOGRAM
        }
        self._gauges: dict[str, GaugeReader] = {}
        self._tenants: set[str] = set()

    def counter(self, family: telemetry.Family, *labels: str) -> Counter:
        """The series of these label values, made at its first use."""
        assert len(labels) == len(family.labels), family.name
        return self._counters[family.name].setdefault(labels, Counter())

    def histogram(self, family: telemetry.Family, *labels: str) -> Histogram:
        """The series of these label values, made at its first use."""
        assert len(labels) == len(family.labels), family.name
        return self._histograms[family.name].setdefault(labels, Histogram(family.buckets))

    def read_gauge(self, family: telemetry.Family, reader: GaugeReader) -> None:
        """Have a gauge's series read whenever metrics are asked for, instead of kept up to date."""
        self._gauges[family.name] = reader

    def tenant_label(self, tenant: str) -> str:
        """The tenant's own label value as long as there are few, then ``other``."""
        if tenant in self._tenants:
            return tenant
        if len(self._tenants) >= telemetry.TENANT_LABEL_CAP:
            return telemetry.OTHER
        self._tenants.add(tenant)
        return tenant

    def exposition(self) -> bytes:
        """All families in the text format, those without a series by name and type alone."""
        lines: list[str] = []
        for family in telemetry.ROUTER_FAMILIES:
            lines.append(f"# HELP {family.name} {family.help}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            if family.name in self._gauges:
                lines.extend(_line(family.name, family.labels, *each) for each in self._gauges[family.name]())
            for labels, counter in self._counters[family.name].items():
                lines.append(_line(family.name, family.labels, labels, counter.value))
            for labels, histogram in self._histograms.get(family.name, {}).items():
                lines.extend(_histogram_lines(family, labels, histogram))
        return ("\n".join(lines) + "\n").encode()


def _histogram_lines(family: telemetry.Family, labels: Labels, histogram: Histogram) -> list[str]:
    names = (*family.labels, "le")
    lines, count = [], 0
    for bound, here in zip((*map(_number, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        count += here
        lines.append(_line(f"{family.name}_bucket", names, (*labels, bound), count))
    lines.append(_line(f"{family.name}_sum", family.labels, labels, histogram.total))
    lines.append(_line(f"{family.name}_count", family.labels, labels, count))
    return lines


def _line(name: str, names: Labels, values: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in zip(names, values, strict=True))
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))  # noqa: PLR2004 (exact integers)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
