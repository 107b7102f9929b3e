"""Coverage-guided fuzzing of the router's parsers with atheris, bounded in time.

    python scripts/fuzz.py [requests|answers|streams|bodies ...] [--seconds N]

The properties are those of tests/router/test_fuzz.py: nothing raises, cuts don't matter, everything ends once. atheris
is no dependency; the first run installs it into ``.cache/fuzz``. A finding is written there and named at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import venv
from collections.abc import Callable
from typing import Protocol

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "fuzz"
PACKAGE = "atheris==3.1.0"
_CUTS = 4


class Provider(Protocol):
    """What atheris hands over: bytes that are drawn from."""

    def ConsumeIntInRange(self, least: int, most: int) -> int:  # noqa: N802 (atheris' name)
        """A number."""

    def ConsumeBytes(self, count: int) -> bytes:  # noqa: N802 (atheris' name)
        """Bytes."""

    def remaining_bytes(self) -> int:
        """How many are left."""


def install() -> pathlib.Path:
    """Where atheris is, installed if need be."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = FOLDER / "lib" / version / "site-packages"
    if not (found / "atheris").exists():
        venv.create(FOLDER, with_pip=True)
        done = subprocess.run([str(FOLDER / "bin/python"), "-m", "pip", "install", "-q", PACKAGE], check=False)
        if done.returncode:
            raise SystemExit(f"fuzz: {PACKAGE} can't be installed; pip says why above")
    return found


def targets() -> dict[str, Callable[[Provider], None]]:
    """What is fuzzed: each takes a data provider."""
    sys.path.insert(0, str(ROOT))
    from trimtab_router import errors, openai, streams

    from tests.router import test_fuzz

    def cut(data: Provider) -> tuple[bytes, list[bytes]]:
        at = [data.ConsumeIntInRange(0, 400) for _ in range(_CUTS)]
        body = data.ConsumeBytes(data.remaining_bytes())
        return body, test_fuzz.cut(body, at)

    def requests(data: Provider) -> None:
        whole, reads = cut(data)
        assert test_fuzz.requests_in([whole]) == test_fuzz.requests_in(reads)

    def answers(data: Provider) -> None:
        whole, reads = cut(data)
        assert test_fuzz.answer_in([whole])[0] == test_fuzz.answer_in(reads)[0]

    def events(data: Provider) -> None:
        whole, reads = cut(data)
        for kind in (streams.ChoiceRelay, streams.ResponseRelay, streams.EventRelay):
            once, again = test_fuzz.verdict(kind, [whole]), test_fuzz.verdict(kind, reads)
            assert once[1:-1] == again[1:-1], (kind, once, again)

    def bodies(data: Provider) -> None:
        body = data.ConsumeBytes(data.remaining_bytes())
        with contextlib.suppress(errors.Malformed):
            openai.rewrite(body, openai.read(body), openai.Wanted("small", usage=True))
        openai.last_text(body)

    return {"requests": requests, "answers": answers, "streams": events, "bodies": bodies}


def fuzz(name: str, seconds: int) -> None:
    """Run one target in this process; atheris ends it, with 0 if nothing was found."""
    import atheris  # type: ignore[import-untyped,unused-ignore]  # installed for this alone

    with atheris.instrument_imports(include=["trimtab_router"]):
        chosen = targets()[name]
        from tests.router import test_fuzz
    corpus = FOLDER / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = {"requests": test_fuzz.SEEDS, "answers": test_fuzz.ANSWERS, "streams": test_fuzz.ALPHABET}
    for number, seed in enumerate(seeds.get(name, [b'{"model":"auto","stream":true}'])):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-max_len=2048", f"-artifact_prefix={FOLDER}/{name}-", "-verbosity=0"]
    atheris.Setup(
        [name, *options, "-print_final_stats=1", str(corpus)], lambda data: chosen(atheris.FuzzedDataProvider(data))
    )
    atheris.Fuzz()


def main() -> int:
    """Fuzz each target in a process of its own; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="requests, answers, streams, bodies (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each (default 60)")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is not None and len(options.names) == 1:
        fuzz(options.names[0], options.seconds)
    path = os.pathsep.join([str(install()), os.environ.get("PYTHONPATH", "")])
    found = []
    for name in options.names or ["requests", "answers", "streams", "bodies"]:
        command = [sys.executable, __file__, name, "--seconds", str(options.seconds)]
        if subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode:
            found.append(name)
    print(f"findings: {', '.join(found) or 'none'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
