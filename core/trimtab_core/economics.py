"""THE cost function: what a request, a replica-hour and a plan cost. The router, the planner and every report use it.

Routers import this module, so it needs nothing but the standard library: no numpy, no solver, no pydantic.

Own replicas are bought by the hour and used by the token. A replica that runs at the largest load that keeps
its SLO spends ``1 / prefill rate`` seconds on an input token and ``(a + b·n) / n`` seconds on an output token,
with n sequences running (see ``capacity``). Priced so, the requests of one replica-hour at that load cost
exactly the replica-hour; at a smaller load they cost the busy part of it, and the rest is idle cost, which
is reported apart and charged to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trimtab_core import capacity, units

if TYPE_CHECKING:
    from trimtab_core.planning.plan import VariantKey
    from trimtab_core.snapshot import CapacityProfile, Price, Snapshot, VariantState

UNPRICED_USD_PER_HOUR = 100.0
"""What a replica-hour is charged when no price is known in the whole fleet: about one 8 × H100 instance on demand."""


@dataclass(frozen=True, slots=True)
class TokenRates:
    """USD per token, of an external API or of own replicas at their SLO-keeping load."""

    input_usd_per_token: float
    output_usd_per_token: float
    cached_input_usd_per_token: float


class Rates(Protocol):
    """Anything with the three rates: ``TokenRates`` here, ``routing.table.Rates`` on the wire."""

    @property
    def input_usd_per_token(self) -> float:
        """USD per input token that had to be computed."""
        ...

    @property
    def output_usd_per_token(self) -> float:
        """USD per output token."""
        ...

    @property
    def cached_input_usd_per_token(self) -> float:
        """USD per input token that was found in a prefix cache."""
        ...


def request_usd(rates: Rates, *, input_tokens: float, cached_input_tokens: float, output_tokens: float) -> float:
    """USD of one request.

    Args:
        rates: of the tier that served it.
        input_tokens: all input tokens, the cached ones included (as OpenAI's ``prompt_tokens``).
        cached_input_tokens: those of them found in a prefix cache; never counted as more than there are.
        output_tokens: generated tokens.
    """
    # Twice for every request: comparisons cost a third of max, and let no NaN through either.
    inputs = input_tokens if input_tokens > 0 else 0.0
    outputs = output_tokens if output_tokens > 0 else 0.0
    cached = cached_input_tokens if cached_input_tokens > 0 else 0.0
    cached = min(cached, inputs)
    return (
        (inputs - cached) * rates.input_usd_per_token
        + cached * rates.cached_input_usd_per_token
        + outputs * rates.output_usd_per_token
    )


def token_rates(
    price: Price, profile: CapacityProfile, mix: capacity.Mix, limits: capacity.Limits | None = None
) -> TokenRates:
    """USD per token of an own replica at the largest load that keeps ``limits``.

    A cached input token is free: it takes no computing time. Request costs of a replica at that load add up to
    its price per hour: ``load · (I·input + O·output) · 3600 = price``.
    """
    load = capacity.admissible_load(profile, mix, limits or capacity.Limits())
    usd_per_second = price.usd_per_hour / units.SECONDS_PER_HOUR
    return TokenRates(
        input_usd_per_token=usd_per_second * load.seconds_per_input_token,
        output_usd_per_token=usd_per_second * load.seconds_per_output_token,
        cached_input_usd_per_token=0.0,
    )


def worst_usd_per_hour(snapshot: Snapshot, tier: str, variant: VariantState) -> float:
    """The price of one replica-hour, and where it is unknown the dearest that it could be.

    Unknown is charged at the dearest known price of the tier, else of the fleet, else ``UNPRICED_USD_PER_HOUR``.
    """
    known = _known_prices((variant,))
    if known:
        return known[0]
    peers = _known_prices(snapshot.tiers[tier].variants)
    fleet = [usd for state in snapshot.tiers.values() for usd in _known_prices(state.variants)] if not peers else []
    return max(peers or fleet or [UNPRICED_USD_PER_HOUR])


def plan_usd_per_hour(snapshot: Snapshot, replicas: Mapping[VariantKey, int]) -> float:
    """USD per hour of these replica counts; variants that the snapshot doesn't know cost nothing."""
    total = 0.0
    for key, count in replicas.items():
        tier = snapshot.tiers.get(key.tier)
        if count <= 0 or tier is None:
            continue
        for variant in tier.variants:
            if variant.name == key.variant:
                total += count * worst_usd_per_hour(snapshot, key.tier, variant)
    return total


def external_usd_per_hour(rates: Rates, *, requests_per_second: float, mix: capacity.Mix) -> float:
    """USD per hour of sending these requests to an external API."""
    one = request_usd(
        rates,
        input_tokens=mix.input_tokens,
        cached_input_tokens=mix.input_tokens * mix.cached_ratio,
        output_tokens=mix.output_tokens,
    )
    return max(0.0, requests_per_second) * one * units.SECONDS_PER_HOUR


def baseline_usd_per_hour(
    *, requests_per_second: float, seconds_per_request: float, usd_per_hour: float, utilisation: float = 1.0
) -> float:
    """USD per hour of serving all requests from whole replicas of one kind.

    Args:
        requests_per_second: demand.
        seconds_per_request: replica-seconds that one request takes (``capacity.Capacity.seconds_per_request``).
        usd_per_hour: of one replica.
        utilisation: share of a replica's capacity that may be planned with, above 0.
    """
    replicas = math.ceil(requests_per_second * seconds_per_request / utilisation - 1e-9)
    return max(0, replicas) * usd_per_hour


def _known_prices(variants: tuple[VariantState, ...]) -> list[float]:
    prices = [variant.price.usd_per_hour for variant in variants if variant.price is not None]
    return [usd for usd in prices if math.isfinite(usd) and usd >= 0]
