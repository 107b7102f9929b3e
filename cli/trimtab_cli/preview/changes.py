"""Which fields differ between two sets of manifests. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab_core.api import v1alpha1

from trimtab_cli import manifests
from trimtab_cli.pages import page

Object = v1alpha1.InferenceTier | v1alpha1.RoutingPolicy | v1alpha1.CachePolicy
NAMES = ("name", "ref")
"""What elements of lists are known by."""
_LONGEST = 80


def between(before: manifests.Bundle, after: manifests.Bundle) -> list[page.Change]:
    """All differences, object by object in the order of their names; objects that come or go are one each."""
    old, new = _objects(before), _objects(after)
    return [
        page.Change(about, field, left, right)
        for about in sorted({*old, *new})
        for field, left, right in _object(old.get(about), new.get(about))
    ]


def _objects(bundle: manifests.Bundle) -> dict[str, Object]:
    listed: tuple[Object, ...] = (*bundle.tiers, *bundle.policies, *bundle.caches)
    return {f"{one.kind} {one.metadata.namespace}/{one.metadata.name}": one for one in listed}


def _object(old: Object | None, new: Object | None) -> Iterator[tuple[str, str, str]]:
    if old is None or new is None:
        yield "", "absent" if old is None else "there", "absent" if new is None else "there"
    else:
        yield from _fields(old.to_dict()["spec"], new.to_dict()["spec"], "spec")


def _fields(old: Any, new: Any, path: str) -> Iterator[tuple[str, str, str]]:  # noqa: ANN401 (JSON)
    """(path, before, after) of every field that differs; what only one side has is one field, however much is in it."""
    if old == new:
        return
    left, right = _named(old), _named(new)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _fields(old.get(key), new.get(key), f"{path}.{key}")
    elif left is not None and right is not None:
        for key in [*left, *(key for key in right if key not in left)]:
            yield from _fields(left.get(key), right.get(key), f"{path}[{key}]")
        before, after = ([key for key in side if key in left and key in right] for side in (left, right))
        if before != after:  # of classes the first that matches takes a request
            yield f"{path} (order)", ", ".join(before), ", ".join(after)
    else:
        yield path, _text(old), _text(new)


def _named(value: Any) -> dict[str, Any] | None:  # noqa: ANN401 (JSON)
    """The elements of a list by name; None for anything else, and where one has no name."""
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        return None
    names = [next((str(part[key]) for key in NAMES if key in part), "") for part in value]
    return dict(zip(names, value, strict=True)) if all(names) and len({*names}) == len(names) else None


def _text(value: Any) -> str:  # noqa: ANN401 (JSON)
    """A value as people write it; empty where there is none."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
