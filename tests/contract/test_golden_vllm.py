"""The engine simulator answers the recorded requests as the real vLLM 0.32.0 did, field by field."""

from __future__ import annotations

import collections.abc
import contextlib
import json
import re
import signal
import socket
import time

import pytest

from .golden_vllm import comparison, exposition, transcript
from .golden_vllm.server import Server

Get = collections.abc.Callable[[str], Server]

COMMON = "--host 127.0.0.1 --port 0 --sim-itl-base-ms 2 --sim-itl-per-seq-ms 0.1 --sim-control --max-model-len 1024 --block-size 32"
SMALL = f"{COMMON} --model models/small --max-num-seqs 8 --enable-prompt-tokens-details"
LARGE = f"{COMMON} --model models/large --served-model-name large --api-key test-key"
SETTINGS = {
    "small": f"{SMALL} --served-model-name small --kv-cache-memory-bytes 16M --scheduling-policy priority "
    "--enable-request-id-headers --enable-server-load-tracking",
    "timed": f"{SMALL} --served-model-name small alias-b --enable-per-request-metrics",
    "large": LARGE,
    "limited": f"{LARGE} --max-num-seqs 3 --max-num-queued-reqs 6 --sim-kv-tokens 5440 --sim-itl-base-ms 20",
    "draining": f"{LARGE} --shutdown-timeout 10 --sim-itl-base-ms 12",
    "slow": f"{LARGE} --sim-itl-base-ms 20",
    "tiny-kv": f"{SMALL} --served-model-name small --kv-cache-memory-bytes 1M",
}
# Requests that stand alone: the server of these settings gets them in this order.
REPLAYED = {
    "small": [
        "01-health",
        "02-models",
        "03-version",
        "04-load",
        "05-ping",
        "06-model-by-id",
        "10-chat",
        "11-chat-stream-usage",
        "12-chat-stream-nousage",
        "13-chat-stream-continuous-usage",
        "14-chat-n2-logprobs",
        "15-chat-stop-seed",
        "16-chat-priority",
        "17-chat-request-id",
        "18a-cache-first",
        "18b-cache-second",
        "18c-cache-second-stream",
        "18d-cache-salt",
        "19-tools-no-parser",
        "20-json-schema",
        "21-orca-json",
        "22-orca-text",
        "23-orca-stream",
        "30-completion",
        "31-completion-stream-usage",
        "32-completion-batch",
        "33-completion-token-ids",
        "34-ignore-eos-min-tokens",
        "35-responses",
        "36-responses-stream",
        "37-messages",
        "38-messages-stream",
        "39-messages-count",
        "50-tokenize",
        "51-tokenize-chat",
        "52-detokenize",
        "53-render",
        "70-is-sleeping",
        "71-is-paused",
        "85-reset-prefix-cache",
        "e-404-path",
        "e-405",
        "e-bad-json",
        "e-bad-range",
        "e-bad-role",
        "e-bad-schema",
        "e-bad-top-p",
        "e-completion-bad-token-id",
        "e-completion-no-prompt",
        "e-content-type-text",
        "e-embeddings-on-llm",
        "e-empty-body",
        "e-empty-messages",
        "e-image-to-text-model",
        "e-max-tokens-neg",
        "e-max-tokens-too-big",
        "e-max-tokens-zero",
        "e-messages-unknown-model",
        "e-missing-messages",
        "e-n-zero",
        "e-no-content-type",
        "e-no-model",
        "e-not-object",
        "e-priority-bad",
        "e-stream-options-no-stream",
        "e-too-long",
        "e-too-long-stream",
        "e-unknown-field",
        "e-unknown-model",
        "e-unknown-model-stream",
        "e-wrong-type",
    ],
    "timed": ["40-per-request-metrics", "41-per-request-metrics-stream"],
    "large": [
        "c01-no-key",
        "c02-wrong-key",
        "c03-models-no-key",
        "c04-health-no-key",
        "c06-tokenize-no-key",
        "c07-usage-default",
        "c08-priority-on-fcfs",
        "c08b-priority-stream-on-fcfs",
        "c09-no-dev-mode",
        "c09b-load-untracked",
    ],
}
METRICS = (
    "00-metrics-before",
    "76-metrics-while-paused",
    "89-metrics-asleep",
    "99-metrics-after-exercise",
    "c10-metrics-busy",
    "c15-metrics-after-preemption",
)
# Requests that need something going on beside them; the test of the same name below makes it so.
SCENES = {
    "pause and resume": [
        "72-pause-keep",
        "73-is-paused",
        "74-health-while-paused",
        "75-chat-sent-while-paused",
        "77-resume",
    ],
    "pause aborts": ["78-stream-cut-by-pause-abort", "79-pause-abort", "79b-resume", "80-plain-cut-by-pause-abort"],
    "pause waits": ["81-plain-while-pause-wait", "82-pause-wait"],
    "abort by id": ["83-stream-aborted-by-id", "84-abort-requests"],
    "sleep": [
        "86-sleep-1",
        "87-is-sleeping",
        "88-health-asleep",
        "90-chat-asleep",
        "91-wake-up",
        "92-is-sleeping",
        "93-chat-after-wake",
    ],
    "disconnect": ["60-disconnect-stream"],
    "queue full": [
        "c11-queue-full",
        "c12-queue-full-stream",
        "c13-queue-full-completions",
        "c14-queue-full-messages",
        "c14b-queue-full-responses",
    ],
    "drain": [
        "c20-stream-during-drain",
        "c21-plain-during-drain",
        "c22-health-during-drain",
        "c23-models-during-drain",
        "c24-new-request-during-drain",
        "c25-new-stream-during-drain",
    ],
    "engine dies": ["c3-health-SIGKILL-00", "c3-plain-SIGKILL", "c3-stream-SIGKILL"],
    "engine hangs": [
        "c3-health-SIGSTOP-00",
        "c3-health-SIGSTOP-01",
        "c3-new-request-SIGSTOP",
        "c3-plain-SIGSTOP",
        "c3-stream-SIGSTOP",
    ],
    "SIGTERM at once": ["c40-stream-during-drain", "c41-plain-during-drain"],
}
NOT_MATCHED: dict[str, str] = {}
# Values that differ for a reason of their own.
EXCUSED = {
    "20-json-schema": frozenset(
        ("completion_tokens", "finish_reason")
    ),  # the random model filled its budget with blanks; ours ends
    "78-stream-cut-by-pause-abort": frozenset(("completion_tokens",)),  # when the abort came
    "80-plain-cut-by-pause-abort": frozenset(("completion_tokens",)),
}


@pytest.fixture(scope="module")
def servers() -> collections.abc.Iterator[Get]:
    started: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in started:
            started[kind] = Server(SETTINGS[kind], dev_mode=kind == "small")
        return started[kind]

    yield get
    for server in started.values():
        server.close()


@pytest.fixture
def own_server() -> collections.abc.Iterator[Get]:
    """Servers that the test may end."""
    with contextlib.ExitStack() as stack:

        def get(kind: str) -> Server:
            server = Server(SETTINGS[kind])
            stack.callback(server.close)
            return server

        yield get


def assert_same(name: str, actual: transcript.Answer) -> None:
    recorded = transcript.read(name)
    assert recorded.answer is not None
    sent = re.search(rb"X-Request-Id: (\S+)", recorded.request)
    found = comparison.all_differences(
        recorded.answer,
        actual,
        sent_id=sent[1].decode() if sent else None,
        also_volatile=EXCUSED.get(name, frozenset()),
    )
    assert not found, "\n".join(found)


def assert_no_answer(server: Server, name: str) -> None:
    assert transcript.read(name).answer is None
    with pytest.raises(TimeoutError):
        server.replay(name, timeout=0.3)


def test_every_transcript_is_replayed_or_has_a_reason() -> None:
    lists = [*REPLAYED.values(), *SCENES.values(), METRICS, NOT_MATCHED]
    assert sorted(name for names in lists for name in names) == transcript.names()


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "name"), [pytest.param(kind, name, id=name) for kind, names in REPLAYED.items() for name in names]
)
def test_a_recorded_request_gets_the_recorded_answer(servers: Get, kind: str, name: str) -> None:
    assert_same(name, servers(kind).replay(name))


LONG = json.dumps(
    {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 900, "ignore_eos": True, "stream": True}
)
KEY = "Authorization: Bearer test-key"


@pytest.mark.process
def test_a_pause_that_keeps_holds_new_requests_out_of_both_queues(own_server: Get) -> None:
    server = own_server("small")
    for name in ("72-pause-keep", "73-is-paused", "74-health-while-paused"):
        assert_same(name, server.replay(name))
    held = server.start("75-chat-sent-while-paused")
    while server.load() == 0:
        time.sleep(0.01)
    assert server.metric("num_requests_running") == server.metric("num_requests_waiting") == 0
    assert_same("77-resume", server.replay("77-resume"))
    assert_same("75-chat-sent-while-paused", held())


@pytest.mark.process
def test_a_pause_that_aborts_ends_requests_with_200_and_abort(own_server: Get) -> None:
    server = own_server("small")
    names = ("78-stream-cut-by-pause-abort", "80-plain-cut-by-pause-abort")
    running = {name: server.start(name) for name in names}
    server.wait_until("num_requests_running", 2)
    server.wait_until("generation_tokens_total", 20)
    assert_same("79-pause-abort", server.replay("79-pause-abort"))
    assert_same("79b-resume", server.replay("79b-resume"))
    for name in names:
        assert_same(name, running[name]())
    assert server.counter("request_success_total", finished_reason="abort") == 2


@pytest.mark.process
def test_a_pause_that_waits_answers_when_running_requests_are_done(own_server: Get) -> None:
    server = own_server("small")
    running = server.start("81-plain-while-pause-wait")
    server.wait_until("generation_tokens_total", 5)
    assert_same("82-pause-wait", server.replay("82-pause-wait"))
    assert server.metric("num_requests_running") == 0
    assert_same("81-plain-while-pause-wait", running())


@pytest.mark.process
def test_a_stream_is_aborted_by_the_id_that_the_client_gave(own_server: Get) -> None:
    server = own_server("small")
    running = server.start("83-stream-aborted-by-id")
    server.wait_until("generation_tokens_total", 5)
    assert_same("84-abort-requests", server.replay("84-abort-requests"))
    assert_same("83-stream-aborted-by-id", running())


@pytest.mark.process
def test_asleep_health_is_200_requests_hang_and_the_state_is_in_the_metrics(own_server: Get) -> None:
    server = own_server("small")
    for name in ("86-sleep-1", "87-is-sleeping", "88-health-asleep"):
        assert_same(name, server.replay(name))
    assert_same_metrics("89-metrics-asleep", server, ignoring="http_")
    assert server.counter("engine_sleep_state", sleep_state="weights_offloaded") == 1
    assert_no_answer(server, "90-chat-asleep")
    for name in ("91-wake-up", "92-is-sleeping", "93-chat-after-wake"):
        assert_same(name, server.replay(name))


@pytest.mark.process
def test_a_client_that_leaves_frees_its_slot_and_counts_as_no_success(own_server: Get) -> None:
    server = own_server("small")
    recorded = transcript.read("60-disconnect-stream")
    assert recorded.answer is not None
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(recorded.request)
        raw = b""
        while raw.count(b"\n\n") < 3:
            raw += connection.recv(4096)
        assert server.metric("num_requests_running") == 1
    answer = transcript.parse_raw(raw)
    assert comparison.head_differences(recorded.answer, answer) == []
    assert comparison.event_differences(recorded.answer, answer, also_volatile=frozenset()) == []
    while server.metric("num_requests_running"):
        time.sleep(0.01)
    assert server.metric("request_success_total") == 0
    assert server.metric("generation_tokens_total") > 0


@pytest.mark.process
def test_a_full_queue_is_503_without_retry_after(own_server: Get) -> None:
    server = own_server("limited")
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(server.open("POST", "/v1/chat/completions", LONG, KEY))
        server.wait_until("num_requests_running", 3)
        assert server.metric("num_requests_waiting") == 3
        assert_same_metrics("c10-metrics-busy", server, ignoring="http_")
        for name in SCENES["queue full"]:
            assert_same(name, server.replay(name))
    assert server.counter("admission_rejections_total", reason="max_num_queued_reqs") == len(SCENES["queue full"])


@pytest.mark.process
def test_a_drain_ends_what_runs_and_refuses_what_comes_while_health_says_200(own_server: Get) -> None:
    server = own_server("draining")
    running = {name: server.start(name) for name in ("c20-stream-during-drain", "c21-plain-during-drain")}
    server.wait_until("num_requests_running", 2)
    server.process.send_signal(signal.SIGTERM)
    for name in ("c24-new-request-during-drain", "c25-new-stream-during-drain"):
        while (answer := server.replay(name)).status == 200:
            time.sleep(0.01)  # the signal has not been handled yet
        assert_same(name, answer)
    for name in ("c22-health-during-drain", "c23-models-during-drain"):
        assert_same(name, server.replay(name))
    for name, answer_of in running.items():
        assert_same(name, answer_of())
    assert server.process.wait(20) == 0


@pytest.mark.process
def test_sigterm_without_a_timeout_fails_what_runs_at_once(own_server: Get) -> None:
    server = own_server("slow")
    running = {name: server.start(name) for name in SCENES["SIGTERM at once"]}
    server.wait_until("time_to_first_token_seconds", 2)
    server.process.send_signal(signal.SIGTERM)
    for name, answer_of in running.items():
        assert_same(name, answer_of())
    assert server.process.wait(20) == 0
    with pytest.raises(ConnectionRefusedError):
        server.call("GET", "/health")


@pytest.mark.process
def test_an_engine_that_dies_fails_its_requests_in_the_recorded_way(own_server: Get) -> None:
    server = own_server("large")
    fault = json.dumps({"kind": "stream-error", "after_tokens": 15})
    assert server.call("POST", "/sim/faults", fault).status == 200
    for name in SCENES["engine dies"]:
        assert_same(name, server.replay(name))


@pytest.mark.process
def test_an_engine_that_hangs_leaves_health_at_200_and_finishes_later(own_server: Get) -> None:
    server = own_server("large")
    running = {name: server.start(name) for name in ("c3-stream-SIGSTOP", "c3-plain-SIGSTOP")}
    server.wait_until("generation_tokens_total", 5)
    assert server.call("POST", "/sim/faults", json.dumps({"kind": "freeze", "seconds": 2})).status == 200
    for name in ("c3-health-SIGSTOP-00", "c3-health-SIGSTOP-01"):
        assert_same(name, server.replay(name))
    assert_no_answer(server, "c3-new-request-SIGSTOP")
    for name, answer_of in running.items():
        assert_same(name, answer_of())


def assert_same_metrics(name: str, server: Server, *, ignoring: str = "\0") -> None:
    """Compare all families but those with a prefix that the scene does not move."""
    recorded = transcript.read(name).answer
    assert recorded is not None
    answer = server.replay(name)
    assert comparison.head_differences(recorded, answer) == []
    families = [exposition.parse(one.body.decode()) for one in (recorded, answer)]
    expected, actual = ({key: value for key, value in one.items() if not key.startswith(ignoring)} for one in families)
    assert exposition.differences(expected, actual) == []


@pytest.mark.process
def test_a_fresh_server_exposes_the_recorded_metrics(own_server: Get) -> None:
    assert_same_metrics("00-metrics-before", own_server("small"))


@pytest.mark.process
def test_after_use_and_while_paused_the_recorded_metrics_are_exposed(own_server: Get) -> None:
    server = own_server("small")
    for name in ("02-models", "10-chat", "19-tools-no-parser", "30-completion"):
        server.replay(name)
    assert_same_metrics("99-metrics-after-exercise", server)
    server.replay("72-pause-keep")
    assert_same_metrics("76-metrics-while-paused", server)


@pytest.mark.process
def test_eight_long_answers_in_a_tiny_cache_are_preempted_and_all_succeed(own_server: Get) -> None:
    """64 blocks, one reserved, against 8 · (prompt + 600) tokens = 8 · 19 blocks: the counters are those recorded."""
    server = own_server("tiny-kv")
    prompt = "hello"
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": 600, "ignore_eos": True})
    waiting = [server.call_later("POST", "/v1/chat/completions", body) for _ in range(8)]
    server.wait_until("kv_cache_usage_perc", 0.9)
    assert [answer().status for answer in waiting] == [200] * 8
    recorded = transcript.read("c15-metrics-after-preemption").answer
    assert recorded is not None
    assert_same_metrics("c15-metrics-after-preemption", server, ignoring="http_")
    ours, theirs = (
        exposition.parse(text) for text in (server.call("GET", "/metrics").body.decode(), recorded.body.decode())
    )
    for name in (
        "generation_tokens_total",
        "request_success_total",
        "request_params_max_tokens",
        "inter_token_latency_seconds",
    ):
        assert ours[f"vllm:{name}"].value() == theirs[f"vllm:{name}"].value()
    assert ours["vllm:num_preemptions_total"].value() == ours["vllm:request_num_preemptions"].sum() > 8
    assert ours["vllm:prefix_cache_queries_total"].value() == ours["vllm:prompt_tokens_total"].value()


@pytest.mark.parametrize(
    ("expected", "actual", "said"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, "keys", id="another order"),
        pytest.param({"a": None}, {"a": 1}, "NoneType", id="null against a value"),
        pytest.param({"a": 1}, {"a": 1.0}, "int", id="another type of number"),
        pytest.param({"a": [1]}, {"a": [1, 2]}, "entries", id="another length"),
        pytest.param({"model": "x"}, {"model": "y"}, "'x'", id="another value"),
        pytest.param({"id": "x"}, {"id": 7}, "str", id="a volatile field of another type"),
    ],
)
def test_the_comparison_sees_what_differs(expected: object, actual: object, said: str) -> None:
    assert said in "".join(comparison.differences(expected, actual))


def test_the_comparison_lets_volatile_values_differ() -> None:
    assert comparison.differences({"id": "x", "created": 1}, {"id": "y", "created": 2}) == []


def test_the_comparison_sees_a_lost_event_and_a_lost_family() -> None:
    recorded = transcript.read("11-chat-stream-usage").answer
    metrics = transcript.read("00-metrics-before").answer
    assert recorded is not None
    assert metrics is not None
    shorter = transcript.Answer(recorded.status_line, recorded.headers, recorded.chunks[:-2] + recorded.chunks[-1:])
    assert comparison.event_differences(recorded, shorter, also_volatile=frozenset()) != []
    families = exposition.parse(metrics.body.decode())
    assert (
        exposition.differences(families, {name: family for name, family in families.items() if "queue" not in name})
        != []
    )
