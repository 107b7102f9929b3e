"""Applying against a served API: what is sent, in which order, what is left alone, what is removed."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from trimtab_operator import apply, errors, kube, labels
from trimtab_operator.render import table

from . import kube_api

Manifest = dict[str, Any]
NOW = 1_800_000_000.0
OWNER = "uid-small"


def made(kind: str, name: str, *, owner: str = OWNER, epoch: int = 3, **content: Any) -> Manifest:
    annotations = {labels.EPOCH: str(epoch), **content.pop("annotations", {})}
    reference = {
        "apiVersion": "inference.trimtab.dev/v1alpha1",
        "kind": "InferenceTier",
        "name": "small",
        "uid": owner,
        "controller": True,
    }
    return {
        "apiVersion": kube.KINDS[kind].api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "team",
            "labels": {labels.MANAGED_BY: "trimtab", **content.pop("labels", {})},
            "annotations": annotations,
            "ownerReferences": [reference],
        },
        **content,
    }


def deployment(name: str = "small--l4", replicas: int | None = 2, **more: Any) -> Manifest:
    spec = {"selector": {}} if replicas is None else {"selector": {}, "replicas": replicas}
    told = {} if replicas is None else {labels.TOLD: str(replicas)}
    return made("Deployment", name, spec=spec, annotations=told, **more)


def routes(version: str = "3.1-abc", **more: Any) -> Manifest:
    return made(
        "ConfigMap",
        "chat-table",
        labels={labels.POLICY: "chat", "app.kubernetes.io/component": table.COMPONENT},
        annotations={labels.TABLE: version},
        data={"table.json": version},
        **more,
    )


class Bench:
    """An applier, its server, and the world as a listing would show it."""

    def __init__(self, api: kube_api.FakeApi, connection: kube.Kube, epoch: int = 3) -> None:
        self.api = api
        self.applier = apply.Applier(connection, epoch=epoch, resync_seconds=600.0)
        self.routers: dict[tuple[str, str], list[str]] = {}
        self.owners = frozenset({OWNER})

    def children(self) -> dict[apply.Identity, Manifest]:
        found = {}
        for path, each in self.api.objects.items():
            kind = next(kind for kind in kube.KINDS.values() if f"/{kind.plural}/" in path)
            if (
                kind in (*kube.CHILDREN, *kube.OPTIONAL)
                and each["metadata"].get("labels", {}).get(labels.MANAGED_BY) == "trimtab"
            ):
                found[kind.name, "team", each["metadata"]["name"]] = copy.deepcopy(each)
        return found

    def apply(self, *objects: Manifest, now: float = NOW) -> list[str]:
        """Apply; returns what was written, as ``METHOD path-from-the-plural``."""
        self.api.requests.clear()
        world = apply.World(self.children(), self.owners, self.routers)
        try:
            asyncio.run(self.applier.apply(list(objects), world, now))
        finally:
            written = [(m, p) for m, p, _ in self.api.requests if m != "GET"]
        return [f"{method} {path.partition('/namespaces/team/')[2]}" for method, path in written]

    def live(self, kind: str, name: str) -> Manifest:
        return self.api.objects[kube.KINDS[kind].path("team", name)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    api = kube_api.FakeApi()
    with kube_api.connected(api) as connection:
        yield Bench(api, connection)


def test_objects_are_applied_once_and_then_left_alone(bench: Bench) -> None:
    objects = [routes(), made("Service", "small-engines", spec={"clusterIP": "None"}), deployment()]
    assert sorted(bench.apply(*objects)) == [
        "PATCH configmaps/chat-table",
        "PATCH deployments/small--l4",
        "PATCH services/small-engines",
    ]
    assert bench.apply(*objects) == []
    assert bench.apply(*objects, now=NOW + 599) == []
    assert len(bench.apply(*objects, now=NOW + 601)) == 3  # resync


def test_the_order_is_tables_marks_others_deployments(bench: Bench) -> None:
    bench.api.put(kube.PODS.path("team", "pod-a"), {"metadata": {"annotations": {"mine": "x"}}})
    mark = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "pod-a",
            "namespace": "team",
            "annotations": {labels.DRAIN_SINCE: "now", labels.DELETION_COST: None},
        },
    }
    written = bench.apply(routes(), mark, made("Service", "small-engines", spec={}), deployment())
    assert written == [
        "PATCH configmaps/chat-table",
        "PATCH pods/pod-a",
        "PATCH services/small-engines",
        "PATCH deployments/small--l4",
    ]
    assert bench.live("Pod", "pod-a")["metadata"]["annotations"] == {"mine": "x", labels.DRAIN_SINCE: "now"}


def test_a_mark_on_a_pod_that_is_gone_is_no_error(bench: Bench) -> None:
    mark = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gone", "namespace": "team", "annotations": {}}}
    bench.apply(mark, deployment())
    assert bench.live("Deployment", "small--l4")


def test_what_somebody_changed_is_set_right_at_once(bench: Bench) -> None:
    service = made("Service", "small-engines", spec={"clusterIP": "None"})
    bench.apply(service, deployment())
    path = kube.SERVICES.path("team", "small-engines")
    bench.api.put(path, {**bench.api.objects[path], "spec": {"clusterIP": "10.0.0.1"}})
    assert bench.apply(service, deployment()) == ["PATCH services/small-engines"]
    assert bench.live("Service", "small-engines")["spec"]["clusterIP"] == "None"


def test_a_deployments_status_is_no_change(bench: Bench) -> None:
    bench.apply(deployment())
    path = kube.DEPLOYMENTS.path("team", "small--l4")
    bench.api.put(path, {**bench.api.objects[path], "status": {"readyReplicas": 2}})
    assert bench.apply(deployment()) == []


def test_what_is_no_longer_rendered_is_removed_but_tables_stay(bench: Bench) -> None:
    bench.apply(routes(), deployment("small--l4"), deployment("small--old"))
    assert bench.apply(deployment("small--l4")) == ["DELETE deployments/small--old"]
    assert bench.live("ConfigMap", "chat-table")


def test_nothing_of_a_cr_that_was_not_read_is_removed(bench: Bench) -> None:
    bench.api.put(kube.SERVICES.path("team", "other"), made("Service", "other", owner="uid-unread"))
    bench.api.put(kube.SERVICES.path("team", "foreign"), {"metadata": {"labels": {"app": "x"}}})
    assert bench.apply(deployment()) == ["PATCH deployments/small--l4"]


def test_an_object_of_that_name_that_is_not_ours_is_left_and_the_rest_is_applied(bench: Bench) -> None:
    bench.api.put(
        kube.SERVICES.path("team", "small-engines"), {"metadata": {"labels": {"app": "mine"}}, "spec": {"x": 1}}
    )
    with pytest.raises(errors.ObjectsRefusedError) as caught:
        bench.apply(made("Service", "small-engines", spec={}), deployment())
    assert "exists and is not Trimtab's" in caught.value.reasons["Service team/small-engines"]
    assert bench.live("Service", "small-engines")["spec"] == {"x": 1}
    assert bench.live("Deployment", "small--l4")


def test_one_refusal_names_its_object_and_stops_nothing_else(bench: Bench) -> None:
    bench.api.failures["PATCH /api/v1/namespaces/team/services/small-engines"] = (422, "clusterIP: field is immutable")
    with pytest.raises(errors.ObjectsRefusedError) as caught:
        bench.apply(made("Service", "small-engines", spec={}), deployment())
    assert list(caught.value.reasons) == ["Service team/small-engines"]
    assert "field is immutable" in str(caught.value)
    assert bench.live("Deployment", "small--l4")


def test_a_namespace_under_deletion_gets_nothing_new_and_that_is_no_error(bench: Bench) -> None:
    bench.apply(deployment())
    bench.api.ending = True
    bench.apply(deployment(), made("Service", "small-engines", spec={}))
    assert not [path for path in bench.api.objects if "services" in path]


def test_a_server_in_trouble_ends_the_cycle(bench: Bench) -> None:
    bench.api.failures["configmaps"] = (503, "etcd")
    with pytest.raises(errors.ClusterUnreachableError):
        bench.apply(routes(), deployment())
    assert not [path for path in bench.api.objects if "deployments" in path]


def test_a_leader_of_a_higher_epoch_ends_this_one_before_it_writes(bench: Bench) -> None:
    bench.api.put(kube.SERVICES.path("team", "small-engines"), made("Service", "small-engines", epoch=4))
    with pytest.raises(errors.DeposedError, match="epoch 4, this leader has 3"):
        bench.apply(deployment())
    assert bench.api.writes() == []


def test_every_write_carries_the_epoch(bench: Bench) -> None:
    bench.apply(routes(), deployment())
    assert {each["metadata"]["annotations"][labels.EPOCH] for each in bench.api.objects.values()} == {"3"}


def test_a_count_is_handed_over_before_we_let_go_of_it(bench: Bench) -> None:
    bench.apply(deployment(replicas=4))
    written = bench.apply(deployment(replicas=None))
    assert written == ["PATCH deployments/small--l4"] * 2
    assert bench.live("Deployment", "small--l4")["spec"]["replicas"] == 4
    assert labels.TOLD not in bench.live("Deployment", "small--l4")["metadata"]["annotations"]
    assert apply.HAND_OVER in bench.live("Deployment", "small--l4")["x-managed"]


def test_a_new_table_touches_the_routers_so_that_their_mount_is_refreshed(bench: Bench) -> None:
    for name in ("router-1", "router-2"):
        bench.api.put(kube.PODS.path("team", name), {"metadata": {}})
    bench.routers = {("team", "chat"): ["router-1", "router-2", "router-gone"], ("team", "other"): ["x"]}
    bench.apply(routes("3.2-def"))
    assert bench.live("Pod", "router-1")["metadata"]["annotations"] == {labels.TABLE: "3.2-def"}
    assert bench.live("Pod", "router-2")["metadata"]["annotations"] == {labels.TABLE: "3.2-def"}
    assert bench.apply(routes("3.2-def")) == []
