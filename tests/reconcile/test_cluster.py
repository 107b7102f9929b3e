"""What the API server shows becomes an observation, and what the loop tells becomes status and Events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from trimtab_core import observation
from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing import publish
from trimtab_core.snapshot import ReplicaPhase
from trimtab_operator import cluster, errors, kube, labels
from trimtab_operator.observe import kubernetes

from . import kube_api

Manifest = dict[str, Any]
NOW = 1_800_000_000.0
KEY = VariantKey("team/small", "l4")
BORN = "2027-01-15T07:58:20Z"  # NOW - 100


def pod(name: str, *, ready: bool = True, waiting: str = "", phase: str = "Running", **metadata: Any) -> Manifest:
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2027-01-15T07:59:00Z"}
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    given = {labels.MANAGED_BY: "trimtab", labels.TIER: "small", labels.VARIANT: "l4"}
    return {
        "metadata": {"name": name, "namespace": "team", "labels": given, "creationTimestamp": BORN, **metadata},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"ports": [{"name": "admin", "containerPort": 1}, {"name": "http", "containerPort": 8000}]}],
        },
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": [condition],
            "containerStatuses": [{"state": state}],
        },
    }


def deployment(replicas: int = 2, **annotations: str) -> Manifest:
    given = {labels.MANAGED_BY: "trimtab", labels.TIER: "small", labels.VARIANT: "l4"}
    metadata = {"name": "small--l4", "namespace": "team", "labels": given, "annotations": annotations}
    return {"metadata": metadata, "spec": {"replicas": replicas}}


def variant(*pods: Manifest, **lists: Any) -> observation.ObservedVariant:
    given = {"deployments": [deployment()], "pods": list(pods), **lists}
    return kubernetes.read(kubernetes.Lists(**given)).observation.variants[KEY]


@pytest.mark.parametrize(
    ("given", "phase"),
    [
        pytest.param(pod("a"), ReplicaPhase.READY, id="ready"),
        pytest.param(pod("a", ready=False), ReplicaPhase.PENDING, id="loading"),
        pytest.param(pod("a", ready=False, waiting="ContainerCreating"), ReplicaPhase.PENDING, id="pulling"),
        pytest.param(pod("a", ready=False, waiting="ImagePullBackOff"), ReplicaPhase.FAILED, id="image never comes"),
        pytest.param(pod("a", ready=False, waiting="CrashLoopBackOff"), ReplicaPhase.FAILED, id="crashes"),
        pytest.param(pod("a", deletionTimestamp="2027-01-15T08:00:00Z"), ReplicaPhase.DRAINING, id="being deleted"),
        pytest.param(pod("a", annotations={labels.DRAIN_SINCE: BORN}), ReplicaPhase.DRAINING, id="told to leave"),
    ],
)
def test_phases_of_a_pod(given: Manifest, phase: ReplicaPhase) -> None:
    assert variant(given).replicas[0].phase is phase


def test_a_pod_becomes_a_replica_with_its_times_and_address() -> None:
    found = variant(pod("a")).replicas[0]
    assert found == observation.ObservedReplica("a", ReplicaPhase.READY, NOW - 100, NOW - 60, "10.0.0.7:8000")


@pytest.mark.parametrize(
    ("container", "began"),
    [
        ({"restartCount": 0, "state": {"running": {"startedAt": "2027-01-15T07:58:30Z"}}}, NOW - 100),
        ({"restartCount": 1, "state": {"running": {"startedAt": "2027-01-15T07:59:30Z"}}}, NOW - 30),
        (
            {
                "restartCount": 1,
                "state": {"waiting": {"reason": "ContainerCreating"}},
                "lastState": {"terminated": {"finishedAt": "2027-01-15T07:59:40Z"}},
            },
            NOW - 20,
        ),
    ],
    ids=["first start", "runs again", "is to run again"],
)
def test_a_container_that_comes_up_anew_starts_anew(container: Manifest, began: float) -> None:
    """Or its pod, however old, would at once be one that takes too long to start, and its variant be blocked."""
    restarted = pod("a", ready=False)
    restarted["status"]["containerStatuses"] = [container]

    assert variant(restarted).replicas[0].created_at == began


def test_a_mark_counts_until_the_pod_is_being_deleted() -> None:
    marked = pod("a", annotations={labels.DRAIN_SINCE: BORN})
    assert variant(marked).replicas[0].drain_since == NOW - 100
    deleted = pod("a", annotations={labels.DRAIN_SINCE: BORN}, deletionTimestamp=BORN)
    assert variant(deleted).replicas[0].drain_since is None


def test_evicted_pods_are_no_replicas() -> None:
    assert variant(pod("a", phase="Failed"), pod("b")).replicas[0].name == "b"


def test_counts_come_from_the_deployment_and_what_we_told_from_its_annotation() -> None:
    found = variant(deployments=[deployment(5, **{labels.TOLD: "3"})])
    assert (found.desired, found.told) == (5, 3)
    assert variant().told is None


def test_prices_come_from_the_node_that_runs_it() -> None:
    assert variant(pod("a"), nodes={"node-1": {"region": "x"}, "node-2": {}}).node_labels == {"region": "x"}


def hpa(name: str, target: str = "small--l4", kind: str = "Deployment", **metadata: Any) -> Manifest:
    return {
        "metadata": {"name": name, "namespace": "team", **metadata},
        "spec": {"scaleTargetRef": {"kind": kind, "name": target}},
    }


OURS = {"labels": {labels.MANAGED_BY: "trimtab"}}


@pytest.mark.parametrize(
    ("lists", "writer"),
    [
        pytest.param({"hpas": [hpa("mine")]}, "HorizontalPodAutoscaler mine", id="a foreign HPA"),
        pytest.param({"hpas": [hpa("small--l4", **OURS)]}, "", id="our own HPA"),
        pytest.param({"hpas": [hpa("mine", target="other")]}, "", id="an HPA of something else"),
        pytest.param({"hpas": [hpa("mine", kind="StatefulSet")]}, "", id="an HPA of another kind"),
        pytest.param({"scaled_objects": [hpa("mine")]}, "ScaledObject mine", id="a foreign ScaledObject"),
        pytest.param(
            {
                "scaled_objects": [hpa("small--l4", **OURS)],
                "hpas": [hpa("keda-hpa-small--l4", ownerReferences=[{"kind": "ScaledObject", "name": "small--l4"}])],
            },
            "",
            id="the HPA that KEDA makes for ours",
        ),
    ],
)
def test_second_writers_are_found(lists: dict[str, Any], writer: str) -> None:
    assert variant(**lists).external_scaler == writer


def test_routers_are_those_that_are_ready() -> None:
    given = {labels.MANAGED_BY: "trimtab", labels.POLICY: "chat"}
    pods = [pod("r2", labels=given), pod("r1", labels=given), pod("r3", ready=False, labels=given)]
    assert kubernetes.read(kubernetes.Lists(pods=pods)).observation.routers == {"team/chat": ("r1", "r2")}


TIER = {
    "metadata": {
        "name": "small",
        "namespace": "team",
        "uid": "u1",
        "generation": 2,
        "managedFields": [{"manager": "x"}],
    },
    "spec": {"model": {"name": "m-8b", "quality": "0.5"}, "variants": [{"name": "l4", "accelerator": {"type": "L4"}}]},
}
POLICY = {
    "metadata": {"name": "chat", "namespace": "team", "uid": "u2"},
    "spec": {
        "tiers": [{"ref": "small"}],
        "tenants": {"known": [{"name": "a", "apiKeySecretRef": {"name": "keys", "key": "a"}}, {"name": "b"}]},
    },
}


def test_an_object_that_can_not_be_read_is_named_and_the_others_are_read() -> None:
    bad = {"metadata": {"name": "bad", "namespace": "team"}, "spec": {"model": {"name": "m", "quality": "good"}}}
    found = kubernetes.read(kubernetes.Lists(tiers=[bad, TIER]))
    assert [each.metadata.name for each in found.observation.tiers] == ["small"]
    assert "spec.model.quality" in found.unreadable["InferenceTier", "team", "bad"]


def test_a_status_that_a_later_version_wrote_is_forgotten_not_fatal() -> None:
    later = {**TIER, "status": {"shinyNewField": 1}}
    found = kubernetes.read(kubernetes.Lists(tiers=[later]))
    assert found.observation.tiers[0].status.variants == []
    assert not found.unreadable


def test_an_object_that_is_being_deleted_is_gone() -> None:
    leaving = {**TIER, "metadata": {**TIER["metadata"], "deletionTimestamp": BORN}}
    assert kubernetes.read(kubernetes.Lists(tiers=[leaving])).observation.tiers == ()


@pytest.fixture
def api() -> kube_api.FakeApi:
    made = kube_api.FakeApi()
    made.put(kube.TIERS.path("team", "small"), TIER)
    made.put(kube.POLICIES.path("team", "chat"), POLICY)
    made.put(kube.DEPLOYMENTS.path("team", "small--l4"), deployment())
    made.put(kube.PODS.path("team", "a"), pod("a"))
    made.put(kube.NODES.path("", "node-1"), {"metadata": {"labels": {"zone": "z"}}})
    made.put(kube.SECRETS.path("team", "keys"), {"data": {"a": base64.b64encode(b"sk-a\n").decode()}})
    return made


@pytest.fixture
def connection(api: kube_api.FakeApi) -> Iterator[kube.Kube]:
    with kube_api.connected(api) as made:
        yield made


def port(connection: kube.Kube, *namespaces: str) -> cluster.KubernetesCluster:
    return cluster.KubernetesCluster(connection, namespaces=namespaces, epoch=1, resync_seconds=600, clock=lambda: NOW)


def test_everything_is_listed_and_joined(connection: kube.Kube) -> None:
    seen = asyncio.run(port(connection).observe())
    assert [each.metadata.name for each in (*seen.tiers, *seen.policies)] == ["small", "chat"]
    assert seen.variants[KEY].replicas[0].name == "a"
    assert seen.variants[KEY].node_labels == {"zone": "z"}
    assert seen.tenant_keys == {"team/chat": {"a": (publish.key_hash("sk-a"),)}}
    assert seen.optional_kinds == frozenset()


def test_a_tenants_key_is_read_at_once_when_the_policy_changes(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    made = port(connection)
    asyncio.run(made.observe())
    reads = sum("secrets" in path for _, path, _ in api.requests)
    asyncio.run(made.observe())
    assert sum("secrets" in path for _, path, _ in api.requests) == reads, "not with every cycle"
    changed = {**POLICY["spec"], "tenants": {"known": [{"name": "z", "apiKeySecretRef": {"name": "keys", "key": "a"}}]}}
    api.put(kube.POLICIES.path("team", "chat"), {**POLICY, "spec": changed})
    assert asyncio.run(made.observe()).tenant_keys == {"team/chat": {"z": (publish.key_hash("sk-a"),)}}


def test_only_the_given_namespaces_are_asked_for(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    seen = asyncio.run(port(connection, "other", "more").observe())
    assert seen.tiers == ()
    asked = {path for _, path, _ in api.requests if not path.endswith(("nodes", "v1alpha1", "v1"))}
    assert all("/namespaces/other/" in path or "/namespaces/more/" in path for path in asked)


def test_optional_kinds_are_found_when_they_are_served(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    api.absent.clear()
    assert asyncio.run(port(connection).observe()).optional_kinds == {"ScaledObject", "PodMonitor"}


def test_missing_crds_say_what_to_apply(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    api.absent.add("inferencetiers")
    with pytest.raises(errors.KindMissingError, match="kubectl apply --server-side -f crds/"):
        asyncio.run(port(connection).observe())


@pytest.mark.parametrize("denied", ["nodes", "secrets"])
def test_what_a_small_role_may_not_see_is_done_without(
    api: kube_api.FakeApi, connection: kube.Kube, denied: str
) -> None:
    api.failures[denied] = (403, "forbidden")
    seen = asyncio.run(port(connection).observe())
    assert seen.variants[KEY].node_labels == ({} if denied == "nodes" else {"zone": "z"})
    assert seen.tenant_keys == {"team/chat": {} if denied == "secrets" else {"a": (publish.key_hash("sk-a"),)}}


def test_an_unreachable_server_is_told_as_such(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    api.failures["GET"] = (503, "starting")
    with pytest.raises(errors.ClusterUnreachableError):
        asyncio.run(port(connection).observe())


def test_status_is_written_to_its_subresource_and_a_gone_object_is_no_error(
    api: kube_api.FakeApi, connection: kube.Kube
) -> None:
    made = port(connection)
    asyncio.run(made.observe())
    statuses = {("InferenceTier", "team", "small"): {"epoch": 1}, ("InferenceTier", "team", "gone"): {"epoch": 1}}
    asyncio.run(made.write_status(statuses))
    assert api.objects[kube.TIERS.path("team", "small")]["status"] == {"epoch": 1}
    assert sorted(api.writes()) == [kube.TIERS.path("team", name, "status") for name in ("gone", "small")]


def test_an_event_says_what_it_is_about_and_a_failure_to_write_it_is_no_error(
    api: kube_api.FakeApi, connection: kube.Kube
) -> None:
    made = port(connection)
    asyncio.run(made.observe())
    asyncio.run(made.emit_event(("InferenceTier", "team", "small"), "Decided", "l4 1 → 2: load", warning=False))
    event = next(each for path, each in api.objects.items() if "/events/" in path)
    assert event["involvedObject"]["uid"] == "u1"
    assert (event["reason"], event["message"], event["type"]) == ("Decided", "l4 1 → 2: load", "Normal")
    api.failures["events"] = (403, "forbidden")
    asyncio.run(made.emit_event(("InferenceTier", "team", "small"), "Decided", "again", warning=True))
