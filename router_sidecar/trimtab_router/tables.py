"""The table file: looked at twice a second, taken over whole or not at all; the last good one stays in force.

Looking beats watching: a ConfigMap volume is swapped by renaming a symlink two levels up, which file
notifications of the file itself miss. ``stat`` follows links, so a swap shows as another inode.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from trimtab_core import telemetry
from trimtab_core.routing import table

from trimtab_router import compiled, file_marks, metrics

log = logging.getLogger("trimtab.router")


class TableFile:
    """One table file, and the table that came of it.

    Args:
        path: of the file; need not exist yet.
        compiler: makes the hot path's form.
        registry: for the counts of refused tables.
        in_force: called with each table that was taken over.
    """

    def __init__(
        self,
        path: Path,
        compiler: compiled.Compiler,
        *,
        registry: metrics.Registry,
        in_force: Callable[[compiled.Table], None],
    ) -> None:
        self._path = path
        self._compiler = compiler
        self._registry = registry
        self._in_force = in_force
        self._seen: file_marks.Mark | None = None
        self._complained = ""
        self._refused: file_marks.Mark | None = None
        self.current: compiled.Table | None = None

    async def watch(self, poll_seconds: float) -> None:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(poll_seconds)

    def look(self) -> bool:
        """Take over the file's table if it is another one; returns whether a table came into force."""
        try:
            mark = file_marks.of(self._path)
            if mark in (self._seen, self._refused):
                return False
            content = self._path.read_bytes()
        except OSError as error:
            self._complain(f"table {self._path}: {error.strerror}; waiting for it")
            return False
        self._refused = mark
        try:
            self._take(table.decode(content))
        except table.TableError as error:
            self._refuse("invalid", str(error))
            return False
        except Exception as error:  # an outermost loop: whatever it is, the last good table stays
            log.exception("a table could not be compiled")
            self._refuse("internal", repr(error))
            return False
        # Only now: a table that could not be used must not count as seen.
        self._seen, self._refused, self._complained = mark, None, ""
        return True

    def _take(self, data: table.RoutingTable) -> None:
        current = self.current
        if current is not None:
            if data.policy != current.data.policy:
                raise table.TableError(f"policy {data.policy!r} is not this router's {current.data.policy!r}")
            newest = (current.data.epoch, current.data.revision)
            if (data.epoch, data.revision) < newest:
                raise table.TableError(f"version {data.version} is older than {current.version}, which is in force")
            if data.content_hash == current.data.content_hash and (data.epoch, data.revision) == newest:
                return
        self.current = self._compiler.compile(data)
        log.info("table %s of %s is in force", data.version, data.policy)
        self._in_force(self.current)

    def _refuse(self, reason: str, message: str) -> None:
        policy = self.current.data.policy if self.current is not None else ""
        self._registry.counter(telemetry.TABLE_REJECTED, policy, reason).add(1)
        kept = f"; {self.current.version} stays in force" if self.current is not None else ""
        log.error("table %s refused: %s%s", self._path, message, kept)

    def _complain(self, message: str) -> None:
        if message != self._complained:
            self._complained = message
            log.warning("%s", message)
