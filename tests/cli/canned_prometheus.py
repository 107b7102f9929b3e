"""A Prometheus on loopback that answers each query by the metric that it names."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Groups = Mapping[tuple[str, ...], float]
"""Values by label values, in the order of the query's labels."""


@contextmanager
def serve(metrics: Mapping[str, Groups], *, status: int = 200) -> Iterator[str]:
    """Its address. Metrics that aren't named have no series; a period has its value once a minute."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            data = json.dumps({"status": "success", "data": {"result": _result(metrics, asked)}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
