"""Trace formats, every error a trace file can have, and what speed, scale and minutes do."""

from __future__ import annotations

import gzip
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim import prompts, traces
from trimtab_sim.workload import TraceError

PLAIN = prompts.Mix(sensitive=0, repeated=0)

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:17:51.2224670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
SECONDS = """t_s,input_tokens,output_tokens,split
0.0,374,44,dev
4.5,396,109,dev
"""
REORDERED = """split,output_tokens,t_s,input_tokens
dev,44,100.25,374
"dev, again",109,104.75,396
"""
MOONCAKE = """{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 1500, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}
"""


def write(folder: pathlib.Path, text: str | bytes, name: str = "trace.csv") -> pathlib.Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(AZURE, [(0.0, 374, 44), (4.314579, 396, 109), (124.541877, 879, 55)], id="azure 2023"),
        pytest.param(AZURE_2024, [(0.0, 2162, 5), (0.007405, 2399, 6)], id="azure 2024, with a zone"),
        pytest.param(SECONDS, [(0.0, 374, 44), (4.5, 396, 109)], id="seconds"),
        pytest.param(REORDERED, [(0.0, 374, 44), (4.5, 396, 109)], id="other order, more columns, quotes"),
        pytest.param(MOONCAKE, [(0.0, 6758, 500), (1.5, 7322, 490)], id="mooncake"),
        pytest.param(
            "\ufeff" + SECONDS.replace("\n", "\r\n\r\n"), [(0.0, 374, 44), (4.5, 396, 109)], id="from Windows"
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_each_format_is_recognised(
    tmp_path: pathlib.Path, text: str, expected: list[tuple[float, int, int]], *, packed: bool
) -> None:
    # the name says nothing: the content does
    path = write(tmp_path, gzip.compress(text.encode()) if packed else text, name="trace.bin")

    trace = traces.load(path, mix=PLAIN)

    found = [(round(one.arrival_s, 6), one.input_tokens, one.output_tokens) for one in trace.requests]
    assert found == expected
    assert [one.number for one in trace.requests] == list(range(len(expected)))
    assert trace.source == "trace.bin"


HEADER = "t_s,input_tokens,output_tokens\n"
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "empty; expected a CSV", id="empty file"),
        pytest.param("\n\n \n", "empty; expected a CSV", id="blank lines"),
        pytest.param(HEADER, "no requests in it", id="header alone"),
        pytest.param("a,b,c\n1,2,3\n", r":1: found 'a,b,c'; expected a CSV with the columns", id="unknown columns"),
        pytest.param("[1, 2]\n", r":1: found '\[1, 2\]'", id="json that is no object"),
        pytest.param(HEADER + "0,10,10\n1,10\n", ":3: found 2 fields in '1,10'; expected 3", id="field missing"),
        pytest.param(HEADER + "0,10,10\nx,10,10\n", ":3: t_s is 'x'; expected a finite number", id="time not a number"),
        pytest.param(HEADER + "nan,10,10\n", ":2: t_s is 'nan'", id="time nan"),
        pytest.param(HEADER + "inf,10,10\n", ":2: t_s is 'inf'", id="time infinite"),
        pytest.param(HEADER + "5,1,1\n4,1,1\n", ":3: time goes back by 1 s; expected rows sorted", id="unsorted"),
        pytest.param(HEADER + "0,0,10\n", ":2: input_tokens is '0'; expected a whole number from 1", id="zero tokens"),
        pytest.param(HEADER + "0,10,-1\n", ":2: output_tokens is '-1'", id="negative tokens"),
        pytest.param(HEADER + "0,1.5,1\n", r":2: input_tokens is '1\.5'", id="half a token"),
        pytest.param(HEADER + "0,99999999,1\n", ":2: input_tokens is '99999999'", id="huge tokens"),
        pytest.param(HEADER + "0,,1\n", ":2: input_tokens is ''", id="no tokens"),
        pytest.param(AZURE_HEADER + "yesterday,1,1\n", ":2: TIMESTAMP is 'yesterday'", id="bad timestamp"),
        pytest.param('{"timestamp": 0, "input_length": 1}\n', ":1: output_length missing", id="key missing"),
        pytest.param('{"timestamp": 0,\n', ":1: found '.*'; expected a JSON object", id="broken json"),
        pytest.param(
            '{"timestamp": "soon", "input_length": 1, "output_length": 1}\n',
            ":1: timestamp is 'soon'",
            id="text as time",
        ),
        pytest.param(
            '{"timestamp": 0, "input_length": true, "output_length": 1}\n',
            ":1: input_length is 'True'",
            id="not a count",
        ),
        pytest.param(MOONCAKE + "7\n", ":3: found '7'; expected a JSON object", id="number among objects"),
        pytest.param(HEADER.encode() + b"0,\xff\xfe,1\n", ":2: not UTF-8 text", id="not text"),
        pytest.param(b"\x1f\x8b\x08\x00broken", "damaged gzip", id="broken gzip"),
        pytest.param(gzip.compress(AZURE.encode())[:-9], "damaged gzip", id="truncated gzip"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_expectation(
    tmp_path: pathlib.Path, text: str | bytes, message: str
) -> None:
    path = write(tmp_path, text)

    with pytest.raises(TraceError, match=message) as caught:
        traces.load(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TraceError, match=r"absent\.csv: can't be read: No such file"):
        traces.load(tmp_path / "absent.csv")
    with pytest.raises(TraceError, match="can't be read: Is a directory"):
        traces.load(tmp_path)


@pytest.mark.parametrize("name", ["speed", "scale", "minutes"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_an_argument_out_of_range_is_named(tmp_path: pathlib.Path, name: str, value: float) -> None:
    with pytest.raises(TraceError, match=f"{name} must be a finite number above 0"):
        traces.load(write(tmp_path, SECONDS), **{name: value})  # type: ignore[arg-type]


def steady(folder: pathlib.Path, *, seconds: int = 600, per_second: int = 2) -> pathlib.Path:
    rows = (f"{at / per_second},{100 + at % 7},{10 + at % 3}\n" for at in range(seconds * per_second))
    return write(folder, HEADER + "".join(rows))


def test_minutes_is_the_length_of_the_replay_after_speed(tmp_path: pathlib.Path) -> None:
    trace = traces.load(steady(tmp_path), minutes=2, speed=3)

    # 2 minutes of replay are 6 minutes of the trace: 360 s × 2 requests
    assert len(trace.requests) == 720
    assert trace.duration_s == pytest.approx(120, abs=0.5)
    assert trace.mean_rps == pytest.approx(6, rel=0.01)
    assert trace.source == "trace.csv (speed 3, first 2 min)"


@pytest.mark.parametrize("scale", [0.25, 1.0, 2.5, 20.0])
def test_scale_multiplies_the_rate_and_keeps_the_duration(tmp_path: pathlib.Path, scale: float) -> None:
    trace = traces.load(steady(tmp_path), scale=scale, mix=PLAIN)

    assert len(trace.requests) == pytest.approx(1200 * scale, rel=0.1)
    assert trace.duration_s == pytest.approx(600, rel=0.05)
    times = [one.arrival_s for one in trace.requests]
    assert times == sorted(times)
    assert {one.input_tokens for one in trace.requests} == set(range(100, 107))


def test_copies_are_no_burst_of_their_own(tmp_path: pathlib.Path) -> None:
    trace = traces.load(steady(tmp_path), scale=20.0)

    # 40 per second on average; were the 20 copies of a request at one time, a tenth of a second would hold 20 = 200 per second
    assert trace.peak_rps(0.1) < 150
    assert trace.peak_rps(10.0) < 50


def test_ticks_of_a_coarse_clock_are_spread(tmp_path: pathlib.Path) -> None:
    rows = "".join(f"{3 * tick},100,10\n" * 12 for tick in range(100))
    trace = traces.load(write(tmp_path, HEADER + rows))

    # 12 requests in every 3 seconds; unspread, each second would hold 12 or none
    assert trace.peak_rps(0.5) < 24
    assert trace.mean_rps == pytest.approx(4, rel=0.05)


def test_nothing_left_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TraceError, match=r"no requests are left after the cut to None minutes at scale 1e-06"):
        traces.load(write(tmp_path, SECONDS), scale=1e-6)


def test_equal_seeds_give_equal_traces_and_others_do_not(tmp_path: pathlib.Path) -> None:
    path = steady(tmp_path)

    assert traces.load(path, scale=2.5, seed=3) == traces.load(path, scale=2.5, seed=3)
    assert traces.load(path, scale=2.5, seed=3) != traces.load(path, scale=2.5, seed=4)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 10**7), st.integers(1, 10**7)), min_size=1, max_size=30))
def test_whatever_is_written_is_read(rows: list[tuple[float, int, int]]) -> None:
    rows.sort(key=lambda row: row[0])
    parse = traces._csv_row(["t_s", "input_tokens", "output_tokens"], ("t_s", "input_tokens", "output_tokens"), float)

    assert [parse(f"{time!r},{given_},{made}") for time, given_, made in rows] == rows
