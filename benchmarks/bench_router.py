"""What the router costs, beside a blind TCP forwarder, Envoy, the Rust vllm-router and uvicorn with aiohttp.

    python benchmarks/bench_router.py [--quick] [--rounds N] [--json FILE]

All run in turn, in one sitting, on one core; the engine and the load share another. What is compared is processor
time by the kernel's own account (/proc/PID/task/*/schedstat), not elapsed time, so that a busy machine disturbs it
little; each ratio is the median of the rounds' ratios. The saturated row lets each go as fast as it can: there the
forwarder drives its peers so hard that they never sleep, and saves wake-ups that slower ones still pay. The other rows
send one rate to all. All of the router is on: identity, class, weights, metrics, accounting. Envoy, vllm-router and
the forwarder replace no model and count no tokens: they do less.

Foreign proxies are installed by the first run into ``.cache/bench-peers``; those that can't be are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import processes
from router import engine, load, peers
from trimtab_core.routing import table

HERE = pathlib.Path(__file__).parent
ROUTER = "router"
DIRECT = "direct"
PEERS = ("forwarder", "envoy", "vllm-router", "uvicorn+aiohttp")
CONNECTIONS = 32
STREAMS = 1000
LATENCY_RATE = 250.0
AGENT_BYTES = 250_000
VERDICT = {True: "met", False: "MISSED", None: ""}
Row = dict[str, object]


@dataclass(frozen=True)
class Work:
    """What one run does.

    Attributes:
        kind: of request.
        requests: in one run.
        rate: a second; None for as fast as they are answered.
        units: that one request counts for.
        targets: largest ratio to a peer, by its name.
        most_us: most microseconds of the router itself.
        peers: whom to measure beside it.
    """

    kind: load.Kind
    requests: int
    rate: float | None
    units: int = 1
    targets: dict[str, float] = field(default_factory=dict)
    most_us: float | None = None
    peers: tuple[str, ...] = PEERS


SLIM = {"vllm-router": 0.85, "envoy": 0.7}
PLAIN = Work(load.request("request, class by header", class_="plain"), 4000, 2500.0, targets=SLIM)
CLASSIFIED = Work(load.request("request, classified by content"), 4000, 2500.0, peers=())
WORKS = (
    Work(load.request("request, class by header, saturated", class_="plain"), 6000, None, targets=SLIM),
    PLAIN,
    CLASSIFIED,
    Work(load.request("burst stream of 100 chunks", stream=True, class_="plain"), 800, 500.0),
    Work(
        load.request("paced chunk, 5 ms", stream=True, user="paced", class_="plain"), 64, 1e6, engine.CHUNKS,
        targets={"vllm-router": 1.0},
    ),
    Work(
        load.request("request of 250 KB, agent", class_="plain", agent_bytes=AGENT_BYTES), 500, 300.0, most_us=250.0,
    ),
)  # fmt: skip
CLASSIFIER_US = 80.0
STREAMS_MIB = 40.0
LATENCY = load.request("latency", class_="plain")
IDLE = load.request("idle stream", stream=True, user="idle", class_="plain")


def make_table(port: int) -> bytes:
    """A policy of two tiers and two classes, one that needs no score and one that does."""
    rates = table.Rates(1e-7, 4e-7, 5e-8)
    tiers = [
        table.Tier(name, name, quality, rates, [table.Endpoint(f"{name}-0", f"127.0.0.1:{port}", capacity=2048.0)])
        for name, quality in (("small", 0.6), ("large", 0.9))
    ]
    both = ["small", "large"]
    classes = [
        table.Class("plain", table.Match(headers={"x-trimtab-class": "plain"}), both, {"small": 1.0}),
        table.Class("default", table.Match(), both, {"small": 0.7, "large": 0.3}, table.Slo(1.0, 0.1, 10.0)),
    ]
    return table.encode(table.seal(table.RoutingTable("bench/bench", 1, 1, 0.0, ["auto"], tiers, classes, rates)))


@contextmanager
def running(missing: dict[str, str]) -> Iterator[dict[str, processes.Proxy]]:
    """All proxies, by name, and the engine; ``missing`` gets those that don't start."""
    engine_port = processes.free_port()
    children: list[subprocess.Popen[bytes]] = []
    proxies: dict[str, processes.Proxy] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.json"
        path.write_bytes(make_table(engine_port))
        try:
            children.append(processes.start([sys.executable, str(HERE / "router/engine.py"), str(engine_port)], 1))
            if not processes.listens(engine_port, children[0], 20):
                raise SystemExit("the engine does not start")
            proxies[DIRECT] = processes.Proxy(DIRECT, engine_port, children[0])
            for name in (ROUTER, *PEERS):
                if name in missing:
                    continue
                port = processes.free_port()
                command = _router(path, port) if name == ROUTER else peers.command(name, port, engine_port)
                child = processes.start(command.arguments, 0, command.environment)
                children.append(child)
                if processes.listens(port, child, 30):
                    proxies[name] = processes.Proxy(name, port, child)
                else:
                    missing[name] = "it does not start"
            if ROUTER not in proxies:
                raise SystemExit("the router does not start")
            yield proxies
        finally:
            processes.end(children)


def _router(path: pathlib.Path, port: int) -> peers.Command:
    options = ["--table", str(path), "--port", str(port), "--admin-port", str(processes.free_port())]
    return peers.Command([sys.executable, "-m", "trimtab_cli", "router", *options])


class Figures:
    """Everything that was measured: microseconds by work and proxy, a list of rounds each; latencies; memory."""

    def __init__(self) -> None:
        self.cpu: dict[tuple[str, str], list[float]] = {}
        self.seconds: dict[str, list[float]] = {}
        self.mib: dict[str, float] = {}

    def us(self, work: Work, name: str) -> float:
        """Median microseconds of one unit."""
        return statistics.median(self.cpu[work.kind.name, name])

    def ratio(self, work: Work, peer: str) -> float:
        """The router's cost by a peer's, median of the rounds' ratios."""
        pairs = zip(self.cpu[work.kind.name, ROUTER], self.cpu[work.kind.name, peer], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def beside(self, work: Work) -> dict[str, float]:
        """Microseconds of all that ran."""
        return {f"{name} µs": round(self.us(work, name), 1) for kind, name in self.cpu if kind == work.kind.name}

    def latency_us(self, name: str, quantile: float) -> float:
        """A quantile of what a proxy adds to asking the engine itself."""
        return (_quantile(self.seconds[name], quantile) - _quantile(self.seconds[DIRECT], quantile)) * 1e6


def _quantile(values: list[float], quantile: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * quantile))]


def measure(proxies: dict[str, processes.Proxy], rounds: int, scale: float) -> Figures:
    """All kinds of work in alternating runs, and memory at last: a thousand streams leave traces in some.

    Args:
        proxies: by name.
        rounds: how often.
        scale: of the number of requests.
    """
    figures = Figures()
    fresh = {}
    for name, proxy in proxies.items():
        load.drive(proxy.port, PLAIN.kind, requests=200, connections=CONNECTIONS, rate=None)
        fresh[name] = proxy.memory_mib()
    for turn in range(-1, rounds):
        for work in WORKS:
            for proxy in proxies.values():
                if proxy.name == ROUTER or proxy.name in work.peers:
                    # The first turn warms up, and is short.
                    requests = max(CONNECTIONS, int(work.requests * (scale if turn >= 0 else 0.1)))
                    used = _measure(proxy, work, requests)
                    figures.cpu.setdefault((work.kind.name, proxy.name), []).extend([used] if turn >= 0 else [])
        for proxy in proxies.values():
            count = int(600 * scale) if turn >= 0 else 50
            taken = load.drive(proxy.port, LATENCY, requests=count, connections=CONNECTIONS, rate=LATENCY_RATE)
            figures.seconds.setdefault(proxy.name, []).extend(taken if turn >= 0 else [])
    for name, proxy in proxies.items():
        if name != DIRECT:
            figures.mib[name] = load.hold(proxy.port, IDLE, streams=STREAMS, read=proxy.memory_mib) - fresh[name]
    return figures


def _measure(proxy: processes.Proxy, work: Work, requests: int) -> float:
    """Microseconds of processor time for one unit."""
    before = proxy.cpu_seconds()
    load.drive(proxy.port, work.kind, requests=requests, connections=CONNECTIONS, rate=work.rate)
    return (proxy.cpu_seconds() - before) / (requests * work.units) * 1e6


def make_rows(figures: Figures, missing: dict[str, str]) -> list[Row]:
    """What is printed and written."""
    rows: list[Row] = []
    for work in WORKS:
        name, beside = f"CPU per {work.kind.name}", figures.beside(work)
        if work is CLASSIFIED:
            more = figures.us(work, ROUTER) - figures.us(PLAIN, ROUTER)
            rows.append(_row("CPU of the classifier, one-turn prompt", more, "µs", CLASSIFIER_US, beside))
            continue
        if work.most_us is not None:
            rows.append(_row(name, figures.us(work, ROUTER), "µs", work.most_us, beside))
        for peer in PEERS if work.most_us is None else ():
            if peer not in missing:
                unit = f"× {peer}"
                rows.append(_row(name, figures.ratio(work, peer), unit, work.targets.get(peer), beside))
    for quantile in (0.5, 0.99):
        added = {name: round(figures.latency_us(name, quantile)) for name in figures.seconds if name != DIRECT}
        beside = {f"{name} µs": float(value) for name, value in added.items()}
        target = added.get("envoy") if quantile > 0.5 else None
        name = f"added latency P{quantile * 100:.0f}, {LATENCY_RATE:.0f} requests/s"
        rows.append(_row(name, added[ROUTER], "µs", target, beside))
    beside = {f"{name} MiB": round(value, 1) for name, value in figures.mib.items()}
    rows.append(_row(f"memory of {STREAMS} idle streams", figures.mib[ROUTER], "MiB", STREAMS_MIB, beside))
    rows += [_row(f"beside {name}", None, f"skipped: {why}", None, {}) for name, why in missing.items()]
    return rows


def _row(  # noqa: PLR0917 (one column each)
    name: str, value: float | None, unit: str, target: float | None, beside: dict[str, float]
) -> Row:
    met = None if target is None or value is None else value <= target
    rounded = None if value is None else round(value, 2)
    found: Row = {"name": name, "value": rounded, "unit": unit, "target": target, "comparison": "<="}
    return found | {"met": met, "beside": beside}


def main() -> int:
    """Measure, print, write; 0 if all targets are met, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="alternating runs of each kind (default 5)")
    parser.add_argument("--quick", action="store_true", help="two short rounds, for a first look")
    parser.add_argument("--json", type=pathlib.Path, default=HERE / "out/router.json", help="where to write the rows")
    options = parser.parse_args()
    missing = peers.install()
    with running(missing) as proxies:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        rounds, scale = (2, 0.4) if options.quick else (options.rounds, 1.0)
        rows = make_rows(measure(proxies, rounds, scale), missing)
    for row in rows:
        target, met, beside = row["target"], row["met"], row["beside"]
        assert met is None or isinstance(met, bool)
        assert isinstance(beside, dict)
        others = ", ".join(f"{name} {value:g}" for name, value in beside.items())
        value = f"{row['value']} {row['unit']}"
        print(f"{row['name']!s:46} {value:>22} {f'≤ {target:g}' if target else '':>8} {VERDICT[met]:7} {others}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    command = "python benchmarks/bench_router.py" + (" --quick" if options.quick else "")
    document = {"command": command, "seed": None, "data": None, "rows": rows}
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if any(row["met"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
