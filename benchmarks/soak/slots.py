"""What an engine did, attempt by attempt, in a mapped file: it outlives the engine, however that ends."""

from __future__ import annotations

import enum
import mmap
import pathlib
import struct
from dataclasses import dataclass

_LAYOUT = struct.Struct("<IIIHH")
_COUNT = struct.Struct("<I")
_MOST = 1 << 18


class State(enum.IntEnum):
    """How an attempt stands; one that is still ``BEGUN`` in the end died with its engine."""

    BEGUN = 1
    COMPLETE = 2
    LEFT = 3
    SPOILT = 4
    REFUSED = 5


@dataclass(frozen=True)
class Slot:
    """One attempt as its engine counted it.

    Attributes:
        name: ``engine.life.index``, as in the ids of its answer.
        engine: number of the engine.
        number: of the request.
        prompt: tokens in.
        generated: tokens out, each counted before it is written.
        state: how it ended.
    """

    name: str
    engine: int
    number: int
    prompt: int
    generated: int
    state: State


class Writer:
    """An engine's side.

    Args:
        path: ``ENGINE.LIFE.slots``; made anew.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.life = path.name.removesuffix(".slots")
        with path.open("wb+") as file:
            file.truncate(_LAYOUT.size * (_MOST + 1))
            self._map = mmap.mmap(file.fileno(), 0)
        self._used = 0

    def begin(self, number: int, prompt: int) -> int:
        """Note an attempt; returns its index."""
        self._used += 1
        self.note(self._used, number=number, prompt=prompt, generated=0, state=State.BEGUN)
        _COUNT.pack_into(self._map, 0, self._used)
        return self._used

    def note(self, index: int, *, number: int, prompt: int, generated: int, state: State) -> None:
        """How far an attempt is."""
        _LAYOUT.pack_into(self._map, index * _LAYOUT.size, number, prompt, generated, state, 0)


def read(path: pathlib.Path) -> list[Slot]:
    """All attempts of one life of an engine."""
    data, life = path.read_bytes(), path.name.removesuffix(".slots")
    found = []
    for index in range(1, _COUNT.unpack_from(data, 0)[0] + 1):
        number, prompt, generated, state, _ = _LAYOUT.unpack_from(data, index * _LAYOUT.size)
        found.append(Slot(f"{life}.{index}", int(life.partition(".")[0]), number, prompt, generated, State(state)))
    return found
