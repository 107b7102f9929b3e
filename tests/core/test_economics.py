"""The one cost function: requests, rates, replica-hours, and what they add up to."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import capacity, economics
from trimtab_core.routing import table
from trimtab_core.snapshot import CapacityProfile, Price

RATES = economics.TokenRates(input_usd_per_token=2e-6, output_usd_per_token=8e-6, cached_input_usd_per_token=0.5e-6)
PROFILE = CapacityProfile(0.010, 0.0005, 10_000.0, 400_000, 256, 120.0)
LIMITS = capacity.Limits(ttft_seconds=2.0, itl_seconds=0.06)


@pytest.mark.parametrize(
    ("tokens", "usd"),
    [
        pytest.param((1000, 0, 100), 0.0020 + 0.0008, id="nothing cached"),
        pytest.param((1000, 400, 100), 0.0012 + 0.0002 + 0.0008, id="400 of 1,000 cached"),
        pytest.param((1000, 5000, 0), 0.0005, id="never more cached than there is"),
        pytest.param((-5, 0, -5), 0.0, id="negative counts are none"),
    ],
)
def test_a_request_costs_its_tokens(tokens: tuple[int, int, int], usd: float) -> None:
    inputs, cached, outputs = tokens
    cost = economics.request_usd(RATES, input_tokens=inputs, cached_input_tokens=cached, output_tokens=outputs)
    assert cost == pytest.approx(usd)


def test_rates_from_a_routing_table_are_priced_alike() -> None:
    wire = table.Rates(2e-6, 8e-6, 0.5e-6)
    tokens = {"input_tokens": 10.0, "cached_input_tokens": 4.0, "output_tokens": 3.0}
    assert economics.request_usd(wire, **tokens) == economics.request_usd(RATES, **tokens)


@given(st.floats(1.0, 8000.0), st.floats(1.0, 2000.0), st.floats(0.0, 0.9), st.floats(0.1, 100.0))
def test_the_requests_of_a_fully_used_replica_cost_exactly_the_replica(
    inputs: float, outputs: float, cached: float, usd: float
) -> None:
    mix = capacity.Mix(inputs, outputs, cached)
    rates = economics.token_rates(Price(usd, "spec"), PROFILE, mix, LIMITS)
    one = economics.request_usd(rates, input_tokens=inputs, cached_input_tokens=inputs * cached, output_tokens=outputs)
    load = capacity.admissible_load(PROFILE, mix, LIMITS).requests_per_second
    assert one * load * 3600 == pytest.approx(usd, rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "replicas"),
    [
        pytest.param(0.0, 0, id="no demand"),
        pytest.param(0.1, 1, id="0.1 x 2 s / 0.8 = 0.25"),
        pytest.param(4.0, 10, id="4 x 2 s / 0.8 = 10 exactly"),
        pytest.param(4.01, 11, id="a little more"),
    ],
)
def test_a_baseline_is_made_of_whole_replicas(rate: float, replicas: int) -> None:
    usd = economics.baseline_usd_per_hour(
        requests_per_second=rate, seconds_per_request=2.0, usd_per_hour=3.0, utilisation=0.8
    )
    assert usd == pytest.approx(replicas * 3.0)


def test_an_external_api_costs_by_the_token_and_the_hour() -> None:
    # 2 req/s x 3,600 s x (1,000 x 2e-6 + 100 x 8e-6) = 7,200 x 0.0028
    usd = economics.external_usd_per_hour(RATES, requests_per_second=2.0, mix=capacity.Mix(1000.0, 100.0))
    assert usd == pytest.approx(20.16)


def test_routers_can_price_without_the_planner_s_libraries() -> None:
    code = (
        "import sys; from trimtab_core import economics; "
        "print([name for name in ('pydantic', 'numpy', 'highspy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
