"""``trimtab up``: it serves, follows its files, and leaves nothing behind."""

from __future__ import annotations

import json
import pathlib
import signal
import socket
import sys
import urllib.request

import psutil
import pytest
from click.testing import CliRunner
from trimtab_cli import up

from . import local_mode

pytestmark = pytest.mark.process


def served(port: int) -> bool:
    """Whether a chat completion is answered."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return bool(json.load(response)["object"] == "chat.completion")
    except OSError:
        return False


def test_it_serves_then_ends_with_all_its_children_and_can_be_run_again(tmp_path: pathlib.Path) -> None:
    folder, port = local_mode.manifests(tmp_path / "manifests"), local_mode.free_port()
    command = ("up", "-f", str(folder), "--port", str(port), "--time-scale", "5", "--interval", "1")
    for number in (signal.SIGINT, signal.SIGTERM):
        with local_mode.running(tmp_path / f"{number.name}.log", *command) as started:
            started.until_printed(f"http://127.0.0.1:{port}/v1 answers to model auto")
            started.until(lambda: served(port), 60.0, "an answer")
            children = started.children()
            assert 3 <= len(children) <= 9  # a router and engines: two at least, four of each tier at most
            assert started.stop(number) == 128 + number
            assert started.printed.count("stopping: ending all processes") == 1
            assert not [one for one in children if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
            assert "Traceback" not in started.printed


def test_changed_manifests_are_taken_over_and_broken_ones_are_not(tmp_path: pathlib.Path) -> None:
    folder, port = local_mode.manifests(tmp_path / "manifests"), local_mode.free_port()
    good = (folder / "small.yaml").read_text()
    with local_mode.running(
        tmp_path / "log", "up", "-f", str(folder), "--port", str(port), "--time-scale", "5", "--interval", "1"
    ) as started:
        started.until_printed("small/l4 0 → 1")
        (folder / "small.yaml").write_text(good.replace("min: 1", "min: 5"))
        started.until_printed("kept the last good manifests")
        assert "max" in started.printed.partition("kept the last good")[2]
        (folder / "small.yaml").write_text(good.replace("min: 1", "min: 2"))
        started.until_printed("took over the changed manifests")
        started.until_printed("small/l4 1 → 2")
        assert started.stop(signal.SIGINT) == 130


def test_a_busy_port_is_one_line_with_the_way_out(tmp_path: pathlib.Path) -> None:
    folder = local_mode.manifests(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        ended = CliRunner().invoke(up.command, ["-f", str(folder), "--port", str(port)])
    assert ended.exit_code == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"trimtab: port {port} is in use")
    assert "--port" in line
    if sys.platform == "linux":
        assert "by process" in line


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        pytest.param(lambda folder: (folder / "policy.yaml").unlink(), "no RoutingPolicy", id="nothing would listen"),
        pytest.param(
            lambda folder: (folder / "small.yaml").write_text("kind: [oops"), "small.yaml", id="a file that is not YAML"
        ),
        pytest.param(
            lambda folder: (folder / "small.yaml").write_text(
                (folder / "small.yaml").read_text().replace("min: 1", "min: 9")
            ),
            "spec.variants",
            id="min above max",
        ),
    ],
)
def test_manifests_that_cannot_run_are_told_with_their_file(
    tmp_path: pathlib.Path, break_it: object, said: str
) -> None:
    folder = local_mode.manifests(tmp_path)
    break_it(folder)  # type: ignore[operator]
    ended = CliRunner().invoke(up.command, ["-f", str(folder)])
    assert ended.exit_code == 2
    assert said in ended.stderr
    assert isinstance(ended.exception, SystemExit)  # no traceback
