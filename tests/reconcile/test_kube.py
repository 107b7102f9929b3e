"""The client side of the API server: paths, pages, errors with their cause, and connections that were closed."""

from __future__ import annotations

import asyncio
import pathlib
import socket
from collections.abc import Iterator

import pytest
from kubernetes import client
from trimtab_operator import errors, kube

from . import kube_api

POD = kube.PODS.path("ns", "a")


@pytest.fixture
def api() -> kube_api.FakeApi:
    return kube_api.FakeApi()


@pytest.fixture
def connection(api: kube_api.FakeApi) -> Iterator[kube.Kube]:
    with kube_api.connected(api) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "arguments", "path"),
    [
        (kube.PODS, (), "/api/v1/pods"),
        (kube.PODS, ("ns", "a"), "/api/v1/namespaces/ns/pods/a"),
        (kube.DEPLOYMENTS, ("ns",), "/apis/apps/v1/namespaces/ns/deployments"),
        (kube.NODES, ("ns",), "/api/v1/nodes"),
        (
            kube.TIERS,
            ("ns", "small", "status"),
            "/apis/inference.trimtab.dev/v1alpha1/namespaces/ns/inferencetiers/small/status",
        ),
    ],
)
def test_paths(kind: kube.Kind, arguments: tuple[str, ...], path: str) -> None:
    assert kind.path(*arguments) == path


def test_a_list_is_read_to_its_last_page(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    api.page = 2
    for name in "abcde":
        api.put(kube.PODS.path("ns", name), {"metadata": {"labels": {"x": "1"}}})
    api.put(kube.PODS.path("ns", "other"), {"metadata": {}})
    found = asyncio.run(connection.items("/api/v1/pods", selector="x=1"))
    assert [each["metadata"]["name"] for each in found] == list("abcde")
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.RefusedError),
        (401, errors.AccessDeniedError),
        (403, errors.AccessDeniedError),
        (404, errors.NotFoundError),
        (409, errors.ConflictError),
        (422, errors.RefusedError),
        (429, errors.ClusterUnreachableError),
        (500, errors.ClusterUnreachableError),
        (503, errors.ClusterUnreachableError),
    ],
)
def test_http_errors_become_ours_with_the_servers_own_words(
    api: kube_api.FakeApi, connection: kube.Kube, status: int, expected: type[Exception]
) -> None:
    api.failures["GET /api/v1/namespaces/ns/pods/a"] = (status, "because\n of  this")
    with pytest.raises(expected, match=f"GET {POD}: {status} because of this"):
        asyncio.run(connection.get(POD))


def test_a_namespace_that_ends_is_no_lack_of_rights(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    api.ending = True
    with pytest.raises(errors.NamespaceEndsError, match="403"):
        asyncio.run(connection.apply(POD, {"metadata": {}}))


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        settings = client.Configuration(host=f"http://127.0.0.1:{taken.getsockname()[1]}")
        settings.retries = False
        made = kube.Kube(client.ApiClient(settings), timeout_seconds=2.0)
        with pytest.raises(errors.ClusterUnreachableError, match="does not answer") as caught:
            asyncio.run(made.get("/version"))
        assert caught.value.__cause__ is not None
        made.close()


def test_a_kubeconfig_that_can_not_be_read_names_the_flag(tmp_path: pathlib.Path) -> None:
    for name, text in (("missing", None), ("empty", ""), ("odd", "just: text"), ("broken", "{")):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(errors.AccessDeniedError, match="--kubeconfig"):
            kube.connect(str(path))


def test_a_kubeconfig_is_used(tmp_path: pathlib.Path, api: kube_api.FakeApi) -> None:
    api.put(POD, {"metadata": {}})
    with kube_api.serve(api) as address:
        path = tmp_path / "config"
        path.write_text(
            f"""{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}],
            clusters: [{{name: k, cluster: {{server: "{address}"}}}}], users: [{{name: u, user: {{token: abc}}}}]}}"""
        )
        made = kube.connect(str(path))
        assert asyncio.run(made.get(POD))["metadata"]["name"] == "a"
        assert made.host == address
        made.close()
