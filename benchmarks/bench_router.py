"""CPU of the router per request, per burst stream and per paced chunk, beside a blind TCP forwarder.

    python benchmarks/bench_router.py [--rounds N] [--json FILE]

The two run in turn, in one sitting, on one core of their own; the engine and the load share another. What is
compared is processor time by the kernel's own account (/proc/PID/schedstat), not elapsed time, so that a busy
machine disturbs it little. The saturated row lets each go as fast as it can: there the forwarder drives its peers
so hard that they never sleep, and saves the wake-ups that the router still pays. The other rows send one rate to
both. All of the router is on: identity, class, weights, metrics, accounting.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from router import engine, load
from trimtab_core.routing import table

HERE = pathlib.Path(__file__).parent


@dataclass(frozen=True)
class Work:
    """What one run does.

    Attributes:
        kind: of request.
        requests: in one run.
        rate: a second; None for as fast as they are answered.
        units: that one request counts for.
        target: largest ratio to the forwarder; None where the row only informs.
    """

    kind: load.Kind
    requests: int
    rate: float | None
    units: int = 1
    target: float | None = None


WORKS = (
    Work(load.request("request, class by header, saturated", class_="plain"), 6000, None, target=4.0),
    Work(load.request("request, class by header", class_="plain"), 4000, 2500.0, target=4.0),
    Work(load.request("request, classified by content"), 4000, 2500.0),
    Work(load.request("burst stream of 100 chunks", stream=True, class_="plain"), 800, 500.0),
    Work(
        load.request("paced chunk, 5 ms", stream=True, paced=True, class_="plain"), 32, 1e6, engine.CHUNKS, target=4.0
    ),
)
CONNECTIONS = 32
VERDICT = {True: "met", False: "MISSED", None: ""}


def make_table(port: int) -> bytes:
    """A policy of two tiers and two classes, one that needs no score and one that does."""
    rates = table.Rates(1e-7, 4e-7, 5e-8)
    tiers = [
        table.Tier(name, name, quality, rates, [table.Endpoint(f"{name}-0", f"127.0.0.1:{port}", capacity=256.0)])
        for name, quality in (("small", 0.6), ("large", 0.9))
    ]
    both = ["small", "large"]
    classes = [
        table.Class("plain", table.Match(headers={"x-trimtab-class": "plain"}), both, {"small": 1.0}),
        table.Class("default", table.Match(), both, {"small": 0.7, "large": 0.3}, table.Slo(1.0, 0.1, 10.0)),
    ]
    return table.encode(table.seal(table.RoutingTable("bench/bench", 1, 1, 0.0, ["auto"], tiers, classes, rates)))


@dataclass
class Proxy:
    """A process under test."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """Processor time so far, in kernel and user mode, to the nanosecond."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9


def start(arguments: list[str], core: int) -> subprocess.Popen[bytes]:
    """A child on one core."""
    cores = sorted(os.sched_getaffinity(0))
    child = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.DEVNULL)
    os.sched_setaffinity(child.pid, {cores[core % len(cores)]})
    return child


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nobody listens on port {port}")


def measure(proxy: Proxy, work: Work) -> float:
    """Microseconds of processor time for one unit."""
    before = proxy.cpu_seconds()
    load.drive(proxy.port, work.kind, requests=work.requests, connections=CONNECTIONS, rate=work.rate)
    return (proxy.cpu_seconds() - before) / (work.requests * work.units) * 1e6


def compare(router: Proxy, forwarder: Proxy, rounds: int) -> list[dict[str, object]]:
    """All kinds of work, in alternating runs; the ratio is the median of the rounds' ratios."""
    rows: list[dict[str, object]] = []
    for work in WORKS:
        for proxy in (forwarder, router):
            warmup = max(CONNECTIONS, work.requests // 10)
            load.drive(proxy.port, work.kind, requests=warmup, connections=CONNECTIONS, rate=work.rate)
        pairs = [(measure(forwarder, work), measure(router, work)) for _ in range(rounds)]
        ratio = statistics.median(ours / floor for floor, ours in pairs)
        rows.append(
            {
                "name": f"CPU per {work.kind.name}",
                "value": round(ratio, 2),
                "unit": "× forwarder",
                "target": work.target,
                "comparison": "<=",
                "met": None if work.target is None else ratio <= work.target,
                "beside": {
                    "router_us": round(statistics.median(ours for _, ours in pairs), 1),
                    "forwarder_us": round(statistics.median(floor for floor, _ in pairs), 1),
                },
            }
        )
    return rows


def run(rounds: int) -> list[dict[str, object]]:
    """Start all processes, compare, end them."""
    ports = [free_port() for _ in range(4)]
    children: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.json"
        path.write_bytes(make_table(ports[0]))
        try:
            children.append(start([str(HERE / "router/engine.py"), str(ports[0])], 1))
            children.append(start([str(HERE / "router/forwarder.py"), str(ports[1]), str(ports[0])], 0))
            options = ["--table", str(path), "--port", str(ports[2]), "--admin-port", str(ports[3])]
            children.append(start(["-m", "trimtab_cli", "router", *options], 0))
            for port in ports:
                wait_for(port)
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            return compare(Proxy("router", ports[2], children[2]), Proxy("forwarder", ports[1], children[1]), rounds)
        finally:
            for child in children:
                child.send_signal(signal.SIGTERM)
            for child in children:
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()


def main() -> int:
    """Measure, print, write; 0 if all targets are met, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="alternating runs of each kind (default 5)")
    parser.add_argument("--json", type=pathlib.Path, default=HERE / "out/router.json", help="where to write the rows")
    options = parser.parse_args()
    rows = run(options.rounds)
    print(f"{'':44} {'router µs':>10} {'forwarder µs':>13} {'ratio':>7} {'target':>7}")
    for row in rows:
        beside, target, met = row["beside"], row["target"], row["met"]
        assert met is None or isinstance(met, bool)
        assert isinstance(beside, dict)
        print(
            f"{row['name']!s:44} {beside['router_us']:>10} {beside['forwarder_us']:>13} {row['value']!s:>7} "
            f"{f'≤ {target}' if target else '':>7}  {VERDICT[met]}"
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"command": "python benchmarks/bench_router.py", "seed": None, "data": None, "rows": rows}
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if any(row["met"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
