"""The soak is a benchmark; its short form is a test. What they share is found in the benchmarks' folder."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))
