"""The process: started by the command line, drained by SIGTERM, and clear about what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from trimtab_core.routing import table

from . import engines, scene, wire
from .engines import DONE, LAST, ROLE, STREAM_HEAD, Asked, Hang, Step, chunk, frame

pytestmark = pytest.mark.process


@contextlib.asynccontextmanager
async def process(
    path: pathlib.Path, *options: str, ports: list[int] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, int]]:
    """A router process, its client port and its admin port."""
    ports = ports or scene.closed_ports(2)
    arguments = ["--table", str(path), "--port", str(ports[0]), "--admin-port", str(ports[1]), *options]
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trimtab_cli", "router", *arguments, stderr=asyncio.subprocess.PIPE
    )
    try:
        for each in ports:
            await listening(each, started)
        yield started, ports[0], ports[1]
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def listening(port: int, process: asyncio.subprocess.Process | None = None) -> None:
    async with asyncio.timeout(30):
        while True:
            assert process is None or process.returncode is None, await process.communicate()
            try:
                await (await wire.Client.open(port)).__aexit__()
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


async def ask(port: int, data: bytes) -> wire.Reply:
    async with await wire.Client.open(port) as client:
        client.send(data)
        return await client.reply()


READY = wire.request(path="/readyz", method="GET")


def paced(asked: Asked) -> list[Step]:
    words = [step for number in range(10) for step in (frame(chunk({"content": str(number)})), 0.05)]
    return [STREAM_HEAD, frame(ROLE), *words, frame(chunk({}, "stop") + DONE), LAST]


def test_sigterm_lets_streams_end_and_then_ends_with_0(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with scene.engine(paced) as engine:
            path = tmp_path / "table.json"
            scene.write_table(path, scene.make_table(scene.tier("small", engine.port)))
            async with process(path) as (router, port, admin_port):
                assert (await ask(admin_port, READY)).status == 200
                idle = await wire.Client.open(port)
                async with await wire.Client.open(port) as client:
                    client.send(wire.request(wire.chat(stream=True)))
                    await client.reader.readuntil(b"\r\n\r\n")
                    router.send_signal(signal.SIGTERM)
                    # Not ready any more, and new connections are refused, but what runs goes on.
                    async with asyncio.timeout(10):
                        while (await ask(admin_port, READY)).status == 200:
                            await asyncio.sleep(0.01)
                    with pytest.raises(ConnectionRefusedError):
                        await wire.Client.open(port)
                    assert await idle.is_closed()
                    await idle.__aexit__()
                    rest = await client.reader.read()
                # Ten words and the role before them.
                assert rest.count(b'"content"') == 11
                assert b"[DONE]" in rest
                async with asyncio.timeout(10):
                    assert await router.wait() == 0

    scene.play(scenario)


def test_what_does_not_end_in_time_is_broken_off_and_not_passed_off_as_complete(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        endless = [STREAM_HEAD, frame(ROLE), frame(chunk({"content": "x"})), Hang]
        async with scene.engine(lambda _: endless) as engine:
            path = tmp_path / "table.json"
            scene.write_table(path, scene.make_table(scene.tier("small", engine.port)))
            async with (
                process(path, "--drain-seconds", "0.2") as (router, port, _),
                await wire.Client.open(port) as client,
            ):
                client.send(wire.request(wire.chat(stream=True)))
                await client.reader.readuntil(b'"x"')
                router.send_signal(signal.SIGTERM)
                try:
                    rest = await client.reader.read()
                except ConnectionResetError:
                    rest = b""
                assert not rest.endswith(LAST)
                assert DONE not in rest
                await engine.gone.wait()
                async with asyncio.timeout(10):
                    assert await router.wait() == 0

    scene.play(scenario)


def test_workers_share_a_port_and_have_admin_ports_of_their_own(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            path = tmp_path / "table.json"
            scene.write_table(path, scene.make_table(scene.tier("small", engine.port)))
            first = scene.closed_run(3)
            async with process(path, "--workers", "2", ports=[first, first + 1]) as (router, port, admin_port):
                await listening(admin_port + 1)
                for _ in range(8):
                    assert (await ask(port, wire.request(wire.chat()))).status == 200
                counts = []
                for each in (admin_port, admin_port + 1):
                    text = (await ask(each, wire.request(path="/metrics", method="GET"))).body.decode()
                    lines = [line for line in text.splitlines() if line.startswith("trimtab_router_arrivals_total{")]
                    counts.append(sum(float(line.rpartition(" ")[2]) for line in lines))
                assert sum(counts) == 8
                router.send_signal(signal.SIGTERM)
                async with asyncio.timeout(10):
                    assert await router.wait() == 0

    scene.play(scenario)


def test_workers_do_not_outlive_their_parent(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        first = scene.closed_run(3)
        async with process(tmp_path / "none", "--workers", "2", ports=[first, first + 1]) as (router, port, _):
            await listening(first + 2)
            router.kill()
            async with asyncio.timeout(10):
                # The workers hold its pipe of errors open as long as they live.
                await router.communicate()
            with pytest.raises(ConnectionRefusedError):
                await wire.Client.open(port)

    scene.play(scenario)


def workers_of(router: asyncio.subprocess.Process) -> list[int]:
    return [int(each) for each in pathlib.Path(f"/proc/{router.pid}/task/{router.pid}/children").read_text().split()]


def test_a_worker_that_breaks_is_replaced_while_the_others_stream_on(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with scene.engine(paced) as engine:
            path = tmp_path / "table.json"
            scene.write_table(path, scene.make_table(scene.tier("small", engine.port)))
            first = scene.closed_run(3)
            async with process(path, "--workers", "2", ports=[first, first + 1]) as (router, port, _):
                await listening(first + 2)
                async with await wire.Client.open(port) as client:
                    client.send(wire.request(wire.chat(stream=True)))
                    await client.reader.readuntil(b"\r\n\r\n")
                    # Whoever does not serve the stream breaks.
                    counts = [await in_flight(each) for each in (first + 1, first + 2)]
                    before = workers_of(router)
                    os.kill(before[counts.index(0.0)], signal.SIGKILL)
                    assert b"[DONE]" in await client.reader.readuntil(LAST)
                async with asyncio.timeout(20):
                    while len(workers_of(router)) < 2 or set(workers_of(router)) == set(before):
                        await asyncio.sleep(0.05)
                await listening(first + 1 + counts.index(0.0))
                for _ in range(8):
                    assert (await ask(port, wire.request(wire.chat(stream=True)))).whole
                router.send_signal(signal.SIGTERM)
                _, log = await router.communicate()
                assert router.returncode == 0
                assert "ended with -9; another one starts in 0.5 s" in log.decode()

    scene.play(scenario)


async def in_flight(admin_port: int) -> float:
    text = (await ask(admin_port, wire.request(path="/metrics", method="GET"))).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("trimtab_router_in_flight{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_workers_that_break_again_and_again_end_the_router_with_1(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        first = scene.closed_run(3)
        async with process(tmp_path / "none", "--workers", "2", ports=[first, first + 1]) as (router, port, _):
            await listening(first + 2)
            async with asyncio.timeout(60):
                ended = 0
                while ended < 5:
                    running = workers_of(router)
                    if running:
                        os.kill(running[0], signal.SIGKILL)
                        ended += 1
                    # Only once it is reaped is the next one another.
                    while running and running[0] in workers_of(router):
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.01)
                assert await router.wait() == 1
            with pytest.raises(ConnectionRefusedError):
                await wire.Client.open(port)

    scene.play(scenario)


def test_a_busy_port_of_one_worker_ends_them_all(tmp_path: pathlib.Path) -> None:
    first = scene.closed_run(3)
    with socket.create_server(("127.0.0.1", first + 2)):
        ended = subprocess.run(
            [sys.executable, "-m", "trimtab_cli", "router", "--table", str(tmp_path / "t"), "--workers", "2",
             "--port", str(first), "--admin-port", str(first + 1)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert (ended.returncode, f"port {first + 2} " in ended.stderr) == (2, True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first))


def test_a_missing_table_is_waited_for_with_one_clear_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "later.json"

    async def scenario() -> None:
        async with scene.engine() as engine, process(path) as (router, port, admin_port):
            assert (await ask(port, READY)).status == 503
            assert (await ask(admin_port, wire.request(path="/healthz", method="GET"))).status == 200
            scene.write_table(path, scene.make_table(scene.tier("small", engine.port)))
            async with asyncio.timeout(10):
                while (await ask(port, READY)).status != 200:
                    await asyncio.sleep(0.05)
            router.send_signal(signal.SIGTERM)
            _, log = await router.communicate()
            assert log.decode().count(f"table {path}: No such file or directory; waiting for it") == 1
            assert "is in force" in log.decode()

    scene.play(scenario)


@pytest.mark.parametrize("which", ["--port", "--admin-port"])
def test_a_busy_port_is_one_clear_line_and_code_2(which: str, tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        free = scene.closed_ports(2)
        ports = {"--port": free[0], "--admin-port": free[1], which: busy}
        options = [str(part) for pair in ports.items() for part in pair]
        ended = subprocess.run(
            [sys.executable, "-m", "trimtab_cli", "router", "--table", str(tmp_path / "t"), *options],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        f"trimtab: port {busy} on 127.0.0.1 is already in use; choose another or stop what holds it"
    )


TLS_FILES = {
    "one of two": (["--tls-key", "k"], "--tls-certificate and --tls-key go together; give both or none"),
    "no such file": (["--tls-certificate", "c", "--tls-key", "k"], "TLS: c and k: No such file or directory"),
    "no such authorities": (["--upstream-ca", "a"], "TLS: a: No such file or directory"),
}


@pytest.mark.parametrize(("options", "line"), TLS_FILES.values(), ids=TLS_FILES.keys())
def test_tls_files_that_can_not_be_used_are_one_clear_line_and_code_2(
    options: list[str], line: str, tmp_path: pathlib.Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "trimtab_cli", "router", "--table", "t", *options],
        capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.strip()) == (2, f"trimtab: {line}")


def test_no_prompt_and_no_key_reaches_log_metrics_or_views(tmp_path: pathlib.Path) -> None:
    canaries = ("canary-prompt", "sk-canary-key", "canary-cookie")

    def boom(asked: Asked) -> list[Step]:
        return [engines.whole({"error": {"message": "boom", "code": 500}}, 500)]

    async def scenario() -> None:
        async with scene.engine(boom) as engine:
            path = tmp_path / "table.json"
            tenants = table.Tenants(known=[table.Tenant("a", "00" * 32)])
            scene.write_table(path, scene.make_table(scene.tier("small", engine.port), tenants=tenants))
            async with process(path, "--debug") as (router, port, admin_port):
                data = wire.request(wire.chat(canaries[0]), authorization=f"Bearer {canaries[1]}", cookie=canaries[2])
                assert (await ask(port, data)).status == 502
                assert (await ask(port, data[:-3] + b"\xff\xff}")).status in (400, 502)
                views = ["/metrics", "/admin/table", "/admin/endpoints", "/admin/requests"]
                shown = [(await ask(admin_port, wire.request(path=view, method="GET"))).body.decode() for view in views]
                router.send_signal(signal.SIGTERM)
                _, log = await router.communicate()
                for canary in canaries:
                    assert canary not in log.decode()
                    assert canary not in "".join(shown)

    scene.play(scenario)


def test_the_router_process_holds_none_of_the_operators_libraries() -> None:
    code = (
        "import sys, trimtab_router.main, trimtab_cli.router\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "yaml", "numpy", "highspy", "kopf", "aiohttp", "httpx", "kubernetes"} & set(modules)
