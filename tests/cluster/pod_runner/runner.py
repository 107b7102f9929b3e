"""Watches nodes and pods and keeps one task for each: the whole pod runner."""

import asyncio
import collections.abc
import json
import logging
import pathlib
import typing

import aiohttp

from . import dns, environment, images, network, nodes, pod, services
from .api import CONFLICT, Api, ApiError, Cache, Object

log = logging.getLogger(__name__)


class Runner:
    """Runs the pods of every Node with the label `nodes.RUN_HERE`. Use `start`, and `stop` in any case."""

    def __init__(self, api: Api, *, folder: pathlib.Path, images_file: pathlib.Path, back_off_seconds: float) -> None:
        self._api = api
        self._folder = folder
        self._images_file = images_file
        self._back_off_seconds = back_off_seconds
        self._pods: dict[str, tuple[pod.Pod, asyncio.Task[None]]] = {}
        self._heartbeats: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[typing.Any]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._dns: asyncio.DatagramTransport | None = None
        self._node_cache = Cache(api, "/api/v1/nodes", self._node_changed, labelSelector=f"{nodes.RUN_HERE}=true")
        self._pod_cache = Cache(api, "/api/v1/pods", self._pod_changed)
        self._config_maps = Cache(api, "/api/v1/configmaps", self._content_changed)
        self._secrets = Cache(api, "/api/v1/secrets", self._content_changed)
        self._machine: pod.Machine | None = None

    async def start(self, wanted: list[nodes.NodeSpec]) -> None:
        """Register the nodes and begin to serve; returns when DNS, Service addresses and caches work."""
        for spec in wanted:
            await register(self._api, spec)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        self._machine = pod.Machine(
            api=self._api,
            session=self._session,
            networks=network.Networks(),
            sources=environment.Sources(self._config_maps, self._secrets),
            image_table=self._image_table,
            scratch=self._folder / "pods",
            logs=self._folder / "logs" / "pods",
            back_off_seconds=self._back_off_seconds,
        )
        proxy = services.Proxy()
        service_cache = Cache(self._api, "/api/v1/services", proxy.wake)
        slice_cache = Cache(self._api, "/apis/discovery.k8s.io/v1/endpointslices", proxy.wake)
        first = (self._node_cache, self._config_maps, self._secrets, service_cache, slice_cache)
        for cache in first:
            self._spawn(cache.run())
        for cache in first:
            await cache.filled.wait()
        self._spawn(proxy.run(service_cache, slice_cache))
        self._dns = await dns.serve(service_cache, slice_cache)
        self._spawn(self._pod_cache.run())
        await self._pod_cache.filled.wait()

    async def stop(self) -> None:
        """End every pod at once and stop serving."""
        if self._dns is not None:
            self._dns.close()
        tasks = [*self._background, *self._heartbeats.values(), *(task for _, task in self._pods.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _spawn(self, work: collections.abc.Coroutine[object, object, object]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[typing.Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)

    def _image_table(self) -> list[images.Image]:
        """Read the table anew, so that a test can add rules while the cluster runs."""
        return [images.Image.from_json(row) for row in json.loads(self._images_file.read_text())]

    def _node_changed(self, kind: str, obj: Object) -> None:
        name = obj["metadata"]["name"]
        if kind == "ADDED":
            self._heartbeats[name] = asyncio.ensure_future(nodes.heartbeat(self._api, name))
            for bound in list(self._pod_cache.objects.values()):
                self._pod_changed("ADDED", bound)
        elif kind == "DELETED":
            if name in self._heartbeats:
                self._heartbeats.pop(name).cancel()
            for one, task in list(self._pods.values()):
                if one.obj["spec"].get("nodeName") == name:
                    task.cancel()  # the machine has gone, and with it its processes

    def _pod_changed(self, kind: str, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        held = self._pods.get(uid)
        if kind == "DELETED":
            if held is not None:
                held[1].cancel()
        elif held is not None:
            held[0].update(obj)
        elif self._wanted(obj):
            assert self._machine is not None
            made = pod.Pod(obj, self._machine)
            made.update(obj)
            task = asyncio.ensure_future(made.run())
            self._pods[uid] = (made, task)
            task.add_done_callback(lambda ended: self._pod_done(uid, ended))

    def _wanted(self, obj: Object) -> bool:
        """Whether a pod that we do not run yet is ours to run (or, when already deleted, to clean away)."""
        ours = obj["spec"].get("nodeName") in self._heartbeats
        over = obj.get("status", {}).get("phase") in {"Succeeded", "Failed"}
        return ours and (not over or "deletionTimestamp" in obj["metadata"])

    def _pod_done(self, uid: str, task: asyncio.Task[None]) -> None:
        self._pods.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod %s failed", uid, exc_info=error)

    def _content_changed(self, _kind: str, obj: Object) -> None:
        namespace = obj["metadata"]["namespace"]
        for one, _ in self._pods.values():
            if one.obj["metadata"]["namespace"] == namespace:
                self._spawn(one.refresh_volumes())


async def register(api: Api, spec: nodes.NodeSpec) -> None:
    """Create a Node; one that is there already stays as it is."""
    try:
        await api.call("POST", "/api/v1/nodes", nodes.node(spec))
    except ApiError as error:
        if error.status != CONFLICT:
            raise
