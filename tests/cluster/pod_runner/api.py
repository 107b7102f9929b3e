"""The few calls to the API server that the pod runner needs: JSON requests, and a cache kept by list and watch."""

import asyncio
import collections.abc
import json
import logging
import ssl
import typing

import aiohttp

log = logging.getLogger(__name__)

Object = dict[str, typing.Any]
Key = tuple[str, str]  # namespace ("" for cluster-scoped kinds), name
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
RETRY_SECONDS = 0.5
GONE = 410
NOT_FOUND = 404
CONFLICT = 409


class ApiError(Exception):
    """The API server's refusal: HTTP status and its own message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def key(obj: Object) -> Key:
    """Return namespace and name of an object."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


class Api:
    """One authenticated connection pool to the API server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    @classmethod
    def connect(cls, url: str, *, token: str, ca_certificate: str) -> "Api":
        """Return a client; `close` it after use."""
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca_certificate), limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "pod-runner"}
        return cls(aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers), url)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        **query: str,
    ) -> Object:
        """Send one request and return the answer. Raises ApiError for 4xx and 5xx, aiohttp.ClientError for the rest."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        timeout = aiohttp.ClientTimeout(total=15)
        async with self._session.request(
            method, self._url + path, data=data, headers=headers, params=query, timeout=timeout
        ) as answer:
            content: Object = await answer.json(content_type=None)
            if answer.status >= 400:
                raise ApiError(answer.status, str(content.get("message", content)))
            return content

    async def events(self, path: str, **query: str) -> collections.abc.AsyncIterator[tuple[str, Object]]:
        """Yield (type, object) of one watch until the server ends it. Raises ApiError when the position is too old."""
        async with self._session.get(self._url + path, params={"watch": "1", **query}) as answer:
            if answer.status >= 400:
                raise ApiError(answer.status, await answer.text())
            async for line in _lines(answer.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code", 500)), str(event["object"].get("message")))
                yield event["type"], event["object"]


async def _lines(stream: aiohttp.StreamReader) -> collections.abc.AsyncIterator[bytes]:
    """Split by newline without aiohttp's limit on the length of a line (a ConfigMap may have 1 MiB)."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


class Cache:
    """Every object of one kind, kept current. `changed` is called with ADDED, MODIFIED or DELETED and the object."""

    def __init__(
        self, api: Api, path: str, changed: collections.abc.Callable[[str, Object], None] | None = None, **query: str
    ) -> None:
        self.objects: dict[Key, Object] = {}
        self.filled = asyncio.Event()
        self._api = api
        self._path = path
        self._changed = changed or (lambda _kind, _obj: None)
        self._query = query

    def get(self, namespace: str, name: str) -> Object | None:
        """Return one object, or None."""
        return self.objects.get((namespace, name))

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self._once()
            except ApiError as error:
                if error.status != GONE:
                    log.warning("watch of %s: %s", self._path, error)
                    await asyncio.sleep(RETRY_SECONDS)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("watch of %s: %r", self._path, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _once(self) -> None:
        listed = await self._api.call("GET", self._path, None, **self._query)
        present = {key(item): item for item in listed["items"]}
        for old in [obj for where, obj in self.objects.items() if where not in present]:
            self._apply("DELETED", old)
        for item in present.values():
            self._apply("ADDED", item)
        self.filled.set()
        version = listed["metadata"]["resourceVersion"]
        query = {**self._query, "resourceVersion": version, "allowWatchBookmarks": "true"}
        async for kind, obj in self._api.events(self._path, **query):
            if kind != "BOOKMARK":
                self._apply(kind, obj)

    def _apply(self, kind: str, obj: Object) -> None:
        where = key(obj)
        old = self.objects.get(where)
        if kind == "DELETED":
            self.objects.pop(where, None)
        else:
            self.objects[where] = obj
            if old is not None and old["metadata"]["uid"] != obj["metadata"]["uid"]:
                self._changed("DELETED", old)  # deleted and made anew while the watch was away
                old = None
            kind = "ADDED" if old is None else "MODIFIED"
            if old is not None and old["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]:
                return
        self._changed(kind, obj)
