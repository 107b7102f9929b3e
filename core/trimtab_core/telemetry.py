"""Every metric and label name of Trimtab, and the queries over them. The only place that knows them.

The router writes these families, the operator reads them through a ``Query``: Prometheus answers its PromQL
form, local mode's direct scraper answers the same query from its own ring of scrapes. A contract test runs
both against a real Prometheus, so that a renamed label can't look like an idle fleet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Prometheus' metric types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family.

    Attributes:
        name: full name; counters end in ``_total``.
        labels: label names in exposition order.
        buckets: upper bounds of a histogram, without +Inf.
        per_replica: has one series for each engine or router instance.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


POLICY, CLASS, TIER, TENANT = "policy", "class", "tier", "tenant"
VARIANT, ENDPOINT, REASON, RESULT, SLO = "variant", "endpoint", "reason", "result", "slo"
SINK = "sink"
TARGET = "target"
"""A Deployment, as selectors of external metrics can match it."""

LATENCY_BUCKETS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    0.75,
    1.0,
    1.5,
    2.5,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
)
ITL_BUCKETS = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
SCORE_BUCKETS = tuple(step / 20 for step in range(1, 20))
TENANT_LABEL_CAP = 200
OTHER = "other"
"""Label value for tenants beyond the cap."""

_REQUEST = (POLICY, CLASS, TIER)

# What routers export. Counts of tokens and money settle when a request ends; arrivals count when it begins.
ARRIVALS = Family(
    "trimtab_router_arrivals_total", Kind.COUNTER, "Requests offered, before cache and routing.", (POLICY, CLASS)
)
ARRIVAL_SQUARES = Family(
    "trimtab_router_arrival_squares_total",
    Kind.COUNTER,
    "Sum of the squares of arrivals counted in windows of 2 s: how bunched they are.",
    (POLICY, CLASS),
)
REQUESTS = Family("trimtab_router_requests_total", Kind.COUNTER, "Requests ended, by outcome.", (*_REQUEST, RESULT))
INPUT_TOKENS = Family(
    "trimtab_router_input_tokens_total", Kind.COUNTER, "Prompt tokens as the engine counted them.", _REQUEST
)
CACHED_TOKENS = Family(
    "trimtab_router_cached_input_tokens_total",
    Kind.COUNTER,
    "Prompt tokens found in the engine's prefix cache.",
    _REQUEST,
)
OUTPUT_TOKENS = Family("trimtab_router_output_tokens_total", Kind.COUNTER, "Completion tokens.", _REQUEST)
TTFT = Family(
    "trimtab_router_ttft_seconds", Kind.HISTOGRAM, "Arrival to first content byte.", _REQUEST, LATENCY_BUCKETS
)
ITL = Family(
    "trimtab_router_itl_seconds", Kind.HISTOGRAM, "Mean time between output tokens of a request.", _REQUEST, ITL_BUCKETS
)
E2E = Family("trimtab_router_e2e_seconds", Kind.HISTOGRAM, "Arrival to last byte.", _REQUEST, LATENCY_BUCKETS)
SLO_MEASURED = Family(
    "trimtab_router_slo_measured_total", Kind.COUNTER, "Requests judged against an SLO.", (*_REQUEST, SLO)
)
SLO_MET = Family(
    "trimtab_router_slo_met_total", Kind.COUNTER, "Requests that met it, at the exact threshold.", (*_REQUEST, SLO)
)
COST_USD = Family("trimtab_router_cost_usd_total", Kind.COUNTER, "Cost of ended requests.", (*_REQUEST, TENANT))
BASELINE_USD = Family(
    "trimtab_router_baseline_cost_usd_total",
    Kind.COUNTER,
    "What the same tokens cost on the baseline tier.",
    (POLICY, CLASS),
)
CACHE_SAVED_USD = Family(
    "trimtab_router_cache_saved_usd_total", Kind.COUNTER, "Cost that cache hits avoided.", (POLICY, CLASS)
)
CACHE_RESULTS = Family(
    "trimtab_router_cache_results_total",
    Kind.COUNTER,
    "Cache look-ups: hit, miss, bypass, store, skip.",
    (POLICY, CLASS, RESULT),
)
FALLBACKS = Family(
    "trimtab_router_fallbacks_total",
    Kind.COUNTER,
    "Attempts moved to another endpoint or tier.",
    (POLICY, TIER, REASON),
)
EJECTIONS = Family(
    "trimtab_router_ejections_total",
    Kind.COUNTER,
    "Endpoints taken out after failures in a row.",
    (POLICY, TIER, ENDPOINT),
)
IN_FLIGHT = Family("trimtab_router_in_flight", Kind.GAUGE, "Requests under way, by tier.", (POLICY, TIER))
HELD = Family("trimtab_router_held_requests", Kind.GAUGE, "Requests waiting for a tier to wake.", (POLICY, TIER))
QUEUED = Family(
    "trimtab_router_queued_requests", Kind.GAUGE, "Requests waiting for an engine to have room.", (POLICY, TIER)
)
QUEUE_SECONDS = Family(
    "trimtab_router_queue_seconds",
    Kind.HISTOGRAM,
    "Time that requests waited for an engine, of those that got one.",
    (POLICY, TIER),
    LATENCY_BUCKETS,
)
SHED = Family(
    "trimtab_router_shed_total",
    Kind.COUNTER,
    "Requests refused for want of room or budget: full, displaced, timeout, budget.",
    (POLICY, CLASS, REASON),
)
RETRIES_REFUSED = Family(
    "trimtab_router_retries_refused_total",
    Kind.COUNTER,
    "Further attempts not made because the retry budget was spent.",
    (POLICY,),
)
HEDGES = Family(
    "trimtab_router_hedges_total",
    Kind.COUNTER,
    "Second engines asked for a late first byte: won, lost, failed, rescued.",
    (POLICY, TIER, RESULT),
)
WASTED_USD = Family(
    "trimtab_router_wasted_usd_total",
    Kind.COUNTER,
    "Cost of attempts that nobody is billed for: failed_attempt, hedge_waste, cancelled.",
    (*_REQUEST, REASON),
)
COMPLEXITY = Family(
    "trimtab_router_complexity_score", Kind.HISTOGRAM, "Complexity score of arrivals.", (POLICY, CLASS), SCORE_BUCKETS
)
TABLE_INFO = Family("trimtab_router_table_info", Kind.GAUGE, "1 for the table version in force.", (POLICY, "version"))
TABLE_REJECTED = Family(
    "trimtab_router_table_rejected_total",
    Kind.COUNTER,
    "Tables refused; the last good one stays in force.",
    (POLICY, REASON),
)
LIMITED = Family(
    "trimtab_router_limited_total",
    Kind.COUNTER,
    "Requests refused because a tenant's limit was reached, by the name of the limit.",
    (POLICY, TENANT, REASON),
)
LIMIT_USED = Family(
    "trimtab_router_limit_used_ratio",
    Kind.GAUGE,
    "Share of a tenant's daily or monthly limit that is used or reserved, as this router knows it.",
    (POLICY, TENANT, REASON),
)
STORE_DOWN = Family(
    "trimtab_router_limit_store_down_total",
    Kind.COUNTER,
    "Limited requests that the shared store gave no answer to, by what held instead: Allow, Deny, Local.",
    (POLICY, REASON),
)
STORE_WAITING = Family(
    "trimtab_router_limit_store_waiting",
    Kind.GAUGE,
    "Settled requests that the shared store has to hear of.",
    (POLICY,),
)
UNTOLD = Family(
    "trimtab_router_untold_total",
    Kind.COUNTER,
    "Lines of the access log and spans that were dropped, by where they should have gone and why.",
    (SINK, REASON),
)

ROUTER_FAMILIES = (
    ARRIVALS, ARRIVAL_SQUARES, REQUESTS, INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS, TTFT, ITL, E2E, SLO_MEASURED,
    SLO_MET, COST_USD, BASELINE_USD, CACHE_SAVED_USD, CACHE_RESULTS, FALLBACKS, EJECTIONS, IN_FLIGHT, HELD, QUEUED,
    QUEUE_SECONDS, SHED, RETRIES_REFUSED, HEDGES, WASTED_USD, COMPLEXITY,
    TABLE_INFO, TABLE_REJECTED, LIMITED, LIMIT_USED, STORE_DOWN, STORE_WAITING, UNTOLD,
)  # fmt: skip

# What the operator exports.
PLAN_USD_PER_HOUR = Family("trimtab_plan_usd_per_hour", Kind.GAUGE, "Cost of the plan in force.", (TIER,))
REPLICAS_WANTED = Family(
    "trimtab_replicas_wanted", Kind.GAUGE, "Replicas that are to run now.", (TIER, VARIANT, TARGET)
)
REPLICAS_READY = Family("trimtab_replicas_ready", Kind.GAUGE, "Replicas that serve.", (TIER, VARIANT))
WEIGHT = Family("trimtab_weight", Kind.GAUGE, "Share of a class that a tier gets.", (POLICY, CLASS, TIER))
DECISIONS = Family("trimtab_decisions_total", Kind.COUNTER, "Changes decided, by decisive reason.", (TIER, REASON))
SIGNAL_AGE = Family("trimtab_signal_age_seconds", Kind.GAUGE, "Age of a signal; -1 when missing.", ("object", "signal"))
FORECAST_ERROR = Family(
    "trimtab_forecast_error_ratio", Kind.GAUGE, "Weighted error of the forecast one start-up ahead.", (POLICY, CLASS)
)
RECONCILE_SECONDS = Family(
    "trimtab_reconcile_seconds", Kind.HISTOGRAM, "Duration of one reconcile.", (), LATENCY_BUCKETS
)
RECONCILE_ERRORS = Family(
    "trimtab_reconcile_errors_total", Kind.COUNTER, "Reconciles that failed, by reason.", (REASON,)
)
LEADER = Family("trimtab_leader", Kind.GAUGE, "1 where this process leads.", ())

OPERATOR_FAMILIES = (
    PLAN_USD_PER_HOUR, REPLICAS_WANTED, REPLICAS_READY, WEIGHT, DECISIONS, SIGNAL_AGE, FORECAST_ERROR,
    RECONCILE_SECONDS, RECONCILE_ERRORS, LEADER,
)  # fmt: skip

# What vLLM exports (0.32; older names in VLLM_OLD_NAMES). kv_cache_usage_perc is 0 to 1 in spite of its name.
VLLM_RUNNING = Family("vllm:num_requests_running", Kind.GAUGE, "", ("model_name",))
VLLM_WAITING = Family("vllm:num_requests_waiting", Kind.GAUGE, "", ("model_name",))
VLLM_KV_USAGE = Family("vllm:kv_cache_usage_perc", Kind.GAUGE, "", ("model_name",))
VLLM_GENERATED = Family("vllm:generation_tokens_total", Kind.COUNTER, "", ("model_name",))
VLLM_PROMPT = Family("vllm:prompt_tokens_total", Kind.COUNTER, "", ("model_name",))
VLLM_PROMPT_CACHED = Family("vllm:prompt_tokens_cached_total", Kind.COUNTER, "", ("model_name",))
VLLM_SLEEP = Family("vllm:engine_sleep_state", Kind.GAUGE, "", ("model_name", "sleep_state"))
VLLM_ITL = Family("vllm:inter_token_latency_seconds", Kind.HISTOGRAM, "", ("model_name",))
VLLM_CACHE_CONFIG = Family("vllm:cache_config_info", Kind.GAUGE, "", ("kv_cache_size_tokens",))
"""Its labels are the settings of the KV cache; its value is always 1."""
VLLM_OLD_NAMES = {
    "vllm:gpu_cache_usage_perc": VLLM_KV_USAGE.name,
    "vllm:time_per_output_token_seconds": VLLM_ITL.name,
}
"""Family names of older engines → the name used here (renamed in vLLM PRs #18354 and #24110)."""


class Operation(StrEnum):
    """What a query does with a family's series."""

    LAST = "last"
    RATE = "rate"
    INCREASE = "increase"


@dataclass(frozen=True, slots=True)
class Query:
    """One question about one family, grouped by labels: the sum over all series of a group.

    Attributes:
        family: what is asked about; a histogram is asked for its ``_sum`` or ``_count`` through ``suffix``.
        operation: the last value, or the rate (per second) or increase over the window.
        by: labels that the answer keeps.
        where: (label, value) pairs that series must have.
        window_seconds: for rates and increases.
        suffix: ``_sum`` or ``_count`` for histograms, else empty.
    """

    family: Family
    operation: Operation
    by: tuple[str, ...]
    where: tuple[tuple[str, str], ...] = ()
    window_seconds: float = 60.0
    suffix: str = ""

    @property
    def series(self) -> str:
        """Name of the series that is read."""
        return self.family.name + self.suffix

    def promql(self) -> str:
        """The question in PromQL."""
        matchers = ",".join(f'{label}="{escape(value)}"' for label, value in self.where)
        selector = f"{self.series}{{{matchers}}}" if matchers else self.series
        inner = {
            Operation.LAST: selector,
            Operation.RATE: f"rate({selector}[{round(self.window_seconds)}s])",
            Operation.INCREASE: f"increase({selector}[{round(self.window_seconds)}s])",
        }[self.operation]
        return f"sum by ({', '.join(self.by)}) ({inner})"


@dataclass(frozen=True, slots=True)
class Answer:
    """One group of a query's answer.

    Attributes:
        labels: values in the order of ``Query.by``.
        value: may be NaN; ``signals.read`` judges.
        observed_at: epoch seconds of the newest sample in it.
    """

    labels: tuple[str, ...]
    value: float
    observed_at: float


def traffic_queries(window_seconds: float) -> dict[str, Query]:
    """The questions about demand and latency, by signal name; all grouped by policy and class (and tier)."""
    by_class, by_tier = (POLICY, CLASS), (POLICY, CLASS, TIER)

    def rate(family: Family, by: tuple[str, ...], suffix: str = "") -> Query:
        return Query(family, Operation.RATE, by, window_seconds=window_seconds, suffix=suffix)

    return {
        "arrivals_per_second": rate(ARRIVALS, by_class),
        "arrival_squares_per_second": rate(ARRIVAL_SQUARES, by_class),
        "requests_per_second": rate(REQUESTS, (*by_tier, RESULT)),
        "input_tokens_per_second": rate(INPUT_TOKENS, by_tier),
        "cached_input_tokens_per_second": rate(CACHED_TOKENS, by_tier),
        "output_tokens_per_second": rate(OUTPUT_TOKENS, by_tier),
        "slo_measured_per_second": rate(SLO_MEASURED, (*by_tier, SLO)),
        "slo_met_per_second": rate(SLO_MET, (*by_tier, SLO)),
        "cost_usd_per_second": rate(COST_USD, by_tier),
        "baseline_usd_per_second": rate(BASELINE_USD, by_class),
        "cache_results_per_second": rate(CACHE_RESULTS, (*by_class, RESULT)),
    }


def escape(value: str) -> str:
    """A label value as PromQL strings write it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
