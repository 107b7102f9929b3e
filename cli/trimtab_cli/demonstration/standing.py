"""What ``trimtab up`` does while it is up: show the moment, follow changes of the manifests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from trimtab_core.api import v1alpha1
from trimtab_operator import reconcile
from trimtab_operator.local import session, store

from trimtab_cli import failure, running
from trimtab_cli.demonstration import live, picture
from trimtab_cli.pages import runs

WATCH_SECONDS = 1.0
SHOW_SECONDS = 0.5


class Latest:
    """The newest cycle and the newest decision."""

    def __init__(self, tell: live.View | None = None) -> None:
        self.cycle: reconcile.Outcome | None = None
        self.picture: picture.Picture | None = None
        self._tell = tell

    def saw(self, cycle: reconcile.Outcome) -> None:
        """Take a cycle; in a pipe its decisions about replicas are told one by one (weights move all the time)."""
        self.cycle = cycle
        if self._tell is not None and not self._tell.is_drawn:
            for one in cycle.decisions:
                if not runs.moves_weights(one):
                    self._tell.say(f"{one.action}: {one.reasons[0] if one.reasons else 'no reason given'}")

    def draw(self, runner: session.Session) -> picture.Picture | None:
        """The moment, with the replicas as they are now; None before the first cycle."""
        if self.cycle is None:
            return None
        decision = self.cycle.decisions[0] if self.cycle.decisions else self.picture and self.picture.decision
        self.picture = picture.take(self.cycle, runner.runner.lives(), decision or None)
        return self.picture


class Files:
    """The manifests on disk. Made before they are read, so that no change in between is missed."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._known = _stamps(paths)

    def changed(self) -> bool:
        """Whether any file is another one than at the last look."""
        before, self._known = self._known, _stamps(self.paths)
        return before != self._known


async def run(objects: Sequence[store.Object], files: Files, options: session.Options, view: live.View) -> int:
    """Run until cancelled."""
    latest = Latest(view)
    async with session.Session(objects, options, clock=time.time, say=view.say, decided=latest.saw) as running_:
        view.say(welcome(objects, options.port))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(running_.run())
            tasks.create_task(_follow(files, running_, view))
            tasks.create_task(_show(running_, latest, options, view))
    return 0


def welcome(objects: Sequence[store.Object], port: int) -> str:
    """Where clients call, with an example."""
    policies = policies_of(objects)
    lines = [
        f"{policy.metadata.name}: http://127.0.0.1:{port + place}/v1 answers to model {policy.spec.models[0]}"
        for place, policy in enumerate(policies)
    ]
    body = json.dumps({"model": policies[0].spec.models[0], "messages": [{"role": "user", "content": "Hello"}]})
    return "\n".join(
        [
            *lines,
            f"try: curl http://127.0.0.1:{port}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        ]
    )


def policies_of(objects: Sequence[store.Object]) -> list[v1alpha1.RoutingPolicy]:
    """The policies in the order in which their routers get ports."""
    return sorted((found for found in objects if isinstance(found, v1alpha1.RoutingPolicy)), key=store.identity)


async def _show(running_: session.Session, latest: Latest, options: session.Options, view: live.View) -> None:
    """Draw the moment, again and again."""
    scale = f"start-ups, windows and intervals ÷ {options.time_scale:g}" if options.time_scale > 1 else ""
    status = live.Status(f"up, http://127.0.0.1:{options.port}/v1", note=scale)
    while True:
        view.show(status, latest.draw(running_))
        await asyncio.sleep(SHOW_SECONDS)


async def _follow(files: Files, running_: session.Session, view: live.View) -> None:
    """Take over manifests that changed, if all of them are right; else keep the last good ones and say why."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if not await asyncio.to_thread(files.changed):
            continue
        try:
            objects = await asyncio.to_thread(running.objects_of, files.paths, debug=False)
        except failure.Usage as error:
            view.say(f"kept the last good manifests: {error.message}")
        else:
            running_.replace(objects)
            view.say("took over the changed manifests")


def _stamps(paths: tuple[Path, ...]) -> dict[Path, tuple[int, int]]:
    """Modification time and size of every file; a file that vanishes meanwhile is simply not there."""
    found = {}
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            try:
                status = file.stat()
            except OSError:
                continue
            found[file] = (status.st_mtime_ns, status.st_size)
    return found
