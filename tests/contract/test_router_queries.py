"""What routers export answers what the operator asks: through a real Prometheus, and through direct scraping alike."""

from __future__ import annotations

import asyncio
import http.server
import pathlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from trimtab_core import answers, burstiness, series, signals, telemetry
from trimtab_core.routing import table
from trimtab_operator.observe import exposition, prometheus
from trimtab_router import ledger, metrics

POLICY, CLASS, TIER = "ns/chat", "default", "small"
ANSWERED = set(answers.queries(1.0)) - {answers.TABLES}
PROMETHEUS = shutil.which("prometheus")


class Router:
    """The series of one router that gets groups of ten requests at once, one group with every page that is read."""

    def __init__(self) -> None:
        self._registry = metrics.Registry()
        self._windows = burstiness.Windows()
        self._meter = ledger.Meter(self._registry, POLICY, CLASS, TIER)
        self._book = ledger.Ledger()
        self._groups = 0
        for name in ("hit", "miss"):
            self._registry.counter(telemetry.CACHE_RESULTS, POLICY, CLASS, name)

    def page(self) -> str:
        self._groups += 1
        at = self._groups * burstiness.WINDOW_SECONDS
        for _ in range(10):
            self._registry.counter(telemetry.ARRIVALS, POLICY, CLASS).add(1)
            self._registry.counter(telemetry.ARRIVAL_SQUARES, POLICY, CLASS).add(self._windows.arrive(at))
            self._registry.counter(telemetry.CACHE_RESULTS, POLICY, CLASS, "miss").add(1)
            self._book.settle(
                ledger.Entry(
                    meter=self._meter,
                    result=ledger.OK,
                    tenant="",
                    slo=table.Slo(ttft_seconds=0.5),
                    e2e_seconds=1.0,
                    ttft_seconds=0.2,
                    input_tokens=100,
                    cached_input_tokens=10,
                    output_tokens=20,
                    cost_usd=0.001,
                    baseline_usd=0.002,
                )
            )
        self._book.flush()
        return self._registry.exposition().decode()


def judged(found: answers.Answers, now: float) -> dict[str, float]:
    """Per arrival, what each of the operator's questions is answered."""
    reader = answers.Reader(found, now, signals.Freshness())
    rates = {name: signals.known(reader.of_class(name, POLICY, CLASS)) for name in ANSWERED}
    arrivals = rates["arrivals_per_second"]
    assert arrivals, f"no arrivals: {found}"
    return {name: value / arrivals for name, value in rates.items() if value is not None}


EXPECTED = {
    "arrivals_per_second": 1.0,
    "arrival_squares_per_second": 10.0,  # groups of ten in windows of their own: 100 for ten arrivals
    "requests_per_second": 1.0,
    "input_tokens_per_second": 100.0,
    "cached_input_tokens_per_second": 10.0,
    "output_tokens_per_second": 20.0,
    "slo_measured_per_second": 1.0,
    "slo_met_per_second": 1.0,
    "cost_usd_per_second": 0.001,
    "baseline_usd_per_second": 0.002,
    "cache_results_per_second": 1.0,
}


def test_pages_of_a_router_answer_every_question_of_a_cycle() -> None:
    router, store, now = Router(), series.Store(), 1_800_000_000.0
    wanted = {query.series for query in answers.queries(60.0).values()}
    for step in range(12):
        for name, labels, value in exposition.read(router.page(), wanted):
            store.add(name, labels, signals.Sample(value, now + 5.0 * step))
    end = now + 55.0
    found = {name: store.answer(query, end) for name, query in answers.queries(60.0).items()}
    assert judged(found, end) == pytest.approx(EXPECTED)


@pytest.fixture
def scraped(tmp_path: pathlib.Path) -> Iterator[str]:
    """The address of a Prometheus that reads a router's page four times a second."""
    if PROMETHEUS is None:
        pytest.skip("no prometheus on the path (Debian: apt install prometheus)")
    router = Router()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = router.page().encode()
            self.send_response(200)
            self.send_header("Content-Type", metrics.CONTENT_TYPE.decode())
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *args: object) -> None:
            pass

    target = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=target.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 250ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: r, static_configs: [{{targets: ['127.0.0.1:{target.server_address[1]}']}}]}}]\n"
    )
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)
    target.shutdown()
    target.server_close()


def test_a_real_prometheus_answers_every_question_of_a_cycle(scraped: str) -> None:
    asked = answers.queries(4.0)
    deadline = time.monotonic() + 60.0
    port = prometheus.PrometheusMetrics(scraped, timeout_seconds=2.0)
    try:
        while True:
            now = time.time() - 0.5  # everything up to then has been read
            found = asyncio.run(port.answers(asked, now))
            complete = all(isinstance(found[name], tuple) and found[name] for name in ANSWERED)
            if complete or time.monotonic() > deadline:
                break
            time.sleep(0.25)
        assert complete, {name: group for name, group in found.items() if not group}
        # All series are of the same scrapes, so that ratios of their rates are exact.
        assert judged(found, now) == pytest.approx(EXPECTED, rel=0.01)
    finally:
        port.close()
