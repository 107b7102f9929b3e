"""YAML text → objects that know in which line each of their fields stands. Reads text, never files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from trimtab_core.api import findings

_MOST_NODES = 200_000
"""Far above any real manifest; stops documents that unfold themselves by aliases."""


class NotYamlError(ValueError):
    """The text can't be read as YAML objects; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file.

    Attributes:
        file: where it came from.
        value: the object.
        lines: path of a field → its line, from 1.
        repeated: fields that the file gives twice in one object, the second of which would win.
    """

    file: str
    value: dict[str, Any]
    lines: Mapping[findings.Path, int]
    repeated: tuple[findings.Path, ...] = ()

    @property
    def api_version(self) -> str:
        """The object's apiVersion, or empty."""
        return str(self.value.get("apiVersion") or "")

    @property
    def kind(self) -> str:
        """The object's kind, or empty."""
        return str(self.value.get("kind") or "")

    @property
    def name(self) -> str:
        """The object's name, or empty."""
        return str(findings.at(self.value, ("metadata", "name")) or "")

    @property
    def namespace(self) -> str:
        """The object's namespace, ``default`` where it names none."""
        return str(findings.at(self.value, ("metadata", "namespace")) or "default")

    def line(self, path: findings.Path) -> int:
        """The line of a field, or of the nearest field around it that the file has."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1

    def finding(self, code: str, path: findings.Path, problem: str, fix: str) -> findings.Finding:
        """A finding about one of its fields."""
        return findings.Finding(
            code=code,
            file=self.file,
            line=self.line(path),
            kind=self.kind or "?",
            name=self.name or "?",
            field=findings.spell_path(path) or "object",
            value=findings.spell_value(findings.at(self.value, path) if path else None),
            problem=problem,
            fix=fix,
        )


def parse(text: str, file: str) -> list[Document]:
    """All objects of a text: several documents, and the items of lists, each on its own.

    Raises:
        NotYamlError: if the text is not YAML, or a document is not an object.
    """
    try:
        return [part for document in _documents(text, file) for part in _unlisted(document)]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise NotYamlError(f"{where}: not YAML: {reason}") from error
    except RecursionError as error:
        raise NotYamlError(f"{file}: not a manifest: nested too deeply") from error


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(slots=True)
class _Reader:
    """Turns the nodes of one document into values and remembers their lines."""

    loader: _Loader
    file: str
    lines: dict[findings.Path, int] = field(default_factory=dict)
    repeated: list[findings.Path] = field(default_factory=list)
    nodes: int = 0

    def build(self, node: yaml.Node, path: findings.Path) -> Any:  # noqa: ANN401 (any YAML value)
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            raise NotYamlError(f"{self.file}: not a manifest: it unfolds to more than {_MOST_NODES} values")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.loader.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, path: findings.Path) -> dict[str, Any]:
        written = [key.value for key, _ in node.value]
        self.loader.flatten_mapping(node)  # resolves "<<"
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            inner = (*path, key)
            if key in result and written.count(key) > 1:
                self.repeated.append(inner)
            self.lines[inner] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, inner)
        return result


def _documents(text: str, file: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            reader = _Reader(loader, file)
            value = reader.build(node, ())
            if value is None:
                continue
            if not isinstance(value, dict):
                raise NotYamlError(f"{file}:{node.start_mark.line + 1}: not a Kubernetes object: {value!r:.40}")
            yield Document(file, value, reader.lines, tuple(reader.repeated))
    finally:
        loader.dispose()


def _unlisted(document: Document) -> Iterator[Document]:
    """The items of a List, or the document itself."""
    items = document.value.get("items")
    if not document.kind.endswith("List") or not isinstance(items, list):
        yield document
        return
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise NotYamlError(f"{document.file}:{document.line(('items', index))}: not a Kubernetes object")
        prefix: findings.Path = ("items", index)
        lines = {path[2:]: line for path, line in document.lines.items() if path[:2] == prefix}
        repeated = tuple(path[2:] for path in document.repeated if path[:2] == prefix)
        yield Document(document.file, item, lines, repeated)
