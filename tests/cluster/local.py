"""A control plane of our own with the pod runner: starts host.py in its namespaces, and gives ways in."""

import collections.abc
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import typing

from .binaries import Binaries, UnavailableError
from .kubectl import Kubectl, Object
from .pod_runner import dns
from .pod_runner.images import Image
from .pod_runner.nodes import NodeSpec, node
from .session import Cluster, T

START_SECONDS = 100.0
STOP_SECONDS = 20.0
CLONE_NEWNET = 0x40000000


class LocalCluster(Cluster):
    """Made by `start`; `stop` ends it and returns when nothing of it is left."""

    def __init__(self, folder: pathlib.Path, binaries: Binaries) -> None:
        super().__init__(folder)
        self.missing = binaries.missing
        self.ready: dict[str, typing.Any] = {}  # what host.py said: kubeconfig, seconds, started_after
        self._binaries = binaries
        self._images: list[Image] = []
        self._host: subprocess.Popen[bytes] | None = None

    def start(
        self,
        nodes: collections.abc.Sequence[NodeSpec] = (),
        images: collections.abc.Sequence[Image] = (),
        *,
        back_off_seconds: float = 1.0,
    ) -> None:
        """Bring the cluster up. Raises UnavailableError with the reason when it does not come up.

        `back_off_seconds` is the first pause of a crashing container (a kubelet's is 10); it doubles up to 300.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.add_images(*images)
        config = {
            "binaries": {name: str(path) for name, path in self._binaries.paths.items()},
            "nodes": [dataclasses.asdict(spec) for spec in nodes],
            "back_off_seconds": back_off_seconds,
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        # --kill-child and --pdeathsig: whatever happens to this process, the kernel ends the whole cluster.
        unshare = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        host = [sys.executable, "-m", "cluster.host", str(self.folder)]
        tests = pathlib.Path(__file__).resolve().parents[1]
        with (self.folder / "host.err").open("wb") as err:
            self._host = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *unshare, *host],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env={**os.environ, "PYTHONPATH": str(tests)},
                start_new_session=True,  # Ctrl-C is for us: we stop the cluster in order
            )
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def _await_ready(self) -> None:
        assert self._host is not None
        assert self._host.stdout is not None
        readable, _, _ = select.select([self._host.stdout], [], [], START_SECONDS)
        line = self._host.stdout.readline() if readable else b""
        self.ready = json.loads(line) if line else {"error": self._why()}
        if "error" in self.ready:
            raise UnavailableError(f"the test cluster did not start: {self.ready['error']}")

    def _why(self) -> str:
        paths = [self.folder / name for name in ("host.err", "host.log")]
        tails = [path.read_text(errors="replace")[-1500:] for path in paths if path.exists()]
        return "\n".join(tail for tail in tails if tail) or f"no answer within {START_SECONDS:.0f} s"

    def stop(self) -> None:
        """End everything. Safe to call twice."""
        super().stop()
        host, self._host = self._host, None
        if host is None:
            return
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.close()
        try:
            host.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()
        host.stdout.close()

    @property
    def host_pid(self) -> int | None:
        """The process that made the cluster's namespaces and waits for their first process; None when the cluster is down."""
        return self._host.pid if self._host else None

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The administrator's kubeconfig, good inside the cluster's network."""
        return pathlib.Path(self.ready["kubeconfig"])

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as administrator, run inside the cluster's network."""
        return Kubectl(self._binaries["kubectl"], self.kubeconfig, self._enter())

    def add_images(self, *rules: Image) -> None:
        """Put image rules before the ones that are there; containers started from now on see them."""
        self._images = [*rules, *self._images]
        path = self.folder / "images.json"
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps([rule.to_json() for rule in self._images]))
        fresh.replace(path)

    def add_node(self, spec: NodeSpec) -> None:
        """Add a machine. To take one away with all that runs on it, delete the Node."""
        self.kubectl("create", "-f", "-", stdin=node(spec))

    def inside(self, function: collections.abc.Callable[[], T], timeout: float = 60) -> T:
        """Return `function()`, called in a thread whose sockets are in the cluster's network."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        target = (self._namespace_path(), function, done)
        threading.Thread(target=_run_in_network, args=target, daemon=True).start()
        return done.result(timeout)

    def command(self, *argv: str, namespace: str = "default") -> list[str]:
        """Return the command that runs `argv` in the cluster's network, with the cluster's DNS."""
        conf = self.folder / f"resolv-{namespace}.conf"
        conf.write_text(dns.resolv_conf(namespace))
        mount = f'mount --bind "{conf}" /etc/resolv.conf && exec "$@"'
        enter = ["setpriv", "--pdeathsig", "KILL", *self._enter(), "unshare", "--mount", "--"]
        return [*enter, "sh", "-c", mount, "sh", *argv]

    def pod_log(self, namespace: str, pod: str, container: str) -> str:
        """Return what a container has written, all its runs together; also after the pod has gone."""
        path = self.folder / "logs" / "pods" / namespace / pod / f"{container}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def signal_pod(self, pod: str, number: signal.Signals) -> int:
        """Send a signal to every process of a pod, as a fault from outside Kubernetes; return how many there were."""
        sent = 0
        wanted = f"HOSTNAME={pod}".encode()
        for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), number)
                    sent += 1
        return sent

    def audit(self) -> list[Object]:
        """Return what service accounts asked of the API server (audit.k8s.io/v1 events), kube-system's left out."""
        path = self.folder / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _namespace_path(self) -> str:
        assert self._host is not None, "the cluster is not running"
        return f"/proc/{self._host.pid}/ns/net"

    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net={self._namespace_path()}", "--")


def _run_in_network(
    namespace_path: str, function: collections.abc.Callable[[], T], done: "concurrent.futures.Future[T]"
) -> None:
    """Join a network namespace, with this thread alone, and keep what `function` returns or raises in `done`."""
    try:
        descriptor = os.open(namespace_path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"setns: {os.strerror(code)}")
        finally:
            os.close(descriptor)
        done.set_result(function())
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
        done.set_exception(error)
