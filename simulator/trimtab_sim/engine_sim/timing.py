"""
The token clock: how long one engine step takes. Pure; knows nothing of requests, HTTP or the real clock.

One step yields one token for every running sequence, so the inter-token latency of all of them is the step's length:

    step_seconds = base + per_sequence · running + prefill_tokens / prefill_rate

The first two terms are the linear decode law (fixed weight-reading cost plus a share for each sequence); the third is
the chunk of prompt tokens computed in the same step (chunked prefill). A lone prompt of P tokens therefore sees its
first token after base + per_sequence + P / rate.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class TokenClock:
    """
    The timing law of one simulated engine.

    Args:
        base_seconds: Length of a step before any sequence is counted, seconds; `a` of ITL = a + b·running.
        per_sequence_seconds: What each running sequence adds to the step, seconds; `b` of the law.
        prefill_tokens_per_second: Rate at which prompt tokens are computed; must be above zero.
        time_scale: Every delay is divided by this; 10 makes the engine ten times faster. Must be above zero.

    """

    base_seconds: float = 0.012
    per_sequence_seconds: float = 0.0004
    prefill_tokens_per_second: float = 8000.0
    time_scale: float = 1.0

    def step_seconds(self, *, running: int, prefill_tokens: int = 0) -> float:
        """Return the wall seconds of a step with `running` sequences that computes `prefill_tokens` prompt tokens."""
        decode = self.base_seconds + self.per_sequence_seconds * running
        return (decode + prefill_tokens / self.prefill_tokens_per_second) / self.time_scale

    def scaled(self, seconds: float) -> float:
        """Return any other delay (start-up, drain) as wall seconds under the time scale."""
        return seconds / self.time_scale
