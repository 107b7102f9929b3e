"""A small API server on loopback: what the operator uses of the real one, so that its own client is tested as it is.

Lists with label selectors, pages and metadata alone; server-side apply that remembers which manager set what; merge
patches, creation, replacement with resource versions, deletion with preconditions. Requests are recorded and may be
made to fail.
"""

from __future__ import annotations

import copy
import http.server
import json
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client
from trimtab_operator import kube

from tests import loopback

Object = dict[str, Any]
SERVED = {kind.plural: kind for kind in kube.KINDS.values()}


class FakeApi:
    """The state of the server; tests look and write here directly."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str, Object | None]] = []
        self.failures: dict[str, tuple[int, str]] = {}
        self.ending = False  # the namespaces are being deleted: nothing new fits in them
        self.absent: set[str] = {"scaledobjects", "podmonitors"}
        self.page = 500
        self._version = 0
        self._lock = threading.Lock()

    def put(self, path: str, each: Object) -> Object:
        """Store an object as somebody else made it."""
        self._version += 1
        before = self.objects.get(path)
        namespace, name = _identity(path)
        metadata = {"uid": str(uuid.uuid4()), "creationTimestamp": "2027-01-15T08:00:00Z", **each.get("metadata", {})}
        metadata |= {"name": name, "resourceVersion": str(self._version)}
        if namespace:
            metadata["namespace"] = namespace
        if "spec" in each:
            changed = before is None or before.get("spec") != each["spec"]
            metadata["generation"] = (before["metadata"].get("generation", 0) if before else 0) + changed
        self.objects[path] = {**each, "metadata": metadata}
        return self.objects[path]

    def writes(self, *methods: str) -> list[str]:
        """Paths of the writing requests so far, in order."""
        wanted = methods or ("POST", "PUT", "PATCH", "DELETE")
        return [path for method, path, _ in self.requests if method in wanted]

    def answer(self, method: str, target: str, headers: Object, body: Object | None) -> tuple[int, Object]:
        """One request."""
        with self._lock:
            url = urllib.parse.urlsplit(target)
            query = dict(urllib.parse.parse_qsl(url.query))
            self.requests.append((method, url.path, body))
            for part, (status, message) in self.failures.items():
                if part in f"{method} {url.path}":
                    return status, {"kind": "Status", "message": message}
            if method == "GET":
                return self._get(url.path, query, headers)
            if self.ending and method in ("POST", "PATCH") and url.path not in self.objects:
                cause = {"reason": "NamespaceTerminating", "message": "namespace ns is being terminated"}
                return 403, {"message": f"{url.path} is forbidden", "details": {"causes": [cause]}}
            if method == "PATCH":
                return self._patch(url.path, query, headers, body or {})
            if method == "POST":
                path = f"{url.path}/{(body or {})['metadata']['name']}"
                if path in self.objects:
                    return 409, {"message": f"{path} already exists"}
                return 201, self.put(path, body or {})
            if method == "PUT":
                return self._replace(url.path, body or {})
            return self._delete(url.path, body or {})

    def _get(self, path: str, query: dict[str, str], headers: Object) -> tuple[int, Object]:
        if path in self.objects:
            return 200, self.objects[path]
        plural = path.rpartition("/")[2]
        if plural not in SERVED:
            kinds = [
                kind for kind in kube.OPTIONAL if path == f"/apis/{kind.api_version}" and kind.plural not in self.absent
            ]
            return (
                (200, {"resources": [{"kind": kind.name} for kind in kinds]})
                if kinds
                else (404, {"message": "not found"})
            )
        if plural in self.absent:
            return 404, {"message": "404 page not found"}
        found = [
            each for at, each in sorted(self.objects.items()) if _is_in(at, path, plural) and _matches(each, query)
        ]
        start = int(query.get("continue", 0))
        shown = found[start : start + self.page]
        if "PartialObjectMetadataList" in headers.get("Accept", ""):
            shown = [{"metadata": each["metadata"]} for each in shown]
        more = str(start + self.page) if start + self.page < len(found) else ""
        return 200, {"kind": "List", "metadata": {"continue": more} if more else {}, "items": shown}

    def _patch(self, path: str, query: dict[str, str], headers: Object, body: Object) -> tuple[int, Object]:
        target, _, sub = path.partition("/status")
        before = self.objects.get(target)
        if before is None and (sub or path.endswith("/status") or "apply" not in headers["Content-Type"]):
            return 404, {"message": f"{target} not found"}
        if path.endswith("/status"):
            return 200, self.put(target, {**(before or {}), "status": body["status"]})
        if "apply" not in headers["Content-Type"]:
            return 200, self.put(target, _merge(copy.deepcopy(before or {}), body))
        manager = query["fieldManager"]
        managed = {**(before or {}).get("x-managed", {}), manager: body}
        whole: Object = {"status": (before or {}).get("status", {})}
        for each in managed.values():  # a later manager wins, which is what force means
            whole = _merge(whole, copy.deepcopy(each))
        if before:
            whole["metadata"]["uid"] = before["metadata"]["uid"]
        return (200 if before else 201), self.put(target, {**whole, "x-managed": managed})

    def _replace(self, path: str, body: Object) -> tuple[int, Object]:
        before = self.objects.get(path)
        if before is None:
            return 404, {"message": "not found"}
        if body["metadata"].get("resourceVersion") != before["metadata"]["resourceVersion"]:
            return 409, {"message": "the object has been modified"}
        return 200, self.put(path, body)

    def _delete(self, path: str, body: Object) -> tuple[int, Object]:
        before = self.objects.get(path)
        if before is None:
            return 404, {"message": "not found"}
        if body.get("preconditions", {}).get("uid") not in (None, before["metadata"]["uid"]):
            return 409, {"message": "uid differs"}
        return 200, self.objects.pop(path)


def _identity(path: str) -> tuple[str, str]:
    parts = path.strip("/").split("/")
    namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
    return namespace, parts[-1]


def _is_in(at: str, path: str, plural: str) -> bool:
    folder = at.rpartition("/")[0]
    return folder == path or (
        "/namespaces/" not in path
        and folder.endswith(f"/{plural}")
        and folder.startswith(path.removesuffix(f"/{plural}"))
    )


def _matches(each: Object, query: dict[str, str]) -> bool:
    wanted = [pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair]
    return all(each["metadata"].get("labels", {}).get(name) == value for name, value in wanted)


def _merge(before: Object, patch: Object) -> Object:
    for name, value in patch.items():
        if value is None:
            before.pop(name, None)
        elif isinstance(value, dict):
            inner = before.get(name)
            before[name] = _merge(inner if isinstance(inner, dict) else {}, value)
        else:
            before[name] = value
    return before


@contextmanager
def serve(api: FakeApi) -> Iterator[str]:
    """Serve on a free loopback port; gives the base address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # one packet per answer: two would wait for a delayed acknowledgement

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = api.answer(self.command, self.path, dict(self.headers), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815 (the library's names)

        def log_message(self, *args: Any) -> None:
            pass

    with loopback.serving(Handler, daemon_threads=True) as address:
        yield address


@contextmanager
def connected(api: FakeApi) -> Iterator[kube.Kube]:
    """The operator's own client, connected to the server."""
    with serve(api) as address:
        settings = client.Configuration(host=address)
        settings.retries = False
        inner = client.ApiClient(settings)
        made = kube.Kube(inner, timeout_seconds=5.0)
        try:
            yield made
        finally:
            made.close()
            inner.rest_client.pool_manager.clear()
