"""The pod runner's rules that need no control plane: addresses, Service rules, DNS, volumes, variables, probes, images, status."""

import dataclasses
import os
import pathlib
import struct

import hypothesis
import pytest
from hypothesis import strategies

from .kubectl import Object
from .pod_runner import dns, environment, images, network, nodes, probes, sandbox, services, status, volumes

# -- images -------------------------------------------------------------------------------------------------------------

ENGINE = images.Image("vllm/vllm-openai*", ("sim", "--fast"), {"vllm": ("cli",), "vllm serve": ("sim",)})


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        ([], ["--model", "m"], ["sim", "--fast", "--model", "m"]),
        (["vllm", "serve"], ["m"], ["sim", "m"]),
        (["vllm", "bench"], [], ["cli", "bench"]),
        (["sh", "-c"], ["true"], ["sh", "-c", "true"]),
    ],
    ids=["entrypoint", "longest program wins", "shorter program", "not in the table"],
)
def test_a_container_runs_its_images_stand_in(command: list[str], args: list[str], argv: list[str]) -> None:
    assert ENGINE.argv(command, args) == argv


@pytest.mark.parametrize(
    ("name", "pattern", "found"),
    [
        ("vllm/vllm-openai:v0.32.0", "vllm/vllm-openai", True),
        ("registry:5000/vllm/vllm-openai:v1", "*/vllm-openai", True),
        ("registry:5000/trimtab", "*trimtab", True),
        ("ghcr.io/x/trimtab@sha256:0011", "*/trimtab", True),
        ("vllm/vllm-openai-cpu:v1", "vllm/vllm-openai", False),
    ],
)
def test_a_pattern_matches_an_image_with_or_without_its_tag(name: str, pattern: str, found: bool) -> None:  # noqa: FBT001
    assert (images.find([images.Image(pattern)], name) is not None) is found


def test_an_image_rule_survives_its_json_form() -> None:
    assert images.Image.from_json(ENGINE.to_json()) == ENGINE


# -- variables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("http://$(HOST):$(PORT)/", "http://h:1/"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(HOST)", "$(HOST)"),
        ("$HOST $", "$HOST $"),
        ("$(HOST)$(HOST)", "hh"),
    ],
)
def test_references_expand_as_kubernetes_does(text: str, expanded: str) -> None:
    assert environment.expand(text, {"HOST": "h", "PORT": "1"}) == expanded


POD: Object = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "u",
        "labels": {"b": "2", "a": "1"},
        "annotations": {"x/y": "z"},
    },
    "spec": {"nodeName": "node", "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.labels['a']", "1"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['x/y']", "z"),
        ("metadata.labels", 'a="1"\nb="2"'),
        ("spec.nodeName", "node"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.244.1.1"),
    ],
)
def test_fields_of_the_downward_api(path: str, value: str) -> None:
    assert environment.field(POD, path, pod_ip="10.244.1.1", host_ip="10.244.0.1") == value


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    with pytest.raises(environment.ConfigError, match=r"spec\.nothing"):
        environment.field(POD, "spec.nothing", pod_ip="", host_ip="")


def test_a_resource_that_is_not_set_is_zero() -> None:
    container = POD["spec"]["containers"][0]
    assert environment.resource_field(container, "limits.nvidia.com/gpu") == "2"
    assert environment.resource_field(container, "requests.cpu") == "0"


# -- volumes ------------------------------------------------------------------------------------------------------------


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Return what a container would see: every file that is not part of the update mechanism."""
    found = [
        path for path in folder.rglob("*") if path.is_file() and not str(path.relative_to(folder)).startswith("..")
    ]
    inner = [
        path
        for link in folder.iterdir()
        if link.is_symlink() and link.is_dir() and not link.name.startswith("..")
        for path in link.rglob("*")
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in {*found, *inner} if path.is_file()}


contents = strategies.dictionaries(
    strategies.sampled_from(["a", "b.json", "deep/c", "deep/d"]), strategies.binary(max_size=8), max_size=4
)


@hypothesis.given(versions=strategies.lists(contents, min_size=1, max_size=5))
@hypothesis.settings(max_examples=30, deadline=None)
def test_a_volume_shows_exactly_its_last_content(
    tmp_path_factory: pytest.TempPathFactory, versions: list[dict[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("volume")
    for version in versions:
        volumes.write(folder, version)
        assert content(folder) == version
    assert len([path for path in folder.iterdir() if path.name.startswith("..version")]) == 1


def test_a_reader_with_an_open_file_keeps_the_old_content(tmp_path: pathlib.Path) -> None:
    volumes.write(tmp_path, {"table": b"old"})
    with (tmp_path / "table").open("rb") as held:
        volumes.write(tmp_path, {"table": b"new"})
        assert held.read() == b"old"
    assert os.readlink(tmp_path / "table") == "..data/table"  # noqa: PTH115 - its text, not its target
    assert (tmp_path / "table").read_bytes() == b"new"


def test_items_choose_and_rename_keys_and_a_missing_key_is_an_error() -> None:
    source = {"items": [{"key": "k", "path": "there/renamed"}]}
    assert volumes.select({"k": b"v", "other": b""}, source) == {"there/renamed": b"v"}
    with pytest.raises(environment.ConfigError, match="non-existent config key: k"):
        volumes.select({}, source)
    assert volumes.select({}, {**source, "optional": True}) == {}


# -- Services and DNS ---------------------------------------------------------------------------------------------------


def endpoint_slice(*endpoints: tuple[str, Object], service: str = "web", port: int = 8080) -> Object:
    """Return an EndpointSlice of namespace n, from (address, conditions)."""
    return {
        "metadata": {"namespace": "n", "name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": conditions} for address, conditions in endpoints],
    }


SERVICE: Object = {
    "metadata": {"namespace": "n", "name": "web"},
    "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
}
READY, ENDING, GONE = (
    {"ready": True},
    {"ready": False, "serving": True, "terminating": True},
    {"ready": False, "serving": False},
)


@pytest.mark.parametrize(
    ("endpoints", "used"),
    [
        ([("10.244.1.1", READY), ("10.244.1.2", ENDING)], ["10.244.1.1"]),
        ([("10.244.1.1", GONE), ("10.244.1.2", ENDING)], ["10.244.1.2"]),
        ([("10.244.1.1", GONE)], []),
        ([("10.244.1.2", {}), ("10.244.1.1", READY)], ["10.244.1.1", "10.244.1.2"]),
    ],
    ids=["ready before ending", "ending when nothing is ready", "never what does not serve", "unknown counts as ready"],
)
def test_a_route_goes_to_the_endpoints_that_kube_proxy_would_use(
    endpoints: list[tuple[str, Object]], used: list[str]
) -> None:
    (route,) = services.routes(
        [SERVICE], [endpoint_slice(*endpoints), endpoint_slice(("10.244.9.9", READY), service="other")]
    )
    assert route == services.Route("10.96.0.9", "tcp", 80, tuple((address, 8080) for address in used))


def test_a_headless_service_has_no_route() -> None:
    headless = {**SERVICE, "spec": {**SERVICE["spec"], "clusterIP": "None"}}
    assert services.routes([headless], [endpoint_slice(("10.244.1.1", READY))]) == []


def test_the_rules_choose_at_random_among_many_and_directly_for_one() -> None:
    route = services.Route("10.96.0.9", "tcp", 80, (("10.244.1.1", 1), ("10.244.1.2", 2)))
    many = services.ruleset([route, services.Route("10.96.0.8", "tcp", 81, ())])
    assert "dnat to numgen random mod 2 map { 0 : 10.244.1.1 . 1, 1 : 10.244.1.2 . 2 }" in many
    assert "10.96.0.8" not in many, "without endpoints the general refusal holds"
    one = services.ruleset([dataclasses.replace(route, endpoints=(("10.244.1.1", 1),))])
    assert "ip daddr 10.96.0.9 tcp dport 80 dnat to 10.244.1.1:1" in one
    assert one.startswith("table ip services {}\nflush table ip services\n"), "one transaction replaces all"


def question(name: str, *, kind: int = 1, flags: int = 0x0100) -> bytes:
    """Return a DNS query."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 77, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def parse(reply: bytes | None) -> tuple[int, list[str]]:
    """Return the code and the addresses of a DNS response to the query with id 77."""
    assert reply is not None
    ident, flags, _, answers, _, _ = struct.unpack_from("!6H", reply)
    assert (ident, flags & 0x8000) == (77, 0x8000)
    tails = [reply[len(reply) - 16 * (answers - index) :][:16] for index in range(answers)]
    return flags & 0xF, [".".join(map(str, tail[-4:])) for tail in tails]


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("web.n", 1, (0, ["10.0.0.1", "10.0.0.2"])),
        ("WEB.N", 1, (0, ["10.0.0.1", "10.0.0.2"])),
        ("web.n", 28, (0, [])),
        ("other.n", 1, (3, [])),
    ],
    ids=["A", "any case", "AAAA: the name exists, without addresses", "no such name"],
)
def test_dns_answers(name: str, kind: int, answer: tuple[int, list[str]]) -> None:
    table = {"web.n": ["10.0.0.1", "10.0.0.2"]}
    assert parse(dns.answer(question(name, kind=kind), table.get)) == answer


def test_dns_leaves_out_what_does_not_fit_into_one_datagram() -> None:
    reply = dns.answer(question("a" * 60 + ".b"), lambda _name: [f"10.0.0.{n}" for n in range(200)])
    assert reply is not None
    assert len(reply) <= 512


@hypothesis.given(strategies.binary(max_size=80))
def test_dns_survives_any_datagram(data: bytes) -> None:
    reply = dns.answer(data, lambda _name: ["10.0.0.1"])
    assert reply is None or reply[:2] == data[:2]


def test_dns_does_not_answer_answers() -> None:
    assert dns.answer(question("web.n", flags=0x8180), lambda _name: []) is None


# -- probes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("+", "+"),
        ("-", "-"),
        ("+--+", "++-+"),
        ("+-+--", "++++-"),
    ],
    ids=["first success", "first failure", "two failures, one success", "failures not in a row"],
)
def test_a_verdict_needs_enough_equal_results_in_a_row(results: str, states: str) -> None:
    verdict = probes.Verdict(probes.Timing(0, 1, 1, successes=1, failures=2), state=False)
    seen = ""
    for result in results:
        verdict.add(result == "+")
        seen += "+" if verdict.state else "-"
    assert seen == states


def test_a_probe_without_numbers_has_the_defaults_of_kubernetes() -> None:
    assert probes.Timing.of({"httpGet": {}}) == probes.Timing(0, 10, 1, 1, 3)


# -- network, nodes, mounts, status -------------------------------------------------------------------------------------


@hypothesis.given(strategies.integers(min_value=0, max_value=64_769))
def test_pods_have_addresses_of_their_own(number: int) -> None:
    address = network.pod_address(number)
    last = [int(part) for part in address.split(".")[2:]]
    assert (last[0] - 1) * 254 + last[1] - 1 == number
    assert 1 <= last[1] <= 254
    assert last[0] <= 255


def test_a_node_offers_its_gpus_only_when_it_has_some() -> None:
    assert nodes.node(nodes.NodeSpec("n", gpus=8))["status"]["capacity"]["nvidia.com/gpu"] == "8"
    assert "nvidia.com/gpu" not in nodes.node(nodes.NodeSpec("n"))["status"]["capacity"]


def test_only_mount_points_that_do_not_exist_need_an_overlay(tmp_path: pathlib.Path) -> None:
    wanted = ["/usr/never/there", "/dev/shm", "/never-at-the-top/x"]
    mounts = [sandbox.Mount(tmp_path, target) for target in wanted]
    assert sandbox.overlaid(mounts) == {"etc", "usr"}


@dataclasses.dataclass
class Sample:
    """A container's state, as status.py reads it."""

    spec: Object
    name: str = "c"
    state: Object = dataclasses.field(default_factory=lambda: {"running": {}})
    last_state: Object = dataclasses.field(default_factory=dict)
    restarts: int = 0
    exit_code: int | None = None
    health: probes.Health = dataclasses.field(default_factory=lambda: probes.Health(started=True, ready=True))

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return "running" in self.state


def sample(**fields: object) -> Sample:
    """Return a Sample with some fields set."""
    return dataclasses.replace(Sample({"image": "i"}), **fields)  # type: ignore[arg-type]


WAITING: Object = {"waiting": {"reason": "ContainerCreating"}}
ENDED: Object = {"terminated": {"exitCode": 0}}


@pytest.mark.parametrize(
    ("main", "phase"),
    [
        ([sample()], "Running"),
        ([sample(state=WAITING)], "Pending"),
        ([sample(state=WAITING, restarts=2)], "Running"),
        ([sample(state=ENDED, exit_code=0)], "Succeeded"),
        ([sample(state=ENDED, exit_code=0), sample(exit_code=1)], "Failed"),
        ([sample(state=ENDED, exit_code=0), sample()], "Running"),
    ],
    ids=["running", "creating", "crash loop", "all done", "one failed", "one still runs"],
)
def test_the_phase_follows_the_containers(main: list[Sample], phase: str) -> None:
    assert status.phase(main, initialized=True, init_failed=False) == phase


def ready_condition(pod: Object, main: list[Sample]) -> Object:
    """Return the condition Ready."""
    rows = status.conditions(pod, main, [], initialized=True, now="now")
    return next(row for row in rows if row["type"] == "Ready")


def test_a_readiness_gate_holds_the_pod_back_until_its_condition_is_true() -> None:
    gated: Object = {"spec": {"readinessGates": [{"conditionType": "gate"}]}, "status": {"conditions": []}}
    assert ready_condition(gated, [sample()])["reason"] == "ReadinessGatesNotReady"
    gated["status"]["conditions"] = [{"type": "gate", "status": "True"}]
    assert ready_condition(gated, [sample()])["status"] == "True"


def test_the_time_of_a_condition_changes_only_with_its_status() -> None:
    held: Object = {
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "then"}]},
    }
    assert ready_condition(held, [sample()])["lastTransitionTime"] == "then"
    lame = sample(health=probes.Health(started=True, ready=False))
    assert ready_condition(held, [lame])["lastTransitionTime"] == "now"
    assert ready_condition(held, [lame])["message"] == "containers with unready status: [c]"
