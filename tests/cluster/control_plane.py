"""Starts and stops etcd, the API server, the controller manager and the scheduler.

Runs inside the cluster's own namespaces (see host.py), so every port is free and every address is its own. Nothing here survives a
restart on purpose: etcd does not even wait for its disk.
"""

import asyncio
import dataclasses
import json
import pathlib
import signal
import ssl
import time
import urllib.error
import urllib.request

from .binaries import CONTROLLERS, Binaries
from .credentials import Credentials
from .pod_runner import addresses

ETCD_URL = "http://127.0.0.1:2379"
START_SECONDS = 60.0
STOP_SECONDS = 5.0
# Service accounts are logged with verb and resource, so that a test can hold an operator's RBAC against the calls that it really made.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


class StartError(Exception):
    """A component ended or did not become ready in time; the message holds the tail of its log."""


@dataclasses.dataclass(frozen=True)
class Component:
    """One program: its command line, and the URL that answers 200 once it is ready (None: ready when started)."""

    name: str
    argv: tuple[str, ...]
    ready_url: str | None = None


def components(binaries: Binaries, credentials: Credentials, folder: pathlib.Path) -> list[Component]:
    """Return what to start, in order; the controllers only where their programs were found."""
    listed = [_etcd(binaries, folder), _api_server(binaries, credentials, folder)]
    present = [name for name in CONTROLLERS if name not in binaries.missing]
    return listed + [_controller(name, binaries, credentials) for name in present]


def _etcd(binaries: Binaries, folder: pathlib.Path) -> Component:
    peer = "http://127.0.0.1:2380"
    urls = (f"--listen-client-urls={ETCD_URL}", f"--advertise-client-urls={ETCD_URL}", f"--listen-peer-urls={peer}")
    rest = (f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn")
    return Component("etcd", (binaries["etcd"], *urls, *rest), f"{ETCD_URL}/health")


def _api_server(binaries: Binaries, credentials: Credentials, folder: pathlib.Path) -> Component:
    secret = credentials.folder
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(AUDIT_POLICY))
    argv = (
        binaries["kube-apiserver"],
        f"--etcd-servers={ETCD_URL}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={addresses.HOST}",
        f"--secure-port={addresses.API_SERVER_PORT}",
        f"--service-cluster-ip-range={addresses.SERVICE_CIDR}",
        f"--tls-cert-file={secret / 'server.crt'}",
        f"--tls-private-key-file={secret / 'server.key'}",
        f"--token-auth-file={secret / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={secret / 'accounts.key'}",
        f"--service-account-signing-key-file={secret / 'accounts.key'}",
        "--enable-aggregator-routing=true",  # webhook Services are called at their pods' addresses
        "--allow-privileged=true",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={folder / 'audit.jsonl'}",
        "--shutdown-delay-duration=0s",
    )
    return Component("kube-apiserver", argv, f"https://127.0.0.1:{addresses.API_SERVER_PORT}/readyz")


def _controller(name: str, binaries: Binaries, credentials: Credentials) -> Component:
    kubeconfig = credentials.kubeconfig(f"system:{name}")
    argv = [binaries[name], f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
    argv += [
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]  # with the default of 20 requests a second the controllers need 4 s to start
    if name == "kube-controller-manager":
        key = credentials.folder / "accounts.key"
        argv += ["--controllers=*", "--use-service-account-credentials=true"]
        argv += ["--node-monitor-period=500ms"]  # a new node takes pods once this has passed; the default is 5 s
        argv += [f"--service-account-private-key-file={key}", f"--root-ca-file={credentials.ca_certificate}"]
    return Component(name, tuple(argv))


class ControlPlane:
    """The running components. `start` leaves nothing running when it fails."""

    def __init__(self, listed: list[Component], logs: pathlib.Path, ca_certificate: pathlib.Path) -> None:
        self._listed = listed
        self._logs = logs
        self._ca_certificate = ca_certificate
        self._running: list[tuple[Component, asyncio.subprocess.Process]] = []
        self.started_after: dict[str, float] = {}  # seconds from `start` until each component was ready

    async def start(self) -> None:
        """Start all in order, each when the one before is ready. Raises StartError."""
        begin = time.monotonic()
        try:
            for component in self._listed:
                with (self._logs / f"{component.name}.log").open("wb") as log:
                    process = await asyncio.create_subprocess_exec(
                        *component.argv, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
                    )
                self._running.append((component, process))
                await self._ready(component, process)
                self.started_after[component.name] = round(time.monotonic() - begin, 2)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all in reverse order: SIGTERM, and SIGKILL for what is still there after STOP_SECONDS."""
        while self._running:
            _, process = self._running.pop()
            if process.returncode is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()

    def dead(self) -> list[str]:
        """Return the names of components that ended by themselves."""
        return [component.name for component, process in self._running if process.returncode is not None]

    async def _ready(self, component: Component, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + START_SECONDS
        while component.ready_url is not None:
            if await asyncio.to_thread(_answers, component.ready_url, self._ca_certificate):
                return
            if process.returncode is not None:
                raise StartError(f"{component.name} ended with {process.returncode}:\n{self._tail(component)}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{component.name} was not ready after {START_SECONDS:.0f} s:\n{self._tail(component)}"
                )
            await asyncio.sleep(0.05)

    def _tail(self, component: Component, lines: int = 15) -> str:
        return "\n".join((self._logs / f"{component.name}.log").read_text(errors="replace").splitlines()[-lines:])


def _answers(url: str, ca_certificate: pathlib.Path) -> bool:
    context = ssl.create_default_context(cafile=str(ca_certificate)) if url.startswith("https") else None
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
