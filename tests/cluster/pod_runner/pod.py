"""One pod's life: network, volumes, init containers and sidecars, containers, status, and the end with its grace period."""

import asyncio
import collections.abc
import contextlib
import dataclasses
import logging
import pathlib
import shutil
import time
import typing

import aiohttp

from . import addresses, container, dns, environment, images, nodes, sandbox, status, volumes
from .api import CONFLICT, NOT_FOUND, STRATEGIC_MERGE, Api, ApiError, Object
from .network import NetworkError, Networks, PodNetwork

log = logging.getLogger(__name__)

MOUNT_RETRY_SECONDS = 0.3
STATUS_SETTLE_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Machine:
    """What all pods of this runner share."""

    api: Api
    session: aiohttp.ClientSession
    networks: Networks
    sources: environment.Sources
    image_table: collections.abc.Callable[[], list[images.Image]]
    scratch: pathlib.Path
    logs: pathlib.Path
    back_off_seconds: float = 10.0
    back_off_limit_seconds: float = 300.0


class Pod:
    """Drives one pod. `run` ends when the pod has ended and, once deleted, its object is gone."""

    def __init__(self, obj: Object, machine: Machine) -> None:
        self.obj = obj
        self._machine = machine
        self._where = f"/api/v1/namespaces/{obj['metadata']['namespace']}/pods/{obj['metadata']['name']}"
        self._folder = machine.scratch / obj["metadata"]["uid"]
        self._network: PodNetwork | None = None
        self._volumes: volumes.Volumes | None = None
        self._init: list[container.Container] = []
        self._main: list[container.Container] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._initialized = False
        self._init_failed = False
        self._deleted = asyncio.Event()
        self._dirty = asyncio.Event()
        self._ended = False  # every container has ended for good
        self._start_time = nodes.now()
        self._events: set[asyncio.Task[None]] = set()

    @property
    def _sidecars(self) -> list[container.Container]:
        return [one for one in self._init if one.spec.get("restartPolicy") == "Always"]

    def update(self, obj: Object) -> None:
        """Take the newest object: a deletion, labels that volumes show, conditions that others wrote."""
        self.obj = obj
        self._dirty.set()
        if "deletionTimestamp" in obj["metadata"]:
            self._deleted.set()

    async def refresh_volumes(self) -> None:
        """Bring ConfigMap and Secret volumes up to date."""
        if self._volumes is not None and not self._deleted.is_set():
            await self._volumes.refresh(self.obj)

    async def run(self) -> None:
        """Run the pod to its end, then wait for its deletion and confirm it to the API server."""
        reporter = asyncio.ensure_future(self._report())
        living = asyncio.ensure_future(self._live())
        deleted = asyncio.ensure_future(self._deleted.wait())
        try:
            await asyncio.wait({living, deleted}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
            await deleted
            await _cancel(living)
            await self._end(float(self.obj["metadata"].get("deletionGracePeriodSeconds") or 0))
            await _cancel(reporter)
            await self._write_status()
            await self._confirm()
        finally:
            await _cancel(living, deleted, reporter)
            await self.abandon()

    async def abandon(self) -> None:
        """Kill everything at once and remove what was made, without a word to the API server (its node has gone, or the pod has)."""
        await _cancel(*self._tasks.values(), *self._events)
        if self._network is not None:
            await self._machine.networks.remove(self._network)
            self._network = None
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _live(self) -> None:
        spec = self.obj["spec"]
        self._network = await self._make_network(host_network=bool(spec.get("hostNetwork")))
        around = await self._surroundings(self._network)
        policy = spec.get("restartPolicy", "Always")
        once = "OnFailure" if policy != "Never" else "Never"
        for one in spec.get("initContainers") or []:
            own = "Always" if one.get("restartPolicy") == "Always" else once
            self._init.append(container.Container(one, around, restart_policy=own))
        self._main = [container.Container(one, around, restart_policy=policy) for one in spec["containers"]]
        self._dirty.set()
        await self._prepare_volumes()
        if not await self._initialize():
            self._init_failed = True
        else:
            self._initialized = True
            self._dirty.set()
            for one in self._main:
                one.state = {"waiting": {"reason": "ContainerCreating"}}
                self._tasks[one.name] = asyncio.ensure_future(one.run())
            await _ended(*(self._tasks[one.name] for one in self._main))
        await self._stop_sidecars(time.monotonic() + float(spec.get("terminationGracePeriodSeconds", 30)))
        self._ended = True
        self._dirty.set()

    async def _make_network(self, *, host_network: bool) -> PodNetwork:
        while True:
            try:
                return await self._machine.networks.create(host_network=host_network)
            except NetworkError as error:
                self._event("Warning", "FailedCreatePodSandBox", str(error))
                await asyncio.sleep(1)

    async def _initialize(self) -> bool:
        """Run the init containers one after another; a sidecar has only to start. Return False when one failed for good."""
        for one in self._init:
            task = asyncio.ensure_future(one.run())
            self._tasks[one.name] = task
            if one in self._sidecars:
                await one.started.wait()
            else:
                await _ended(task)
                if one.exit_code != 0:
                    return False
        return True

    async def _end(self, grace: float) -> None:
        """Stop the containers together, then the sidecars in reverse order, all within one grace period (seconds)."""
        deadline = time.monotonic() + grace
        plain = [one for one in (*self._init, *self._main) if one not in self._sidecars]
        await asyncio.gather(*(one.stop(grace) for one in plain))
        await asyncio.gather(
            *(self._tasks[one.name] for one in plain if one.name in self._tasks), return_exceptions=True
        )
        await self._stop_sidecars(deadline)
        self._ended = True

    async def _stop_sidecars(self, deadline: float) -> None:
        for one in reversed(self._sidecars):
            await one.stop(max(deadline - time.monotonic(), 0.0))
            if one.name in self._tasks:
                await asyncio.gather(self._tasks[one.name], return_exceptions=True)

    async def _prepare_volumes(self) -> None:
        assert self._volumes is not None
        said = ""
        while True:
            try:
                await self._volumes.prepare()
            except environment.ConfigError as error:
                if said != str(error):
                    said = str(error)
                    self._event("Warning", "FailedMount", said)
                await asyncio.sleep(MOUNT_RETRY_SECONDS)
            else:
                return

    async def _surroundings(self, network: PodNetwork) -> container.Surroundings:
        machine, meta = self._machine, self.obj["metadata"]
        pod_ip = network.address
        context = volumes.Context(self.obj, machine.sources, pod_ip, addresses.HOST, self._token)
        self._volumes = volumes.Volumes(self._folder / "volumes", context)
        logs = machine.logs / meta["namespace"] / meta["name"]
        logs.mkdir(parents=True, exist_ok=True)
        host_name = self.obj["spec"].get("hostname") or meta["name"]
        base = {
            "PATH": sandbox.DEFAULT_PATH,
            "HOME": "/root",
            "HOSTNAME": host_name,
            "KUBERNETES_SERVICE_HOST": addresses.API_SERVICE,
            "KUBERNETES_SERVICE_PORT": "443",
            "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        }
        return container.Surroundings(
            pod=self.obj,
            network=network,
            environment=environment.Environment(self.obj, machine.sources, pod_ip=pod_ip, host_ip=addresses.HOST),
            volume_path=self._volumes.path,
            image_table=machine.image_table,
            etc={
                "resolv.conf": dns.resolv_conf(meta["namespace"]),
                "hosts": f"127.0.0.1\tlocalhost\n{pod_ip}\t{host_name}\n",
                "hostname": f"{host_name}\n",
            },
            base_env=base,
            folder=self._folder / "containers",
            logs=logs,
            session=machine.session,
            changed=self._dirty.set,
            event=self._event,
            back_off_seconds=machine.back_off_seconds,
            back_off_limit_seconds=machine.back_off_limit_seconds,
        )

    async def _token(self, audience: str, seconds: int) -> str:
        meta = self.obj["metadata"]
        account = self.obj["spec"].get("serviceAccountName", "default")
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec: Object = {
            "audiences": [audience] if audience else [],
            "expirationSeconds": seconds,
            "boundObjectRef": bound,
        }
        body: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        try:
            return str((await self._machine.api.call("POST", path, body))["status"]["token"])
        except ApiError as error:
            raise environment.ConfigError(f"service account token: {error}") from error

    async def _report(self) -> None:
        """Write the status after each change."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(STATUS_SETTLE_SECONDS)
            self._dirty.clear()
            await self._write_status()

    def _status(self) -> Object:
        main, init = self._main, self._init
        made: Object = {
            "phase": status.phase(main, initialized=self._initialized, init_failed=self._init_failed)
            if main
            else "Pending",
            "hostIP": addresses.HOST,
            "startTime": self._start_time,
            "containerStatuses": [status.container_status(one) for one in main],
        }
        if init:
            made["initContainerStatuses"] = [status.init_status(one) for one in init]
        if main:
            made["conditions"] = status.conditions(
                self.obj, main, self._sidecars, initialized=self._initialized, now=nodes.now()
            )
        if self._network is not None:
            made |= {"podIP": self._network.address, "podIPs": [{"ip": self._network.address}]}
        return made

    async def _write_status(self) -> None:
        wanted = self._status()
        held = self.obj.get("status", {})
        if all(held.get(name) == value for name, value in wanted.items() if name != "conditions") and all(
            condition in (held.get("conditions") or []) for condition in wanted.get("conditions", [])
        ):
            return
        body: Object = {"metadata": {"uid": self.obj["metadata"]["uid"]}, "status": wanted}
        await self._persist("PATCH", f"{self._where}/status", body, content_type=STRATEGIC_MERGE)

    async def _confirm(self) -> None:
        """Delete the object for good, as the kubelet does once nothing of the pod runs."""
        uid = {"uid": self.obj["metadata"]["uid"]}
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": uid}
        await self._persist("DELETE", self._where, body)

    async def _persist(self, method: str, path: str, body: Object, *, content_type: str = "application/json") -> None:
        """Call until it went through; give up quietly when the pod is not there any more."""
        while True:
            try:
                await self._machine.api.call(method, path, body, content_type=content_type)
            except ApiError as error:
                if error.status not in {NOT_FOUND, CONFLICT}:
                    log.warning("%s %s: %s", method, path, error)
                return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("%s %s: %r", method, path, error)
                await asyncio.sleep(0.5)
            else:
                return

    def _event(self, kind: str, reason: str, message: str) -> None:
        """Record an Event about the pod, in the background."""
        meta = self.obj["metadata"]
        names = {name: meta[name] for name in ("name", "namespace", "uid")}
        at = nodes.now()
        body: Object = {
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", **names},
            "type": kind,
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "pod-runner", "host": self.obj["spec"].get("nodeName", "")},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        task = asyncio.ensure_future(self._persist("POST", f"/api/v1/namespaces/{meta['namespace']}/events", body))
        self._events.add(task)
        task.add_done_callback(self._events.discard)


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """Wait for tasks without cancelling them when the waiting itself is cancelled: a deleted pod's containers get their grace."""
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


async def _cancel(*tasks: asyncio.Task[typing.Any]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
