"""Bills: the engine's count where there is one, an estimate where the client got something, else nothing."""

from __future__ import annotations

import pytest
from trimtab_core.routing import table
from trimtab_router import answers, billing, relay, streams

TIER = table.Tier("small", "small", 0.5, table.Rates(2e-6, 8e-6, 1e-6))
BASELINE = table.Rates(2e-5, 8e-5, 1e-5)


def made(
    *, committed: bool = False, ended: bool = False, pieces: int = 0, usage: answers.Usage | None = None
) -> relay.Relay:
    judge = streams.EventRelay(1000)
    judge.committed, judge.ended, judge.pieces, judge.usage = committed, ended, pieces, usage
    return judge


USAGE = answers.Usage(prompt_tokens=100, completion_tokens=10, prompt_tokens_details=answers.TokenDetails(40))
CASES = {
    # 60 new tokens at 2e-6, 40 cached at 1e-6, 10 out at 8e-6.
    "counted": (made(committed=True, ended=True, pieces=7, usage=USAGE), (100, 40, 10), 60 * 2e-6 + 40 * 1e-6 + 10 * 8e-6, False),
    # 80 bytes are about 20 tokens; 7 events with content.
    "left in the middle": (made(committed=True, pieces=7), (20, 0, 7), 20 * 2e-6 + 7 * 8e-6, True),
    "ended without usage": (made(committed=True, ended=True, pieces=3), (20, 0, 3), 20 * 2e-6 + 3 * 8e-6, True),
    "broke before content": (made(), (0, 0, 0), 0.0, False),
    "no answer at all": (None, (0, 0, 0), 0.0, False),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "tokens", "usd", "estimated"), CASES.values(), ids=CASES.keys())
def test_what_is_billed(
    answer: relay.Relay | None, tokens: tuple[int, int, int], usd: float, *, estimated: bool
) -> None:
    bill = billing.bill(answer, body_bytes=80, tier=TIER, baseline=BASELINE)
    assert (bill.input_tokens, bill.cached_input_tokens, bill.output_tokens) == tokens
    assert bill.cost_usd == pytest.approx(usd)
    # The baseline tier costs ten times as much, for the same tokens.
    assert bill.baseline_usd == pytest.approx(10 * usd)
    assert bill.estimated is estimated
