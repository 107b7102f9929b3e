"""The harness itself: pods, nodes, Services and their ends behave on the pod runner as they do on a real cluster."""

import asyncio
import base64
import collections.abc
import concurrent.futures
import json
import pathlib
import shutil
import signal

import pytest

from . import credentials, local, manifests, session
from .kubectl import KubectlError, Object
from .manifests import PORT, deployment, pod, server, service, shell
from .pod_runner import addresses
from .pod_runner.nodes import NodeSpec
from .session import eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def _server_image(pod_runner: local.LocalCluster) -> None:
    pod_runner.add_images(manifests.SERVER_IMAGE)


@pytest.fixture
def space(pod_runner: local.LocalCluster) -> collections.abc.Iterator[str]:
    """A namespace of the test's own; its content is deleted with it, without waiting."""
    name = pod_runner.namespace("harness")
    yield name
    pod_runner.kubectl("delete", "namespace", name, "--wait=false")


def ready_pods(cluster: session.Cluster, space: str, count: int) -> list[Object]:
    """Wait until exactly `count` pods are there, all Ready."""

    def check() -> list[Object]:
        pods = cluster.pods(space)
        return pods if len(pods) == count and all(manifests.ready(one) for one in pods) else []

    return eventually(check, f"{count} ready pods in {space}")


def ask(cluster: session.Cluster, one: Object, path: str) -> str:
    """GET a path of a pod's test server."""
    status, body = cluster.http(one["status"]["podIP"], PORT, path)
    assert status == 200, body
    return body


def container_state(cluster: session.Cluster, space: str, name: str) -> Object:
    """Return the first container status of a pod."""
    found: Object = cluster.kubectl.get("pod", "-n", space, name)["status"]["containerStatuses"][0]
    return found


def test_nodes_register_with_their_gpus_and_become_ready(pod_runner: local.LocalCluster) -> None:
    def check() -> dict[str, Object]:
        found = {node["metadata"]["name"]: node for node in pod_runner.kubectl.get("nodes")["items"]}
        return found if all(manifests.ready(node) and not node["spec"].get("taints") for node in found.values()) else {}

    nodes = eventually(check, "all nodes Ready and untainted")
    assert nodes["l4-1"]["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    assert nodes["l4-1"]["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-L4"
    assert "nvidia.com/gpu" not in nodes["cpu-1"]["status"]["allocatable"]


def test_a_deployment_becomes_available_and_its_service_reaches_every_pod(
    pod_runner: local.LocalCluster, space: str
) -> None:
    pod_runner.kubectl.apply(deployment("web", server(), replicas=2), service("web"), namespace=space)
    pod_runner.kubectl("wait", "-n", space, "--for=condition=Available", "deployment/web", "--timeout=60s")
    names = {one["metadata"]["name"] for one in ready_pods(pod_runner, space, 2)}
    address = pod_runner.kubectl.get("service", "-n", space, "web")["spec"]["clusterIP"]
    seen: set[str] = set()

    def reached() -> bool:
        seen.add(json.loads(pod_runner.http(address, 80, "/who")[1])["host"])
        return seen == names

    eventually(reached, "both pods behind the Service", pause=0)
    assert pod_runner.resolve(f"web.{space}.svc") == [address]


def test_a_headless_service_resolves_to_its_pods_and_a_missing_one_does_not(
    pod_runner: local.LocalCluster, space: str
) -> None:
    pod_runner.kubectl.apply(deployment("web", server(), replicas=2), service("web", headless=True), namespace=space)
    wanted = sorted(one["status"]["podIP"] for one in ready_pods(pod_runner, space, 2))
    eventually(lambda: pod_runner.resolve(f"web.{space}.svc.cluster.local") == wanted, "DNS answers both pods")
    assert pod_runner.resolve(f"web-of-nobody.{space}.svc") == []


def test_pods_see_each_other_by_name_and_by_their_own_addresses(pod_runner: local.LocalCluster, space: str) -> None:
    script = (
        f"exec python3 -c \"import urllib.request as u; print(u.urlopen('http://web/who').read().decode())\" # {space}"
    )
    pod_runner.kubectl.apply(pod("web", server()), service("web"), namespace=space)
    ready_pods(pod_runner, space, 1)
    pod_runner.kubectl.apply(pod("client", shell(script), restartPolicy="OnFailure"), namespace=space)
    pod_runner.kubectl("wait", "-n", space, "--for=jsonpath={.status.phase}=Succeeded", "pod/client", "--timeout=60s")
    client = pod_runner.kubectl.get("pod", "-n", space, "client")["status"]["podIP"]
    answer = json.loads(pod_runner.pod_log(space, "client", "shell").strip().splitlines()[-1])
    assert answer == {"host": "web", "client": client}


def test_a_service_without_ready_pods_refuses_connections(pod_runner: local.LocalCluster, space: str) -> None:
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    pod_runner.kubectl.apply(pod("web", server(readinessProbe=never)), service("web"), namespace=space)
    eventually(lambda: pod_runner.pods(space)[0]["status"]["phase"] == "Running", "the pod runs")
    address = pod_runner.kubectl.get("service", "-n", space, "web")["spec"]["clusterIP"]
    with pytest.raises(ConnectionRefusedError):
        pod_runner.http(address, 80)
    assert not manifests.ready(pod_runner.pods(space)[0])


def test_scale_down_runs_pre_stop_and_lets_a_request_in_flight_finish(
    pod_runner: local.LocalCluster, space: str
) -> None:
    hook = {"preStop": {"httpGet": {"path": "/note?text=preStop", "port": "http"}}}
    pod_runner.kubectl.apply(deployment("web", server(lifecycle=hook)), namespace=space)
    (one,) = ready_pods(pod_runner, space, 1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(ask, pod_runner, one, "/slow")
        eventually(
            lambda: "begins" in pod_runner.pod_log(space, one["metadata"]["name"], "server"), "the request is in flight"
        )
        pod_runner.kubectl("scale", "-n", space, "deployment/web", "--replicas=0")
        assert slow.result(60) == "done"
    eventually(lambda: not pod_runner.pods(space), "the pod object is gone")
    lines = pod_runner.pod_log(space, one["metadata"]["name"], "server").splitlines()
    assert lines == ["serving", "slow request begins", "preStop", "SIGTERM", "slow request ends", "drained"]


def test_a_process_that_ignores_sigterm_is_killed_when_its_grace_is_over(
    pod_runner: local.LocalCluster, space: str
) -> None:
    stubborn = shell("trap 'echo ignored' TERM; echo up; while :; do sleep 0.1; done")
    pod_runner.kubectl.apply(pod("stubborn", stubborn, terminationGracePeriodSeconds=2), namespace=space)
    eventually(lambda: "up" in pod_runner.pod_log(space, "stubborn", "shell"), "the script runs")
    pod_runner.kubectl("delete", "pod", "-n", space, "stubborn", "--timeout=60s")
    assert "ignored" in pod_runner.pod_log(space, "stubborn", "shell")


def test_a_crashing_container_restarts_with_back_off(pod_runner: local.LocalCluster, space: str) -> None:
    pod_runner.kubectl.apply(pod("crash", shell("echo run; exit 3")), namespace=space)

    def backing_off() -> bool:
        state = container_state(pod_runner, space, "crash")
        return state["restartCount"] >= 2 and "CrashLoopBackOff" in json.dumps(state["state"])

    eventually(backing_off, "CrashLoopBackOff after two restarts", pause=0.05)
    assert container_state(pod_runner, space, "crash")["lastState"]["terminated"]["exitCode"] == 3
    assert pod_runner.pod_log(space, "crash", "shell").count("run") >= 3


def test_a_killed_process_is_restarted_and_its_signal_stands_in_the_status(
    pod_runner: local.LocalCluster, space: str
) -> None:
    name = f"victim-{space}"
    pod_runner.kubectl.apply(pod(name, server()), namespace=space)
    ready_pods(pod_runner, space, 1)
    assert pod_runner.signal_pod(name, signal.SIGKILL) == 1
    eventually(lambda: container_state(pod_runner, space, name)["restartCount"] == 1, "a restart")
    assert container_state(pod_runner, space, name)["lastState"]["terminated"]["exitCode"] == 137
    ready_pods(pod_runner, space, 1)


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (1, "Failed")])
def test_a_pod_that_never_restarts_ends_in_the_phase_of_its_exit_code(
    pod_runner: local.LocalCluster, space: str, code: int, phase: str
) -> None:
    pod_runner.kubectl.apply(pod("once", shell(f"exit {code}"), restartPolicy="Never"), namespace=space)
    pod_runner.kubectl("wait", "-n", space, f"--for=jsonpath={{.status.phase}}={phase}", "pod/once", "--timeout=60s")
    assert container_state(pod_runner, space, "once")["state"]["terminated"]["exitCode"] == code


def test_a_config_map_volume_and_variables_reach_the_container_and_the_volume_follows_changes(
    pod_runner: local.LocalCluster, space: str
) -> None:
    volume = {"name": "table", "configMap": {"name": "table"}}
    labels = {
        "name": "labels",
        "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
    }
    mounts = [
        {"name": "table", "mountPath": "/etc/never-on-a-machine/table"},
        {"name": "labels", "mountPath": "/var/run/about-me"},
    ]
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "TABLE", "valueFrom": {"configMapKeyRef": {"name": "table", "key": "table.json"}}},
        {"name": "URL", "value": "http://$(IP):1/"},
    ]
    pod_runner.kubectl.apply(manifests.config_map("table", table__json="one"), namespace=space)
    reader = pod("reader", server(volumeMounts=mounts, env=env), volumes=[volume, labels])
    pod_runner.kubectl.apply(reader, namespace=space)
    (one,) = ready_pods(pod_runner, space, 1)
    seen = json.loads(ask(pod_runner, one, "/env"))
    ip = one["status"]["podIP"]
    assert (seen["IP"], seen["TABLE"], seen["URL"]) == (ip, "one", f"http://{ip}:1/")
    assert ask(pod_runner, one, "/file?path=/var/run/about-me/labels") == 'app="reader"'
    path = "/file?path=/etc/never-on-a-machine/table/table.json"
    assert ask(pod_runner, one, path) == "one"
    pod_runner.kubectl.apply(manifests.config_map("table", table__json="two"), namespace=space)
    eventually(lambda: ask(pod_runner, one, path) == "two", "the new content appears in the volume")


def test_a_pod_waits_for_a_config_map_that_is_not_there_yet(pod_runner: local.LocalCluster, space: str) -> None:
    volumes = [{"name": "late", "configMap": {"name": "late"}}]
    pod_runner.kubectl.apply(pod("waits", server(), volumes=volumes), namespace=space)
    message = ("-n", space, "--field-selector=reason=FailedMount")
    eventually(
        lambda: "late not found" in json.dumps(pod_runner.kubectl.get("events", *message)),
        "an event says what is missing",
    )
    assert pod_runner.pods(space)[0]["status"]["phase"] == "Pending"
    pod_runner.kubectl.apply(manifests.config_map("late", key="value"), namespace=space)
    ready_pods(pod_runner, space, 1)


def test_the_scheduler_respects_gpu_capacity(pod_runner: local.LocalCluster, space: str) -> None:
    pod_runner.add_node(NodeSpec("two-gpus", gpus=2, labels={"pool": "two"}))
    gpu = {"limits": {"nvidia.com/gpu": "1"}}
    wanted = deployment("engine", server(resources=gpu), replicas=3, nodeSelector={"pool": "two"})
    pod_runner.kubectl.apply(wanted, namespace=space)

    def split() -> bool:
        pods = pod_runner.pods(space)
        held = [one for one in pods if "Insufficient nvidia.com/gpu" in json.dumps(one["status"].get("conditions", []))]
        return len(held) == 1 and sum(manifests.ready(one) for one in pods) == 2

    eventually(split, "two pods run and the third stays Pending for want of a GPU")
    pod_runner.add_node(NodeSpec("one-more", gpus=1, labels={"pool": "two"}))
    ready_pods(pod_runner, space, 3)
    pod_runner.kubectl("delete", "node", "two-gpus", "one-more")


def test_a_deleted_node_takes_its_processes_with_it(pod_runner: local.LocalCluster, space: str) -> None:
    pod_runner.add_node(NodeSpec("spot", labels={"pool": "spot"}))
    pod_runner.kubectl.apply(pod("on-spot", server(), nodeSelector={"pool": "spot"}), namespace=space)
    (one,) = ready_pods(pod_runner, space, 1)
    pod_runner.kubectl("delete", "node", "spot")

    def unreachable() -> bool:
        try:
            ask(pod_runner, one, "/who")
        except OSError:
            return True
        return False

    eventually(unreachable, "the pod's address stops to answer")
    assert "SIGTERM" not in pod_runner.pod_log(space, "on-spot", "server")


def test_a_failing_liveness_probe_restarts_the_container(pod_runner: local.LocalCluster, space: str) -> None:
    live = {"httpGet": {"path": "/healthy", "port": PORT}, "periodSeconds": 1, "failureThreshold": 2}
    pod_runner.kubectl.apply(pod("sick", server(livenessProbe=live)), namespace=space)
    (one,) = ready_pods(pod_runner, space, 1)
    ask(pod_runner, one, "/break")
    eventually(lambda: container_state(pod_runner, space, "sick")["restartCount"] == 1, "a restart")
    ready_pods(pod_runner, space, 1)
    assert pod_runner.pod_log(space, "sick", "server").splitlines() == ["serving", "SIGTERM", "drained", "serving"]


def test_a_startup_probe_holds_readiness_back(pod_runner: local.LocalCluster, space: str) -> None:
    path = "/var/run/scratch/loaded"
    startup = {"exec": {"command": ["test", "-e", path]}, "periodSeconds": 1, "failureThreshold": 100}
    scratch = {"name": "scratch", "emptyDir": {}}
    mounts = [{"name": "scratch", "mountPath": "/var/run/scratch"}]
    loader = shell(f"sleep 2; touch {path}; exec sleep 1000", volumeMounts=mounts)
    slow = pod("slow", server(startupProbe=startup, volumeMounts=mounts), loader, volumes=[scratch])
    pod_runner.kubectl.apply(slow, namespace=space)
    eventually(lambda: "running" in container_state(pod_runner, space, "slow")["state"], "the server runs")
    first = container_state(pod_runner, space, "slow")
    assert (first["started"], first["ready"]) == (False, False)
    ready_pods(pod_runner, space, 1)
    assert container_state(pod_runner, space, "slow")["started"] is True


def test_a_native_sidecar_starts_before_the_main_container_and_ends_after_it(
    pod_runner: local.LocalCluster, space: str
) -> None:
    log = "/var/run/shared/order"
    mounts = [{"name": "shared", "mountPath": "/var/run/shared"}]

    def recorder(name: str, **fields: object) -> Object:
        trap = f"trap 'sleep 0.3; echo {name} down >> {log}; cat {log}; exit 0' TERM"
        script = f"{trap}; echo {name} up >> {log}; while :; do sleep 0.1; done"
        return {**shell(script, volumeMounts=mounts), "name": name, **fields}

    def written_by(name: str) -> Object:
        return {"exec": {"command": ["grep", "-q", f"{name} up", log]}, "periodSeconds": 1}

    first = {**shell(f"echo init >> {log}", volumeMounts=mounts), "name": "first"}
    init = [first, recorder("sidecar", restartPolicy="Always", startupProbe=written_by("sidecar"))]
    main = recorder("main", readinessProbe=written_by("main"))
    both = pod("both", main, initContainers=init, volumes=[{"name": "shared", "emptyDir": {}}])
    pod_runner.kubectl.apply(both, namespace=space)
    ready_pods(pod_runner, space, 1)
    pod_runner.kubectl("delete", "pod", "-n", space, "both", "--timeout=60s")
    written = pod_runner.pod_log(space, "both", "sidecar").splitlines()
    assert written == ["init", "sidecar up", "main up", "main down", "sidecar down"]


def test_a_pods_service_account_reaches_the_api_server_with_its_own_rights_and_is_audited(
    pod_runner: local.LocalCluster, space: str
) -> None:
    kubectl = pod_runner.kubectl
    account: Object = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    kubectl.apply(account, namespace=space)
    kubectl("create", "rolebinding", "reader", "-n", space, "--clusterrole=view", f"--serviceaccount={space}:reader")
    script = """
        import os, ssl, urllib.error, urllib.request
        folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
        context = ssl.create_default_context(cafile=folder + "ca.crt")
        space = open(folder + "namespace").read()
        headers = {"Authorization": "Bearer " + open(folder + "token").read()}
        for where in (space, "kube-system"):
            url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}/api/v1/namespaces/{where}/pods"
            try:
                print(urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=context).status)
            except urllib.error.HTTPError as error:
                print(error.code)
    """
    lines = [line.removeprefix(" " * 8) for line in script.splitlines()]
    client: Object = {"name": "client", "image": "python:3", "args": ["-c", "\n".join(lines)]}
    kubectl.apply(pod("client", client, serviceAccountName="reader", restartPolicy="Never"), namespace=space)
    kubectl("wait", "-n", space, "--for=jsonpath={.status.phase}=Succeeded", "pod/client", "--timeout=60s")
    assert pod_runner.pod_log(space, "client", "client").split() == ["200", "403"]
    user = f"system:serviceaccount:{space}:reader"
    calls = [
        (entry["verb"], entry["objectRef"]["resource"])
        for entry in pod_runner.audit()
        if entry["user"]["username"] == user
    ]
    assert calls == [("list", "pods"), ("list", "pods")]


def test_the_api_server_reaches_a_webhook_that_runs_in_a_pod(
    pod_runner: local.LocalCluster, space: str, tmp_path: pathlib.Path
) -> None:
    certificate, key = (
        base64.b64encode(pem).decode() for pem in credentials.self_signed(tmp_path, f"hook.{space}.svc")
    )
    data = {"tls.crt": certificate, "tls.key": key}
    secret: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tls"},
        "type": "kubernetes.io/tls",
        "data": data,
    }
    mounts = [{"name": "tls", "mountPath": "/etc/never-on-a-machine/tls"}]
    files = ["--tls", "/etc/never-on-a-machine/tls/tls.crt", "/etc/never-on-a-machine/tls/tls.key"]
    probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
    hook = pod(
        "hook",
        server(args=files, volumeMounts=mounts, readinessProbe=probe),
        volumes=[{"name": "tls", "secret": {"secretName": "tls"}}],
    )
    pod_runner.kubectl("create", "-n", space, "-f", "-", stdin=secret)
    pod_runner.kubectl.apply(hook, service("hook", port=443), namespace=space)
    ready_pods(pod_runner, space, 1)
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    one = {
        "name": "refuse.harness.test",
        "clientConfig": {"service": {"name": "hook", "namespace": space, "path": "/"}, "caBundle": certificate},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = "ValidatingWebhookConfiguration"
    pod_runner.kubectl.apply(
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": space}, "webhooks": [one]}
    )

    def answer() -> str:
        try:
            return pod_runner.kubectl("create", "configmap", "any", "-n", space, "--dry-run=server")
        except KubectlError as error:
            return str(error)

    eventually(lambda: "refused by the test webhook" in answer(), "the webhook's refusal")
    pod_runner.kubectl("delete", kind, space)


def test_an_asynchronous_client_of_the_test_itself_reaches_pods(pod_runner: local.LocalCluster, space: str) -> None:
    pod_runner.kubectl.apply(deployment("web", server(), replicas=2), namespace=space)
    hosts = [one["status"]["podIP"] for one in ready_pods(pod_runner, space, 2)]

    async def fetch(host: str) -> bytes:
        reader, writer = await asyncio.open_connection(host, PORT)
        writer.write(b"GET /who HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def load() -> list[bytes]:
        return await asyncio.gather(*(fetch(host) for host in hosts * 10))

    answers = pod_runner.inside(lambda: asyncio.run(load()))
    assert [b" 200 " in answer for answer in answers] == [True] * 20


def test_prometheus_finds_pods_by_dns_and_scrapes_them(pod_runner: local.LocalCluster, space: str) -> None:
    program = shutil.which("prometheus")
    assert program is not None, "no prometheus: run scripts/control_plane/debian.sh"
    pod_runner.kubectl.apply(deployment("web", server(), replicas=2), service("web", headless=True), namespace=space)
    ready_pods(pod_runner, space, 2)
    # Debian's Prometheus is built without discovery through the API server (kubernetes_sd_configs).
    discovery = {"names": [f"web.{space}.svc.cluster.local"], "type": "A", "port": PORT, "refresh_interval": "1s"}
    job = {"job_name": "pods", "scrape_interval": "1s", "scrape_timeout": "1s", "dns_sd_configs": [discovery]}
    config = pod_runner.folder / "prometheus.json"
    config.write_text(json.dumps({"scrape_configs": [job]}))
    storage, listen = f"--storage.tsdb.path={pod_runner.folder / 'tsdb'}", "--web.listen-address=0.0.0.0:9090"
    process = pod_runner.start_process("prometheus", program, f"--config.file={config}", storage, listen)
    query = "/api/v1/query?query=sum(test_requests_total)"

    def both_scraped() -> bool:
        assert process.popen.poll() is None, process.output()
        return '"14"' in pod_runner.http(addresses.HOST, 9090, query)[1]  # 7 from each of two pods

    eventually(both_scraped, "the sum over both pods")
    assert process.stop() == 0, process.output()


def test_an_image_without_a_stand_in_says_so(pod_runner: local.LocalCluster, space: str) -> None:
    pod_runner.kubectl.apply(pod("odd", {"name": "odd", "image": "nobody/knows:1"}), namespace=space)

    def waiting() -> bool:
        state = container_state(pod_runner, space, "odd")["state"]["waiting"]
        return bool(state["reason"] == "ErrImagePull" and "nobody/knows:1" in state["message"])

    eventually(waiting, "ErrImagePull with the image's name")
