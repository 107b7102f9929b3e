"""The canonical form of a request: two bodies that must get the same answer have the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

IGNORED = frozenset({"stream", "stream_options", "user", "metadata", "store", "safety_identifier", "prompt_cache_key"})
"""Fields that say how an answer is delivered or for whom it is booked, not what it is.

``stream`` is among them because answers are stored in a neutral form and rendered as the client asked.
Whom it is for is the scope's concern, which knows the caller by key and not by what the body claims.
"""

_encoder = msgspec.json.Encoder(order="sorted")


def canonical(body: Mapping[str, Any]) -> bytes:
    """The body without ``IGNORED`` fields and nulls, keys sorted at every level, without blanks."""
    kept = {name: value for name, value in body.items() if name not in IGNORED and value is not None}
    return _encoder.encode(kept)
