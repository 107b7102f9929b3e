"""The simulator as a process on a free port, and requests to it."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

from . import exposition, transcript

Later = collections.abc.Callable[[], transcript.Answer]


def _later(work: Later) -> Later:
    answers: list[transcript.Answer] = []
    thread = threading.Thread(target=lambda: answers.append(work()), daemon=True)
    thread.start()

    def answer() -> transcript.Answer:
        thread.join(30)
        return answers[0]

    return answer


def _request(method: str, path: str, body: str, headers: tuple[str, ...]) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    if body:
        lines.append("Content-Type: application/json")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Server:
    """The real command on a free port."""

    def __init__(self, arguments: str, *, dev_mode: bool = True) -> None:
        command = [sys.executable, "-m", "trimtab_cli", "engine-sim", *arguments.split()]
        environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1" if dev_mode else "0"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        assert self.process.stderr is not None
        line = self.process.stderr.readline().decode()
        self.port = int(line.rsplit(":", 1)[1])
        for _ in range(500):
            with (
                contextlib.suppress(ConnectionRefusedError),
                socket.create_connection(("127.0.0.1", self.port), timeout=5),
            ):
                return
            time.sleep(0.01)
        raise AssertionError("the port never opened")

    def replay(self, name: str, *, timeout: float = 20.0) -> transcript.Answer:
        return transcript.exchange(self.port, transcript.read(name).request, timeout=timeout)

    def start(self, name: str) -> Later:
        """Replay in the background; the result is a function that waits for the answer."""
        return _later(lambda: self.replay(name))

    def call_later(self, method: str, path: str, body: str) -> Later:
        """`call` in the background."""
        return _later(lambda: self.call(method, path, body))

    def call(self, method: str, path: str, body: str = "", *headers: str) -> transcript.Answer:
        return transcript.exchange(self.port, _request(method, path, body, headers))

    def open(self, method: str, path: str, body: str, *headers: str) -> socket.socket:
        """Send a request and leave the connection open."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(_request(method, path, body, headers))
        return connection

    def load(self) -> int:
        count: int = self.call("GET", "/load").json()["server_load"]
        return count

    def families(self) -> dict[str, exposition.Family]:
        return exposition.parse(self.call("GET", "/metrics").body.decode())

    def metric(self, name: str) -> float:
        return self.families()[f"vllm:{name}"].value()

    def counter(self, name: str, **labels: str) -> float:
        return self.families()[f"vllm:{name}"].value(**labels)

    def wait_until(self, name: str, value: float) -> None:
        for _ in range(1000):
            if self.metric(name) >= value:
                return
            time.sleep(0.01)
        raise AssertionError(f"vllm:{name} stayed below {value}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
