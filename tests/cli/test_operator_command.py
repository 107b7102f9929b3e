"""``trimtab operator`` when it can't start: one line, the fix, the right exit code."""

from __future__ import annotations

import pathlib
import socket

import pytest
from click.testing import CliRunner
from trimtab_cli import main
from trimtab_cli import operator as operator_command


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main.cli, ["operator", *arguments])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--interval", "5"), "'5' is not a duration; write a number with a unit"),
        (("--interval", "100ms"), "is too short; the shortest interval is 1s"),
        (("--metrics-port", "70000"), "--metrics-port"),
        (("--namespace", "a", "--all-namespaces"), "--namespace and --all-namespaces exclude each other"),
        (("--prometheus-url", "prometheus:9090"), "write http://HOST:PORT"),
        (("--cloud", "moon"), "--cloud"),
        (("--kubeconfig", "/nowhere"), "give a readable file with --kubeconfig"),
    ],
)
def test_wrong_usage_is_exit_code_two_with_the_fix(arguments: tuple[str, ...], said: str) -> None:
    code, output = run(*arguments)
    assert code == 2
    assert said in output
    assert "Traceback" not in output


def kubeconfig(tmp_path: pathlib.Path, server: str) -> str:
    path = tmp_path / "config"
    path.write_text(
        f"""{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}],
        clusters: [{{name: k, cluster: {{server: "{server}"}}}}], users: [{{name: u, user: {{token: abc}}}}]}}"""
    )
    return str(path)


def test_an_api_server_that_does_not_answer_is_exit_code_one(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        code, output = run("--kubeconfig", kubeconfig(tmp_path, server), "--metrics-port", "0")
    assert code == 1
    assert f"API server {server} does not answer" in output
    assert "Traceback" not in output


def test_the_lease_is_in_the_pods_own_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "trimtab-system")
    assert operator_command._own_namespace() == "trimtab-system"
    monkeypatch.delenv("POD_NAMESPACE")
    mounted = tmp_path / "namespace"
    mounted.write_text("mounted\n")
    monkeypatch.setattr(operator_command, "POD_NAMESPACE_FILE", str(mounted))
    assert operator_command._own_namespace() == "mounted"
    monkeypatch.setattr(operator_command, "POD_NAMESPACE_FILE", str(tmp_path / "none"))
    assert operator_command._own_namespace() == "default"
