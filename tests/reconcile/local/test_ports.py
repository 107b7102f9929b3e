"""Ports: free ones are free, taken ones name their owner."""

from __future__ import annotations

import os
import pathlib
import socket
import sys

import pytest
from trimtab_operator.local import failures, images, ports


def test_a_free_port_can_be_bound_and_is_given_once() -> None:
    taken: set[int] = set()
    given = [ports.free(taken) for _ in range(20)]
    assert len(set(given)) == 20
    assert taken == set(given)
    with socket.socket() as mine:
        mine.bind((ports.LOOPBACK, given[0]))


def test_a_free_port_is_accepted() -> None:
    ports.require(ports.free(set()))


@pytest.mark.skipif(sys.platform != "linux", reason="owners are read from /proc")
def test_a_taken_port_is_refused_with_its_owner_and_the_way_out() -> None:
    with socket.socket() as other:
        other.bind((ports.LOOPBACK, 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(failures.PortBusyError) as refused:
            ports.require(port)
    assert (
        str(refused.value) == f"port {port} is in use by process {os.getpid()}; stop it, or choose another with --port"
    )


def test_a_port_that_is_shared_by_so_reuseport_counts_as_taken() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((ports.LOOPBACK, 0))
        other.listen(1)
        with pytest.raises(failures.PortBusyError):
            ports.require(other.getsockname()[1])


def test_a_port_that_was_just_given_up_is_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ports.LOOPBACK, 0))
        server.listen(1)
        port = server.getsockname()[1]
        with socket.create_connection((ports.LOOPBACK, port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # our side closes first: the connection stays in TIME_WAIT
            assert client.recv(1) == b""
    ports.require(port)


def test_an_owner_that_the_system_does_not_show_is_unknown(tmp_path: pathlib.Path) -> None:
    assert ports.owner(8080, proc=tmp_path) is None


@pytest.mark.parametrize(
    ("words", "result"),
    [
        pytest.param(["--port", "1", "--x", "2"], ["--port", "9", "--x", "2"], id="as two words"),
        pytest.param(["--port=1", "--x"], ["--port", "9", "--x"], id="as one word"),
        pytest.param(["--x"], ["--x", "--port", "9"], id="absent"),
        pytest.param(["--portly", "1"], ["--portly", "1", "--port", "9"], id="another flag that begins so"),
    ],
)
def test_a_flag_is_replaced_where_it_stands(words: list[str], result: list[str]) -> None:
    assert images.replace_flags(words, {"--port": "9"}) == result
