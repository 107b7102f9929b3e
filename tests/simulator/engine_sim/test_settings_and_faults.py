"""Flags, their environment, and how faults are written and drawn."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from trimtab_cli import engine_sim
from trimtab_sim.engine_sim import faults, settings


def load(arguments: str, **environment: str) -> settings.Settings:
    given_flags, _ = settings.read_arguments(arguments.split())
    return settings.load(given_flags, environment)


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        pytest.param("--port 81", "port", 81, id="a value after a space"),
        pytest.param("--port=81", "port", 81, id="a value after an equals sign"),
        pytest.param("--max_num_seqs 4", "max_num_seqs", 4, id="underscores for dashes"),
        pytest.param("--max-model-len 8k", "max_model_len", 8000, id="decimal thousands"),
        pytest.param("--max-model-len 8K", "max_model_len", 8192, id="binary thousands"),
        pytest.param(
            "--kv-cache-memory-bytes 1.5M", "kv_cache_memory_bytes", 1_572_864, id="a fraction of a binary million"
        ),
        pytest.param("--served-model-name a b --port 1", "served_model_name", ("a", "b"), id="several names"),
        pytest.param("--served-model-name a -tp 2", "served_model_name", ("a",), id="names end at a short flag"),
        pytest.param("--no-enable-prefix-caching", "enable_prefix_caching", False, id="a switch turned off"),
        pytest.param("--sim-control", "sim_control", True, id="a switch turned on"),
        pytest.param("serve org/model --port 1", "model", "org/model", id="the model as vllm serve takes it"),
        pytest.param("org/model", "model", "org/model", id="the model as the first word"),
        pytest.param("--port 1 --port 2", "port", 2, id="the last one wins"),
        pytest.param(
            "--sim-fault busy --sim-fault abort,after_tokens=3",
            "sim_fault",
            (faults.Fault("busy"), faults.Fault("abort", after_tokens=3)),
            id="two faults",
        ),
    ],
)
def test_a_flag_is_read(arguments: str, field: str, value: object) -> None:
    assert getattr(load(arguments), field) == value


def test_flags_without_a_meaning_are_set_aside_with_their_values() -> None:
    flags, ignored = settings.read_arguments(
        ["--enforce-eager", "--tensor-parallel-size", "2", "--port", "5", "--gpu-memory-utilization=0.9"]
    )
    assert flags == {"--port": "5"}
    assert ignored == ["--enforce-eager", "--tensor-parallel-size", "2", "--gpu-memory-utilization=0.9"]


def test_every_simulator_flag_has_a_variable_and_no_other_has_one() -> None:
    for flag in settings.FLAGS:
        assert (flag.environment is not None) == flag.name.startswith("--sim-")
    assert load("", TRIMTAB_SIM_ITL_BASE_MS="3").sim_itl_base_ms == 3
    assert load("--sim-itl-base-ms 4", TRIMTAB_SIM_ITL_BASE_MS="3").sim_itl_base_ms == 4
    assert load("", TRIMTAB_SIM_CONTROL="true").sim_control
    assert load("", TRIMTAB_SIM_FAULT="busy;abort").sim_fault == (faults.Fault("busy"), faults.Fault("abort"))


def test_every_flag_fills_a_field_of_its_kind() -> None:
    texts = {"text": "fcfs", "names": ["x"], "count": "1000", "number": "2", "switch": True, "faults": ["busy"]}
    for flag in settings.FLAGS:
        config = settings.load({flag.name: texts[flag.kind]}, {"TRIMTAB_SIM_KV_TOKENS": "99999"})
        assert getattr(config, flag.field) == settings.parse(flag.kind, texts[flag.kind])


def test_development_mode_and_key_come_from_vllm_variables() -> None:
    config = load("", VLLM_SERVER_DEV_MODE="1", VLLM_API_KEY="secret")
    assert (config.dev_mode, config.api_key) == (True, ("secret",))
    assert not load("", VLLM_SERVER_DEV_MODE="0").dev_mode


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        pytest.param("--port", {}, "--port needs a value", id="no value"),
        pytest.param("--port x", {}, "--port: expected a whole number", id="no number"),
        pytest.param("--port 65536", {}, "--port must be 0 to 65535", id="no such port"),
        pytest.param("--max-num-seqs 0", {}, "--max-num-seqs must be at least 1", id="no seats"),
        pytest.param("--sim-time-scale 0", {}, "--sim-time-scale must be a number above 0", id="no time"),
        pytest.param("--sim-itl-base-ms -1", {}, "--sim-itl-base-ms must not be negative", id="negative latency"),
        pytest.param("--sim-prefill-tokens-per-second nan", {}, "must be a number above 0", id="not a number"),
        pytest.param(
            "--scheduling-policy lifo", {}, "--scheduling-policy must be fcfs or priority", id="a policy of its own"
        ),
        pytest.param("--sim-kv-tokens 10", {}, "raise --sim-kv-tokens or lower --block-size", id="no KV cache"),
        pytest.param(
            "--sim-kv-tokens 1600 --max-model-len 4000",
            {},
            "--max-model-len 4000 must be between 1 and the 1584",
            id="a context that does not fit",
        ),
        pytest.param("--sim-fault frob", {}, "--sim-fault: unknown fault 'frob'", id="an unknown fault"),
        pytest.param(
            "", {"TRIMTAB_SIM_SEED": "x"}, "TRIMTAB_SIM_SEED: expected a whole number", id="a variable without a number"
        ),
    ],
)
def test_a_wrong_value_names_its_flag(arguments: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(settings.SettingsError, match=message):
        load(arguments, **environment)


def test_the_command_turns_a_wrong_flag_into_a_usage_error() -> None:
    result = CliRunner().invoke(engine_sim.command, ["--port", "x"])
    assert result.exit_code == 2
    assert "--port: expected a whole number" in result.output


def test_help_lists_every_flag_and_fault() -> None:
    text = CliRunner().invoke(engine_sim.command, ["--help"]).output
    assert all(flag.name in text for flag in settings.FLAGS)
    assert all(kind in text for kind in faults.KINDS)


@pytest.mark.parametrize(
    ("arguments", "blocks"),
    [
        pytest.param(
            "--num-gpu-blocks-override 70 --sim-kv-tokens 99999 --max-model-len 100", 70, id="the override wins"
        ),
        pytest.param("--sim-kv-tokens 5440 --block-size 32", 170, id="tokens by block size"),
        pytest.param("--kv-cache-memory-bytes 1M --block-size 32", 64, id="memory at 512 bytes a token"),
        pytest.param("", 4097, id="65,536 tokens and the reserved block"),
    ],
)
def test_the_size_of_the_cache(arguments: str, blocks: int) -> None:
    assert load(arguments).num_blocks == blocks


@pytest.mark.parametrize(
    ("arguments", "longest"),
    [
        pytest.param("", 8192, id="the default"),
        pytest.param("--sim-kv-tokens 1600", 1584, id="what fits"),
        pytest.param("--max-model-len auto --sim-kv-tokens 1600", 1584, id="auto"),
        pytest.param("--max-model-len 300000", 300_000, id="a long context grows the default cache"),
    ],
)
def test_the_longest_context(arguments: str, longest: int) -> None:
    assert load(arguments).context_tokens == longest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frob", "unknown fault 'frob': use one of refuse"),
        ("busy,share", "write 'share' as name=value"),
        ("busy,share=2", "share must be between 0 and 1"),
        ("busy,count=-1", "must not be negative"),
        ("busy,seconds=soon", "fault field seconds must be float"),
        ("busy,colour=red", "a fault has no field 'colour'"),
        ("busy,share=nan", "share must be between 0 and 1"),
    ],
)
def test_a_fault_written_wrong_says_how_to_write_it(text: str, message: str) -> None:
    with pytest.raises(faults.FaultError, match=message):
        faults.parse(text)


@given(st.sampled_from(sorted(faults.KINDS)), st.integers(0, 99), st.floats(0, 1), st.none() | st.integers(0, 9))
def test_a_fault_survives_its_fields(kind: str, after: int, share: float, count: int | None) -> None:
    fault = faults.Fault(kind, after_tokens=after, share=share, count=count)
    assert faults.from_fields(fault.as_dict()) == fault


def test_a_fault_ends_after_its_seconds_and_its_count() -> None:
    board = faults.Board(0)
    board.add(faults.Fault("busy", seconds=10), now=100.0)
    board.add(faults.Fault("abort", count=1), now=100.0)
    assert [fault.kind for fault in board.in_force(105.0)] == ["busy", "abort"]
    assert [fault.kind for fault in board.in_force(110.0)] == ["abort"]
    drawn = [board.draw(111.0), board.draw(111.0)]
    assert [fault and fault.kind for fault in drawn] == ["abort", None]


def test_faults_of_the_process_are_not_drawn_by_requests() -> None:
    board = faults.Board(0)
    board.add(faults.Fault("freeze"), now=0.0)
    assert board.acts("freeze", 1.0)
    assert board.draw(1.0) is None
    board.clear()
    assert not board.acts("freeze", 1.0)


def test_a_share_is_drawn_by_seed() -> None:
    def pattern(seed: int) -> list[bool]:
        board = faults.Board(seed)
        board.add(faults.Fault("busy", share=0.3), now=0.0)
        return [board.draw(1.0) is not None for _ in range(1000)]

    assert pattern(1) == pattern(1) != pattern(2)
    assert 250 < sum(pattern(1)) < 350  # 0.3 of 1,000, give or take
