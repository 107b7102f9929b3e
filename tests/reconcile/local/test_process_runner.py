"""The process runner: replicas as processes, from their start to their end, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest
from trimtab_core import recall
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase
from trimtab_operator import labels
from trimtab_operator.local import failures, process_runner, workload

from . import rendered
from .rendered import Stage, TinyImage

pytestmark = pytest.mark.process

L4 = VariantKey("default/small", "l4")


def play(story: Callable[[Stage], Awaitable[None]], folder: pathlib.Path, image: TinyImage | None = None) -> Stage:
    """Run a story on a stage of its own; all processes must be gone afterwards."""

    async def whole() -> Stage:
        async with Stage(folder, image) as stage:
            await story(stage)
            pids = stage.runner.pids()
        assert not [pid for pid in pids if is_alive(pid)]
        return stage

    return asyncio.run(whole())


def is_alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# Life ------------------------------------------------------------------------------------------------------------


def test_replicas_are_pending_until_healthy_and_then_ready(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(2)])
        assert stage.phases() == ["Pending", "Pending"]
        await stage.ready(2)
        seen = (await stage.runner.observe()).variants[L4]
        assert (seen.desired, seen.told, seen.external_scaler) == (2, 2, "")
        for replica in seen.replicas:
            assert replica.ready_at is not None
            assert replica.ready_at >= replica.created_at
            assert replica.address.startswith("127.0.0.1:")
        assert len({replica.address for replica in seen.replicas}) == 2
        assert stage.changes == 2  # each became ready once

    play(story, tmp_path)


def test_applying_the_same_objects_again_changes_nothing(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(2)])
        await stage.ready(2)
        before = stage.runner.pids()
        await stage.runner.apply([rendered.deployment(2)])
        assert stage.runner.pids() == before

    assert len(play(story, tmp_path).image.started) == 2  # type: ignore[attr-defined]


def test_a_starting_replica_that_is_not_wanted_any_more_goes_at_once(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1)])
        await stage.runner.apply([rendered.deployment(0)])
        await stage.until(lambda: not stage.phases(), "no replicas")

    play(story, tmp_path, TinyImage(tmp_path, ready_after=60))


def test_a_replica_that_dies_is_started_again_and_its_last_words_are_told(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1)])
        await stage.ready(1)
        (pid,) = stage.runner.pids()
        os.kill(pid, signal.SIGKILL)
        await stage.until(lambda: stage.phases() == ["Failed"], "failed")
        await stage.ready(1)
        assert stage.runner.pids() != {pid}
        assert len(stage.runner.lives()) == 1  # the same replica, as a pod restarts its container

    (told,) = play(story, tmp_path).said
    assert "ended with code -9 after it had served" in told


def test_a_program_that_never_starts_is_tried_again_with_growing_pauses(tmp_path: pathlib.Path) -> None:
    image = TinyImage(tmp_path, argv=(sys.executable, "-c", "import sys; sys.exit('no such model')"))

    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1)])
        await stage.until(lambda: len(stage.said) >= 2, "two tries")
        first, second = stage.said[:2]
        assert "ended with code 1 before it served" in first
        assert "no such model" in second
        assert len(image.started) == 2  # the third comes after 2 s

    play(story, tmp_path, image)


def test_a_program_that_is_missing_is_said_and_not_raised(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1)])
        await stage.until(lambda: bool(stage.said), "a message")
        assert "can't be started" in stage.said[0]
        await stage.runner.apply([rendered.deployment(0)])
        await stage.until(lambda: not stage.phases(), "no replicas")

    play(story, tmp_path, TinyImage(tmp_path, argv=("/nowhere/program",)))


# Leaving ---------------------------------------------------------------------------------------------------------


def test_a_replica_leaves_only_when_no_table_names_it_and_its_requests_are_done(tmp_path: pathlib.Path) -> None:
    image = TinyImage(tmp_path)

    async def story(stage: Stage) -> None:
        image.count_file.write_text("1")
        await stage.runner.apply([rendered.deployment(1), rendered.config_map("small-l4-1")])
        await stage.ready(1)
        await stage.runner.apply([rendered.deployment(0), rendered.config_map("small-l4-1")])
        assert stage.phases() == ["Draining"]
        await asyncio.sleep(1.5)
        assert stage.phases() == ["Draining"], "a table still sends requests to it"
        await stage.runner.apply([rendered.deployment(0), rendered.config_map()])
        image.count_file.write_text("0")
        await stage.until(lambda: not stage.phases(), "gone")

    play(story, tmp_path, image)


def test_a_replica_that_never_gets_empty_leaves_when_its_time_is_up(tmp_path: pathlib.Path) -> None:
    image = TinyImage(tmp_path)

    async def story(stage: Stage) -> None:
        image.count_file.write_text("1")
        await stage.runner.apply([rendered.deployment(1)])
        await stage.ready(1)
        asked_at = time.monotonic()
        await stage.runner.apply([rendered.deployment(0)])
        await stage.until(lambda: not stage.phases(), "gone")
        assert time.monotonic() - asked_at >= 2.9  # terminationGracePeriodSeconds is 3

    play(story, tmp_path, image)


def test_the_cheapest_to_delete_leaves_first_and_marks_are_observed(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(3)])
        await stage.ready(3)
        mark = {labels.DRAIN_SINCE: recall.rfc3339(1000.0), labels.DELETION_COST: "-1000"}
        await stage.runner.apply([rendered.deployment(3), rendered.pod("small-l4-2", mark)])
        seen = {replica.name: replica for replica in (await stage.runner.observe()).variants[L4].replicas}
        assert seen["small-l4-2"].drain_since == 1000.0
        assert [replica.phase for replica in seen.values()].count(ReplicaPhase.DRAINING) == 1
        await stage.runner.apply([rendered.deployment(2)])
        await stage.until(lambda: len(stage.phases()) == 2, "two replicas")
        assert {life.name for life in stage.runner.lives() if life.ended_at is None} == {"small-l4-1", "small-l4-3"}

    play(story, tmp_path)


def test_a_mark_can_be_taken_away(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1)])
        await stage.ready(1)
        await stage.runner.apply(
            [rendered.deployment(1), rendered.pod("small-l4-1", {labels.DRAIN_SINCE: "2026-01-01T00:00:00Z"})]
        )
        await stage.runner.apply([rendered.deployment(1), rendered.pod("small-l4-1", {labels.DRAIN_SINCE: None})])
        (seen,) = (await stage.runner.observe()).variants[L4].replicas
        assert (seen.phase, seen.drain_since) == (ReplicaPhase.READY, None)

    play(story, tmp_path)


def test_a_new_template_replaces_replicas_without_a_gap(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1)])
        await stage.ready(1)
        updated = [rendered.deployment(1, image="vllm:2")]
        await stage.runner.apply(updated)
        assert stage.phases() == ["Ready", "Pending"]
        await stage.ready(2)
        await stage.runner.apply(updated)
        await stage.ready(1)
        (alive,) = [life for life in stage.runner.lives() if life.ended_at is None]
        assert alive.name == "small-l4-2"

    play(story, tmp_path)


def test_a_workload_that_is_not_rendered_any_more_is_let_go(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1), rendered.deployment(1, name="small-h100", variant="h100")])
        await stage.ready(2)
        await stage.runner.apply([rendered.deployment(1)])
        await stage.until(lambda: len(stage.phases()) == 1, "one replica")

    play(story, tmp_path)


# Routers and files -----------------------------------------------------------------------------------------------


def test_one_router_runs_however_many_are_rendered(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.router()])
        assert (await stage.runner.observe()).routers == {"default/p": ()}  # starts, and does not serve yet
        await stage.until(lambda: len(stage.runner.routers()) == 1, "a router that is scraped")
        await stage.until(lambda: stage.changes == 1, "a router that serves")
        assert set(stage.runner.entrances()) == {"default/p"}
        assert (await stage.runner.observe()).routers == {"default/p": tuple(stage.runner.routers())}
        assert stage.runner.lives() == ()  # routers are not on the bill

    play(story, tmp_path)


def test_a_config_map_becomes_files_that_are_replaced_whole(tmp_path: pathlib.Path) -> None:
    process_runner.write_config(tmp_path, rendered.config_map("a"))
    path = process_runner.config_folder(tmp_path, "default", "policy-table") / "table.json"
    first = path.stat().st_ino
    process_runner.write_config(tmp_path, rendered.config_map("a"))
    assert path.stat().st_ino == first, "the same content is not written again"
    process_runner.write_config(tmp_path, rendered.config_map("b"))
    assert path.stat().st_ino != first, "another content comes by rename"
    assert [entry.name for entry in path.parent.iterdir()] == ["table.json"]


def test_a_deployment_that_is_neither_engine_nor_router_is_refused() -> None:
    stranger = rendered.deployment(1)
    stranger["metadata"]["labels"] = stranger["spec"]["template"]["metadata"]["labels"] = {}
    with pytest.raises(failures.CannotRunError, match="default/small-l4 is neither an engine nor a router"):
        workload.read([stranger])


def test_a_count_that_an_autoscaler_would_write_is_one(tmp_path: pathlib.Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(None)])
        await stage.ready(1)

    play(story, tmp_path)


# Nothing is left behind --------------------------------------------------------------------------------------------

KILLED = """
import asyncio, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[2])
from tests.reconcile.local import rendered

async def main():
    async with rendered.Stage(pathlib.Path(sys.argv[1])) as stage:
        await stage.runner.apply([rendered.deployment(2)])
        await stage.ready(2)
        print(*stage.runner.pids(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_even_a_killed_runner_leaves_no_process_behind(tmp_path: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pids = [int(text) for text in ended.stdout.split()]
    assert len(pids) == 2, ended.stderr
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a child outlived its killed parent"
        time.sleep(0.05)


def test_closing_kills_a_process_that_ignores_the_request_to_end(tmp_path: pathlib.Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )

    async def story(stage: Stage) -> None:
        await stage.runner.apply([rendered.deployment(1)])
        log = tmp_path / "small-l4-1.log"
        await stage.until(lambda: log.exists() and "up" in log.read_text(), "the program runs")
        await stage.runner.close(grace_seconds=0.2)
        assert not stage.runner.pids()

    play(story, tmp_path, TinyImage(tmp_path, argv=(sys.executable, "-c", deaf)))
