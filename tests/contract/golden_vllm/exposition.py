"""Prometheus text as families, for comparing names, types, help, labels and buckets."""

from __future__ import annotations

import dataclasses
import re

_FIXED_LABELS = ("reason", "source", "sleep_state", "finished_reason", "engine", "model_name", "operation")
_SAMPLE = re.compile(r"([\w:]+)(?:{(.*)})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclasses.dataclass
class Family:
    kind: str
    documentation: str
    samples: list[tuple[str, tuple[tuple[str, str], ...], float]] = dataclasses.field(default_factory=list)

    def label_sets(self) -> dict[str, set[tuple[str, ...]]]:
        """Label names, in order, by sample name."""
        found: dict[str, set[tuple[str, ...]]] = {}
        for name, labels, _ in self.samples:
            found.setdefault(name, set()).add(tuple(label for label, _ in labels))
        return found

    def label_values(self, label: str) -> list[str]:
        """The values of one label in order of appearance, each once."""
        return list(dict.fromkeys(value for _, labels, _ in self.samples for name, value in labels if name == label))

    def value(self, **wanted: str) -> float:
        """The sum of samples that are no buckets and have these labels; of a histogram or summary the count."""
        total = 0.0
        for name, labels, value in self.samples:
            if not name.endswith(("_bucket", "_sum")) and wanted.items() <= dict(labels).items():
                total += value
        return total

    def sum(self) -> float:
        return sum(value for name, _, value in self.samples if name.endswith("_sum"))


def parse(text: str) -> dict[str, Family]:
    """Families by name, in the order of the text."""
    families: dict[str, Family] = {}
    documentation = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            documentation = line.split(" ", 3)[3]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            families[name] = Family(kind, documentation)
        elif line:
            match = _SAMPLE.match(line)
            assert match is not None, line
            families[name].samples.append((match[1], tuple(_LABEL.findall(match[2] or "")), float(match[3])))
    return families


def differences(expected: dict[str, Family], actual: dict[str, Family]) -> list[str]:
    """What differs but values: families and their order, types, help, label names, buckets, the fixed label values."""
    if list(expected) != list(actual):
        missing = [name for name in expected if name not in actual]
        extra = [name for name in actual if name not in expected]
        return [f"families: missing {missing}, extra {extra}" if missing or extra else "families come in another order"]
    found = []
    for name, left in expected.items():
        right = actual[name]
        pairs = [
            ("type", left.kind, right.kind),
            ("help", left.documentation, right.documentation),
            ("labels", left.label_sets(), right.label_sets()),
            ("buckets", left.label_values("le"), right.label_values("le")),
        ]
        if name.startswith("vllm:"):
            pairs += [(label, left.label_values(label), right.label_values(label)) for label in _FIXED_LABELS]
        found += [f"{name} {what}: {one} != {other}" for what, one, other in pairs if one != other]
    return found
