"""What container images stand for on one machine: an engine becomes the simulated engine, the router runs as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trimtab_core.catalog import profiles
from trimtab_core.snapshot import CapacityProfile

from trimtab_operator.local import failures, ports, process_runner, store
from trimtab_operator.local.replica import Command
from trimtab_operator.local.workload import Workload

PROGRAM = (sys.executable, "-m", "trimtab_cli")
LONGEST_MODEL_LEN = 131_072
"""Prompt and answer that the simulated model takes, where its KV cache is as large as that."""
_SPARE_KV_TOKENS = 64
"""The cache is whole blocks, one of which is never used."""


class SimulatedEngine:
    """Runs ``trimtab engine-sim`` as the variant's profile says, with the arguments that were rendered for vLLM.

    Args:
        objects: where the tiers are, for the profiles.
        say: tells people that a profile is unknown.
        stream_interval: tokens in one event of a stream; more of them cost less of this machine's time.

    """

    def __init__(self, objects: store.Store, say: Callable[[str], None], *, stream_interval: int = 1) -> None:
        self._objects = objects
        self._stream_interval = stream_interval
        self._say = say
        self._taken: set[int] = set()
        self._told: set[str] = set()

    def command(self, container: Workload) -> Command:
        """How to run one more engine. Raises CannotRunError for a tier or variant that is gone."""
        port = ports.free(self._taken)
        profile = self._profile(container)
        words = engine_flags(profile) if profile else []
        words += ["--stream-interval", str(self._stream_interval)]
        own = replace_flags(container.args, {"--host": ports.LOOPBACK, "--port": str(port)})
        return Command((*PROGRAM, "engine-sim", *words, *own), port, port, environment=container.environment)

    def _profile(self, container: Workload) -> CapacityProfile | None:
        """What the user wrote of the variant, else the catalogue's prior; never what was learned from itself."""
        key = container.variant
        assert key is not None
        for tier in self._objects.tiers():
            if f"{tier.metadata.namespace}/{tier.metadata.name}" == key.tier:
                for variant in tier.spec.variants:
                    if variant.name == key.variant:
                        found = profiles.resolve(tier.spec.model.name, variant, None)
                        if found is None:
                            self._tell_once(
                                f"{key.tier} {key.variant}: no profile is known; it runs as a small default"
                            )
                        return found
        raise failures.CannotRunError(f"{container.name}: tier {key.tier} has no variant {key.variant}")

    def _tell_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._say(message)


class LocalRouter:
    """Runs ``trimtab router`` on fixed ports that clients can be told: the first policy gets ``first_port``, and so on.

    Args:
        folder: where ConfigMaps are files.
        first_port: for the first policy's clients.

    """

    def __init__(self, folder: Path, first_port: int) -> None:
        self._folder = folder
        self._first_port = first_port
        self._ports: dict[str, int] = {}
        self._taken: set[int] = set()

    def command(self, container: Workload) -> Command:
        """How to run a policy's router. Raises PortBusyError when somebody else sits on its port."""
        port = self._ports.setdefault(container.policy, self._first_port + len(self._ports))
        ports.require(port)
        self._taken.add(port)
        admin_port = ports.free(self._taken)
        words = [self._localised(word, container) for word in container.args]
        given = {
            "--host": ports.LOOPBACK,
            "--port": str(port),
            "--admin-host": ports.LOOPBACK,
            "--admin-port": str(admin_port),
        }
        own = replace_flags(words[words[:1] == ["router"] :], given)
        return Command(
            (*PROGRAM, "router", *own),
            port,
            admin_port,
            health_path="/readyz",
            environment=container.environment,
        )

    def _localised(self, word: str, container: Workload) -> str:
        """An argument whose path lies in a mounted ConfigMap, with the path that it has here."""
        for mounted, config in container.configs.items():
            if mounted in word:
                here = process_runner.config_folder(self._folder, container.namespace, config)
                return word.replace(mounted, str(here))
        return word


def engine_flags(profile: CapacityProfile) -> list[str]:
    """The simulated engine's flags for a profile."""
    flags = {
        "--max-num-seqs": profile.max_sequences,
        "--max-model-len": max(1, min(profile.kv_tokens - _SPARE_KV_TOKENS, LONGEST_MODEL_LEN)),
        "--sim-itl-base-ms": round(profile.itl_base_seconds * 1000, 6),
        "--sim-itl-per-seq-ms": round(profile.itl_per_sequence_seconds * 1000, 6),
        "--sim-prefill-tokens-per-second": round(profile.prefill_tokens_per_second, 3),
        "--sim-kv-tokens": profile.kv_tokens,
        "--sim-startup-seconds": round(profile.startup_seconds, 3),
    }
    return [word for flag, value in flags.items() for word in (flag, str(value))]


def replace_flags(words: Sequence[str], given: Mapping[str, str]) -> list[str]:
    """The words with these flags set: where they stand, their value is replaced; the others come at the end."""
    result, left, skip = [], dict(given), False
    for word in words:
        if skip:
            skip = False
            continue
        name, equals, _ = word.partition("=")
        if name in given:
            skip = not equals
            left.pop(name, None)
            result += [name, given[name]]
        else:
            result.append(word)
    return result + [word for pair in left.items() for word in pair]
