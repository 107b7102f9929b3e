"""Sums by class and tier, and the counters that they become when a scrape asks."""

from __future__ import annotations

import pytest
from trimtab_core.routing import table
from trimtab_sim import meters, report, tallies
from trimtab_sim.workload import Request

POLICY = "default/chat"
BASELINE = table.Rates(4e-6, 8e-6)
SMALL = table.Tier(
    "small", "model-small", 0.6, table.Rates(1e-6, 2e-6, 0.5e-6), slo=table.Slo(ttft_seconds=2.0, itl_seconds=0.05)
)
LARGE = table.Tier("large", "model-large", 0.9, BASELINE, slo=table.Slo(ttft_seconds=1.0))
CLASS = table.Class("simple", table.Match(complexity_max=0.5), ["small", "large"], {"small": 1.0})
Counted = dict[tuple[str, tuple[str, ...]], float]


def ruled(*tiers: table.Tier, of: table.Class = CLASS) -> tallies.Class:
    made = tallies.Class()
    made.rule(of, table.RoutingTable(POLICY, 1, 1, 0.0, ["auto"], list(tiers), [of], BASELINE), list(tiers))
    return made


def request(input_tokens: int = 1000, output_tokens: int = 100) -> Request:
    return Request(0, 0.0, input_tokens, output_tokens)


def poured(of: tallies.Class) -> Counted:
    counts = meters.Meters(window_seconds=60)
    of.pour(POLICY, "simple", counts, BASELINE)
    return {
        (family.name.removeprefix("trimtab_router_").removesuffix("_total"), tuple(labels.values())[2:]): sample.value
        for family, labels, sample in counts.sample(0.0)
    }


def test_answers_become_the_counters_that_a_router_exports() -> None:
    of = ruled(SMALL)
    tally = of.tier(SMALL)

    assert tally.add(request(), 0, (1.9, 0.05, 10.0)) is True
    assert tally.add(request(2000, 50), 400, (2.1, 0.04, 10.0)) is False
    assert tally.add(request(10, 1), 0, (0.1, None, 0.1)) is True

    found = poured(of)
    # 3010 input tokens, 400 of them cached; 151 output tokens
    assert found[("requests", ("small", "ok"))] == 3
    assert found[("input_tokens", ("small",))] == 3010
    assert found[("cached_input_tokens", ("small",))] == 400
    assert found[("output_tokens", ("small",))] == 151
    assert found[("cost_usd", ("small", ""))] == pytest.approx(2610e-6 + 400 * 0.5e-6 + 151 * 2e-6)
    assert found[("baseline_cost_usd", ())] == pytest.approx(2610 * 4e-6 + 151 * 8e-6)
    assert (found[("slo_measured", ("small", "ttft"))], found[("slo_met", ("small", "ttft"))]) == (3, 2)
    assert (found[("slo_measured", ("small", "itl"))], found[("slo_met", ("small", "itl"))]) == (2, 2)
    assert ("slo_measured", ("small", "e2e")) not in found, "nothing is promised of it"


def test_what_was_poured_is_not_poured_again_and_nothing_gives_no_series() -> None:
    of = ruled(SMALL)
    of.tier(SMALL).add(request(), 0, (1.0, 0.01, 2.0))
    of.arrivals, of.squares, of.hits, of.misses, of.stores = 5, 9, 1, 4, 3

    first = poured(of)

    assert (first[("arrivals", ())], first[("arrival_squares", ())]) == (5, 9)
    assert {name[1]: value for name, value in first.items() if name[0] == "cache_results"} == {
        ("hit",): 1, ("miss",): 4, ("store",): 3,
    }  # fmt: skip
    assert poured(of) == {}


def test_a_cached_answer_counts_as_cached_and_is_promised_what_the_class_is() -> None:
    strict = table.Class("simple", table.Match(), [], {}, slo=table.Slo(ttft_seconds=0.0))
    of = ruled(SMALL, of=strict)

    assert of.tier(None).name == report.CACHE
    assert of.tier(None).add(request(), 0, (0.0, None, 0.0)) is True
    assert of.tier(None).add(request(), 0, (0.1, None, 0.1)) is False
    assert poured(of) == {("requests", ("cache", "cached")): 2}


def test_a_new_table_brings_new_prices_and_promises() -> None:
    of = ruled(SMALL)
    tally = of.tier(SMALL)
    dear = table.Tier("small", "model-small", 0.6, table.Rates(1e-3, 0.0), slo=table.Slo(e2e_seconds=5.0))

    of.rule(CLASS, table.RoutingTable(POLICY, 1, 2, 0.0, ["auto"], [dear], [CLASS], BASELINE), [dear])

    assert tally.add(request(), 0, (99.0, 99.0, 4.9)) is True
    assert tally.add(request(), 0, (0.0, 0.0, 5.1)) is False
    assert poured(of)[("cost_usd", ("small", ""))] == pytest.approx(2.0)


def test_the_loosest_promise_is_what_a_request_can_miss_anywhere() -> None:
    assert ruled(SMALL, LARGE).loosest_ttft_s == 2.0
    assert ruled(SMALL, LARGE).loosest_e2e_s == float("inf")
    strict = table.Class("simple", table.Match(), [], {}, slo=table.Slo(ttft_seconds=0.5, e2e_seconds=30.0))
    assert (ruled(SMALL, LARGE, of=strict).loosest_ttft_s, ruled(LARGE, of=strict).loosest_e2e_s) == (0.5, 30.0)


def test_quality_falls_with_the_rank_within_the_range_of_the_class() -> None:
    of = ruled(SMALL, LARGE)

    # complexity 0 to 0.5: the middle of the class is at 0.25; 1 - 0.4 · (1 + m·(2·0.25 - 1))
    assert of.quality(SMALL.quality, 0.5) == pytest.approx(1 - 0.4 * (1 - 0.5 * of.m))
    assert of.quality(SMALL.quality, 0.9) < of.quality(SMALL.quality, 0.1)
    assert of.best is LARGE
