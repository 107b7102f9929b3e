"""Commands that run until they are stopped: Ctrl-C ends them once, cleanly, with the shell's exit code for it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from trimtab_core.api import v1alpha1
from trimtab_operator.local import failures, store

from trimtab_cli import failure, manifests

_SIGNALLED = 128
"""Shells add this to the signal's number."""


def until_stopped(main: Coroutine[Any, Any, int], say: Callable[[str], None]) -> int:
    """Run a coroutine to its end or to SIGINT or SIGTERM, which cancels it; returns its exit code or the signal's.

    The coroutine cleans up in its ``finally`` parts; a second signal changes nothing, as that takes seconds at most.
    """
    return asyncio.run(_guarded(main, say))


async def _guarded(main: Coroutine[Any, Any, int], say: Callable[[str], None]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not received:
            say("stopping: ending all processes")
            task.cancel()
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        return _SIGNALLED + received[0]


@contextlib.contextmanager
def folder(*, keep: bool) -> Iterator[Path]:
    """A folder for the configs and logs of one run, removed at its end unless it is to be kept."""
    path = Path(tempfile.mkdtemp(prefix="trimtab-"))
    try:
        yield path
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """What local mode can't do becomes one line; with ``debug`` a traceback."""
    try:
        yield
    except failures.LocalError as error:
        if debug:
            raise
        raise failure.Usage(str(error)) from error


def objects_of(paths: tuple[Path, ...], *, debug: bool) -> list[store.Object]:
    """The objects of manifests that are all right and that something can be sent to.

    Raises:
        failure.Usage: with the findings, or saying what is missing.
    """
    try:
        bundle = manifests.load(paths)
    except manifests.ManifestError as error:
        if debug:
            raise
        raise failure.Usage(str(error)) from error
    where = ", ".join(str(path) for path in paths)
    if bundle.findings:
        told = "\n".join(finding.text() for finding in bundle.findings)
        raise failure.Usage(f"the manifests in {where} can't be run:\n{told}")
    if not bundle.policies:
        raise failure.Usage(f"{where} has no {v1alpha1.RoutingPolicy.__name__}: nothing would listen; add one")
    return [*bundle.tiers, *bundle.policies, *bundle.caches]
