"""What stands in for container images: a table from image names to local programs.

A container's `args` follow the image's `entrypoint`; a container's `command` replaces it, as in Kubernetes. The first words of a
`command` are looked up in `programs`, so that `command: [vllm, serve, ...]` runs the stand-in too; other commands (`sh`, `python`) run
as they are, from the machine's own PATH.
"""

import dataclasses
import fnmatch
import typing

from .api import Object


@dataclasses.dataclass(frozen=True)
class Image:
    """One rule: images that match the glob `pattern` (tag included or not) run `entrypoint`, with `env` added."""

    pattern: str
    entrypoint: tuple[str, ...] = ()
    programs: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    env: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, typing.Any]:
        """Return the form that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, typing.Any]) -> "Image":
        """Return the rule that `to_json` wrote."""
        programs = {words: tuple(argv) for words, argv in data["programs"].items()}
        return cls(data["pattern"], tuple(data["entrypoint"]), programs, data["env"])

    def argv(self, command: list[str], args: list[str]) -> list[str]:
        """Return the process' arguments for a container's command and args."""
        if not command:
            return [*self.entrypoint, *args]
        for words in sorted(self.programs, key=len, reverse=True):
            parts = words.split()
            if command[: len(parts)] == parts:
                return [*self.programs[words], *command[len(parts) :], *args]
        return [*command, *args]


def find(table: list[Image], name: str) -> Image | None:
    """Return the first rule whose pattern matches the image with or without its tag or digest."""
    bare = name.partition("@")[0]
    head, colon, tail = bare.rpartition(":")
    untagged = head if colon and "/" not in tail else bare
    return next((rule for rule in table if any(fnmatch.fnmatch(n, rule.pattern) for n in (name, untagged))), None)


def argv_of(container: Object, rule: Image) -> list[str]:
    """Return the arguments that a container runs, before `$(NAME)` references are filled in."""
    return rule.argv(list(container.get("command") or []), list(container.get("args") or []))
