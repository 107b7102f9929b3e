"""How large a model is, told by its name: what a step must read, what a token computes, what a context occupies.

Dense models carry their size in their name (``8b``), mixtures of experts mostly both of theirs (``30b-a3b``); those
that don't are listed. Sizes are of the model cards, key-value bytes of the architectures that they publish (layers ·
heads · width · 2 of two bytes, or one latent vector a layer where keys and values share it).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LARGEST_BILLION_PARAMETERS = 500.0
"""Of a dense model; larger numbers in names are not sizes."""

_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_MIXTURE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b-a(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_EXPERTS = re.compile(r"(?<![a-z0-9])(\d+x\d+(\.\d+)?b|a\d+(\.\d+)?b)(?![a-z0-9])", re.IGNORECASE)

_KV_BYTES_PER_TOKEN = (
    (4.0, 114_688), (9.0, 131_072), (16.0, 163_840), (40.0, 262_144), (110.0, 327_680), (200.0, 360_448),
    (math.inf, 516_096),
)  # fmt: skip
"""Up to how many billion parameters → bytes of keys and values per token in 16 bits: 2 · layers · heads · 128 · 2,
with 8 key-value heads, of Llama-3.2-3B, Llama-3.1-8B, Qwen3-14B, Qwen3-32B, Llama-3.1-70B, Mistral-Large and
Llama-3.1-405B. A mixture of experts counts as the dense model of the geometric mean of its two sizes."""


@dataclass(frozen=True, slots=True)
class Model:
    """The sizes of a model.

    Attributes:
        billions: all parameters.
        active_billions: those that one token uses; all of them in a dense model.
        kv_bytes: keys and values of one token that a step reads.
        kv_heads: devices over which they can be spread.
        quantization: of the weights as they are published, empty for 16 bits.
    """

    billions: float
    active_billions: float
    kv_bytes: int
    kv_heads: int = 8
    quantization: str = ""

    @property
    def mixture(self) -> bool:
        """Whether a token uses some of the parameters only."""
        return self.active_billions < self.billions


_LISTED = (
    ("gpt-oss-120b", Model(116.8, 5.1, 36_864, 8, "mxfp4")),  # every other layer looks back 128 tokens only
    ("gpt-oss-20b", Model(20.9, 3.6, 24_576, 8, "mxfp4")),
    ("mixtral-8x7b", Model(46.7, 12.9, 131_072)),
    ("mixtral-8x22b", Model(140.6, 39.1, 229_376)),
    ("deepseek-v3", Model(671.0, 37.0, 70_272, 1, "fp8")),
    ("deepseek-r1", Model(671.0, 37.0, 70_272, 1, "fp8")),
    ("kimi-k2", Model(1026.0, 32.0, 70_272, 1, "fp8")),
    ("minimax-m2", Model(230.0, 10.0, 253_952, 8, "fp8")),
    ("qwen3-30b-a3b", Model(30.5, 3.3, 98_304, 4)),
    ("qwen3-235b-a22b", Model(235.0, 22.0, 192_512, 4)),
)
"""Beginnings of names that do not tell both sizes, or whose keys and values are told apart."""


def find(name: str) -> Model | None:
    """The sizes of a model by its name, with or without its organisation; None where it does not tell them."""
    plain = name.lower().rpartition("/")[2]
    for beginning, listed in _LISTED:
        if plain.startswith(beginning) and "distill" not in plain:
            return listed
    experts = _MIXTURE.search(plain)
    if experts is not None:
        total, active = float(experts.group(1)), float(experts.group(2))
        return Model(total, active, _kv_bytes(math.sqrt(total * active))) if 0 < active < total else None
    size = _SIZE.search(plain)
    if size is None or _EXPERTS.search(plain):
        return None
    billions = float(size.group(1))
    return Model(billions, billions, _kv_bytes(billions)) if 0 < billions <= LARGEST_BILLION_PARAMETERS else None


def _kv_bytes(billions: float) -> int:
    return next(size for limit, size in _KV_BYTES_PER_TOKEN if billions <= limit)
