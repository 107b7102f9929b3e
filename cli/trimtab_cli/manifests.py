"""Reads manifests from files and judges them: what every command that takes ``-f`` begins with."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab_core.api import documents, findings, schema_check, v1alpha1
from trimtab_core.api.checks import offline
from trimtab_core.api.checks.manifests import Entry, Manifests, Market

from trimtab_cli.validation import schema_rules

_SUFFIXES = (".yaml", ".yml", ".json")
STANDARD_INPUT = Path("-")
_KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_LARGEST_FILE_BYTES = 4 * 1024 * 1024


class ManifestError(Exception):
    """The files can't be read as manifests at all; the message names the file and the fix."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the files hold.

    Attributes:
        tiers, policies, caches: the objects that are right in themselves, in the order of reading.
        findings: everything that is wrong, by file and line; objects with wrong types or rules are left out above.
        files: the files that were read.
        skipped: objects of other kinds, which Trimtab does not judge.
    """

    tiers: tuple[v1alpha1.InferenceTier, ...]
    policies: tuple[v1alpha1.RoutingPolicy, ...]
    caches: tuple[v1alpha1.CachePolicy, ...]
    findings: tuple[findings.Finding, ...]
    files: tuple[Path, ...]
    skipped: int = 0


def load(paths: Sequence[Path], market: Market | None = None) -> Bundle:
    """Read files and the YAML files of folders, and check everything that can be checked offline.

    Args:
        paths: files, folders, or ``-`` for standard input; of a folder its own ``*.yaml``, ``*.yml`` and ``*.json``,
            kustomizations left out.
        market: where prices come from that the manifests don't state.

    Raises:
        ManifestError: if a path does not exist or can't be read, a file is not YAML, or no object of Trimtab is found.
    """
    files = tuple(_files(paths))
    read = [document for path in files for document in _documents(path)]
    ours = [document for document in read if schema_check.is_ours(document)]
    if not ours:
        where = ", ".join(str(path) for path in paths)
        raise ManifestError(f"no object of {v1alpha1.GROUP} in {where}: name a file or folder that has some")
    found: list[findings.Finding] = []
    manifests = _typed(ours, found)
    found += offline.check(manifests, market or Market())
    return Bundle(
        tiers=tuple(entry.object for entry in manifests.tiers),
        policies=tuple(entry.object for entry in manifests.policies),
        caches=tuple(entry.object for entry in manifests.caches),
        findings=tuple(sorted(found, key=lambda finding: (finding.file, finding.line, finding.field))),
        files=files,
        skipped=len(read) - len(ours),
    )


def _typed(ours: Iterable[documents.Document], found: list[findings.Finding]) -> Manifests:
    """The objects whose types and rules are right; what is wrong with the others goes to ``found``."""
    tiers: list[Entry[v1alpha1.InferenceTier]] = []
    policies: list[Entry[v1alpha1.RoutingPolicy]] = []
    caches: list[Entry[v1alpha1.CachePolicy]] = []
    bad: set[tuple[str, str, str]] = set()
    for document in ours:
        judged = schema_check.check(document)
        wrong = judged if isinstance(judged, list) else list(_broken_rules(document))
        found += wrong
        if wrong or isinstance(judged, list):
            # An object whose kind is misspelled may be meant as any of them.
            kinds = [document.kind] if document.kind in v1alpha1.KINDS else list(v1alpha1.KINDS)
            bad.update((kind, document.namespace, document.name) for kind in kinds)
        elif isinstance(judged, v1alpha1.InferenceTier):
            tiers.append(Entry(judged, document))
        elif isinstance(judged, v1alpha1.RoutingPolicy):
            policies.append(Entry(judged, document))
        else:
            caches.append(Entry(judged, document))
    return Manifests(tuple(tiers), tuple(policies), tuple(caches), frozenset(bad))


def _broken_rules(document: documents.Document) -> Iterator[findings.Finding]:
    """The rules of the schema that an object breaks; each message is "problem: fix"."""
    for violation in schema_rules.violations(document.kind, document.value):
        problem, _, fix = violation.message.partition(": ")
        yield document.finding("rule-broken", violation.path, problem, fix)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
            if not inside:
                raise ManifestError(f"{path}: no YAML files in this folder; name one that has some")
            chosen = [file for file in inside if file.name not in _KUSTOMIZATION]
        elif path == STANDARD_INPUT or path.exists():
            chosen = [path]
        else:
            raise ManifestError(f"{path}: no such file or folder")
        for file in chosen:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _documents(path: Path) -> list[documents.Document]:
    text, name = _text(path), "standard input" if path == STANDARD_INPUT else str(path)
    try:
        return documents.parse(text, name)
    except documents.NotYamlError as error:
        raise ManifestError(str(error)) from error


def _text(path: Path) -> str:
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.read()
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise ManifestError(f"{path}: larger than {_LARGEST_FILE_BYTES // 2**20} MiB; name a manifest")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not text in UTF-8; name a YAML file") from error
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror}") from error
