"""Captured transcripts of vLLM 0.32 through the relays: what the real engine sent, whatever it was."""

from __future__ import annotations

import json
import pathlib

import pytest
from trimtab_router import answers, relay, sse, streams

GOLDEN = pathlib.Path(__file__).parents[1] / "contract/golden_vllm"


def response(name: str) -> tuple[int, bytes]:
    """Status and body of a transcript; its line ends are shown as LF, its chunk sizes are those of the wire."""
    data = (GOLDEN / f"{name}.txt").read_bytes().partition(b"# ---- response\n")[2]
    head, _, rest = data.partition(b"\n\n")
    status = int(head.split()[1])
    if b"transfer-encoding: chunked" not in head:
        return status, rest.rstrip(b"\n")
    body = b""
    while size := int(rest.partition(b"\n")[0], 16):
        rest = rest.partition(b"\n")[2]
        body, rest = body + rest[:size], rest[size:].lstrip(b"\n")
    return status, body


def relayed(judge: relay.Relay, body: bytes) -> bytes:
    out = b"".join(judge.feed(body[at : at + 97]) for at in range(0, len(body), 97))
    if not judge.failure:
        judge.close()
    return out


def choices() -> streams.ChoiceRelay:
    return streams.ChoiceRelay(1 << 20, show_usage=False, price=lambda _: 0.0)


@pytest.mark.parametrize("name", ["11-chat-stream-usage", "18c-cache-second-stream", "31-completion-stream-usage"])
def test_good_streams_end_well_with_usage(name: str) -> None:
    _, body = response(name)
    judge = choices()
    out = relayed(judge, body)
    assert (judge.failure, judge.ended, judge.committed) == ("", True, True)
    assert judge.usage is not None
    assert judge.usage.tokens_in > 0 < judge.usage.tokens_out
    # All but the usage chunk passes as it came.
    assert sse.events(out) == [event for event in sse.events(body) if b'"choices":[]' not in event]


@pytest.mark.parametrize(
    ("name", "failure"), [("78-stream-cut-by-pause-abort", "aborted"), ("c3-stream-SIGKILL", "stream-error")]
)
def test_streams_that_vllm_ends_with_done_although_they_failed_are_failures(name: str, failure: str) -> None:
    _, body = response(name)
    assert b"[DONE]" in body
    judge = choices()
    out = relayed(judge, body)
    assert judge.failure == failure
    assert judge.committed
    assert b"[DONE]" not in out


def test_a_stream_of_the_responses_route_ends_well_with_usage() -> None:
    _, body = response("36-responses-stream")
    judge = streams.ResponseRelay(1 << 20)
    assert relayed(judge, body) == body
    assert judge.usage is not None
    assert (judge.usage.tokens_in, judge.usage.tokens_out) == (8, 3)


@pytest.mark.parametrize(
    ("name", "failure", "finish"),
    [("10-chat", "", "length"), ("30-completion", "", "length"), ("35-responses", "", ""),
     ("80-plain-cut-by-pause-abort", "aborted", "")],
)  # fmt: skip
def test_answers_in_one_piece(name: str, failure: str, finish: str) -> None:
    _, body = response(name)
    judge = relay.WholeRelay(1 << 20, judged=True)
    judge.feed(body)
    judge.close()
    assert (judge.failure, judge.finish_reason) == (failure, finish)
    assert judge.usage is not None


@pytest.mark.parametrize(
    ("name", "status", "type_", "code"),
    [("e-unknown-model", 404, "invalid_request_error", "model_not_found"),
     ("e-bad-json", 400, "invalid_request_error", None),
     ("e-too-long", 400, "invalid_request_error", "context_length_exceeded"),
     ("e-404-path", 404, "invalid_request_error", "not_found"),
     ("c02-wrong-key", 401, "authentication_error", "invalid_api_key"),
     ("c11-queue-full", 503, "server_error", None)],
)  # fmt: skip
def test_errors_get_openais_shape(name: str, status: int, type_: str, code: str | None) -> None:
    got, body = response(name)
    assert got == status
    error = json.loads(answers.normalise_error(status, body))["error"]
    assert (error["type"], error["code"]) == (type_, code)
    assert error["message"]
