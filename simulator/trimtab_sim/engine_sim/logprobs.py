"""Made-up log probabilities in the shapes of chat and completions. Pure; a number depends on its token alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab_sim.engine_sim import tokens


def of_token(token: int) -> float:
    """Return a fixed log probability between -0.05 and -3.05 for a token."""
    return -0.05 - (token * 2654435761 % 2**32) / 2**32 * 3


def alternatives(token: int, count: int) -> list[int]:
    """Return `count` tokens that the sampler might have taken, the one it took first."""
    step = tokens.VOCABULARY_SIZE // 7
    others = ((token + step * (index + 1)) % tokens.VOCABULARY_SIZE for index in range(count))
    return [token, *others][:count]


def _chat_entry(token: int) -> dict[str, Any]:
    raw = tokens.token_bytes(token) if token >= len(tokens.SPECIAL) else b""
    return {"token": raw.decode("utf-8", "replace"), "logprob": of_token(token), "bytes": list(raw)}


def for_chat(ids: Sequence[int], top: int) -> dict[str, Any]:
    """Return the `logprobs` of a chat choice for these tokens with `top` alternatives each."""
    entries = []
    for token in ids:
        tops = [_chat_entry(other) for other in alternatives(token, top)]
        entries.append({**_chat_entry(token), "top_logprobs": tops})
    return {"content": entries}


def for_completion(ids: Sequence[int], top: int, *, offset: int = 0, first_unknown: bool = False) -> dict[str, Any]:
    """
    Return the `logprobs` of a completion choice.

    Args:
        ids: Tokens of the choice, those of an echoed prompt included.
        top: Alternatives a token.
        offset: Characters of the text before the first token.
        first_unknown: The first token is the start of the prompt and has no probability.

    """
    texts = [tokens.token_text(token) for token in ids]
    offsets = [offset]
    for text in texts[:-1]:
        offsets.append(offsets[-1] + len(text))
    known = [None if first_unknown and index == 0 else of_token(token) for index, token in enumerate(ids)]
    tops = [
        None
        if first_unknown and index == 0
        else {tokens.token_text(other): of_token(other) for other in alternatives(token, max(1, top))}
        for index, token in enumerate(ids)
    ]
    return {"text_offset": offsets[: len(ids)], "token_logprobs": known, "tokens": texts, "top_logprobs": tops}


def for_prompt(ids: Sequence[int], top: int) -> list[dict[str, Any] | None]:
    """Return `prompt_logprobs`: for each prompt token but the first the alternatives by id."""
    entries: list[dict[str, Any] | None] = [None]
    for token in ids[1:]:
        ranked = enumerate(alternatives(token, top + 1), start=1)
        entries.append(
            {
                str(other): {"logprob": of_token(other), "rank": rank, "decoded_token": tokens.token_text(other)}
                for rank, other in ranked
            }
        )
    return entries
