"""A Prometheus on loopback that answers each query by the metric that it names."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests import loopback

Groups = Mapping[tuple[str, ...], float]
"""Values by label values, in the order of the query's labels."""


@contextmanager
def serve(metrics: Mapping[str, Groups], *, status: int = 200) -> Iterator[str]:
    """Its address. Metrics that aren't named have no series; a period has its value once a minute."""

    def answer(path: str) -> tuple[int, bytes]:
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
        return status, json.dumps({"status": "success", "data": {"result": _result(metrics, asked)}}).encode()

    with loopback.answering(answer) as address:
        yield address


def _result(metrics: Mapping[str, Groups], asked: Mapping[str, str]) -> list[dict[str, Any]]:
    query = asked["query"]
    names = [name.strip() for name in query.partition("by (")[2].partition(")")[0].split(",")]
    groups = next((found for metric, found in metrics.items() if metric in query), {})
    return [
        {"metric": dict(zip(names, labels, strict=True)), **_values(value, query, asked)}
        for labels, value in groups.items()
    ]


def _values(value: float, query: str, asked: Mapping[str, str]) -> dict[str, Any]:
    if "start" in asked:
        steps = range(int(asked["start"]), int(asked["end"]) + 1, 60)
        return {"values": [[at, str(value)] for at in steps]}
    return {"value": [0, str(time.time() if "timestamp(" in query else value)]}
