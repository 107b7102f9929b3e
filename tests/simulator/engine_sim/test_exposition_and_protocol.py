"""Prometheus text and the reading of request bodies."""

from __future__ import annotations

import contextlib
import math

import msgspec
import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim.engine_sim import exposition, http_metrics, metrics, protocol, settings


@given(st.floats(allow_nan=False) | st.integers(-(10**15), 10**15))
def test_numbers_are_written_as_prometheus_writes_them(value: float) -> None:
    assert exposition.format_value(value) == prometheus_client.utils.floatToGoString(value)


def test_not_a_number_is_written() -> None:
    assert exposition.format_value(math.nan) == "NaN"


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_histogram_is_rendered_as_prometheus_client_renders_it(values: list[float]) -> None:
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram("h_seconds", "Help.", ["b", "a"], buckets=(1, 10), registry=registry)
    ours = exposition.Family("histogram", "h_seconds", "Help.", bounds=(1, 10))
    child = ours.distribution(5.0, a="x", b="y")
    theirs.labels(a="x", b="y")
    for value in values:
        child.observe(value)
        theirs.labels(a="x", b="y").observe(value)
    expected = [
        line for line in prometheus_client.generate_latest(registry).decode().splitlines() if "_sum" not in line
    ]
    actual = [line for line in exposition.render([ours]).decode().splitlines() if "_sum" not in line]
    assert actual[:-1] == expected[:-1]  # the last line is the time of birth
    assert child.sum == pytest.approx(sum(values))


def test_label_values_are_escaped() -> None:
    family = exposition.Family("gauge", "g", "Help.")
    family.value(0.0, name='a"b\\c\nd').value = 1
    assert 'g{name="a\\"b\\\\c\\nd"} 1.0' in exposition.render([family]).decode()


def test_token_buckets_follow_the_context() -> None:
    assert metrics.token_buckets(1024) == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    assert metrics.token_buckets(5) == (1, 2, 5)


def test_metric_names_are_not_repeated() -> None:
    families = [
        *metrics.EngineMetrics(settings.Settings(), born=0.0).families,
        *http_metrics.HttpMetrics(born=0.0).families,
    ]
    names = [family.name for family in [*families, *http_metrics.process_families()]]
    assert len(names) == len(set(names))


def fields(**body: object) -> protocol.Fields:
    return protocol.Fields(body)


@pytest.mark.parametrize(
    ("value", "read"),
    [(3, 3), ("3", 3), (3.0, 3), (None, None)],
)
def test_integers_are_read_as_pydantic_reads_them(value: object, read: int | None) -> None:
    one = fields(n=value)
    assert one.integer("n") == read
    one.finish()


@pytest.mark.parametrize(
    ("reader", "value", "kind"),
    [
        ("integer", "x", "int_parsing"),
        ("integer", 1.5, "int_from_float"),
        ("integer", True, "int_type"),
        ("integer", [], "int_type"),
        ("number", "x", "float_parsing"),
        ("number", {}, "float_type"),
        ("flag", "maybe", "bool_parsing"),
        ("flag", [], "bool_type"),
        ("text", 1, "string_type"),
        ("items", {}, "list_type"),
        ("mapping", [], "dict_type"),
    ],
)
def test_a_wrong_type_is_a_complaint(reader: str, value: object, kind: str) -> None:
    one = fields(f=value)
    getattr(one, reader)("f")
    with pytest.raises(protocol.ValidationError) as error:
        one.finish()
    assert f"{{'type': '{kind}', 'loc': 'body.f'" in error.value.message
    assert (error.value.status, error.value.kind, error.value.param) == (400, "Bad Request", "body.f")


def test_all_problems_are_told_at_once() -> None:
    one = fields(a="x", b=[])
    one.integer("a")
    one.text("b")
    one.required("c")
    with pytest.raises(protocol.ValidationError, match="3 validation errors:") as error:
        one.finish()
    assert error.value.param == "body.a"


def test_no_content_of_a_container_gets_into_a_message() -> None:
    one = fields(messages={"secret": "words"})
    one.items("messages")
    with pytest.raises(protocol.ValidationError) as error:
        one.finish()
    assert "secret" not in error.value.message


@given(st.binary(max_size=40))
def test_any_body_is_an_object_or_a_clean_error(body: bytes) -> None:
    with contextlib.suppress(protocol.ApiError):
        assert isinstance(protocol.parse_object(body), dict)


def test_bytes_that_are_no_text_are_a_clean_error() -> None:
    with pytest.raises(protocol.ApiError) as error:
        protocol.parse_object(b'{"a": "\xff"}')
    assert msgspec.json.decode(error.value.body())["error"]["code"] == 400


def test_an_error_event_is_spaced_as_python_spaces_it() -> None:
    event = protocol.dead("gone").event()
    assert (
        event == b'data: {"error": {"message": "gone", "type": "InternalServerError", "param": null, "code": 500}}\n\n'
    )
