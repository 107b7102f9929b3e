"""Local mode as a process of its own, with small manifests that start at once."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import psutil

TIER = """\
apiVersion: inference.trimtab.dev/v1alpha1
kind: InferenceTier
metadata: {{name: {name}}}
spec:
  model: {{name: {name}-8b, quality: "{quality}"}}
  slo: {{itl: {{p95: 200ms}}}}
  scaling: {{scaleDownWindow: 30s}}
  drain: {{timeout: 5s}}
  variants:
  - name: l4
    accelerator: {{type: L4}}
    price: {{usdPerHour: "{usd}"}}
    replicas: {{min: 1, max: 4}}
    profile: {{itlBase: 5ms, itlPerSequence: 0.5ms, prefillTokensPerSecond: 50000, kvTokens: 400000, maxSequences: 64, startup: 5s}}
"""
POLICY = """\
apiVersion: inference.trimtab.dev/v1alpha1
kind: RoutingPolicy
metadata: {name: chat}
spec:
  tiers: [{ref: small}, {ref: large}]
  classes:
  - {name: complex, match: {complexity: {min: "0.5"}}, allow: [large]}
  - {name: simple}
  objective: {qualityRetention: "0.8"}
  slo: {e2e: {p95: 30s}, attainment: "0.5"}
"""


def manifests(folder: pathlib.Path) -> pathlib.Path:
    """Two tiers and a policy."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.yaml").write_text(TIER.format(name="small", quality="0.6", usd="0.5"))
    (folder / "large.yaml").write_text(TIER.format(name="large", quality="0.8", usd="4"))
    (folder / "policy.yaml").write_text(POLICY)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*arguments: str, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
    """A command from start to end."""
    return subprocess.run(
        [sys.executable, "-m", "trimtab_cli", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


class Command:
    """A command that runs: what it printed, its children, its end."""

    def __init__(self, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
        self.process, self.log = process, log

    @property
    def printed(self) -> str:
        return self.log.read_text()

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def until_printed(self, text: str, seconds: float = 60.0) -> None:
        self.until(lambda: text in self.printed, seconds, f"{text!r} in its output")

    def until_answered(self, url: str, seconds: float = 60.0) -> None:
        self.until(lambda: answers(url), seconds, f"an answer from {url}")

    def until(self, holds: object, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():  # type: ignore[operator]
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.printed}"
            assert time.monotonic() < deadline, f"not in time: {what}: {self.printed}"
            time.sleep(0.1)

    def stop(self, number: signal.Signals, seconds: float = 15.0) -> int:
        """Signal it and wait; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def running(log: pathlib.Path, *arguments: str) -> Iterator[Command]:
    """A command in the background; killed at the end if it still runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "trimtab_cli", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield Command(process, log)
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
