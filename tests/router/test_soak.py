"""The soak in short, and its audit: whatever is off must show in the row that is there for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from soak import audit, clients, run, slots, world

TIERS = world.RATES


@pytest.mark.process
def test_through_deaths_frost_and_changed_tables_nothing_is_lost_doubled_or_left_over() -> None:
    plan = run.Plan(8.0, 60, seed=3, token_seconds=0.05, most_tokens=20, gap_seconds=0.8, memory_mib=None)
    rows = {str(row["name"]): row for row in run.soak(plan)}
    assert [row for row in rows.values() if row["met"] is False] == []
    # And there was something to get wrong.
    found = rows["requests"]["beside"]
    assert isinstance(found, dict)
    assert {clients.COMPLETE, clients.BROKEN, clients.LEFT} <= found.keys()
    assert found[clients.COMPLETE] > 300
    what = rows["what happened"]["beside"]
    assert isinstance(what, dict)
    assert what["killed"] + what["frozen"] >= 2


def line(number: int, result: str, prompt: int, out: int, **more: Any) -> dict[str, Any]:
    return {
        "requestId": f"s{number}",
        "tier": "small",
        "endpoint": "small-0",
        "result": result,
        "inputTokens": prompt,
        "cachedInputTokens": 0,
        "outputTokens": out,
        "estimated": False,
        "costUsd": prompt * 1e-6 + out * 2e-6,
        "attempts": 1,
        **more,
    }


def exposition(**counts: float) -> str:
    return "".join(f'trimtab_router_{name}{{policy="p"}} {value:.10g}\n' for name, value in counts.items())


def honest() -> audit.Evidence:
    """Four requests: one answered, one broken off after 3 tokens, one left after 2 of 3, one refused."""
    seen = {
        1: clients.Seen(5, True, clients.COMPLETE, 200, 5, "0.1.1"),
        2: clients.Seen(5, True, clients.BROKEN, 200, 3, "0.1.2"),
        3: clients.Seen(5, True, clients.LEFT, 200, 2, "0.1.3"),
        4: clients.Seen(5, False, clients.REFUSED, 503),
    }
    lines = [line(1, "ok", 21, 5), line(2, "failed", 22, 3), line(3, "cancelled", 23, 3), line(4, "failed", 0, 0)]
    attempts = [
        slots.Slot("0.1.1", 0, 1, 21, 5, slots.State.COMPLETE),
        slots.Slot("0.1.2", 0, 2, 22, 4, slots.State.SPOILT),
        slots.Slot("0.1.3", 0, 3, 23, 3, slots.State.LEFT),
        slots.Slot("0.1.4", 0, 4, 24, 0, slots.State.REFUSED),
    ]
    # 66 prompt tokens at 1 and 11 tokens at 2 millionths.
    metrics = exposition(
        requests_total=4, arrivals_total=4, input_tokens_total=66, output_tokens_total=11, cost_usd_total=88e-6
    )
    return audit.Evidence(seen, lines, attempts, metrics, TIERS)


def missed(rows: list[audit.Row]) -> list[str]:
    """Rows that are missed, but for the share of good answers, which is small among four of four kinds."""
    return [str(row["name"]) for row in rows if row["met"] is False and row["name"] != "answered completely"]


def test_an_honest_router_passes_the_audit() -> None:
    assert missed(audit.rows(honest())) == []


def with_line(number: int, **fields: Any) -> Callable[[audit.Evidence], audit.Evidence]:
    def change(evidence: audit.Evidence) -> audit.Evidence:
        lines = [{**each, **fields} if each["requestId"] == f"s{number}" else each for each in evidence.lines]
        return audit.Evidence(evidence.seen, lines, evidence.attempts, evidence.metrics, TIERS)

    return change


def with_seen(number: int, **fields: Any) -> Callable[[audit.Evidence], audit.Evidence]:
    def change(evidence: audit.Evidence) -> audit.Evidence:
        seen = {**evidence.seen, number: dataclasses.replace(evidence.seen[number], **fields)}
        return audit.Evidence(seen, evidence.lines, evidence.attempts, evidence.metrics, TIERS)

    return change


def with_parts(**parts: Any) -> Callable[[audit.Evidence], audit.Evidence]:
    def change(evidence: audit.Evidence) -> audit.Evidence:
        kept = {
            "seen": evidence.seen, "lines": evidence.lines, "attempts": evidence.attempts, "metrics": evidence.metrics,
            "still": 0,
        }  # fmt: skip
        made = {name: value(kept[name]) for name, value in parts.items()}
        return audit.Evidence(**{**kept, **made}, tiers=TIERS)

    return change


LIES = [
    pytest.param(with_seen(1, result=clients.LOST), "clients without a proper answer", id="no answer"),
    pytest.param(with_parts(lines=lambda lines: lines[1:]), "requests not in the books", id="forgotten"),
    pytest.param(with_parts(lines=lambda lines: [*lines, lines[0]]), "requests in the books twice", id="billed twice"),
    pytest.param(with_parts(lines=lambda lines: [*lines, line(9, "ok", 1, 1)]), "entries of unknown requests", id="of nobody"),
    pytest.param(with_line(1, result="failed"), "results that disagree with the client's", id="another result"),
    pytest.param(
        with_seen(2, result=clients.COMPLETE), "failed answers passed off as complete", id="a spoilt answer looks whole"
    ),
    pytest.param(with_line(1, outputTokens=6), "bills of complete answers unlike the engine's count", id="a token more"),
    pytest.param(with_line(1, inputTokens=20), "bills of complete answers unlike the engine's count", id="a token less"),
    pytest.param(with_line(1, estimated=True), "bills of complete answers unlike the engine's count", id="guessed"),
    pytest.param(with_line(2, outputTokens=4), "bills of broken streams unlike what came", id="more than came"),
    pytest.param(with_line(3, outputTokens=4), "bills of who left, beyond what was made", id="more than was made"),
    pytest.param(with_line(3, outputTokens=1), "bills of who left, beyond what was made", id="less than came"),
    pytest.param(with_line(4, inputTokens=24), "bills for errors", id="an error costs"),
    pytest.param(with_line(1, costUsd=1.0), "bills that are not tokens times rates", id="another price"),
    pytest.param(
        with_parts(metrics=lambda text: text.replace('requests_total{policy="p"} 4', 'requests_total{policy="p"} 5')),
        "metrics that disagree with the ledger",
        id="metrics",
    ),
    pytest.param(
        with_parts(metrics=lambda text: text + exposition(wasted_usd_total=1.0)),
        "waste booked beyond what engines made for nobody",
        id="waste of nothing",
    ),
    pytest.param(
        with_parts(metrics=lambda text: text + exposition(untold_total=1)), "lines of the log that were dropped", id="untold"
    ),
    pytest.param(with_seen(2, slot="0.1.1"), "attempts that answered two requests", id="one answer for two"),
    pytest.param(
        with_parts(attempts=lambda made: [*made, slots.Slot("0.1.5", 0, 7, 1, 1, slots.State.COMPLETE)]),
        "attempts of unknown requests",
        id="an attempt of nobody",
    ),
    pytest.param(with_parts(still=lambda _: 1), "requests under way afterwards", id="one still in a room"),
    pytest.param(
        with_parts(metrics=lambda text: text + exposition(in_flight=1)), "requests under way afterwards", id="gauge"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lie", "name"), LIES)
def test_whatever_is_off_shows_in_its_row(lie: Callable[[audit.Evidence], audit.Evidence], name: str) -> None:
    assert name in missed(audit.rows(lie(honest())))


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def events(*texts: str, stop: bool = False, end: bytes = b"") -> bytes:
    out = HEAD
    for text in texts:
        out += (
            b'data: {"id":"chatcmpl-0.1.1","choices":[{"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
            % text.encode()
        )
    if stop:
        out += b'data: {"id":"chatcmpl-0.1.1","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    return out + end


ERROR, DONE = b'data: {"error":{"message":"x"}}\n\n', b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("data", "whole", "left", "result"),
    [
        pytest.param(events(" 0", " 1", stop=True, end=DONE), True, False, clients.COMPLETE, id="good"),
        pytest.param(events(" 0", stop=True, end=DONE), True, False, clients.LOST, id="too short"),
        pytest.param(events(" 0", " 1", end=DONE), True, False, clients.LOST, id="no stop"),
        pytest.param(events(" 0", " 2", stop=True, end=DONE), True, False, clients.LOST, id="a gap"),
        pytest.param(events(" 0", end=ERROR), False, False, clients.BROKEN, id="an error event"),
        pytest.param(events(" 0", end=ERROR + DONE), False, False, clients.LOST, id="an error and done"),
        pytest.param(events(" 0", end=ERROR), True, False, clients.LOST, id="an error and a clean end of the message"),
        pytest.param(events(" 0"), False, False, clients.LOST, id="silence"),
        pytest.param(events(" 0"), False, True, clients.LEFT, id="left"),
        pytest.param(b"", False, False, clients.LOST, id="nothing"),
        pytest.param(b'HTTP/1.1 503 X\r\n\r\n{"error":{"message":"busy"}}', True, False, clients.REFUSED, id="refused"),
    ],
)  # fmt: skip
def test_a_client_is_not_fooled(data: bytes, *, whole: bool, left: bool, result: str) -> None:
    seen = clients.Seen(2, True)
    clients.judge(seen, data, whole=whole, left=left)
    assert seen.result == result
