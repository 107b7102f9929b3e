"""The direct scraper: what it reads from a page, what it says when a target is silent, and what a rate then is."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from trimtab_core import observation, signals, telemetry
from trimtab_operator.observe import exposition, scrape

ENGINE_PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="small"} 3.0
vllm:num_requests_running{engine="1",model_name="small"} 4.0
vllm:num_requests_waiting{engine="0",model_name="small"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="small"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="small"} 0.75
vllm:engine_sleep_state{engine="0",model_name="small",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="small",sleep_state="discard_all"} 0.0
vllm:prompt_tokens_total{engine="0",model_name="small"} 900.0
vllm:prompt_tokens_total{engine="1",model_name="small"} 600.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="small",source="local_compute"} 1.0
vllm:prompt_tokens_cached_total{engine="0",model_name="small"} 400.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01",model_name="small"} 30.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="small"} 100.0
vllm:inter_token_latency_seconds_sum{engine="0",model_name="small"} 2.5
vllm:inter_token_latency_seconds_count{engine="1",model_name="small"} 50.0
vllm:inter_token_latency_seconds_sum{engine="1",model_name="small"} 1.5
vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="32768",num_gpu_blocks="2048"} 1.0
vllm:cache_config_info{block_size="16",engine="1",kv_cache_size_tokens="None",num_gpu_blocks="1024"} 1.0
"""


class Target:
    """A server of canned metrics pages; ``page`` may be changed, None answers 503."""

    def __init__(self, page: str | None) -> None:
        self.page = page
        self.address = ""

    async def handle(self, request: web.Request) -> web.Response:
        if self.page is None:
            return web.Response(status=503)
        return web.Response(text=self.page)


@contextlib.asynccontextmanager
async def serving(*targets: Target) -> AsyncIterator[None]:
    """Serve every target on a port of its own."""
    runners = []
    for target in targets:
        app = web.Application()
        app.router.add_get("/metrics", target.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        target.address = f"127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
    try:
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


def arrivals(count: float, request_class: str = "simple") -> str:
    return f'trimtab_router_arrivals_total{{policy="default/p",class="{request_class}"}} {count}\n'


RATE = telemetry.Query(telemetry.ARRIVALS, telemetry.Operation.RATE, ("class",), window_seconds=10)
LAST = telemetry.Query(telemetry.IN_FLIGHT, telemetry.Operation.LAST, ("tier",))
QUERIES = {"rate": RATE, "last": LAST}


def scraper(*targets: Target) -> scrape.Scraper:
    return scrape.Scraper(
        lambda: {f"router-{index}": target.address for index, target in enumerate(targets)}, timeout_seconds=0.5
    )


def only(answers: observation.Answers, name: str) -> telemetry.Answer:
    """The one group of an answer."""
    found = answers[name]
    assert not isinstance(found, observation.QueryFailure), found
    (answer,) = found
    return answer


# The text format ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels", "value"),
    [
        pytest.param("x_total 5", {}, 5.0, id="no labels"),
        pytest.param('x_total{a="1",b="two"} 5.5 1700000000', {"a": "1", "b": "two"}, 5.5, id="timestamp"),
        pytest.param('x_total{a="} 7",b="\\"q\\""} 1', {"a": "} 7", "b": '"q"'}, 1.0, id="brace and quotes in a value"),
        pytest.param('x_total{a="back\\\\slash\\nline"} 1', {"a": "back\\slash\nline"}, 1.0, id="escapes"),
        pytest.param("x_total{} 1e3", {}, 1000.0, id="empty labels, exponent"),
        pytest.param("x_total +Inf", {}, math.inf, id="infinity is passed on"),
    ],
)
def test_a_sample_line_is_read(text: str, labels: dict[str, str], value: float) -> None:
    assert list(exposition.read(text, ["x_total"])) == [exposition.Line("x_total", labels, value)]


@pytest.mark.parametrize(
    "text",
    ["# HELP x_total things", "x_total_created 7", "x_total", "x_total{a=1} five", "prefix_x_total 5"],
)
def test_other_lines_are_left_out(text: str) -> None:
    assert list(exposition.read(text, ["x_total"])) == []


# Engines --------------------------------------------------------------------------------------------------------


def test_an_engines_parts_add_up_and_the_fullest_cache_counts() -> None:
    reading = scrape.read_engine(ENGINE_PAGE, now=50.0)
    assert reading.running == signals.Sample(7.0, 50.0)  # 3 + 4
    assert reading.waiting == signals.Sample(2.0, 50.0)  # not the 9 of the other family
    assert reading.kv_usage == signals.Sample(0.75, 50.0)  # max(0.25, 0.75)
    assert not reading.asleep


def test_counters_tell_how_fast_tokens_came_and_how_many_prompts_were_computed() -> None:
    reading = scrape.read_engine(ENGINE_PAGE, now=50.0)
    assert reading.gap_seconds == signals.Sample(4.0, 50.0)  # 2.5 + 1.5
    assert reading.gaps == signals.Sample(150.0, 50.0)
    assert reading.prompt_tokens == signals.Sample(1100.0, 50.0)  # 900 + 600, of which 400 were in the cache
    assert reading.kv_tokens == signals.Sample(49_152.0, 50.0)  # 32,768 and, where only blocks are told, 1,024 · 16


def test_an_old_engines_names_are_understood() -> None:
    page = """\
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:time_per_output_token_seconds_sum{model_name="m"} 7.0
vllm:time_per_output_token_seconds_count{model_name="m"} 200.0
"""
    reading = scrape.read_engine(page, now=1.0)
    assert reading.kv_usage == signals.Sample(0.5, 1.0)
    assert reading.gap_seconds == signals.Sample(7.0, 1.0)
    assert reading.gaps == signals.Sample(200.0, 1.0)


def test_an_engine_that_tells_no_cache_size_tells_none() -> None:
    page = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0\n'
    assert scrape.read_engine(page, now=1.0).kv_tokens is None


def test_an_absent_family_is_none_and_not_zero() -> None:
    assert scrape.read_engine("", now=1.0) == observation.EngineReading()


def test_an_engine_sleeps_when_its_awake_series_is_zero() -> None:
    assert scrape.read_engine('vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n', now=1.0).asleep


def test_a_silent_engine_keeps_its_last_reading_with_its_time() -> None:
    async def story() -> tuple[observation.EngineReading, observation.EngineReading]:
        target, dead = Target(ENGINE_PAGE), Target(None)
        async with serving(target, dead), scraper() as reader:
            addresses = {"a": target.address, "b": dead.address, "c": "127.0.0.1:1"}
            await reader.engines(addresses, now=100.0)
            target.page = None
            readings = await reader.engines(addresses, now=110.0)
            assert readings["c"] == observation.EngineReading()
            return readings["a"], readings["b"]

    answered_once, never_answered = asyncio.run(story())
    assert answered_once.running == signals.Sample(7.0, 100.0)
    assert never_answered == observation.EngineReading()


def test_the_reading_of_an_engine_that_is_gone_is_dropped() -> None:
    async def story() -> set[str]:
        target = Target(ENGINE_PAGE)
        async with serving(target), scraper() as reader:
            await reader.engines({"a": target.address, "b": target.address}, now=1.0)
            return set(await reader.engines({"b": target.address}, now=2.0))

    assert asyncio.run(story()) == {"b"}


# Routers --------------------------------------------------------------------------------------------------------


def answers_after(
    *steps: tuple[float, str | None], queries: dict[str, telemetry.Query] = QUERIES
) -> observation.Answers:
    """The answers of one router whose page is changed before each scrape."""

    async def story() -> observation.Answers:
        target = Target("")
        found: observation.Answers = {}
        async with serving(target), scraper(target) as reader:
            for now, target.page in steps:
                found = await reader.answers(queries, now)
        return found

    return asyncio.run(story())


def test_a_rate_comes_from_the_growth_between_scrapes() -> None:
    answer = only(answers_after((100.0, arrivals(50)), (105.0, arrivals(60)), (110.0, arrivals(70))), "rate")
    assert answer.labels == ("simple",)
    assert answer.value == pytest.approx(2.0)  # 20 requests in 10 s
    assert answer.observed_at == 110.0


def test_a_counter_that_appears_is_known_to_have_started_at_zero() -> None:
    answer = only(answers_after((101.0, "other 1\n"), (105.0, arrivals(8)), (110.0, arrivals(12))), "rate")
    assert answer.value == pytest.approx(1.2)  # 12 requests in 10 s, the first 8 included


def test_what_an_earlier_scrape_did_not_look_for_does_not_count_as_new() -> None:
    async def story() -> observation.Answers:
        target = Target(arrivals(1000))
        async with serving(target), scraper(target) as reader:
            await reader.answers({"last": LAST}, 100.0)
            await reader.answers(QUERIES, 105.0)
            target.page = arrivals(1010)
            return await reader.answers(QUERIES, 110.0)

    assert only(asyncio.run(story()), "rate").value == pytest.approx(1.5, abs=0.6)  # 10 requests, not 1010


def test_a_silent_router_gets_older_and_never_smaller() -> None:
    steps = [(100.0, arrivals(50)), (105.0, arrivals(60)), (110.0, arrivals(70)), (140.0, None)]
    answer = only(answers_after(*steps), "rate")
    assert answer.value == pytest.approx(2.0)
    assert answer.observed_at == 110.0  # 30 s old at 140


def test_no_router_ever_heard_is_a_failure_and_not_an_empty_answer() -> None:
    found = answers_after((100.0, None))
    assert set(found) == {"rate", "last"}
    assert all(isinstance(answer, observation.QueryFailure) for answer in found.values())
    assert "503" in str(found["rate"])


def test_no_router_at_all_is_a_failure() -> None:
    async def story() -> observation.Answers:
        async with scraper() as reader:
            return await reader.answers(QUERIES, 1.0)

    assert asyncio.run(story())["rate"] == observation.QueryFailure("no router runs")


def test_a_router_without_events_answers_with_nothing() -> None:
    assert answers_after((100.0, "other 1\n"))["rate"] == ()


def test_a_series_that_is_no_longer_shown_has_ended() -> None:
    gauge = 'trimtab_router_in_flight{policy="p",tier="%s"} 3\n'
    found = answers_after((100.0, gauge % "old" + gauge % "kept"), (105.0, gauge % "kept"))
    assert only(found, "last") == telemetry.Answer(("kept",), 3.0, 105.0)


def two_routers(second: Callable[[Target], None], later: float = 114.0) -> telemetry.Answer:
    """Two routers with 1 and 2 requests per second; something happens to the second before the last scrape."""

    async def story() -> telemetry.Answer:
        one, two = Target(None), Target(None)
        async with serving(one, two):
            running = {"router-0": one.address, "router-1": two.address}
            async with scrape.Scraper(lambda: running, timeout_seconds=0.5) as reader:
                for now in (100.0, 105.0, 110.0, later):
                    one.page, two.page = arrivals(now), arrivals(2 * now)
                    if now == later:
                        second(two)
                    if two.page == "gone":
                        del running["router-1"]
                    found = await reader.answers(QUERIES, now)
        return only(found, "rate")

    return asyncio.run(story())


def test_routers_add_up() -> None:
    answer = two_routers(lambda _: None)
    assert (answer.value, answer.observed_at) == (pytest.approx(3.0), 114.0)


def test_a_sum_is_as_old_as_its_oldest_router() -> None:
    answer = two_routers(lambda two: setattr(two, "page", None))
    assert (answer.value, answer.observed_at) == (pytest.approx(3.0), 110.0)


@pytest.mark.parametrize(
    ("later", "rate"),
    [
        pytest.param(114.0, 3.0, id="its growth from 105 to 110 lies in the window"),
        pytest.param(119.0, 1.0, id="one sample in the window gives no growth"),
    ],
)
def test_a_router_that_is_gone_counts_for_what_it_did_in_the_window_only(later: float, rate: float) -> None:
    assert two_routers(lambda two: setattr(two, "page", "gone"), later).value == pytest.approx(rate)


def test_a_page_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "PAGE_LIMIT_BYTES", 1000)
    found = answers_after((100.0, "x" * 2000))
    assert "longer than 1000 bytes" in str(found["rate"])
