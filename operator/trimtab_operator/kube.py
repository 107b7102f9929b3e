"""The API server, as the operator speaks to it: raw JSON over the ``kubernetes`` client's connections, in threads.

The only module that touches that library for requests. Models are not used: decoding 5,000 pods into them takes
seconds of CPU, as JSON it takes a fraction of one. Library errors end here; see ``errors``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from trimtab_operator import errors, labels

Object = dict[str, Any]

PAGE = 500
"""Objects per list request, as client-go asks for."""
WORKERS = 8
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_MESSAGE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that the operator reads or writes.

    Attributes:
        name: as in ``kind:``.
        api_version: ``group/version``, or ``v1``.
        plural: in paths.
        namespaced: whether objects live in namespaces.
    """

    name: str
    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of all objects, of those in a namespace, or of one."""
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        parts = [root, *(("namespaces", namespace) if namespace and self.namespaced else ()), self.plural]
        return "/".join([*parts, *([name] if name else []), *([subresource] if subresource else [])])


TIERS = Kind("InferenceTier", "inference.trimtab.dev/v1alpha1", "inferencetiers")
POLICIES = Kind("RoutingPolicy", "inference.trimtab.dev/v1alpha1", "routingpolicies")
CACHES = Kind("CachePolicy", "inference.trimtab.dev/v1alpha1", "cachepolicies")
DEPLOYMENTS = Kind("Deployment", "apps/v1", "deployments")
PODS = Kind("Pod", "v1", "pods")
NODES = Kind("Node", "v1", "nodes", namespaced=False)
SECRETS = Kind("Secret", "v1", "secrets")
CONFIG_MAPS = Kind("ConfigMap", "v1", "configmaps")
SERVICES = Kind("Service", "v1", "services")
EVENTS = Kind("Event", "v1", "events")
BUDGETS = Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")
HPAS = Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers")
SCALED_OBJECTS = Kind("ScaledObject", "keda.sh/v1alpha1", "scaledobjects")
POD_MONITORS = Kind("PodMonitor", "monitoring.coreos.com/v1", "podmonitors")
LEASES = Kind("Lease", "coordination.k8s.io/v1", "leases")

OWN = (TIERS, POLICIES, CACHES)
CHILDREN = (CONFIG_MAPS, SERVICES, BUDGETS, HPAS, DEPLOYMENTS)
"""What Trimtab makes in any cluster."""
OPTIONAL = (SCALED_OBJECTS, POD_MONITORS)
"""What it makes where another project is installed."""
KINDS = {kind.name: kind for kind in (*OWN, *CHILDREN, *OPTIONAL, PODS, NODES, SECRETS, EVENTS, LEASES)}


class Kube:
    """Requests to one API server.

    Args:
        api: a configured client; ``connect`` makes one.
        timeout_seconds: for one request; below the gap between a leader's deadline and its lease's end.
    """

    def __init__(self, api: client.ApiClient, *, timeout_seconds: float = 5.0) -> None:
        self._api = api
        self._timeout_seconds = timeout_seconds
        self._threads = concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="kube")

    @property
    def host(self) -> str:
        """Base address of the API server."""
        return str(self._api.configuration.host)

    @property
    def configuration(self) -> client.Configuration:
        """Address and credentials, for those that open connections of their own."""
        settings: client.Configuration = self._api.configuration
        return settings

    def close(self) -> None:
        """Let go of the threads; running requests end by their timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def get(self, path: str) -> Object:
        """One object, or any other document of the API."""
        return await self._call("GET", path)

    async def items(self, path: str, *, selector: str = "", metadata_only: bool = False) -> list[Object]:
        """All objects of a list, page by page.

        Args:
            path: of the list.
            selector: label selector.
            metadata_only: leave out all but metadata.
        """
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        headers = {"Accept": _METADATA_ONLY} if metadata_only else None
        found: list[Object] = []
        while True:
            page = await self._call("GET", path, query=query, headers=headers)
            found += page.get("items") or []
            more = page.get("metadata", {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    async def apply(self, path: str, body: Object, *, manager: str = labels.MANAGER) -> Object:
        """Server-side apply, taking over fields that others set."""
        query = {"fieldManager": manager, "force": "true"}
        return await self._call("PATCH", path, query=query, headers={"Content-Type": _APPLY}, body=json.dumps(body))

    async def merge(self, path: str, body: Object) -> Object:
        """JSON merge patch: null removes."""
        query = {"fieldManager": labels.MANAGER}
        return await self._call("PATCH", path, query=query, headers={"Content-Type": _MERGE}, body=body)

    async def create(self, path: str, body: Object) -> Object:
        """Create an object; ConflictError if it exists."""
        return await self._call("POST", path, query={"fieldManager": labels.MANAGER}, body=body)

    async def replace(self, path: str, body: Object) -> Object:
        """Replace an object; ConflictError if its resourceVersion moved on."""
        return await self._call("PUT", path, query={"fieldManager": labels.MANAGER}, body=body)

    async def delete(self, path: str, *, uid: str) -> None:
        """Delete just this object, and in the background what it owns."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._call("DELETE", path, body=options)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Object:
        """One request in a thread. Raises errors.ClusterError."""
        target = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        every = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._send, method, target, every, body)

    def _send(self, method: str, path: str, headers: dict[str, str], body: object) -> Object:
        """One request, blocking; runs in a thread."""
        what = f"{method} {path.partition('?')[0]}"
        try:
            request = self._api.param_serialize(
                method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            status, data = self._once_more_if_stale(request)
        except client.ApiException as error:
            raise errors.ClusterUnreachableError(f"API server {self.host}: {_line(error.reason)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise errors.ClusterUnreachableError(f"API server {self.host} does not answer: {_line(error)}") from error
        if status >= 400:  # noqa: PLR2004 (HTTP errors)
            raise _failure(status, data, what)
        try:
            document = json.loads(data) if data else {}
        except ValueError as error:
            raise errors.ClusterUnreachableError(f"{what}: the answer is not JSON") from error
        return document if isinstance(document, dict) else {"items": document}

    def _once_more_if_stale(self, request: tuple[Any, ...]) -> tuple[int, bytes]:
        """Status and body. A kept connection may have been closed at the other end: what may be repeated is."""
        for last in (request[0] not in ("GET", "PATCH"), True):
            try:
                method, url, headers, body, _ = request
                response = self._api.call_api(method, url, headers, body, _request_timeout=self._timeout_seconds)
                return response.status, response.read()  # type: ignore[no-untyped-call]
            except urllib3.exceptions.ProtocolError:
                if last:
                    raise
        raise AssertionError("unreachable")


_BY_STATUS: dict[int, type[errors.ClusterError]] = {
    400: errors.RefusedError,
    401: errors.AccessDeniedError,
    403: errors.AccessDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.ClusterUnreachableError,
    413: errors.RefusedError,
    415: errors.RefusedError,
    422: errors.RefusedError,
}


def _failure(status: int, data: bytes, what: str) -> errors.ClusterError:
    """An HTTP error as one of ours; what is not known (429, 5xx) counts as out of reach for now."""
    kind = _BY_STATUS.get(status, errors.ClusterUnreachableError)
    try:
        told = json.loads(data)
        message = str(told.get("message") or "")
        causes = {cause.get("reason") for cause in (told.get("details") or {}).get("causes") or ()}
    except (ValueError, AttributeError, TypeError):
        message, causes = data[:_MESSAGE_LENGTH].decode(errors="replace"), set()
    if "NamespaceTerminating" in causes:
        kind = errors.NamespaceEndsError
    return kind(f"{what}: {status} {_line(message)}")


def _line(text: object) -> str:
    """One line of limited length."""
    return " ".join(str(text).split())[:_MESSAGE_LENGTH]


def connect(kubeconfig: str = "", *, timeout_seconds: float = 5.0) -> Kube:
    """A connection by the given file, else the pod's own account, else the default kubeconfig.

    Raises:
        errors.AccessDeniedError: when none of these can be read; the message names the flag.
    """
    settings = client.Configuration()
    try:
        if kubeconfig:
            config.load_kube_config(config_file=kubeconfig, client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            _load_default(settings)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        named = f"kubeconfig {kubeconfig!r}" if kubeconfig else "no pod account and no kubeconfig"
        raise errors.AccessDeniedError(f"{named}: {_line(error)}; give a readable file with --kubeconfig") from error
    settings.retries = False
    settings.connection_pool_maxsize = WORKERS
    return Kube(client.ApiClient(settings), timeout_seconds=timeout_seconds)


def _load_default(settings: client.Configuration) -> None:
    try:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
