"""
Every `vllm:` family of vLLM 0.32.0 with its type and help text, in the order in which it is exposed. Data only.

Facts of the captured /metrics; a contract test compares them with the transcripts.
"""

# ruff: noqa: E501 - help texts are copied whole
from __future__ import annotations

FAMILIES: tuple[tuple[str, str, str], ...] = (
    (
        "counter",
        "vllm:estimated_flops_per_gpu_total",
        "Estimated number of floating point operations per GPU (for Model Flops Utilization calculations).",
    ),
    (
        "counter",
        "vllm:estimated_read_bytes_per_gpu_total",
        "Estimated number of bytes read from memory per GPU (for Model Flops Utilization calculations).",
    ),
    (
        "counter",
        "vllm:estimated_write_bytes_per_gpu_total",
        "Estimated number of bytes written to memory per GPU (for Model Flops Utilization calculations).",
    ),
    ("gauge", "vllm:num_requests_running", "Number of requests in model execution batches."),
    ("gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed."),
    (
        "gauge",
        "vllm:num_requests_waiting_by_reason",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
    ),
    (
        "gauge",
        "vllm:engine_sleep_state",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
    ),
    ("gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."),
    ("counter", "vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens."),
    ("counter", "vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens."),
    (
        "counter",
        "vllm:external_prefix_cache_queries_total",
        "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.",
    ),
    (
        "counter",
        "vllm:external_prefix_cache_hits_total",
        "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.",
    ),
    ("counter", "vllm:mm_cache_queries_total", "Multi-modal cache queries, in terms of number of queried items."),
    ("counter", "vllm:mm_cache_hits_total", "Multi-modal cache hits, in terms of number of cached items."),
    ("counter", "vllm:num_preemptions_total", "Cumulative number of preemption from the engine."),
    ("counter", "vllm:prompt_tokens_total", "Number of prefill tokens processed."),
    ("counter", "vllm:prompt_tokens_by_source_total", "Number of prompt tokens by source."),
    ("counter", "vllm:prompt_tokens_cached_total", "Number of cached prompt tokens (local + external)."),
    (
        "counter",
        "vllm:prompt_tokens_cached_by_source_total",
        "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
    ),
    ("counter", "vllm:generation_tokens_total", "Number of generation tokens processed."),
    ("counter", "vllm:request_success_total", "Count of successfully processed requests."),
    (
        "counter",
        "vllm:admission_rejections_total",
        "Number of admission attempts rejected by a queue limit, by reason.",
    ),
    ("histogram", "vllm:request_prompt_tokens", "Number of prefill tokens processed."),
    ("histogram", "vllm:request_generation_tokens", "Number of generation tokens processed."),
    ("histogram", "vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step."),
    (
        "histogram",
        "vllm:request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
    ),
    ("histogram", "vllm:request_params_n", "Histogram of the n request parameter."),
    ("histogram", "vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter."),
    ("histogram", "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds."),
    ("histogram", "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds."),
    (
        "histogram",
        "vllm:request_time_per_output_token_seconds",
        "Histogram of time_per_output_token_seconds per request.",
    ),
    ("histogram", "vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds."),
    ("histogram", "vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request."),
    ("histogram", "vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request."),
    ("histogram", "vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request."),
    ("histogram", "vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request."),
    ("histogram", "vllm:request_num_preemptions", "Histogram of the number of times a request was preempted."),
    (
        "histogram",
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
    ),
    ("gauge", "vllm:cache_config_info", "Information of the LLMEngine CacheConfig"),
)
