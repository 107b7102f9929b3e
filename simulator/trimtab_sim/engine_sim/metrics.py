"""
The engine's side of /metrics: vLLM's families, moved by the events of the scheduler. Pure; times are arguments.

What counts when follows the captured counters: prompt tokens when the first token is out, recomputation after a
preemption never, success only with a finish reason that reached the client's answer (a disconnect moves no label),
`n` choices as one request in `request_params_n` and `request_max_num_generation_tokens` and as single ones everywhere
else.
"""

from __future__ import annotations

from trimtab_sim.engine_sim import exposition, metric_table, scheduler, settings

_LATENCY = (
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
    480.0,
    960.0,
    1920.0,
    7680.0,
)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_FIRST = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    640.0,
    2560.0,
)
_ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_LABEL_VALUES: dict[str, tuple[str, tuple[str, ...]]] = {
    "vllm:num_requests_waiting_by_reason": ("reason", ("capacity", "deferred")),
    "vllm:engine_sleep_state": ("sleep_state", ("awake", "weights_offloaded", "discard_all")),
    "vllm:prompt_tokens_by_source_total": ("source", ("local_compute", "local_cache_hit", "external_kv_transfer")),
    "vllm:prompt_tokens_cached_by_source_total": ("source", ("device", "host", "p2p", "disk", "external_unspecified")),
    "vllm:request_success_total": ("finished_reason", ("stop", "length", "abort", "error", "repetition")),
    "vllm:admission_rejections_total": ("reason", ("max_num_queued_reqs", "max_num_queued_tokens")),
}
_CONFIG_NONE = (
    "cache_hit_alignment_tokens",
    "hash_block_size",
    "kv_cache_layout",
    "kv_offloading_size",
    "mamba_block_size",
    "mamba_page_size_padded",
    "num_cpu_blocks",
    "num_gpu_blocks_override",
    "prefix_match_unit",
    "skip_page_size_padded",
    "sliding_window",
)
_CONFIG_FALSE = (
    "enable_mamba_shared_prefix_checkpoint",
    "is_attention_free",
    "kv_sharing_fast_prefill",
    "use_kda_recoverssm",
    "use_replayssm",
)
_SLEEP_BUCKETS = (0.01, 0.1, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


def token_buckets(longest: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10, … up to `longest` tokens."""
    bounds = (mantissa * 10**power for power in range(len(str(longest))) for mantissa in (1, 2, 5))
    return tuple(float(bound) for bound in bounds if bound <= longest)


def _bounds(name: str, longest: int) -> tuple[float, ...]:
    special: dict[str, tuple[float, ...]] = {
        "vllm:iteration_tokens_total": _ITERATION,
        "vllm:request_params_n": (1, 2, 5, 10, 20),
        "vllm:request_num_preemptions": (1, 2, 3, 4, 5, 10, 20),
        "vllm:time_to_first_token_seconds": _FIRST,
        "vllm:inter_token_latency_seconds": _PER_TOKEN,
        "vllm:request_time_per_output_token_seconds": _PER_TOKEN,
    }
    if name in special:
        return special[name]
    return _LATENCY if name.endswith("_seconds") else token_buckets(longest)


def _cache_config_labels(config: settings.Settings) -> dict[str, str]:
    size = config.num_blocks * config.block_size
    memory = config.kv_cache_memory_bytes
    labels = dict.fromkeys(_CONFIG_NONE, "None") | dict.fromkeys(_CONFIG_FALSE, "False")
    labels.update(
        dict.fromkeys(
            [
                "enable_mamba_shared_prefix_checkpoint",
                "is_attention_free",
                "kv_sharing_fast_prefill",
                "use_kda_recoverssm",
                "use_replayssm",
            ],
            "False",
        )
    )
    labels.update(
        _block_size_resolved="True",
        block_size=str(config.block_size),
        cache_dtype="auto",
        effective_attention_block_size=str(config.block_size),
        enable_prefix_caching=str(config.enable_prefix_caching),
        engine="0",
        gpu_memory_utilization="0.92",
        kv_cache_dtype_skip_layers="[]",
        kv_cache_max_concurrency=str(size / config.context_tokens),
        kv_cache_memory_bytes=str(memory),
        kv_cache_size_tokens=str(size),
        kv_offloading_backend="native",
        mamba_cache_dtype="auto",
        mamba_cache_mode="none",
        mamba_ssm_cache_dtype="float32",
        num_gpu_blocks=str(config.num_blocks),
        prefix_cache_retention_interval="0",
        prefix_caching_hash_algo="sha256",
        replayssm_buffer_len="16",
        swa_bounded_replay="True",
        user_specified_block_size="True",
    )
    if config.num_gpu_blocks_override is not None:
        labels["num_gpu_blocks_override"] = str(config.num_gpu_blocks_override)
    return labels


class EngineMetrics:
    """All `vllm:` families of one engine."""

    def __init__(self, config: settings.Settings, *, born: float) -> None:
        """Make all families at zero; `born` is the Unix time of their `_created` twins."""
        common = {"engine": "0", "model_name": config.names[0]}
        self._born = born
        self._values: dict[tuple[str, str], exposition.Value] = {}
        self._distributions: dict[str, exposition.Distribution] = {}
        self.families: list[exposition.Family] = []
        for kind, name, documentation in metric_table.FAMILIES:
            family = exposition.Family(
                kind, name, documentation, bounds=_bounds(name, config.context_tokens) if kind == "histogram" else ()
            )
            self.families.append(family)
            if kind == "histogram":
                self._distributions[name] = family.distribution(born, **common)
            elif name == "vllm:cache_config_info":
                family.value(0.0, **_cache_config_labels(config)).value = 1.0
            elif name in _LABEL_VALUES:
                label, values = _LABEL_VALUES[name]
                shared = {key: text for key, text in common.items() if key != "engine" or "admission" not in name}
                for value in values:
                    self._values[name, value] = family.value(born, **{**shared, label: value})
            else:
                self._values[name, ""] = family.value(born, **common)
        self._itl = self._distributions["vllm:inter_token_latency_seconds"]
        self._iteration = self._distributions["vllm:iteration_tokens_total"]
        self._generated = self._values["vllm:generation_tokens_total", ""]
        self.sleep_families = _sleep_families()
        self.slept_once = False
        self.set_sleep(None)

    def add(self, name: str, amount: float = 1.0, label: str = "") -> None:
        """Add to a counter; `label` is the value of its extra label."""
        self._values[f"vllm:{name}", label].value += amount

    def set(self, name: str, value: float, label: str = "") -> None:
        """Set a gauge, or a counter that someone else counts."""
        self._values[f"vllm:{name}", label].value = value

    def observe(self, name: str, value: float) -> None:
        """Observe into a histogram."""
        self._distributions[f"vllm:{name}"].observe(value)

    def set_sleep(self, level: int | None) -> None:
        """Show the sleep state: None awake, 1 weights offloaded, 2 all discarded."""
        for state, at in (("awake", None), ("weights_offloaded", 1), ("discard_all", 2)):
            self.set("engine_sleep_state", float(level == at), state)

    def slept(self, operation: str, seconds: float, now: float) -> None:
        """Count one sleep-mode operation (`sleep`) at Unix time `now`."""
        self.slept_once = True
        duration, flight = self.sleep_families
        duration.distribution(now, operation=operation).observe(seconds)
        flight.value(operation=operation)

    def step_done(self, advanced: list[scheduler.Sequence], now: float) -> None:
        """Count one engine step that ended at `now` (monotonic) with a new token for each of `advanced`."""
        computed = 0
        for sequence in advanced:
            if sequence.first_token is None:
                sequence.first_token = now
                computed += self._first_token(sequence, now)
            else:
                self._itl.observe(now - sequence.last_token)
            sequence.last_token = now
        self._generated.value += len(advanced)
        self._iteration.observe(computed + len(advanced))

    def _first_token(self, sequence: scheduler.Sequence, now: float) -> int:
        """Count a finished prefill; return the prompt tokens that were computed, cached ones left out."""
        length = len(sequence.prompt)
        computed = length - sequence.cached
        self.observe("time_to_first_token_seconds", now - sequence.arrived)
        self.add("prompt_tokens_total", length)
        self.add("prompt_tokens_by_source_total", computed, "local_compute")
        self.add("prompt_tokens_by_source_total", sequence.cached, "local_cache_hit")
        self.add("prompt_tokens_cached_total", sequence.cached)
        self.add("prompt_tokens_cached_by_source_total", sequence.cached, "device")
        return computed

    def sequence_finished(self, sequence: scheduler.Sequence, now: float, *, max_tokens: int) -> None:
        """Count a sequence whose `finish_reason` is set, at monotonic `now`."""
        first = now if sequence.first_token is None else sequence.first_token
        last = max(sequence.last_token, first)
        scheduled = now if sequence.scheduled is None else sequence.scheduled
        self.add("request_success_total", 1.0, sequence.finish_reason or "error")
        self.observe("request_prompt_tokens", len(sequence.prompt))
        self.observe("request_generation_tokens", sequence.generated)
        self.observe("request_params_max_tokens", max_tokens)
        self.observe("request_time_per_output_token_seconds", (last - first) / max(1, sequence.generated - 1))
        self.observe("e2e_request_latency_seconds", now - sequence.arrived)
        self.observe("request_queue_time_seconds", scheduled - sequence.arrived)
        self.observe("request_inference_time_seconds", last - scheduled)
        self.observe("request_prefill_time_seconds", first - scheduled)
        self.observe("request_decode_time_seconds", last - first)
        self.observe("request_num_preemptions", sequence.preemptions)
        self.observe("request_prefill_kv_computed_tokens", len(sequence.prompt) - sequence.cached)

    def request_finished(self, *, choices: int, longest: int) -> None:
        """Count a whole request: how many choices it asked for and the tokens of the longest."""
        self.observe("request_params_n", choices)
        self.observe("request_max_num_generation_tokens", longest)

    def show_load(self, load: scheduler.Scheduler) -> None:
        """Bring gauges and the scheduler's own counters up to date; called before a scrape."""
        self.set("num_requests_running", len(load.running))
        self.set("num_requests_waiting", len(load.waiting))
        self.set("num_requests_waiting_by_reason", len(load.waiting), "capacity")
        self.set("kv_cache_usage_perc", load.pool.usage)
        self.set("prefix_cache_queries_total", load.prefix_queries)
        self.set("prefix_cache_hits_total", load.prefix_hits)
        self.set("num_preemptions_total", load.preemptions)


def _sleep_families() -> tuple[exposition.Family, exposition.Family]:
    return (
        exposition.Family(
            "histogram",
            "vllm:sleep_mode_operation_duration_seconds",
            "Duration of one sleep-mode operation.",
            bounds=_SLEEP_BUCKETS,
        ),
        exposition.Family("gauge", "vllm:sleep_mode_operations_in_flight", "Sleep-mode operations currently awaited."),
    )
