"""The main job on a real API server: from `kubectl apply` of the quickstart to its last object gone.

The operator runs as its own manifests say, with its own role; engines are simulated and quick, everything else is real:
scheduler and controllers, routers, Prometheus, streams over HTTP. The tests of this module are one story, in order.
"""

import asyncio
import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import shutil
import threading
import time
import typing

import pytest
import yaml

from . import local
from .kubectl import KubectlError, Object
from .manifests import ready
from .pod_runner import addresses
from .pod_runner.nodes import NodeSpec
from .session import Process, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = pathlib.Path(__file__).resolve().parents[2]
INTERVAL_SECONDS = 3.0
WINDOW = "6s"
NODES = {
    "many-l4": "NVIDIA-L4",
    "many-l40s": "NVIDIA-L40S",
    "many-a100": "NVIDIA-A100-SXM4-80GB",
    "many-h100": "NVIDIA-H100-80GB-HBM3",
    "many-h200": "NVIDIA-H200",
}
OURS = "app.kubernetes.io/managed-by=trimtab"
KINDS = "deployments,services,configmaps,poddisruptionbudgets,horizontalpodautoscalers,pods"
# Slow and narrow engines, so that few requests fill one: 4 sequences at 54 ms a token.
PROFILE = {
    "itlBase": "50ms",
    "itlPerSequence": "1ms",
    "prefillTokensPerSecond": 20000,
    "kvTokens": 60000,
    "maxSequences": 4,
    "startup": "3s",
}
ENGINE_ARGS = [
    *("--sim-itl-base-ms", "50", "--sim-itl-per-seq-ms", "1", "--sim-prefill-tokens-per-second", "20000"),
    *("--sim-kv-tokens", "60000", "--sim-startup-seconds", "1"),
]
TOKENS = 40  # 2.2 s of stream each


def quickstart() -> list[Object]:
    """The example as users apply it, with small engines, short start-ups and short windows."""
    objects: list[Object] = []
    for path in sorted((ROOT / "examples" / "quickstart").glob("*.yaml")):
        if path.name == "kustomization.yaml":
            continue
        each = yaml.safe_load(path.read_text())
        spec = each["spec"]
        if each["kind"] == "InferenceTier":
            spec["engine"] = {"args": ENGINE_ARGS}
            spec["scaling"] = {"scaleDownWindow": "6s"}
            spec["drain"] = {"timeout": "20s"}
            spec["slo"] = {"ttft": {"p95": "4s"}, "itl": {"p95": "80ms"}}
            for variant in spec["variants"]:
                variant["profile"] = PROFILE
        if each["kind"] == "RoutingPolicy":
            spec["retune"] = {"interval": f"{INTERVAL_SECONDS:g}s", "maxWeightStep": "0.2"}
            spec["router"] = {"replicas": {"min": 2, "max": 2}}
            spec["resilience"] = {"firstByteTimeout": "20s", "totalTimeout": "30s"}
            spec["slo"] = {"ttft": {"p95": "4s"}}
        objects.append(each)
    return objects


def expected() -> set[str]:
    """What must exist for the quickstart."""
    tiers = [each for each in quickstart() if each["kind"] == "InferenceTier"]
    variants = [f"{tier['metadata']['name']}--{each['name']}" for tier in tiers for each in tier["spec"]["variants"]]
    names = {
        f"{kind}/{name}" for kind in ("Deployment", "PodDisruptionBudget") for name in [*variants, "assistant-router"]
    }
    names |= {f"Service/{tier['metadata']['name']}-engines" for tier in tiers}
    return names | {"Service/assistant-router", "ConfigMap/assistant-table"}


@dataclasses.dataclass
class Stage:
    """Where the story plays."""

    cluster: local.LocalCluster
    namespace: str
    prometheus: Process

    def get(self, kind: str, name: str) -> Object:
        return self.cluster.kubectl.get(kind, name, "-n", self.namespace)

    def objects(self, kinds: str = KINDS) -> list[str]:
        found = self.cluster.kubectl.get(kinds, "-n", self.namespace, "-l", OURS)["items"]
        return sorted(f"{each['kind']}/{each['metadata']['name']}" for each in found)

    def engines(self) -> list[Object]:
        return self.cluster.pods(self.namespace, "inference.trimtab.dev/tier")

    def counts(self) -> dict[str, int]:
        found = self.cluster.kubectl.get("deployments", "-n", self.namespace, "-l", "inference.trimtab.dev/tier")[
            "items"
        ]
        return {each["metadata"]["name"]: each["spec"]["replicas"] for each in found}

    def weights(self) -> dict[str, dict[str, str]]:
        return {each["name"]: each["weights"] for each in self.get("routingpolicy", "assistant")["status"]["classes"]}

    def decisions(self, kind: str, name: str) -> list[Object]:
        return typing.cast("list[Object]", self.get(kind, name).get("status", {}).get("decisions", []))


@pytest.fixture(scope="module")
def stage(pod_runner: local.LocalCluster) -> collections.abc.Iterator[Stage]:
    """Nodes, CRDs, Prometheus and the operator, before anybody applied anything."""
    kubectl = pod_runner.kubectl
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    for name, product in NODES.items():
        pod_runner.add_node(NodeSpec(name, gpus=96, labels={"nvidia.com/gpu.product": product}))
    namespace = pod_runner.namespace("story")
    prometheus = start_prometheus(pod_runner, namespace)
    install(pod_runner)
    yield Stage(pod_runner, namespace, prometheus)
    kubectl("delete", "namespace", namespace, "--wait=false")
    kubectl("delete", "-k", str(ROOT / "manifests" / "base"), "--wait=false")
    kubectl("delete", "node", *NODES)
    prometheus.stop()


def start_prometheus(cluster: local.LocalCluster, namespace: str) -> Process:
    """A real Prometheus that finds routers and engines by the names of their Services."""
    program = shutil.which("prometheus")
    assert program is not None, "no prometheus: run scripts/control_plane/debian.sh"
    router = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "routers"}}
    router["spec"] = {"clusterIP": "None", "selector": {"inference.trimtab.dev/policy": "assistant"}}
    cluster.kubectl.apply(router, namespace=namespace)
    names = {f"routers.{namespace}.svc.cluster.local": 8081}
    names |= {f"{tier}-engines.{namespace}.svc.cluster.local": 8000 for tier in ("small", "medium", "large")}
    jobs = [
        {"job_name": name, "dns_sd_configs": [{"names": [name], "type": "A", "port": port, "refresh_interval": "1s"}]}
        for name, port in names.items()
    ]
    timing = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config = cluster.folder / "story-prometheus.json"
    config.write_text(json.dumps({"global": timing, "scrape_configs": jobs}))
    storage = f"--storage.tsdb.path={cluster.folder / 'story-tsdb'}"
    return cluster.start_process(
        "story-prometheus", program, f"--config.file={config}", storage, "--web.listen-address=0.0.0.0:9091"
    )


def install(cluster: local.LocalCluster) -> None:
    """The operator by its own manifests; only its times and the address of Prometheus are ours."""
    found = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(ROOT / "manifests" / "base"))))
    operator = next(each for each in found if each["kind"] == "Deployment")
    container = operator["spec"]["template"]["spec"]["containers"][0]
    container["args"] += ["--interval", f"{INTERVAL_SECONDS:g}s", "--window", WINDOW]
    container["env"][0]["value"] = f"http://{addresses.HOST}:9091"
    order = {"Namespace": 0, "ServiceAccount": 1}
    found.sort(key=lambda each: order.get(each["kind"], 2))
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=found)


class Load:
    """Streams at a rate that the test changes; every answer is checked to its last event."""

    def __init__(self, stage: Stage) -> None:
        address = eventually(
            lambda: stage.cluster.resolve(f"assistant-router.{stage.namespace}.svc.cluster.local"), "DNS"
        )
        self._address = address[0]
        self.rate = 1.0
        self.ended = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: stage.cluster.inside(lambda: asyncio.run(self._run()), 600))

    def __enter__(self) -> typing.Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    async def _run(self) -> None:
        running: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            task = asyncio.create_task(self._one(len(running)))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(1 / self.rate)
        await asyncio.gather(*running)

    async def _one(self, number: int) -> None:
        try:
            async with asyncio.timeout(60):
                problem = await self._stream(number)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            problem = repr(error)
        self.ended += 1
        if problem:
            self.failures.append(problem)

    async def _stream(self, number: int) -> str:
        """One streamed chat; returns what was wrong with it, or nothing."""
        question = {"role": "user", "content": f"Tell me about number {number} at {time.monotonic()}"}
        body = json.dumps(
            {"model": "auto", "messages": [question], "stream": True, "max_tokens": TOKENS, "ignore_eos": True}
        )
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection(self._address, 8080)
        try:
            writer.write((head + body).encode())
            answer = (await reader.read()).decode()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not answer.startswith("HTTP/1.1 200"):
            return answer[:300]
        if "data: [DONE]" not in answer or '"error"' in answer or '"finish_reason":"abort"' in answer.replace(" ", ""):
            return "cut: " + answer[-300:]
        return ""


def test_the_quickstart_becomes_engines_services_routers_and_a_table(stage: Stage) -> None:
    stage.cluster.kubectl.apply(*quickstart(), namespace=stage.namespace)

    def serving() -> bool:
        status = stage.get("routingpolicy", "assistant").get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
        return conditions.get("Ready") == "True" and conditions.get("MetricsAvailable") == "True"

    eventually(serving, "a policy that is ready and measured", seconds=120)
    assert set(stage.objects("deployments,services,configmaps,poddisruptionbudgets")) == expected()
    table = json.loads(stage.get("configmap", "assistant-table")["data"]["table.json"])
    assert [tier["name"] for tier in table["tiers"]] == ["small", "medium", "large"]
    eventually(lambda: all(ready(pod) for pod in stage.engines()), "ready engines")
    tier = stage.get("inferencetier", "small")
    assert tier["status"]["observedGeneration"] == tier["metadata"]["generation"]
    assert float(tier["status"]["usdPerHour"]) > 0
    assert "finalizers" not in tier["metadata"]
    assert not [name for name in tier["metadata"].get("annotations", {}) if "kopf" in name or "trimtab" in name]


def test_invalid_yaml_is_refused_with_the_field_and_the_fix(stage: Stage) -> None:
    tier = next(each for each in quickstart() if each["metadata"]["name"] == "small")
    tier["metadata"]["name"] = "wrong"
    tier["spec"]["slo"]["ttft"]["p95"] = "800"
    with pytest.raises(KubectlError) as caught:
        stage.cluster.kubectl.apply(tier, namespace=stage.namespace)
    assert "spec.slo.ttft.p95" in str(caught.value)
    tier["spec"]["slo"]["ttft"]["p95"] = "800ms"
    tier["spec"]["variants"][0]["replicas"] = {"min": 5, "max": 2}
    with pytest.raises(KubectlError) as caught:
        stage.cluster.kubectl.apply(tier, namespace=stage.namespace)
    assert "min" in str(caught.value)
    assert "max" in str(caught.value)


def test_load_rises_and_falls_and_replicas_and_weights_follow_without_a_failed_stream(stage: Stage) -> None:
    with Load(stage) as load:
        eventually(lambda: load.ended > 5, "answers")
        time.sleep(4 * INTERVAL_SECONDS)  # the window fills
        before, weights = stage.counts(), stage.weights()
        load.rate, rose = 7.0, time.monotonic()
        eventually(lambda: sum(stage.counts().values()) > sum(before.values()), "more replicas", pause=0.3)
        replicas_seconds = time.monotonic() - rose
        eventually(lambda: stage.weights() != weights, "other weights", pause=0.3)
        weights_seconds = time.monotonic() - rose
        print(f"after the rise: replicas moved in {replicas_seconds:.1f} s, weights in {weights_seconds:.1f} s")
        high = eventually(lambda: settled(stage), "a fleet that has grown", seconds=90)
        load.rate = 0.5
        told = eventually(lambda: leaving(stage), "a replica that is told to leave", seconds=150, pause=0.2)
        eventually(lambda: sum(stage.counts().values()) < high, "fewer replicas", seconds=60, pause=0.5)
        eventually(lambda: not told & {pod["metadata"]["name"] for pod in stage.engines()}, "its pod gone", seconds=60)
        time.sleep(2 * INTERVAL_SECONDS)
    assert load.ended > 50
    assert load.failures == []
    decided = [each for name in ("small", "medium", "large") for each in stage.decisions("inferencetier", name)]
    assert all(each["reasons"] for each in decided)


def settled(stage: Stage) -> int:
    """How many engines run, once all that are wanted are ready."""
    counts, engines = sum(stage.counts().values()), stage.engines()
    return counts if len(engines) == counts and all(ready(pod) for pod in engines) else 0


def leaving(stage: Stage) -> set[str]:
    """Engines that were told to leave and still serve what they have."""
    return {
        pod["metadata"]["name"]
        for pod in stage.engines()
        if "inference.trimtab.dev/drain-since" in pod["metadata"].get("annotations", {})
        and "deletionTimestamp" not in pod["metadata"]
    }


def test_the_operator_asked_for_nothing_that_its_role_forbids(stage: Stage) -> None:
    refused = [
        f"{each['verb']} {each['objectRef'].get('resource')}: {each['responseStatus'].get('message', '')}"
        for each in stage.cluster.audit()
        if each["user"]["username"] == "system:serviceaccount:trimtab-system:trimtab-operator"
        and each.get("responseStatus", {}).get("code") == 403
        and "is being terminated" not in each["responseStatus"].get("message", "")  # another module's namespace
    ]
    assert sorted(set(refused)) == []


def test_the_api_server_itself_refuses_a_leader_of_an_earlier_epoch(stage: Stage) -> None:
    table = stage.get("configmap", "assistant-table")
    stale = {"metadata": {"annotations": {"inference.trimtab.dev/epoch": "0"}}}
    with pytest.raises(KubectlError, match="by a later leader; this write has 0"):
        stage.cluster.kubectl(
            "patch", "configmap", table["metadata"]["name"], "-n", stage.namespace, "-p", json.dumps(stale)
        )


def test_another_leader_goes_on_where_the_last_one_stopped(stage: Stage) -> None:
    where = ("lease", "trimtab-operator", "-n", "trimtab-system")
    before, counts = stage.cluster.kubectl.get(*where)["spec"], settled_counts(stage)
    pods = stage.cluster.pods("trimtab-system", "app.kubernetes.io/component=operator")
    holder = next(
        pod["metadata"]["name"] for pod in pods if before["holderIdentity"].startswith(pod["metadata"]["name"])
    )
    stage.cluster.kubectl("delete", "pod", holder, "-n", "trimtab-system", "--wait=false")
    epoch = before["leaseTransitions"]
    eventually(lambda: stage.cluster.kubectl.get(*where)["spec"]["leaseTransitions"] > epoch, "another leader")
    eventually(lambda: stage.get("inferencetier", "small")["status"]["epoch"] > epoch, "its status")
    table = json.loads(stage.get("configmap", "assistant-table")["data"]["table.json"])
    assert table["epoch"] > epoch
    assert sum(stage.counts().values()) <= sum(counts.values()), "nothing was made anew"


def settled_counts(stage: Stage) -> dict[str, int]:
    """The replica counts, once every pod of theirs runs."""
    eventually(lambda: settled(stage), "a fleet that stands still", seconds=60)
    return stage.counts()


def test_deleting_the_objects_leaves_nothing_behind(stage: Stage) -> None:
    stage.cluster.kubectl(
        "delete", "inferencetiers,routingpolicies,cachepolicies", "--all", "-n", stage.namespace, timeout=60
    )
    eventually(lambda: not stage.objects(), "nothing of ours", seconds=120)
    time.sleep(3 * INTERVAL_SECONDS)
    assert stage.objects() == [], "and nothing comes back"
