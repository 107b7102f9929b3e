"""Pod volumes as folders: emptyDir, configMap, secret, downwardAPI, projected (service account tokens included) and hostPath.

A volume with content is written as the kubelet writes it: files are links through `..data`, which is a link to a folder with a new name
for each version, so that a reader sees either all of the old content or all of the new. A changed ConfigMap appears at once, where a
kubelet takes up to a minute.
"""

import collections.abc
import dataclasses
import itertools
import pathlib
import shutil

from . import environment
from .api import Object

TokenSource = collections.abc.Callable[
    [str, int], collections.abc.Awaitable[str]
]  # audience ("" for the API server), seconds -> token
Content = dict[str, bytes]  # path inside the volume -> content
_versions = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Context:
    """What the volumes of one pod are made from."""

    pod: Object
    sources: environment.Sources
    pod_ip: str
    host_ip: str
    token: TokenSource


class Volumes:
    """The volumes of one pod below `folder`."""

    def __init__(self, folder: pathlib.Path, context: Context) -> None:
        self._folder = folder
        self._context = context
        self._written: dict[str, Content] = {}
        self._tokens: dict[tuple[str, int], str] = {}

    async def prepare(self) -> None:
        """Make every volume. Raises ConfigError when something that is not optional does not exist (yet)."""
        for volume in self._context.pod["spec"].get("volumes") or []:
            path = self._folder / volume["name"]
            if "hostPath" in volume:
                continue
            path.mkdir(parents=True, exist_ok=True)
            if "emptyDir" not in volume:
                await self._write(volume)

    async def refresh(self, pod: Object) -> None:
        """Write what changed, the pod's own labels included. A source that has gone leaves the old content, as the kubelet does."""
        self._context = dataclasses.replace(self._context, pod=pod)
        for volume in self._context.pod["spec"].get("volumes") or []:
            if volume["name"] in self._written:
                try:
                    await self._write(volume)
                except environment.ConfigError:
                    continue

    def path(self, name: str) -> pathlib.Path:
        """Return the folder to mount for a volume. Raises ConfigError when the pod has no such volume."""
        for volume in self._context.pod["spec"].get("volumes") or []:
            if volume["name"] == name:
                return pathlib.Path(volume["hostPath"]["path"]) if "hostPath" in volume else self._folder / name
        raise environment.ConfigError(f"volume {name} does not exist")

    def remove(self) -> None:
        """Remove all content."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _write(self, volume: Object) -> None:
        content = await self._content(volume)
        if self._written.get(volume["name"]) != content:
            write(self._folder / volume["name"], content)
            self._written[volume["name"]] = content

    async def _content(self, volume: Object) -> Content:
        if "projected" in volume:
            merged: Content = {}
            for source in volume["projected"].get("sources") or []:
                merged |= await self._projection(source)
            return merged
        if "secret" in volume:
            renamed = {**volume["secret"], "name": volume["secret"]["secretName"]}
            return await self._projection({"secret": renamed})
        if "configMap" in volume or "downwardAPI" in volume:
            return await self._projection(volume)
        kind = next((key for key in volume if key != "name"), "nothing")
        raise environment.ConfigError(f"volume {volume['name']}: {kind} is not supported by the pod runner")

    async def _projection(self, source: Object) -> Content:
        context = self._context
        if "serviceAccountToken" in source:
            wanted = source["serviceAccountToken"]
            return {wanted["path"]: (await self._token(wanted)).encode()}
        if "downwardAPI" in source:
            return {item["path"]: self._downward(item).encode() for item in source["downwardAPI"].get("items") or []}
        namespace = context.pod["metadata"]["namespace"]
        kind = "configMap" if "configMap" in source else "secret"
        read = context.sources.config_map if kind == "configMap" else context.sources.secret
        name = source[kind].get("name", "")
        found = read(namespace, name)
        if found is None and not source[kind].get("optional"):
            raise environment.ConfigError(f"{kind} {namespace}/{name} not found")
        return select(found or {}, source[kind])

    async def _token(self, wanted: Object) -> str:
        key = (wanted.get("audience", ""), int(wanted.get("expirationSeconds", 3600)))
        if key not in self._tokens:
            self._tokens[key] = await self._context.token(*key)
        return self._tokens[key]

    def _downward(self, item: Object) -> str:
        context = self._context
        if "fieldRef" in item:
            path = item["fieldRef"]["fieldPath"]
            return environment.field(context.pod, path, pod_ip=context.pod_ip, host_ip=context.host_ip)
        reference = item["resourceFieldRef"]
        every = context.pod["spec"]["containers"]
        container = next(c for c in every if c["name"] == reference.get("containerName", every[0]["name"]))
        return environment.resource_field(container, reference["resource"])


def select(content: Content, source: Object) -> Content:
    """Return the keys that `items` names, at their paths; everything when there are no items. Raises ConfigError."""
    items = source.get("items")
    if not items:
        return dict(content)
    chosen: Content = {}
    for item in items:
        if item["key"] in content:
            chosen[item["path"]] = content[item["key"]]
        elif not source.get("optional"):
            raise environment.ConfigError(f"references non-existent config key: {item['key']}")
    return chosen


def write(folder: pathlib.Path, content: Content) -> None:
    """Replace a volume's content in one step: readers see the old files or the new ones, never a mixture."""
    version = folder / f"..version_{next(_versions):06d}"
    for path, data in content.items():
        target = version / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    version.mkdir(exist_ok=True)
    pointer = folder / "..data"
    old = folder / pointer.readlink() if pointer.is_symlink() else None
    fresh = folder / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.replace(pointer)
    wanted = {path.partition("/")[0] for path in content}
    for name in wanted:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(pathlib.Path("..data") / name)
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
