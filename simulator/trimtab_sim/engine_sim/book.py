"""
The text that answers are cut from: a fixed ring of prose, tokenized and JSON-escaped once. Pure.

An answer is a slice of the ring, so streaming a token costs a list index and no encoding. A few words carry a two-byte
letter: their first byte is a token whose text is empty, as with byte-level tokenizers, so clients that count events as
tokens are found out.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random

from trimtab_sim.engine_sim import tokens

_PROSE = (
    "the a of to and in that it is was for on are with as at be this have from or one had by word but not what all "
    "were we when your can said there use an each which she do how their if will up other about out many then them "
    "these so some her would make like him into time has look two more write go see number no way could people my "
    "than first water been call who oil its now find long down day did get come made may part over new sound take "
    "only little work know place year live me back give most very after thing our just name good sentence man think "
    "say great where help through much before line right too mean old any same tell boy follow came want show also "
    "around form three small set put end does another well large must big even such because turn here why ask went "
    "men read need land different home us move try kind hand picture again change off play spell air away animal "
    "house point page letter mother answer found study still learn should world café naïve "
)
_WORDS = _PROSE.split()
_WORDS_IN_RING = 3600
_SENTENCE = (6, 14)


@dataclasses.dataclass(frozen=True, slots=True)
class Ring:
    """
    The tokenized prose; the three lists run in parallel, one entry a token.

    Attributes:
        ids: Token ids.
        deltas: What each token adds to the text; empty for the first byte of a two-byte letter.
        fragments: `deltas` as the inside of a JSON string, UTF-8.
        starts: Indices at which an answer may begin (never inside a letter).

    """

    ids: list[int]
    deltas: list[str]
    fragments: list[bytes]
    starts: list[int]


def split_deltas(ids: list[int]) -> list[str]:
    """Return what each token adds to the text; bytes of an unfinished character are held until it is complete."""
    deltas: list[str] = []
    held = b""
    for token in ids:
        held += tokens.token_bytes(token)
        try:
            deltas.append(held.decode())
            held = b""
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                deltas.append("")
            else:
                deltas.append(held.decode("utf-8", "replace"))
                held = b""
    return deltas


def escape(text: str) -> bytes:
    """Return `text` as the inside of a JSON string in UTF-8, without the quotes, non-ASCII kept as it is."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")


@functools.cache
def ring() -> Ring:
    """Return the one ring of this process; the same in every process and version, as its seed is fixed."""
    chooser = random.Random(20240229)
    parts: list[str] = []
    left = 0
    for _ in range(_WORDS_IN_RING):
        if left == 0:
            left = chooser.randint(*_SENTENCE)
        left -= 1
        parts.append(chooser.choice(_WORDS) + (". " if left == 0 else " "))
    ids = tokens.encode("".join(parts))
    deltas = split_deltas(ids)
    starts = [index for index in range(len(ids)) if index == 0 or deltas[index - 1]]
    return Ring(ids=ids, deltas=deltas, fragments=[escape(delta) for delta in deltas], starts=starts)
