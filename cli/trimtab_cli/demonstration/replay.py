"""The replay: local mode serves a trace that comes as real HTTP requests, and everything is measured meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab_core import capacity, observation, units
from trimtab_core.api import v1alpha1
from trimtab_core.snapshot import ReplicaPhase
from trimtab_operator import reconcile
from trimtab_operator.local import session, store
from trimtab_sim import dispatch, prompts, report
from trimtab_sim.workload import Trace

from trimtab_cli import failure
from trimtab_cli.demonstration import live, load, measure, outcomes, standing
from trimtab_cli.pages import wording

READY_SECONDS = 90.0
"""Longest wait for the first fleet."""
CLIENT_START_SECONDS = 1.5
"""What the load client needs before it can send on time."""
SHOW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be replayed.

    Attributes:
        duration_s: length of what is counted.
        run_in_s: how long before it the beginning of the trace is sent once, uncounted.
        seed: of the texts.
        note: what is shortened, for the view.
    """

    objects: Sequence[store.Object]
    trace: Trace
    options: session.Options
    duration_s: float
    run_in_s: float
    seed: int
    note: str

    @property
    def policy(self) -> v1alpha1.RoutingPolicy:
        """The policy that gets the trace: the one whose router has the first port."""
        return standing.policies_of(self.objects)[0]


@dataclass(frozen=True, slots=True)
class Result:
    """What the replay gave.

    Attributes:
        run: measured.
        promised: share of requests that had to meet their SLO.
        limits: of latency, seconds.
        health: how well the load client kept up.
        errors: what failed requests said, most frequent first, with counts.
        answered: arrival in seconds and who answered, of every request.
    """

    run: report.Run
    promised: float
    limits: report.Promise
    health: outcomes.Health
    errors: tuple[tuple[str, int], ...]
    answered: tuple[tuple[float, str], ...]


async def replay(plan: Plan, view: live.View) -> Result:
    """Run it all, from the first process to the last answer.

    Raises:
        failure.Finding: if no fleet came up, or the load client broke.
        failures.PortBusyError: when somebody else sits on the port.
    """
    path = plan.options.folder / "plan.jsonl"
    shots = load.shots(plan.trace, model=plan.policy.spec.models[0], seed=plan.seed, run_in_seconds=plan.run_in_s)
    await asyncio.to_thread(load.write_plan, path, shots)
    stage = _Stage(plan, view)
    async with session.Session(plan.objects, plan.options, clock=time.time, say=view.say, decided=stage.saw) as running:
        control = asyncio.create_task(running.run())
        try:
            await stage.wait_for_fleet(running, control)
            return await stage.play(running, control, path)
        finally:
            control.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await control


class _Stage:
    """One replay under way."""

    def __init__(self, plan: Plan, view: live.View) -> None:
        self._plan = plan
        self._view = view
        self._latest = standing.Latest(view)
        self._measurement: measure.Measurement | None = None
        self._replay = _replay(plan)

    def saw(self, cycle: reconcile.Outcome) -> None:
        """Take one cycle of the loop."""
        self._latest.saw(cycle)
        if self._measurement is not None:
            self._measurement.saw(cycle)

    async def wait_for_fleet(self, running: session.Session, control: asyncio.Task[None]) -> None:
        """Until the router and everything that was asked for serve."""
        gives_up_at = time.time() + READY_SECONDS
        while not self._all_ready(running):
            if control.done():
                control.result()
            if time.time() > gives_up_at:
                raise failure.Finding(f"the fleet was not ready within {READY_SECONDS:g} s; see the messages above")
            self._view.show(live.Status("starting the fleet", note=self._plan.note), self._latest.draw(running))
            await asyncio.sleep(SHOW_SECONDS)

    async def play(self, running: session.Session, control: asyncio.Task[None], path: Path) -> Result:
        """Send the trace and listen until its last answer."""
        plan = self._plan
        start_at = time.time() + CLIENT_START_SECONDS + plan.run_in_s
        self._measurement = found = measure.Measurement(replace(self._replay, start_at=start_at))
        url = f"http://127.0.0.1:{plan.options.port}"
        client = await load.Client.start(url, path, start_at, plan.options.folder)
        try:
            while client.process.code is None:
                if control.done():
                    control.result()
                self._listen(client, found)
                self._view.show(_status(plan, found, time.time() - start_at), self._latest.draw(running))
                await asyncio.sleep(SHOW_SECONDS)
            self._listen(client, found)
        finally:
            await client.process.stop(1.0)
        if client.health is None:
            raise failure.Finding(f"the load client ended with code {client.process.code}: {client.process.tail(2)}")
        run = found.run(running.runner.lives(), settings=_settings(running), notes=(plan.trace.source, plan.note))
        return Result(
            run,
            found.promised(),
            found.limits(),
            client.health,
            tuple(found.errors.most_common()),
            tuple(sorted(found.answered)),
        )

    def _listen(self, client: load.Client, found: measure.Measurement) -> None:
        for outcome in client.news():
            found.heard(outcome)

    def _all_ready(self, running: session.Session) -> bool:
        """Whether the loop has asked for something and all of it serves."""
        cycle = self._latest.cycle
        lives = [life for life in running.runner.lives() if life.ended_at is None]
        asked = sum(cycle.told.values()) if cycle is not None else 0
        return (
            len(lives) >= asked > 0
            and all(life.phase is ReplicaPhase.READY for life in lives)
            and running.runner.serves()
        )


def _replay(plan: Plan) -> measure.Replay:
    """What the measurement must know of the trace; when it starts is not known yet."""
    requests = plan.trace.requests
    judge = dispatch.Dispatcher(plan.seed, prompts.Synthetic(plan.seed))
    return measure.Replay(
        start_at=math.inf,
        duration_s=plan.duration_s,
        policy=observation.key(plan.policy.metadata),
        mix=capacity.Mix(
            sum(request.input_tokens for request in requests) / len(requests),
            sum(request.output_tokens for request in requests) / len(requests),
        ),
        complexity=[judge.judge(request).complexity for request in requests],
    )


def _status(plan: Plan, found: measure.Measurement, at_s: float) -> live.Status:
    """What the view says above and below the fleet."""
    total = units.format_duration(plan.duration_s)
    if at_s < 0:
        title = f"run-in, {-at_s:.0f} s left"
    elif at_s <= plan.duration_s:
        title = f"replay {wording.clock(at_s)} of {wording.clock(plan.duration_s)}"
    else:
        title = f"replay of {total} done, waiting for the last answers"
    facts = [("requests", f"{found.done} ended")]
    if found.failed:
        facts.append(("failed", str(found.failed)))
    if found.attainment is not None:
        facts.append(("SLO met", f"{found.attainment:.1%} (promised {found.promised():.0%})"))
    return live.Status(title, facts, plan.note, at_s / plan.duration_s)


def _settings(running: session.Session) -> str:
    """What the loop was set to, for people."""
    loop = running.settings
    return f"a decision every {loop.interval_seconds:g} s, rates over {loop.window_seconds:g} s"
