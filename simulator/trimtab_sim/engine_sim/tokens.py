"""
A deterministic, exactly reversible tokenizer of about four characters a token. Pure and stateless.

There is no learned vocabulary. A run of lower-case letters and spaces is cut every four characters and each piece is
one token; every other character is as many tokens as it has UTF-8 bytes. English prose comes to 3.5-4 characters a
token, close to real tokenizers, and `decode(encode(text)) == text` for every text. Consequences worth knowing:

- a client that wants a prompt of exactly N tokens sends 4·N lower-case letters and spaces;
- two texts with a common prefix share all its tokens but the last, so prefix caching behaves as with a real one;
- a multi-byte character takes several tokens, of which all but the last decode to nothing, as with byte-level BPE.

Id layout: 0-6 special tokens, 7-262 single bytes, then all 27 + 27² + 27³ + 27⁴ pieces over space and a-z.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SPECIAL = ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
BOS, EOS = 1, 2
_FIRST_BYTE = len(SPECIAL)
_FIRST_PIECE = _FIRST_BYTE + 256
_ALPHABET = " abcdefghijklmnopqrstuvwxyz"
_DIGIT = {character: index for index, character in enumerate(_ALPHABET)}
_PIECE_STARTS = (0, 27, 27 + 27**2, 27 + 27**2 + 27**3)
VOCABULARY_SIZE = _FIRST_PIECE + 27 + 27**2 + 27**3 + 27**4
PIECE_LENGTH = 4
_PIECES = re.compile(rf"[ a-z]{{1,{PIECE_LENGTH}}}|[^ a-z]+")
_SPECIAL_IDS = {text: index for index, text in enumerate(SPECIAL)}
_MEMO_LIMIT = 20_000


class _PieceIds(dict[str, tuple[int, ...]]):
    """A bounded memo from a piece of text to its ids; computing them is ten times dearer than the look-up."""

    def __missing__(self, piece: str) -> tuple[int, ...]:
        if len(self) >= _MEMO_LIMIT:
            self.clear()
        ids = (
            (_piece_id(piece),)
            if piece[0] in _DIGIT
            else tuple(_FIRST_BYTE + byte for byte in piece.encode("utf-8", "replace"))
        )
        self[piece] = ids
        return ids


def _piece_id(piece: str) -> int:
    value = 0
    for character in piece:
        value = value * 27 + _DIGIT[character]
    return _FIRST_PIECE + _PIECE_STARTS[len(piece) - 1] + value


def _piece_text(token: int) -> str:
    offset = token - _FIRST_PIECE
    length = max(index for index, start in enumerate(_PIECE_STARTS) if offset >= start) + 1
    value = offset - _PIECE_STARTS[length - 1]
    letters = []
    for _ in range(length):
        value, digit = divmod(value, 27)
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters))


_MEMO = _PieceIds()


def encode(text: str) -> list[int]:
    """Return the token ids of plain text; special tokens spelt out in it are read as ordinary characters."""
    memo = _MEMO
    return [token for piece in _PIECES.findall(text) for token in memo[piece]]


def token_bytes(token: int) -> bytes:
    """
    Return what one token contributes to the text, as UTF-8 bytes.

    Raises:
        ValueError: The id is not in the vocabulary.

    """
    if not 0 <= token < VOCABULARY_SIZE:
        raise ValueError(f"Token id {token} is out of vocabulary")
    if token < _FIRST_BYTE:
        return SPECIAL[token].encode()
    if token < _FIRST_PIECE:
        return bytes((token - _FIRST_BYTE,))
    return _piece_text(token).encode()


def decode(ids: Iterable[int]) -> str:
    """Return the text of token ids; bytes that are no UTF-8 become U+FFFD. Raises ValueError like `token_bytes`."""
    return b"".join(map(token_bytes, ids)).decode("utf-8", "replace")


def token_text(token: int) -> str:
    """Return one token alone as text; a lone byte of a longer character gives U+FFFD."""
    return token_bytes(token).decode("utf-8", "replace")


def encode_chat(messages: Sequence[tuple[str, str]], *, generation_prompt: bool = True) -> list[int]:
    """
    Return the ids of a conversation under the simulator's chat template.

    Each message becomes `<|role|>`, a newline, its text, `<|end|>` and a newline; the prompt ends with `<|assistant|>`
    and a newline. A role without a special token is spelt out, so an unknown role is accepted, as the real server does.

    Args:
        messages: Pairs of role and text, in order.
        generation_prompt: Whether to end with the assistant's opening.

    """
    newline = _FIRST_BYTE + 10
    ids = [BOS]
    for role, text in messages:
        marker = f"<|{role}|>"
        special = _SPECIAL_IDS.get(marker)
        ids.extend(encode(marker) if special is None else (special,))
        ids.append(newline)
        ids.extend(encode(text))
        ids.extend((_SPECIAL_IDS["<|end|>"], newline))
    if generation_prompt:
        ids.extend((_SPECIAL_IDS["<|assistant|>"], newline))
    return ids
