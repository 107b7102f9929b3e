"""What all handlers share: settings, engine, faults, counters, and the sources of ids and of the Unix time."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable

from trimtab_sim.engine_sim import engine, exchange, faults, http_metrics, protocol, settings


@dataclasses.dataclass(slots=True)
class Service:
    """
    One simulated server's state.

    Attributes:
        config: Its settings.
        engine: Its engine.
        board: Faults in force.
        http: Counters of HTTP exchanges.
        clock: Monotonic seconds.
        wall: Unix time.
        load: Generation requests being answered, for /load.
        on_faults: Called after faults were changed, so that sockets and engine follow.
        exit_process: Ends the process at once with a status; the fault `die-mid-stream` calls it.

    """

    config: settings.Settings
    engine: engine.Engine
    board: faults.Board
    http: http_metrics.HttpMetrics
    clock: Callable[[], float]
    wall: Callable[[], float]
    exit_process: Callable[[int], None]
    load: int = 0
    on_faults: Callable[[], None] = lambda: None

    def new_id(self) -> str:
        """Return 16 random hexadecimal digits."""
        return uuid.uuid4().hex[:16]

    def request_id(self, call: exchange.Exchange) -> str:
        """Return the client's X-Request-Id, or a new id."""
        return call.header(b"x-request-id") or self.new_id()

    def check_model(self, name: str | None) -> None:
        """Raise a 404 ApiError unless the name is one that is served; no name means the server's own model."""
        if name and name not in self.config.names:
            aliases = ", ".join(self.config.names)
            message = f"The model `{name}` does not exist. Valid aliases: {aliases}."
            raise protocol.ApiError(message, status=404, kind="NotFoundError", param="model")

    def load_report(self, form: str | None) -> exchange.Header | None:
        """Return the `endpoint-load-metrics` header in the form that a client asked for: JSON, TEXT, or None."""
        if form is None:
            return None
        load = self.engine.scheduler
        waiting, usage = float(len(load.waiting)), load.pool.usage
        if form.upper() == "JSON":
            text = f'JSON {{"named_metrics": {{"num_requests_waiting": {waiting}, "kv_cache_usage_perc": {usage}}}}}'
        elif form.upper() == "TEXT":
            text = f"TEXT named_metrics.num_requests_waiting={waiting}, named_metrics.kv_cache_usage_perc={usage}"
        else:
            return None
        return (b"endpoint-load-metrics", text.encode())
