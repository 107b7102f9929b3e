"""Small Kubernetes objects for tests of the harness."""

import pathlib
import sys

from .kubectl import Object
from .pod_runner.images import Image

PORT = 8080
SERVER = "test/server:1"
SERVER_IMAGE = Image(
    "test/server", (sys.executable, str(pathlib.Path(__file__).parent / "workloads" / "server.py"), str(PORT))
)
READY_PROBE = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}


def server(**fields: object) -> Object:
    """Return a container that runs workloads/server.py, with fields replaced or added."""
    ports = [{"name": "http", "containerPort": PORT}]
    return {"name": "server", "image": SERVER, "ports": ports, "readinessProbe": READY_PROBE, **fields}


def shell(script: str, **fields: object) -> Object:
    """Return a container that runs a shell script."""
    return {"name": "shell", "image": "busybox", "command": ["sh", "-c", script], **fields}


def pod(name: str, *containers: Object, labels: dict[str, str] | None = None, **spec: object) -> Object:
    """Return a Pod."""
    meta = {"name": name, "labels": labels or {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": list(containers), **spec}}


def deployment(name: str, *containers: Object, replicas: int = 1, **spec: object) -> Object:
    """Return a Deployment; its pods have the label app=NAME."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": list(containers), **spec}}
    wanted = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": wanted}


def service(name: str, *, port: int = 80, headless: bool = False) -> Object:
    """Return a Service for the pods with the label app=NAME, to their port named http."""
    spec: Object = {"selector": {"app": name}, "ports": [{"name": "web", "port": port, "targetPort": "http"}]}
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def config_map(name: str, **data: str) -> Object:
    """Return a ConfigMap; `__` in a key stands for a dot."""
    keyed = {key.replace("__", "."): value for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": keyed}


def ready(obj: Object) -> bool:
    """Whether a pod or a node says that it is Ready."""
    rows = obj.get("status", {}).get("conditions", [])
    return any(row["type"] == "Ready" and row["status"] == "True" for row in rows)
