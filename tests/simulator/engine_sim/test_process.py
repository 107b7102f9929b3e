"""The command as a process: when the port opens, how it ends, and what a taken port says."""

from __future__ import annotations

import collections.abc
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process


class Process:
    def __init__(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "trimtab_cli", "engine-sim", "--host", "127.0.0.1", *arguments]
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, **environment})
        assert self.popen.stderr is not None
        self.lines: list[str] = []
        for raw in self.popen.stderr:
            self.lines.append(raw.decode().rstrip())
            if " on http://" in self.lines[-1]:
                break

    @property
    def port(self) -> int:
        return int(self.lines[-1].rsplit(":", 1)[1])

    def listening(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def wait_until_listening(self) -> None:
        while not self.listening():
            assert self.popen.poll() is None

    def status(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        assert self.popen.stderr is not None
        self.popen.stderr.close()


@pytest.fixture
def start() -> collections.abc.Iterator[collections.abc.Callable[..., Process]]:
    with contextlib.ExitStack() as stack:

        def make(*arguments: str, **environment: str) -> Process:
            process = Process(*arguments, **environment)
            stack.callback(process.close)
            return process

        yield make


def test_connections_are_refused_until_the_engine_is_ready_then_health_is_200(
    start: collections.abc.Callable[..., Process],
) -> None:
    process = start("--port", "0", TRIMTAB_SIM_STARTUP_SECONDS="1")
    assert not process.listening()
    process.wait_until_listening()
    assert process.status("/health") == 200


def test_a_never_ready_engine_refuses_and_ends_on_sigterm(start: collections.abc.Callable[..., Process]) -> None:
    process = start("--port", "0", "--sim-fault", "never-ready")
    assert not process.listening()
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(20) == 0


def test_a_slow_start_is_added_to_the_start_up_time(start: collections.abc.Callable[..., Process]) -> None:
    process = start("--port", "0", "--sim-fault", "slow-start,seconds=100", "--sim-time-scale", "100")
    assert not process.listening()
    process.wait_until_listening()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_idle_server_ends_cleanly(start: collections.abc.Callable[..., Process], number: signal.Signals) -> None:
    process = start("--port", "0")
    process.wait_until_listening()
    process.popen.send_signal(number)
    assert process.popen.wait(20) == 0


def test_a_kept_alive_connection_does_not_hold_up_the_end(start: collections.abc.Callable[..., Process]) -> None:
    process = start("--port", "0")
    process.wait_until_listening()
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)
    connection.request("GET", "/version")
    assert connection.getresponse().read()
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(20) == 0
    connection.close()


def test_a_taken_port_is_one_clear_line(start: collections.abc.Callable[..., Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("--port", str(taken.getsockname()[1]), "--sim-startup-seconds", "60")
        assert process.popen.wait(20) == 2
    assert len(process.lines) == 1
    assert "cannot listen on 127.0.0.1" in process.lines[0]
    assert "choose another --port" in process.lines[0]


def test_ignored_flags_are_named_on_stderr(start: collections.abc.Callable[..., Process]) -> None:
    process = start("--enforce-eager", "--tensor-parallel-size", "2", "--port", "0")
    assert process.lines[0] == "engine-sim: ignored: --enforce-eager --tensor-parallel-size 2"


def test_dying_mid_stream_ends_the_process_as_a_kill_would(start: collections.abc.Callable[..., Process]) -> None:
    process = start("--port", "0", "--sim-fault", "die-mid-stream,after_tokens=3")
    process.wait_until_listening()
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)
    body = json.dumps(
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 90, "ignore_eos": True, "stream": True}
    )
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        connection.getresponse().read()
    assert process.popen.wait(20) == 137
    connection.close()
