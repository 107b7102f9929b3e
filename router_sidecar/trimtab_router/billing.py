"""The bill of one request: tokens as the engine counted them, or estimated, and their price twice."""

from __future__ import annotations

import msgspec
from trimtab_core import economics
from trimtab_core.routing import table

from trimtab_router import answers, relay

CHARS_PER_TOKEN = 4
"""Of English text, about; for requests whose engine never came to count."""


class Bill(msgspec.Struct, frozen=True):
    """What one request used and cost.

    Attributes:
        cost_usd: at the rates of the tier that served it.
        baseline_usd: at those of the baseline tier.
        estimated: the engine did not say; counted by events and characters instead.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    baseline_usd: float = 0.0
    estimated: bool = False


NOTHING = Bill()


def usage_usd(rates: table.Rates, usage: answers.Usage) -> float:
    """USD of what an engine counted."""
    return economics.request_usd(
        rates,
        input_tokens=usage.tokens_in,
        cached_input_tokens=usage.tokens_cached,
        output_tokens=usage.tokens_out,
    )


def bill(answer: relay.Relay | None, *, body_bytes: int, tier: table.Tier, baseline: table.Rates) -> Bill:
    """The bill of an answer, complete or broken off.

    A client that leaves in the middle pays for what was made for it: by the engine's last count, where it counts on
    every event; otherwise the prompt is estimated from its bytes, and each event with content counts as one token.
    What broke before the commit point is on nobody's bill; see ``wasted_usd``.

    Args:
        answer: what came of the engine; None if nothing did.
        body_bytes: size of the request.
        tier: who served it.
        baseline: rates to compare with.
    """
    if answer is None:
        return NOTHING
    usage = answer.counted()
    if usage is not None:
        inputs, cached, outputs = usage.counts
    elif answer.committed or answer.ended:
        inputs, cached, outputs = body_bytes // CHARS_PER_TOKEN, 0, answer.pieces
    else:
        return NOTHING
    return Bill(
        inputs,
        cached,
        outputs,
        economics.request_usd(tier.rates, input_tokens=inputs, cached_input_tokens=cached, output_tokens=outputs),
        economics.request_usd(baseline, input_tokens=inputs, cached_input_tokens=cached, output_tokens=outputs),
        estimated=usage is None or answer.estimated,
    )


def wasted_usd(answer: relay.Relay | None, *, reached: bool, status: int, body_bytes: int, tier: table.Tier) -> float:
    """What an attempt cost whose answer nobody gets: broken off, failed, or slower than another one.

    An engine that had the request has read its prompt, as far as anybody knows; one that refused it has not.

    Args:
        answer: what came of the engine; None if nothing did.
        reached: the request was sent.
        status: of the answer; 0 if there was none.
        body_bytes: size of the request.
        tier: who was asked.
    """
    if not reached or status >= 300:  # noqa: PLR2004 (everything but success)
        return 0.0
    usage = answer.counted() if answer is not None else None
    if usage is not None:
        return usage_usd(tier.rates, usage)
    made = answer.pieces if answer is not None else 0
    return economics.request_usd(
        tier.rates, input_tokens=body_bytes // CHARS_PER_TOKEN, cached_input_tokens=0, output_tokens=made
    )
