"""What goes wrong in a simulated world, and when. Knows nothing of controllers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """All that goes wrong in one run; empty for a world in which nothing does."""


NONE = Faults()
"""Nothing goes wrong."""
