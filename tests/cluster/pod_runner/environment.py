"""A container's environment variables: values, field, ConfigMap and Secret references, and `$(NAME)` in values and arguments."""

import base64
import collections.abc
import re

from .api import Cache, Object

REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)")
SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """Something that the pod refers to does not exist; the container waits with reason CreateContainerConfigError."""


class Sources:
    """The ConfigMaps and Secrets that pods refer to, as bytes by key."""

    def __init__(self, config_maps: Cache, secrets: Cache) -> None:
        self._config_maps = config_maps
        self._secrets = secrets

    def config_map(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """Return the content of a ConfigMap, or None when it does not exist."""
        found = self._config_maps.get(namespace, name)
        if found is None:
            return None
        text = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return text | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}

    def secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """Return the content of a Secret, or None when it does not exist."""
        found = self._secrets.get(namespace, name)
        return (
            None
            if found is None
            else {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        )


def field(pod: Object, path: str, *, pod_ip: str, host_ip: str) -> str:
    """Return what a fieldRef of the downward API means. Raises ConfigError for a path that it does not know."""
    meta = pod["metadata"]
    if match := SUBSCRIPT.fullmatch(path):
        return str((meta.get(match[1]) or {}).get(match[2], ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        entries = meta.get(path.rpartition(".")[2]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    known = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
    }
    if path not in known:
        raise ConfigError(f"fieldPath {path} is not supported")
    return str(known[path])


def resource_field(container: Object, path: str) -> str:
    """Return what a resourceFieldRef such as `limits.nvidia.com/gpu` means; "0" for what is not set."""
    kind, _, name = path.partition(".")
    return str((container.get("resources", {}).get(kind) or {}).get(name, "0"))


def expand(text: str, values: collections.abc.Mapping[str, str]) -> str:
    """Fill in `$(NAME)`; an unknown name stays as written, `$$` is one dollar sign."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return REFERENCE.sub(one, text)


class Environment:
    """Resolves the variables of one pod's containers."""

    def __init__(self, pod: Object, sources: Sources, *, pod_ip: str, host_ip: str) -> None:
        self._pod = pod
        self._sources = sources
        self._pod_ip = pod_ip
        self._host_ip = host_ip

    def of(self, container: Object, given: dict[str, str]) -> dict[str, str]:
        """Return `given` plus the container's variables. Raises ConfigError."""
        values = dict(given)
        for source in container.get("envFrom") or []:
            values |= self._from(source)
        for entry in container.get("env") or []:
            found = self._value(container, entry, values)
            if found is not None:
                values[entry["name"]] = found
        return values

    def _from(self, source: Object) -> dict[str, str]:
        prefix = source.get("prefix", "")
        for kind in ("configMapRef", "secretRef"):
            if kind in source:
                content = self._content(kind, source[kind])
                return {prefix + key: value.decode() for key, value in content.items()}
        return {}

    def _value(self, container: Object, entry: Object, so_far: dict[str, str]) -> str | None:
        origin = entry.get("valueFrom")
        if origin is None:
            return expand(entry.get("value", ""), so_far)
        if "fieldRef" in origin:
            return field(self._pod, origin["fieldRef"]["fieldPath"], pod_ip=self._pod_ip, host_ip=self._host_ip)
        if "resourceFieldRef" in origin:
            return resource_field(container, origin["resourceFieldRef"]["resource"])
        kind = "configMapKeyRef" if "configMapKeyRef" in origin else "secretKeyRef"
        reference = origin[kind]
        value = self._content(kind, reference).get(reference["key"])
        if value is None and not reference.get("optional"):
            raise ConfigError(
                f"couldn't find key {reference['key']} in {kind.removesuffix('KeyRef')} {reference.get('name')}"
            )
        return None if value is None else value.decode()

    def _content(self, kind: str, reference: Object) -> dict[str, bytes]:
        namespace, name = self._pod["metadata"]["namespace"], reference.get("name", "")
        read = self._sources.config_map if kind.startswith("configMap") else self._sources.secret
        content = read(namespace, name)
        if content is None:
            if not reference.get("optional"):
                raise ConfigError(f"{kind.removesuffix('Ref').removesuffix('Key')} {namespace}/{name} not found")
            return {}
        return content
