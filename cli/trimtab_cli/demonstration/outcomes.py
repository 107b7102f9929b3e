"""What the load client is asked to send and what it measured: the lines of its two files."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Shot(Struct, frozen=True, omit_defaults=True):
    """One request to send.

    Attributes:
        index: place in the trace, from 0.
        at_seconds: when to send it, seconds after the start of the replay.
        body: the JSON body, ready to send.
        headers: besides the content type.
    """

    index: int
    at_seconds: float
    body: str
    headers: dict[str, str] = {}


class Outcome(Struct, frozen=True, omit_defaults=True):
    """What became of one request. All times are seconds.

    Latencies count from the moment at which the trace wanted the request sent, so that time lost in the client
    counts as well.

    Attributes:
        scheduled_at: epoch seconds at which the trace wanted it sent.
        late: how long after that the client really began.
        status: HTTP status, 0 where no answer came.
        error: why it failed; empty for a complete answer.
        ttft: to the first byte of content; None if none came.
        itl: mean time between two output tokens; None for fewer than two.
        e2e: to the end of the answer; for a failure, to the failure.
        tier, request_class, cache, model: as the router's headers say.
    """

    index: int
    scheduled_at: float
    late: float
    status: int = 0
    error: str = ""
    ttft: float | None = None
    itl: float | None = None
    e2e: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    tier: str = ""
    request_class: str = ""
    cache: str = ""
    model: str = ""


class Health(Struct, frozen=True, tag="health"):
    """How well the client itself kept up; its last line.

    Attributes:
        sent: requests begun.
        late_p99, late_max: how long after its time a request was begun, seconds.
        lag_p99, lag_max: how long after its time a timer of the client's loop fired, seconds: what a received byte may
            have waited before it was stamped.
    """

    sent: int
    late_p99: float
    late_max: float
    lag_p99: float
    lag_max: float


class Line(Struct, frozen=True, omit_defaults=True):
    """One line of the result file: an outcome, or at the end the client's health."""

    outcome: Outcome | None = None
    health: Health | None = None


encoder = msgspec.json.Encoder()
shot_decoder = msgspec.json.Decoder(Shot)
line_decoder = msgspec.json.Decoder(Line)
