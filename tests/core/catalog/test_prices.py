"""Prices come from the spec, else from a dated list, else there is none: never zero, never a guess."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_core.catalog import accelerators, prices
from trimtab_core.snapshot import Price

ON_DEMAND, SPOT, RESERVED = CapacityType.ON_DEMAND, CapacityType.SPOT, CapacityType.RESERVED


def test_what_the_user_wrote_wins() -> None:
    found = prices.resolve("L4", SPOT, explicit_usd_per_hour=0.35, cloud="gcp")
    assert found == Price(0.35, "spec")


LISTED = [
    pytest.param("L4", 1, "aws", "", 0.8048, "catalogue aws us-east-1 g6.xlarge", id="a single device"),
    # Of 4 devices at 4.6016 and of 8 at 13.3504, two cost 2.3008 and 3.3376.
    pytest.param("L4", 2, "aws", "", 2.3008, "catalogue aws us-east-1 g6.12xlarge", id="half of the cheapest instance"),
    # 55.04 / 8 · 2
    pytest.param("H100", 2, "aws", "", 13.76, "catalogue aws us-east-1 p5.48xlarge", id="a quarter of an instance"),
    pytest.param("A100", 1, "azure", "", 3.673, "catalogue azure eastus Standard_NC24ads_A100_v4", id="by its alias"),
    pytest.param(
        "l4", 1, "gcp", "europe-west4", 0.742916, "catalogue gcp europe-west4 g2-standard-4", id="another region"
    ),
]


@pytest.mark.parametrize(("accelerator", "count", "cloud", "region", "usd", "source"), LISTED)
def test_the_list_price_is_the_cheapest_share_of_an_instance(
    accelerator: str, count: int, cloud: str, region: str, usd: float, source: str
) -> None:
    found = prices.resolve(accelerator, ON_DEMAND, count=count, cloud=cloud, region=region)
    assert isinstance(found, Price)
    assert found.usd_per_hour == pytest.approx(usd)
    assert found.source == source
    assert dt.date.fromisoformat(found.as_of) > dt.date(2026, 1, 1)


def test_spot_is_cheaper_where_it_is_known() -> None:
    found = prices.resolve("H100", SPOT, cloud="gcp")
    assert isinstance(found, Price)
    assert found.usd_per_hour == pytest.approx(6.32619)


MISSING = [
    pytest.param(
        "L4", SPOT, 1, "aws", "", "no spot price of 1 × L4 is known for aws us-east-1: set price", id="no spot list"
    ),
    pytest.param("L4", RESERVED, 1, "aws", "", "reserved capacity has no list price: set price", id="reserved"),
    pytest.param("L40", ON_DEMAND, 1, "aws", "", "'L40' is not in the catalogue: write 'L40S'", id="misspelled"),
    pytest.param("Gaudi9", ON_DEMAND, 1, "aws", "", "'Gaudi9' is not in the catalogue: set price", id="unknown"),
    pytest.param(
        "H200", ON_DEMAND, 1, "azure", "", "no on-demand price of 1 × H200 is known for azure", id="not sold there"
    ),
    pytest.param("T4", ON_DEMAND, 16, "aws", "", "no on-demand price of 16 × T4 is known", id="no instance so large"),
    pytest.param("T4", ON_DEMAND, 1, "aws", "mars-1", "no price list for aws mars-1: set price", id="unknown region"),
    pytest.param("T4", ON_DEMAND, 1, "moon", "", "no price list for moon: set price", id="unknown cloud"),
]


@pytest.mark.parametrize(("accelerator", "capacity_type", "count", "cloud", "region", "reason"), MISSING)
def test_an_unknown_price_is_an_error_with_its_fix(
    accelerator: str, capacity_type: CapacityType, count: int, cloud: str, region: str, reason: str
) -> None:
    found = prices.resolve(accelerator, capacity_type, count=count, cloud=cloud, region=region)
    assert isinstance(found, prices.MissingPrice)
    assert reason in found.reason


@pytest.mark.parametrize("usd", [0.0, -1.0, math.nan])
def test_a_written_price_that_is_not_above_zero_is_missing(usd: float) -> None:
    assert isinstance(prices.resolve("L4", ON_DEMAND, explicit_usd_per_hour=usd), prices.MissingPrice)


def test_a_nodes_labels_choose_the_list_and_the_instance() -> None:
    labels = {prices.REGION_LABEL: "us-central1", prices.INSTANCE_LABEL: "g2-standard-96"}
    found = prices.resolve("L4", SPOT, node_labels=labels)
    assert isinstance(found, Price)
    # 4.49926 / 8
    assert found.usd_per_hour == pytest.approx(0.5624, abs=1e-4)
    assert found.source == "catalogue gcp us-central1 g2-standard-96"


def test_a_region_that_is_not_listed_falls_back_to_the_list_asked_for_and_says_so() -> None:
    found = prices.resolve("L4", ON_DEMAND, node_labels={prices.REGION_LABEL: "mars-1"}, cloud="aws")
    assert isinstance(found, Price)
    assert found.source == "catalogue aws us-east-1 g6.xlarge"


def test_a_variant_is_priced_by_what_its_spec_says() -> None:
    spec = {"name": "a", "accelerator": {"type": "H100", "count": 2}}
    assert prices.for_variant(v1alpha1.Variant.model_validate(spec)) == Price(
        13.76, "catalogue aws us-east-1 p5.48xlarge", "2026-07-20"
    )
    fixed = v1alpha1.Variant.model_validate({**spec, "price": {"usdPerHour": "9.08"}})
    assert prices.for_variant(fixed) == Price(9.08, "spec")


@given(
    st.sampled_from(sorted(accelerators.ACCELERATORS)),
    st.sampled_from(list(CapacityType)),
    st.integers(1, 16),
    st.sampled_from([(market.cloud, market.region) for market in prices.MARKETS]),
)
def test_whatever_is_found_is_above_zero_and_more_devices_never_cost_less(
    accelerator: str, capacity_type: CapacityType, count: int, place: tuple[str, str]
) -> None:
    cloud, region = place
    found = prices.resolve(accelerator, capacity_type, count=count, cloud=cloud, region=region)
    one = prices.resolve(accelerator, capacity_type, cloud=cloud, region=region)
    if isinstance(found, Price):
        assert isinstance(one, Price)
        assert 0 < one.usd_per_hour <= found.usd_per_hour


def test_the_lists_are_of_known_accelerators_dated_and_sourced() -> None:
    for market in prices.MARKETS:
        assert dt.date.fromisoformat(market.as_of) > dt.date(2026, 1, 1)
        assert market.source != ""
        for shape in market.shapes:
            assert shape.accelerator in accelerators.ACCELERATORS
            assert shape.on_demand_usd_per_hour > 0
            assert shape.spot_usd_per_hour is None or 0 < shape.spot_usd_per_hour < shape.on_demand_usd_per_hour
