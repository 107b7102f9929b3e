"""One container of a pod: started, watched by its probes, restarted with back-off, stopped with its grace."""

import asyncio
import collections.abc
import contextlib
import dataclasses
import itertools
import logging
import os
import pathlib
import signal
import time

import aiohttp

from . import environment, images, nodes, probes, sandbox
from .api import Object
from .network import PodNetwork

log = logging.getLogger(__name__)

_runs = itertools.count(1)
CALM_SECONDS = 600.0  # a run of this length forgets earlier crashes, as the kubelet does
LEAST_GRACE_SECONDS = 2.0  # what SIGTERM gets at least when preStop used up the grace period
CONFIG_RETRY_SECONDS = 0.3
SIGNALLED = 128


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the containers of one pod share."""

    pod: Object
    network: PodNetwork
    environment: environment.Environment
    volume_path: collections.abc.Callable[[str], pathlib.Path]
    image_table: collections.abc.Callable[[], list[images.Image]]
    etc: dict[str, str]
    base_env: dict[str, str]
    folder: pathlib.Path  # scratch, one folder per run below it
    logs: pathlib.Path
    session: aiohttp.ClientSession  # for probes and hooks
    changed: collections.abc.Callable[[], None]
    event: collections.abc.Callable[[str, str, str], None]  # Normal or Warning, reason, message
    back_off_seconds: float
    back_off_limit_seconds: float


class Container:
    """One container. `run` drives it until it has ended for good; `stop` may be called from another task."""

    def __init__(self, spec: Object, around: Surroundings, *, restart_policy: str) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.state: Object = {"waiting": {"reason": "PodInitializing"}}
        self.last_state: Object = {}
        self.restarts = 0
        self.health = probes.Health(started=False, ready=False)
        self.started = asyncio.Event()  # the first run has passed its startup probe: the next init container may go on
        self.exit_code: int | None = None  # of the last run, once there will be no other
        self._around = around
        self._restart_policy = restart_policy
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._env: dict[str, str] = {}

    @property
    def running(self) -> bool:
        """Whether a process of the container lives."""
        return self._process is not None and self._process.returncode is None

    async def run(self) -> None:
        """Run and restart as the policy says, until stopped or ended for good."""
        crashes = 0
        while not self._stopping.is_set():
            begin = time.monotonic()
            code = await self._once()
            if code is None:
                continue
            crashes = 0 if time.monotonic() - begin > CALM_SECONDS else crashes + 1
            again = self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and code != 0)
            if self._stopping.is_set() or not again:
                self.exit_code = code
                break
            await self._back_off(crashes, code)
            self.restarts += 1
        self._around.changed()

    async def _back_off(self, crashes: int, code: int) -> None:
        """Wait before the next start: not at all after the first crash, then doubling."""
        self.last_state = self.state
        delay = 0.0 if crashes <= 1 else self._around.back_off_seconds * 2 ** (crashes - 2)
        delay = min(delay, self._around.back_off_limit_seconds)
        if delay:
            message = f"back-off {delay:g}s restarting failed container={self.name} (exit code {code})"
            self._set({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
            self._around.event("Warning", "BackOff", message)
            await self._sleep(delay)

    async def _once(self) -> int | None:
        """Run once and return the exit code; None when it could not be started (yet)."""
        around = self._around
        rule = images.find(around.image_table(), self.spec["image"])
        if rule is None:
            message = f"no stand-in for image {self.spec['image']} in the image table"
            self._set({"waiting": {"reason": "ErrImagePull", "message": message}})
            await self._sleep(CONFIG_RETRY_SECONDS)
            return None
        try:
            launch = self._launch(rule)
        except environment.ConfigError as error:
            self._set({"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}})
            await self._sleep(CONFIG_RETRY_SECONDS)
            return None
        folder = around.folder / f"{self.name}-{next(_runs)}"
        folder.mkdir(parents=True)
        script = folder.with_suffix(".sh")
        script.write_text(sandbox.script(launch, folder))
        with around.logs.joinpath(f"{self.name}.log").open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *sandbox.start_command(around.network, script),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._process = process
        if self._stopping.is_set():  # `stop` came while the process was being made, and saw none
            await _kill_group(process)
        at = nodes.now()
        self.health = probes.Health.at_start(self.spec)
        self._set({"running": {"startedAt": at}})
        around.event("Normal", "Started", f"Started container {self.name}")
        await self._supervise(process)
        self.health = probes.Health(started=False, ready=False)
        code = exit_status(process.returncode)
        end = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        self._set({"terminated": {**end, "startedAt": at, "finishedAt": nodes.now()}})
        return code

    async def _supervise(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of the process, probing meanwhile; end it when a probe says so."""
        prober = probes.Prober(self.spec, self._around.network.address, self.execute, self._around.session)
        watching = asyncio.ensure_future(self._watch(prober))
        waiting = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({watching, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not watching.cancelled() and not waiting.done():
                watching.result()
                if self.health.unhealthy and not self._stopping.is_set():
                    self._around.event("Normal", "Killing", f"{self.health.unhealthy}, will be restarted")
                    await self._end(float(self._around.pod["spec"].get("terminationGracePeriodSeconds", 30)))
            await waiting
        finally:
            watching.cancel()
            waiting.cancel()
            await _kill_group(process)

    async def _watch(self, prober: probes.Prober) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            await prober.check(hook, self._around.pod["spec"].get("terminationGracePeriodSeconds", 30))
        if self.health.started:
            self.started.set()
        await probes.watch(self.spec, prober, self.health, self._probed)

    def _probed(self, kind: str, problem: str) -> None:
        if problem:
            self._around.event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {problem}")
        if self.health.started:
            self.started.set()
        self._around.changed()

    def _launch(self, rule: images.Image) -> sandbox.Launch:
        around = self._around
        base = {**around.base_env, **rule.env}
        self._env = around.environment.of(self.spec, base)
        argv = [environment.expand(word, self._env) for word in images.argv_of(self.spec, rule)]
        if not argv:
            raise environment.ConfigError(f"neither the container nor its image {self.spec['image']} names a command")
        mounts = sandbox.mounts_of(self.spec, around.volume_path)
        host_name = around.pod["spec"].get("hostname") or around.pod["metadata"]["name"]
        return sandbox.Launch(argv, self._env, self.spec.get("workingDir") or "/", host_name[:63], around.etc, mounts)

    async def stop(self, grace: float) -> None:
        """End for good: preStop, SIGTERM, and SIGKILL when the grace period (seconds) is over."""
        self._stopping.set()
        if self.running:
            self._around.event("Normal", "Killing", f"Stopping container {self.name}")
            await self._end(grace)

    async def _end(self, grace: float) -> None:
        """Stop the process that runs now."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + grace
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            prober = probes.Prober(self.spec, self._around.network.address, self.execute, self._around.session)
            if problem := await self._unless_ended(process, prober.check(hook, grace)):
                self._around.event("Warning", "FailedPreStopHook", f"preStop of {self.name}: {problem}")
        if process.returncode is None and grace > 0:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            left = max(deadline - time.monotonic(), LEAST_GRACE_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), left)
        await _kill_group(process)

    async def _unless_ended(
        self, process: asyncio.subprocess.Process, work: collections.abc.Coroutine[object, object, str]
    ) -> str:
        """Wait for `work`, but not longer than the process lives."""
        hook = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait({hook, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if hook.done():
            return hook.result()
        hook.cancel()
        return "the container ended first"

    async def execute(self, argv: list[str], timeout: float) -> int:
        """Run a command inside the running container and return its exit status; it is killed after `timeout` seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return SIGNALLED - 1
        await _inside_its_root(process.pid)
        with self._around.logs.joinpath(f"{self.name}.exec.log").open("ab") as out:
            command = sandbox.exec_command(process.pid, self._env, argv)
            child = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            return exit_status(await asyncio.wait_for(child.wait(), timeout))
        finally:
            await _kill_group(child)

    def _set(self, state: Object) -> None:
        if self.state != state:
            self.state = state
            self._around.changed()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but wake when the container is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def exit_status(code: int | None) -> int:
    """Return a process' end as a container's exit code: 128 + n for signal n."""
    assert code is not None
    return SIGNALLED - code if code < 0 else code


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of a process and its group, and wait for the process itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _inside_its_root(pid: int) -> None:
    """Wait until a container that was just started has changed to its own root."""
    with contextlib.suppress(FileNotFoundError):
        for _ in range(200):
            if pathlib.Path(f"/proc/{pid}/root").readlink() != pathlib.Path("/"):
                return
            await asyncio.sleep(0.01)
