"""
Every flag of the simulator: vLLM's own names for what vLLM has, `--sim-*` for the rest.

One table drives the command line, the environment variables and the defaults. The command module turns it into options;
this module knows nothing of click. Flags of vLLM that mean nothing here are accepted and reported, since rendered
Deployments carry users' real arguments.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab_sim.engine_sim import faults, timing

VERSION = "0.32.0"
_LAST_PORT = 65_535
_DEFAULT_KV_TOKENS = 65_536
_DEFAULT_CONTEXT = 8192
_AUTOMATIC = -1
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_KV_BYTES_PER_TOKEN = 512  # of the tiny model behind the transcripts; only turns --kv-cache-memory-bytes into tokens


class SettingsError(ValueError):
    """A flag has a value that cannot be used; the message names the flag and the fix."""


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """
    One command-line flag.

    Attributes:
        name: With its dashes, as vLLM spells it.
        field: Field of `Settings` that it fills.
        kind: `text`, `names`, `count` (8k, 16M allowed), `number`, `switch` or `faults`.
        help: One line for `--help`.

    """

    name: str
    field: str
    kind: str
    help: str

    @property
    def environment(self) -> str | None:
        """Variable read when the flag is absent: TRIMTAB_SIM_X for --sim-x; vLLM's own flags have none."""
        return "TRIMTAB_" + self.name[2:].upper().replace("-", "_") if self.name.startswith("--sim-") else None


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """
    One simulated engine. Units: tokens, seconds, milliseconds where the name says so.

    Attributes mirror the flags in `FLAGS`; None means vLLM's own default.
    """

    model: str = "trimtab/simulated"
    served_model_name: tuple[str, ...] = ()
    host: str = "0.0.0.0"  # noqa: S104 - vLLM's default; a pod is reached on its own address
    port: int = 8000
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int | None = None
    block_size: int = 16
    num_gpu_blocks_override: int | None = None
    kv_cache_memory_bytes: int | None = None
    enable_prefix_caching: bool = True
    max_num_queued_reqs: int | None = None
    max_num_queued_tokens: int | None = None
    stream_interval: int = 1
    scheduling_policy: str = "fcfs"
    shutdown_timeout: float = 0.0
    api_key: tuple[str, ...] = ()
    enable_prompt_tokens_details: bool = False
    enable_request_id_headers: bool = False
    enable_server_load_tracking: bool = False
    enable_per_request_metrics: bool = False
    enable_force_include_usage: bool = False
    enable_auto_tool_choice: bool = False
    tool_call_parser: str | None = None
    sim_itl_base_ms: float = 12.0
    sim_itl_per_seq_ms: float = 0.4
    sim_prefill_tokens_per_second: float = 8000.0
    sim_kv_tokens: int | None = None
    sim_startup_seconds: float = 0.0
    sim_time_scale: float = 1.0
    sim_seed: int = 0
    sim_output_tokens: int = 200
    sim_fault: tuple[faults.Fault, ...] = ()
    sim_control: bool = False
    dev_mode: bool = False

    def __post_init__(self) -> None:
        """Check what no parser of single values can; raise SettingsError."""
        for name in (
            "max_num_seqs", "max_num_batched_tokens", "block_size", "stream_interval", "sim_output_tokens",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("sim_prefill_tokens_per_second", "sim_time_scale"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingsError(f"--{name.replace('_', '-')} must be a number above 0, got {getattr(self, name)}")
        for name in ("sim_itl_base_ms", "sim_itl_per_seq_ms", "sim_startup_seconds", "shutdown_timeout"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingsError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.port <= _LAST_PORT:
            raise SettingsError(f"--port must be 0 to {_LAST_PORT}, got {self.port}")
        if self.scheduling_policy not in ("fcfs", "priority"):
            raise SettingsError(f"--scheduling-policy must be fcfs or priority, got {self.scheduling_policy}")
        if self.num_blocks <= 1:
            raise SettingsError(
                f"the KV cache has {self.num_blocks} blocks, it needs 2: raise --sim-kv-tokens or lower --block-size"
            )
        if (
            self.max_model_len is not None
            and self.max_model_len != _AUTOMATIC
            and not 1 <= self.max_model_len <= self._usable_tokens
        ):
            raise SettingsError(
                f"--max-model-len {self.max_model_len} must be between 1 and the {self._usable_tokens} tokens of the "
                "KV cache: lower it or raise --sim-kv-tokens"
            )

    @property
    def _usable_tokens(self) -> int:
        return (self.num_blocks - 1) * self.block_size

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer: --max-model-len, or what fits into the KV cache up to a default."""
        if self.max_model_len is None or self.max_model_len == _AUTOMATIC:
            return min(_DEFAULT_CONTEXT, self._usable_tokens)
        return self.max_model_len

    @property
    def names(self) -> tuple[str, ...]:
        """Model names that requests may use; the first is the one that answers carry."""
        return self.served_model_name or (self.model,)

    @property
    def num_blocks(self) -> int:
        """KV blocks by --num-gpu-blocks-override, --sim-kv-tokens, --kv-cache-memory-bytes, else a default."""
        if self.num_gpu_blocks_override is not None:
            return self.num_gpu_blocks_override
        if self.sim_kv_tokens is not None:
            return self.sim_kv_tokens // self.block_size
        if self.kv_cache_memory_bytes is not None:
            return self.kv_cache_memory_bytes // _KV_BYTES_PER_TOKEN // self.block_size
        return max(_DEFAULT_KV_TOKENS, 2 * (self.max_model_len or 0)) // self.block_size + 1

    @property
    def clock(self) -> timing.TokenClock:
        """The timing law that the flags ask for."""
        return timing.TokenClock(
            base_seconds=self.sim_itl_base_ms / 1000,
            per_sequence_seconds=self.sim_itl_per_seq_ms / 1000,
            prefill_tokens_per_second=self.sim_prefill_tokens_per_second,
            time_scale=self.sim_time_scale,
        )

    @property
    def fingerprint(self) -> str:
        """`system_fingerprint` of answers: the version and a hash that is stable for the same model and limits."""
        shape = f"{self.model}/{self.context_tokens}/{self.max_num_seqs}/{self.block_size}"
        return f"vllm-{VERSION}-{zlib.crc32(shape.encode()):08x}"


FLAGS: tuple[Flag, ...] = (
    Flag("--model", "model", "text", "Model path or name; may also be the first positional argument."),
    Flag(
        "--served-model-name",
        "served_model_name",
        "names",
        "Names that clients may use; the first is the one in answers.",
    ),
    Flag("--host", "host", "text", "Address to listen on."),
    Flag("--port", "port", "count", "Port to listen on."),
    Flag("--max-num-seqs", "max_num_seqs", "count", "Most sequences running at once."),
    Flag("--max-num-batched-tokens", "max_num_batched_tokens", "count", "Most tokens computed in one step."),
    Flag("--max-model-len", "max_model_len", "count", "Longest prompt plus answer, tokens."),
    Flag("--block-size", "block_size", "count", "Tokens in a KV block; prefix-cache hits are whole blocks."),
    Flag("--num-gpu-blocks-override", "num_gpu_blocks_override", "count", "KV blocks in all."),
    Flag("--kv-cache-memory-bytes", "kv_cache_memory_bytes", "count", "KV memory, at 512 bytes a token."),
    Flag("--enable-prefix-caching", "enable_prefix_caching", "switch", "Reuse KV blocks of equal prefixes (on)."),
    Flag("--max-num-queued-reqs", "max_num_queued_reqs", "count", "Answer 503 beyond so many requests in flight."),
    Flag(
        "--max-num-queued-tokens",
        "max_num_queued_tokens",
        "count",
        "Answer 503 beyond so many prompt tokens in flight.",
    ),
    Flag("--stream-interval", "stream_interval", "count", "Tokens in one event of a stream; the first comes alone."),
    Flag("--scheduling-policy", "scheduling_policy", "text", "fcfs or priority."),
    Flag(
        "--shutdown-timeout",
        "shutdown_timeout",
        "number",
        "Seconds that SIGTERM lets requests finish; 0 fails them at once.",
    ),
    Flag("--api-key", "api_key", "names", "Bearer keys that /v1 asks for."),
    Flag("--enable-prompt-tokens-details", "enable_prompt_tokens_details", "switch", "Report cached tokens in usage."),
    Flag("--enable-request-id-headers", "enable_request_id_headers", "switch", "Answer with X-Request-Id."),
    Flag("--enable-server-load-tracking", "enable_server_load_tracking", "switch", "Make /load count."),
    Flag("--enable-per-request-metrics", "enable_per_request_metrics", "switch", "Add `metrics` to answers."),
    Flag("--enable-force-include-usage", "enable_force_include_usage", "switch", "Send usage on every stream."),
    Flag("--enable-auto-tool-choice", "enable_auto_tool_choice", "switch", 'Allow tool_choice "auto".'),
    Flag("--tool-call-parser", "tool_call_parser", "text", "Any name: allows forced tool calls."),
    Flag("--sim-itl-base-ms", "sim_itl_base_ms", "number", "a of ITL = a + b·running, milliseconds."),
    Flag("--sim-itl-per-seq-ms", "sim_itl_per_seq_ms", "number", "b of ITL = a + b·running, milliseconds."),
    Flag(
        "--sim-prefill-tokens-per-second", "sim_prefill_tokens_per_second", "number", "Prompt tokens computed a second."
    ),
    Flag("--sim-kv-tokens", "sim_kv_tokens", "count", "KV cache, tokens."),
    Flag("--sim-startup-seconds", "sim_startup_seconds", "number", "Refuse connections so long after the start."),
    Flag("--sim-time-scale", "sim_time_scale", "number", "Divide every delay by this."),
    Flag("--sim-seed", "sim_seed", "count", "Seed of fault sampling and of answers to requests without a seed."),
    Flag(
        "--sim-output-tokens",
        "sim_output_tokens",
        "count",
        "Mean length of answers that may end by themselves, tokens.",
    ),
    Flag("--sim-fault", "sim_fault", "faults", "KIND[,after_tokens=N][,seconds=S][,share=P][,count=N]; repeatable."),
    Flag("--sim-control", "sim_control", "switch", "Serve /sim/faults to change faults at run time."),
)


def parse_count(text: str) -> int:
    """Return a whole number as vLLM reads it: `8k` is 8,000, `8K` 8,192, `auto` -1. Raises SettingsError."""
    if text.strip() == "auto":
        return _AUTOMATIC
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kmgtKMGT]?)", text.strip())
    if match is None:
        raise SettingsError(f"expected a whole number such as 8192, 8k or 8K, got {text!r}")
    scale = {**_DECIMAL, **_BINARY, "": 1}[match[2]]
    value = float(match[1]) * scale
    if value != int(value):
        raise SettingsError(f"expected a whole number, got {text!r}")
    return int(value)


def parse(kind: str, raw: object) -> Any:  # noqa: ANN401 - one parser for all kinds of flags
    """
    Return the value of a flag of some kind from text, a list of texts or a boolean. Raises SettingsError.

    Environment variables give lists (`names`, `faults`) with `;` between entries.
    """
    if kind == "switch":
        return raw if isinstance(raw, bool) else str(raw).strip().lower() in ("1", "true", "yes", "on")
    if kind in ("names", "faults"):
        entries = [str(entry) for entry in raw] if isinstance(raw, (list, tuple)) else str(raw).split(";")
        texts = tuple(entry.strip() for entry in entries if entry.strip())
        return tuple(map(faults.parse, texts)) if kind == "faults" else texts
    if kind == "count":
        return parse_count(str(raw))
    if kind == "number":
        try:
            return float(str(raw))
        except ValueError as error:
            raise SettingsError(f"expected a number, got {raw!r}") from error
    return str(raw)


def load(given: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """
    Return settings from flags by name (dashes included) and from the environment for those not given.

    Raises:
        SettingsError: A value cannot be used; the message names its flag or variable.

    """
    values: dict[str, Any] = {}
    for flag in FLAGS:
        source, raw = flag.name, given.get(flag.name)
        if raw is None and flag.environment is not None and environment.get(flag.environment, "").strip():
            source, raw = flag.environment, environment[flag.environment]
        if raw is None:
            continue
        try:
            values[flag.field] = parse(flag.kind, raw)
        except ValueError as error:
            raise SettingsError(f"{source}: {error}") from error
    values["dev_mode"] = environment.get("VLLM_SERVER_DEV_MODE", "0") not in ("", "0")
    if "api_key" not in values and environment.get("VLLM_API_KEY"):
        values["api_key"] = (environment["VLLM_API_KEY"],)
    return Settings(**values)


def read_arguments(arguments: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """
    Split a vLLM argument list into known flags and the rest, as vLLM's own parser would.

    `--max_model_len` equals `--max-model-len`; `--flag=value` and `--flag value` are the same; `--no-flag` turns a
    switch off; a first word that is no flag is the model (`serve` before it is skipped).

    Returns:
        Known flags by name, and the words that were ignored.

    Raises:
        SettingsError: A known flag lacks its value.

    """
    known = {flag.name: flag for flag in FLAGS}
    given: dict[str, object] = {}
    ignored: list[str] = []
    words = list(arguments)
    if words[:1] == ["serve"]:
        del words[0]
    if words and not words[0].startswith("-"):
        given["--model"] = words.pop(0)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        flag = known.get(name) or known.get("--" + name.removeprefix("--no-"))
        if flag is None:
            ignored.append(word)
        elif flag.kind == "switch":
            given[flag.name] = parse("switch", value) if equals else name == flag.name
        elif equals:
            _collect(given, flag, [value])
        else:
            count = next((at for at, text in enumerate(words) if text.startswith("-")), len(words))
            taken = words[: count if flag.kind == "names" else 1]
            if not taken or taken[0].startswith("--"):
                raise SettingsError(f"{flag.name} needs a value")
            del words[: len(taken)]
            _collect(given, flag, taken)
    return given, ignored


def _collect(given: dict[str, object], flag: Flag, values: list[str]) -> None:
    if flag.kind == "faults":
        earlier = given.get(flag.name, [])
        given[flag.name] = [*(earlier if isinstance(earlier, list) else []), *values]
    else:
        given[flag.name] = values if flag.kind == "names" else values[0]
