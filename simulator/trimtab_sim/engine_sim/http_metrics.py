"""The HTTP side of /metrics (`http_*`) and that of the process (`python_*`, `process_*`), as vLLM exposes them."""

from __future__ import annotations

import gc
import os
import platform
import resource
import sys
from pathlib import Path

from trimtab_sim.engine_sim import exposition

_FINE = (
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    2.5,
    3.0,
    3.5,
    4.0,
    4.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
)
_COARSE = (0.1, 0.5, 1.0)
_SIZE_HELP = (
    "Content length of {} by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. "
)
UNCOUNTED = frozenset(("/metrics", "/health", "/load", "/ping", "/version", "/server_info"))


class HttpMetrics:
    """Counts exchanges by handler, method and class of status."""

    def __init__(self, *, born: float) -> None:
        """Make all families; `born` is the Unix time of the only child that exists from the start."""
        family = exposition.Family
        self._requests = family(
            "counter", "http_requests_total", "Total number of requests by method, status and handler."
        )
        self._request_size = family("summary", "http_request_size_bytes", _SIZE_HELP.format("incoming requests"))
        self._response_size = family("summary", "http_response_size_bytes", _SIZE_HELP.format("outgoing responses"))
        self._fine = family(
            "histogram",
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. ",
            bounds=_FINE,
        )
        self._coarse = family(
            "histogram",
            "http_request_duration_seconds",
            "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. ",
            bounds=_COARSE,
        )
        self._all = self._fine.distribution(born)
        self.families = [self._requests, self._request_size, self._response_size, self._fine, self._coarse]

    def count(
        self,
        handler: str,
        method: str,
        status: int,
        *,
        request_bytes: int,
        response_bytes: int,
        seconds: float,
        now: float,
    ) -> None:
        """Count one exchange of `seconds`, at Unix time `now`; bytes are those of content-length headers, else 0."""
        self._requests.value(now, handler=handler, method=method, status=f"{status // 100}xx").value += 1
        self._request_size.distribution(now, handler=handler).observe(request_bytes)
        self._response_size.distribution(now, handler=handler).observe(response_bytes)
        self._coarse.distribution(now, handler=handler, method=method).observe(seconds)
        self._all.observe(seconds)


def process_families() -> list[exposition.Family]:
    """Return the families of the interpreter and the process, read now from the operating system."""
    family = exposition.Family
    collected = family("counter", "python_gc_objects_collected_total", "Objects collected during gc", created=False)
    lost = family(
        "counter", "python_gc_objects_uncollectable_total", "Uncollectable objects found during GC", created=False
    )
    runs = family(
        "counter", "python_gc_collections_total", "Number of times this generation was collected", created=False
    )
    for generation, stats in enumerate(gc.get_stats()):
        collected.value(generation=str(generation)).value = stats["collected"]
        lost.value(generation=str(generation)).value = stats["uncollectable"]
        runs.value(generation=str(generation)).value = stats["collections"]
    info = family("gauge", "python_info", "Python platform information")
    major, minor, patch = sys.version_info[:3]
    labels = {"major": str(major), "minor": str(minor), "patchlevel": str(patch), "version": platform.python_version()}
    info.value(0.0, implementation=platform.python_implementation(), **labels).value = 1.0
    return [collected, lost, runs, info, *_usage_families()]


def _usage_families() -> list[exposition.Family]:
    after_name = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    boot = next(
        line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if line.startswith("btime")
    )
    readings = (
        ("gauge", "process_virtual_memory_bytes", "Virtual memory size in bytes.", int(after_name[20])),
        ("gauge", "process_resident_memory_bytes", "Resident memory size in bytes.", int(after_name[21]) * page),
        (
            "gauge",
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            int(boot.split()[1]) + int(after_name[19]) / ticks,
        ),
        (
            "counter",
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            (int(after_name[11]) + int(after_name[12])) / ticks,
        ),
        ("gauge", "process_open_fds", "Number of open file descriptors.", len(os.listdir("/proc/self/fd"))),  # noqa: PTH208 - only a count
        (
            "gauge",
            "process_max_fds",
            "Maximum number of open file descriptors.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        ),
    )
    families = []
    for kind, name, documentation, value in readings:
        families.append(exposition.Family(kind, name, documentation, created=False))
        families[-1].value().value = float(value)
    return families
