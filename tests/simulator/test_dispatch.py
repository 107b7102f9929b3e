"""The simulated router on the shipped table: classes, shares, endpoints, and what happens without any."""

from __future__ import annotations

import collections
from typing import Any

import pytest
from trimtab_core.routing import table
from trimtab_sim import dispatch, prompts, traces
from trimtab_sim.workload import Request

REQUESTS = traces.synthesize(minutes=10, seed=5).requests
PLAIN = Request(0, 0.0, 400, 50, difficulty=0.1, prompt=0)
SENSITIVE = Request(0, 0.0, 400, 50, difficulty=0.1, sensitive=True, prompt=0)


def tier(name: str, quality: float, endpoints: int = 2, **changes: object) -> table.Tier:
    listed = [table.Endpoint(f"{name}-{number}", f"{name}-{number}:8000", capacity=10) for number in range(endpoints)]
    return table.Tier(name, f"model-{name}", quality, table.Rates(1e-6, 2e-6), listed, **changes)  # type: ignore[arg-type]


def rules(*tiers: table.Tier, classes: list[table.Class] | None = None, **weights: float) -> table.RoutingTable:
    names = [each.name for each in tiers]
    only = table.Class("default", table.Match(), names, weights or {names[0]: 1.0})
    return table.seal(
        table.RoutingTable("default/chat", 1, 1, 0.0, ["auto"], list(tiers), classes or [only], table.Rates(1e-6, 2e-6))
    )


def router(new: table.RoutingTable, seed: int = 1) -> dispatch.Dispatcher:
    made = dispatch.Dispatcher(seed, prompts.Synthetic(seed))
    made.install(new)
    return made


def served(made: dispatch.Dispatcher, requests: tuple[Request, ...]) -> collections.Counter[str]:
    choices = [made.choose(request) for request in requests]
    return collections.Counter(
        choice.tier.name if choice is not None and choice.tier is not None else "" for choice in choices
    )


def test_shares_come_true_and_the_easiest_requests_go_to_the_cheapest_tier() -> None:
    made = router(rules(tier("small", 0.6), tier("large", 0.8), small=0.7, large=0.3))
    difficulty = collections.defaultdict(list)
    for request in REQUESTS:
        choice = made.choose(request)
        assert choice is not None
        assert choice.tier is not None
        difficulty[choice.tier.name].append(request.difficulty)

    share = len(difficulty["small"]) / len(REQUESTS)
    mean = {name: sum(values) / len(values) for name, values in difficulty.items()}

    assert share == pytest.approx(0.7, abs=0.03)
    assert mean["small"] < mean["large"] - 0.2


def test_sensitive_prompts_are_found_by_the_shipped_marks() -> None:
    classes = [
        table.Class("sensitive", table.Match(sensitive=True), ["large"], {"large": 1.0}),
        table.Class("default", table.Match(), ["small", "large"], {"small": 1.0}),
    ]
    made = router(rules(tier("small", 0.6), tier("large", 0.8), classes=classes))

    found = [(request.sensitive, made.choose(request)) for request in REQUESTS if request.input_tokens > 60]

    assert sum(sensitive for sensitive, _ in found) > 50
    for sensitive, choice in found:
        assert choice is not None
        assert choice.request_class.name == ("sensitive" if sensitive else "default")


@pytest.mark.parametrize(
    ("match", "judged", "expected"),
    [
        (table.Match(sensitive=True), dispatch.Judgement(0.5, sensitive=True), True),
        (table.Match(complexity_min=0.5), dispatch.Judgement(0.49, sensitive=False), False),
        (table.Match(priority="batch"), dispatch.Judgement(0.5, sensitive=False), False),
        (table.Match(tenants=["a"]), dispatch.Judgement(0.5, sensitive=False), False),
        (table.Match(headers={"x-kind": "a"}), dispatch.Judgement(0.5, sensitive=False), False),
        (table.Match(models=["auto"]), dispatch.Judgement(0.5, sensitive=False), True),
        (table.Match(models=["other"]), dispatch.Judgement(0.5, sensitive=False), False),
    ],
)
def test_a_request_of_a_trace_has_a_complexity_and_the_policys_model_but_no_headers(
    match: table.Match, judged: dispatch.Judgement, *, expected: bool
) -> None:
    made = router(rules(tier("small", 0.6), classes=[table.Class("one", match, ["small"], {"small": 1.0})]))

    assert (made.classify(judged) is not None) is expected


def test_requests_spread_over_endpoints_by_what_is_free() -> None:
    made = router(rules(tier("small", 0.6, endpoints=4)))
    for _ in range(40):
        choice = made.choose(PLAIN)
        assert choice is not None
        assert choice.endpoint is not None
        choice.endpoint.in_flight += 1

    counts = collections.Counter(endpoint.in_flight for endpoint in made._endpoints.values())

    assert counts == {10: 4}


def test_without_an_endpoint_the_next_better_tier_takes_over_then_the_next_worse() -> None:
    tiers = [tier("small", 0.6), tier("medium", 0.7, endpoints=0), tier("large", 0.8)]

    assert served(router(rules(*tiers, medium=1.0)), REQUESTS[:20]) == {"large": 20}
    tiers[2] = tier("large", 0.8, endpoints=0)
    assert served(router(rules(*tiers, medium=1.0)), REQUESTS[:20]) == {"small": 20}


@pytest.mark.parametrize(
    ("changes", "request_", "expected"),
    [
        pytest.param({}, PLAIN, "small", id="falls back beyond its own tiers"),
        pytest.param({"reject_when_unavailable": True}, PLAIN, None, id="rejects"),
        pytest.param({"match": table.Match(sensitive=False)}, PLAIN, "small", id="known not to be sensitive"),
        pytest.param({}, SENSITIVE, None, id="a sensitive request stays whatever the class says"),
        pytest.param({"match": table.Match(sensitive=True)}, SENSITIVE, None, id="a sensitive class"),
    ],
)
def test_what_may_take_over_when_no_own_tier_has_an_endpoint(
    changes: dict[str, Any], request_: Request, expected: str | None
) -> None:
    values: dict[str, Any] = {"match": table.Match(), "allow": ["large"], "weights": {"large": 1.0}} | changes
    made = router(rules(tier("small", 0.6), tier("large", 0.8, endpoints=0), classes=[table.Class("one", **values)]))

    choice = made.choose(request_)

    assert choice is not None
    assert (choice.tier.name if choice.tier else None) == expected
    assert (choice.endpoint is None) == (expected is None)


def test_a_provider_needs_no_endpoint() -> None:
    made = router(rules(tier("api", 0.9, endpoints=0, external=table.External("https://api.example.com"))))

    choice = made.choose(PLAIN)

    assert choice is not None
    assert choice.external


def test_a_new_table_keeps_what_is_in_flight_and_a_leaving_endpoint_gets_nothing_new() -> None:
    made = router(rules(tier("small", 0.6, endpoints=2)))
    choice = made.choose(PLAIN)
    assert choice is not None
    assert choice.endpoint is not None
    choice.endpoint.in_flight = 7

    made.install(rules(tier("small", 0.6, endpoints=3)))
    assert made._endpoints[choice.endpoint.name].in_flight == 7

    made.leave("small-0")
    made.leave("nobody")
    seen = {made.choose(PLAIN).endpoint.name for _ in range(50)}  # type: ignore[union-attr]
    assert "small-0" not in seen


def test_without_a_table_or_a_class_there_is_no_choice() -> None:
    classes = [table.Class("batch", table.Match(priority="batch"), ["small"], {"small": 1.0})]

    assert dispatch.Dispatcher(1, prompts.Synthetic(1)).choose(PLAIN) is None
    assert router(rules(tier("small", 0.6), classes=classes)).choose(PLAIN) is None


def test_a_broken_table_is_refused_and_the_old_one_stays() -> None:
    good = rules(tier("small", 0.6))
    made = router(good)

    with pytest.raises(table.TableError):
        made.install(rules(tier("small", 0.6), tier("small", 0.7)))

    assert made.in_force is good


def test_equal_seeds_choose_alike() -> None:
    new = rules(tier("small", 0.6), tier("large", 0.8), small=0.5, large=0.5)

    first, second = (
        [
            choice.endpoint.name
            for request in REQUESTS
            for choice in (made.choose(request),)
            if choice and choice.endpoint
        ]
        for made in (router(new), router(new))
    )

    assert first == second
