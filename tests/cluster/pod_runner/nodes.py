"""Made nodes: how one looks, and the heartbeat that keeps it Ready.

The runner serves every Node that has the label RUN_HERE, however it was made, so a test adds a node by creating one (`node`) and takes
it away, with everything that runs on it, by deleting it: that is what a cluster autoscaler or a spot interruption does.
"""

import asyncio
import dataclasses
import datetime as dt
import logging
import zlib

import aiohttp

from . import addresses
from .api import CONFLICT, NOT_FOUND, STRATEGIC_MERGE, Api, ApiError, Object

log = logging.getLogger(__name__)

RUN_HERE = "pod-runner.test/serves"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
VERSION = "v1.36.3"


@dataclasses.dataclass(frozen=True)
class NodeSpec:
    """A node to make: GPUs of `nvidia.com/gpu`, labels beside the usual ones, and taints as in the API."""

    name: str
    gpus: int = 0
    cpu: str = "64"
    memory: str = "256Gi"
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(spec: NodeSpec) -> Object:
    """Return the Node object as a kubelet would register it."""
    capacity = {"cpu": spec.cpu, "memory": spec.memory, "pods": "110", "ephemeral-storage": "100Gi"}
    if spec.gpus:
        capacity["nvidia.com/gpu"] = str(spec.gpus)
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        RUN_HERE: "true",
        **spec.labels,
    }
    status = {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions(),
        "addresses": [
            {"type": "Hostname", "address": spec.name},
            {"type": "InternalIP", "address": _address(spec.name)},
        ],
        "nodeInfo": _node_info(spec.name),
    }
    made: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": labels},
        "spec": {"taints": list(spec.taints)} if spec.taints else {},
        "status": status,
    }
    return made


def conditions() -> list[Object]:
    """Return the conditions of a healthy node, as of now."""
    healthy = [("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True")]
    at = now()
    return [
        {
            "type": kind,
            "status": status,
            "reason": "PodRunner",
            "message": "",
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
        }
        for kind, status in healthy
    ]


def _address(name: str) -> str:
    number = zlib.crc32(name.encode())
    return f"{addresses.NODE_PREFIX}{number >> 8 & 255}.{number & 255}"


def _node_info(name: str) -> dict[str, str]:
    versions = {"kubeletVersion": VERSION, "kubeProxyVersion": VERSION, "containerRuntimeVersion": "processes://1"}
    host = {"operatingSystem": "linux", "architecture": "amd64", "osImage": "test", "kernelVersion": "test"}
    return {**versions, **host, "machineID": name, "systemUUID": name, "bootID": name}


async def heartbeat(api: Api, name: str) -> None:
    """Keep a node Ready until cancelled: its status once, then its Lease every RENEW_SECONDS."""
    reported = False
    while True:
        try:
            if not reported:
                status = {"status": {"conditions": conditions()}}
                await api.call("PATCH", f"/api/v1/nodes/{name}/status", status, content_type=STRATEGIC_MERGE)
                reported = True
            await _renew(api, name)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("heartbeat of node %s: %r", name, error)
            reported = False
            await asyncio.sleep(1)
            continue
        await asyncio.sleep(RENEW_SECONDS)


async def _renew(api: Api, name: str) -> None:
    at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": at}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
    try:
        await api.call("PATCH", f"{LEASES}/{name}", {"spec": spec}, content_type="application/merge-patch+json")
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        try:
            await api.call("POST", LEASES, body)
        except ApiError as lost:
            if lost.status != CONFLICT:
                raise
