"""What is wrong with a manifest, as a value: where, what, and what to write instead."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

Path = tuple[str | int, ...]
"""From the root of an object to a field: keys and list indices."""

_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to change.

    Attributes:
        code: kind of the finding, stable for machines, such as ``tier-not-found``.
        file: where the object came from.
        line: line of the field in that file, from 1.
        kind: kind of the object.
        name: its name.
        field: the field at fault, such as ``spec.variants[0].replicas.min``.
        value: what stands there as JSON, or empty where nothing does.
        problem: what is wrong.
        fix: what to write instead.
    """

    code: str
    file: str
    line: int
    kind: str
    name: str
    field: str
    value: str
    problem: str
    fix: str

    def text(self) -> str:
        """The finding as one line for people."""
        where = f"{self.file}:{self.line}: {self.kind}/{self.name}: {self.field}"
        value = f" = {self.value}" if self.value else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{where}{value}: {self.problem}{fix}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return asdict(self)


def spell_path(path: Path) -> str:
    """``("spec", "variants", 0, "name")`` → ``spec.variants[0].name``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "").replace("_", "").isalnum():
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


def spell_value(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """A value as JSON, shortened; empty for None."""
    if value is None:
        return ""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def at(value: Any, path: Path) -> Any:  # noqa: ANN401 (any JSON value)
    """The part of a value at a path, or None where there is none."""
    for part in path:
        in_object = isinstance(value, dict) and part in value
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not (in_object or in_list):
            return None
        value = value[part]
    return value
