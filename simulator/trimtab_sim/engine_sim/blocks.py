"""
The KV cache as blocks of tokens, with automatic prefix caching. Pure.

A block is blank, held by running sequences, or idle: full, not held, still answering prefix look-ups until it is
evicted (least recently freed first). A block's key is a hash chain over all tokens before it, and the request's
`cache_salt` goes into the first link, so equal prompts under different salts share nothing. One block is reserved as
the null block, as in the real engine, so `num_blocks` = 64 gives 63 usable ones.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import hashlib
from collections.abc import Sequence

_RESERVED = 1  # the null block


def block_keys(ids: Sequence[int], *, block_size: int, salt: str = "", parent: bytes | None = None) -> list[bytes]:
    """
    Return the keys of the full blocks in `ids`, in order.

    Args:
        ids: Token ids; a last part shorter than `block_size` has no key.
        block_size: Tokens a block.
        salt: The request's `cache_salt`.
        parent: Key of the block before the first one, to continue a chain; None starts it.

    """
    link = hashlib.blake2b(salt.encode(), digest_size=16).digest() if parent is None else parent
    keys = []
    for start in range(0, len(ids) - block_size + 1, block_size):
        link = hashlib.blake2b(
            link + array.array("I", ids[start : start + block_size]).tobytes(), digest_size=16
        ).digest()
        keys.append(link)
    return keys


@dataclasses.dataclass(slots=True)
class Holding:
    """
    What one sequence holds.

    Attributes:
        blocks: Blocks in all.
        full: Leading blocks whose tokens are all computed.
        keys: Keys under which others may find some of the full ones.

    """

    blocks: int = 0
    full: int = 0
    keys: list[bytes] = dataclasses.field(default_factory=list)


class BlockPool:
    """All KV blocks of one engine."""

    def __init__(self, *, num_blocks: int, block_size: int, prefix_caching: bool = True) -> None:
        """Make a pool of `num_blocks` blocks of `block_size` tokens, one of them reserved."""
        if num_blocks <= _RESERVED or block_size < 1:
            raise ValueError("a KV cache needs at least 2 blocks of at least 1 token")
        self.block_size = block_size
        self.usable = num_blocks - _RESERVED
        self._prefix_caching = prefix_caching
        self._blank = self.usable
        self._idle: collections.OrderedDict[bytes, None] = collections.OrderedDict()
        self._held: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Blocks that can be taken now: blank ones and idle cached ones."""
        return self._blank + len(self._idle)

    @property
    def usage(self) -> float:
        """Share of usable blocks held by sequences, 0 to 1."""
        return 1.0 - self.free / self.usable

    def cached_prefix(self, keys: Sequence[bytes]) -> int:
        """Return how many leading blocks of a prompt are in the cache."""
        count = 0
        for key in keys:
            if key not in self._held and key not in self._idle:
                break
            count += 1
        return count

    def take_cached(self, holding: Holding, keys: Sequence[bytes]) -> None:
        """Let `holding` share the blocks with these keys, all of which must be cached."""
        for key in keys:
            if key in self._idle:
                del self._idle[key]
                self._held[key] = 1
            else:
                self._held[key] += 1
            holding.keys.append(key)
        holding.blocks += len(keys)
        holding.full += len(keys)

    def idle_among(self, keys: Sequence[bytes]) -> int:
        """Return how many of these cached blocks are idle; sharing them uses up free blocks."""
        return sum(key in self._idle for key in keys)

    def grow(self, holding: Holding, tokens: int) -> bool:
        """Give `holding` the blocks that `tokens` tokens in all need; False, and no change, if there are not enough."""
        wanted = -(-tokens // self.block_size) - holding.blocks
        if wanted <= 0:
            return True
        if wanted > self.free:
            return False
        for _ in range(wanted):
            if self._blank:
                self._blank -= 1
            else:
                self._idle.popitem(last=False)
        holding.blocks += wanted
        return True

    def publish(self, holding: Holding, keys: Sequence[bytes]) -> int:
        """
        Make the next full blocks of `holding` findable; return how many were new.

        A key that another sequence published first stays that one's; this sequence keeps its own copy unnamed, as the
        real engine computes equal blocks twice when they are computed at the same time.
        """
        new = 0
        for key in keys if self._prefix_caching else ():
            if key not in self._held and key not in self._idle:
                self._held[key] = 1
                holding.keys.append(key)
                new += 1
        holding.full += len(keys)
        return new

    def release(self, holding: Holding) -> None:
        """Give back all blocks; those published stay findable until evicted, the end of a prefix first."""
        self._blank += holding.blocks - len(holding.keys)
        for key in reversed(holding.keys):
            self._held[key] -= 1
            if self._held[key] == 0:
                del self._held[key]
                self._idle[key] = None
        holding.blocks = holding.full = 0
        holding.keys.clear()

    def forget(self) -> bool:
        """Empty the prefix cache; False, and no change, while sequences hold blocks."""
        if self._blank + len(self._idle) != self.usable:
            return False
        self._blank = self.usable
        self._idle.clear()
        return True
