"""What a test holds of a cluster: kubectl, namespaces, and ways into the cluster's network.

A test gets to a pod with `http` (one request), with `inside` (a function of its own, such as an asynchronous load client) or with
`start_process` (a program of its own, such as Prometheus or an operator). LocalCluster (local.py) is a control plane of our own, whose
addresses exist only in its network namespace; ExternalCluster (external.py) is one that somebody else runs.
"""

import abc
import collections.abc
import contextlib
import dataclasses
import http.client
import os
import pathlib
import signal
import subprocess
import time
import typing

from .kubectl import Kubectl, KubectlError, Object
from .pod_runner.images import Image
from .pod_runner.nodes import NodeSpec

T = typing.TypeVar("T")


@dataclasses.dataclass
class Process:
    """A process that a test started beside the pods."""

    popen: subprocess.Popen[bytes]
    log: pathlib.Path

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, then SIGKILL for its whole group after `seconds`; return its exit code. Harmless when it has ended."""
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()

    def output(self, lines: int = 50) -> str:
        """Return the tail of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Cluster(abc.ABC):
    """A running cluster."""

    # Names of control plane programs that do not run: with any of them missing, Deployments never become running pods.
    missing: tuple[str, ...] = ()

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder  # scratch, logs, kubeconfig
        self._started: list[Process] = []

    @property
    @abc.abstractmethod
    def kubeconfig(self) -> pathlib.Path:
        """The administrator's kubeconfig; its server can be reached by what `start_process` starts."""

    @property
    @abc.abstractmethod
    def kubectl(self) -> Kubectl:
        """kubectl as administrator."""

    @abc.abstractmethod
    def inside(self, function: collections.abc.Callable[[], T], timeout: float = 60) -> T:
        """Return `function()`, called where sockets reach pods' addresses (asyncio.run is fine there)."""

    @abc.abstractmethod
    def command(self, *argv: str, namespace: str = "default") -> list[str]:
        """Return the command that runs `argv` where it reaches pods, Services and, with the search list of `namespace`, DNS."""

    @abc.abstractmethod
    def add_images(self, *rules: Image) -> None:
        """Put image rules before the ones that are there; containers started from now on see them."""

    @abc.abstractmethod
    def add_node(self, spec: NodeSpec) -> None:
        """Add a machine. To take one away with all that runs on it, delete the Node."""

    @abc.abstractmethod
    def pod_log(self, namespace: str, pod: str, container: str) -> str:
        """Return what a container has written."""

    @abc.abstractmethod
    def audit(self) -> list[Object]:
        """Return what service accounts asked of the API server (audit.k8s.io/v1 events), kube-system's left out."""

    def stop(self) -> None:
        """End every process that was started with `start_process`, the newest first. Safe to call twice."""
        while self._started:
            self._started.pop().stop()

    def namespace(self, prefix: str) -> str:
        """Create a namespace that no other test has, and return its name."""
        printed = self.kubectl("create", "-f", "-", "-o", "name", stdin=_namespace(prefix))
        name = printed.strip().rpartition("/")[2]
        if not self.missing:  # pods are refused until the controller manager has made their service account
            look = ("serviceaccount", "-n", name, "default")
            eventually(lambda: self.kubectl.get(*look), f"the default service account of {name}", pause=0.02)
        return name

    def pods(self, namespace: str, selector: str = "") -> list[Object]:
        """Return the pods of a namespace, oldest first."""
        chosen = ["-l", selector] if selector else []
        items: list[Object] = self.kubectl.get("pods", "-n", namespace, *chosen)["items"]
        return sorted(items, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def http(
        self, address: str, port: int, path: str = "/", *, body: str | None = None, timeout: float = 10
    ) -> tuple[int, str]:
        """Send one GET, or a POST of JSON where there is a body, to a pod or a Service; return status and body."""

        def request() -> tuple[int, str]:
            connection = http.client.HTTPConnection(address, port, timeout=timeout)
            with contextlib.closing(connection):
                headers = {"Content-Type": "application/json"} if body else {}
                connection.request("POST" if body else "GET", path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

        return self.inside(request, timeout + 5)

    def resolve(self, name: str) -> list[str]:
        """Return the IPv4 addresses that a name has in the cluster; none when it does not exist."""
        done = subprocess.run(self.command("getent", "ahostsv4", name), capture_output=True, text=True, check=False)
        return sorted({line.split()[0] for line in done.stdout.splitlines()})

    def start_process(
        self, name: str, *argv: str, env: dict[str, str] | None = None, namespace: str = "default"
    ) -> Process:
        """Start a program beside the pods, with KUBECONFIG set; it is stopped with the cluster at the latest."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(
                self.command(*argv, namespace=namespace),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig), **(env or {})},
                start_new_session=True,
            )
        process = Process(popen, log)
        self._started.append(process)
        return process


def _namespace(prefix: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": f"{prefix}-"}}


def eventually(check: collections.abc.Callable[[], T], what: str, *, seconds: float = 60, pause: float = 0.1) -> T:
    """Return the first true result of `check`; fail, saying `what` was awaited, after `seconds`.

    A KubectlError or a refused connection counts as "not yet". `seconds` is a bound on hanging, not a promise of speed.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            result = check()
        except (KubectlError, OSError, http.client.HTTPException, LookupError) as error:  # or a field is not there yet
            last = error
        else:
            if result:
                return result
            last = result
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds:g} s (last: {last!r})")
