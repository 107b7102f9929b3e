"""What a router can tell of a prompt in microseconds: lexical features, and marks of sensitive content.

Everything here reads text once or twice with C-speed string methods, so that a one-turn prompt costs a few
microseconds. Knows nothing of JSON shapes; the router hands over the text of the last user message.
"""

from __future__ import annotations

import importlib.resources
import itertools
import math
import re

NAMES = (
    "length",
    "words",
    "word_length",
    "digits",
    "maths",
    "code",
    "reasoning",
    "tasks",
    "simple",
    "questions",
    "lines",
    "options",
    "turns",
    "context",
    "lexicon",
)
"""Feature names in the order of ``extract``'s answer; a classifier's weights name these."""

MAX_CHARS = 6000
"""Longer texts are judged by their first and last halves of this many characters: a bound on time."""

_REASONING = (
    "prove proof derive why because explain analyse analyze compare contrast evaluate justify infer deduce conclude "
    "assume suppose therefore hence implies theorem lemma hypothesis argument critique trade-off optimal optimise "
    "optimize minimum maximum probability expected integral derivative equation matrix vector polynomial triangle "
    "angle step reason reasoning logic paradox strategy"
)
_TASKS = (
    "write design implement build create refactor debug fix plan generate compose draft develop architect simulate "
    "calculate compute solve determine find estimate convert list describe must should exactly only without at least "
    "table json function class test algorithm complexity code program query regex"
)
_SIMPLE = (
    "hi hello hey thanks thank please translate define capital name who when where what is weather spell synonym "
    "summarise summarize yes no ok meaning tell joke"
)
_KIND = {word.encode(): kind for kind, words in enumerate((_REASONING, _TASKS, _SIMPLE)) for word in words.split()}
_SPACED = b".,;:!?()[]{}<>\"'`*#/\\|=+_\t\r\n"
_FOLD = bytes(32 if code in _SPACED else code for code in range(256)).lower()
"""Letters to lower case, punctuation to blanks, in one pass; bytes beyond ASCII stay."""
LEXICON_FILE = "lexicon.txt"
_LEXICON = {
    word: int(worth)
    for word, worth in (
        line.split(b"\t")
        for line in importlib.resources.files(__package__).joinpath(LEXICON_FILE).read_bytes().splitlines()
    )
}
"""What each word tells of how much a larger model helps, in thousandths: whole numbers, so that the order in which
they are summed changes nothing. Fitted by ``benchmarks/fit/complexity.py``."""
_UNKNOWN = itertools.repeat(0)
_FIGURES = b"0123456789"
_MATHS = b"+=^<>%$\\"
_CODE = (b"```", b"def ", b"return ", b"();")
_OPTIONS = (b"\nA", b"(A)", b"B.")


def words(data: bytes) -> list[bytes]:
    """The words of a text in lower case, as all features count them."""
    return data.translate(_FOLD).split()


def extract(text: str, *, turns: int, context_chars: int) -> tuple[float, ...]:
    """Features of one prompt, in the order of ``NAMES``.

    Args:
        text: the last user message.
        turns: messages in the conversation, this one included.
        context_chars: size of the whole request, a stand-in for how much must be read.

    Returns:
        Numbers of order 1; logarithms for counts, shares for the rest.
    """
    if len(text) > MAX_CHARS:
        text = text[: MAX_CHARS // 2] + text[-MAX_CHARS // 2 :]
    data = text.encode(errors="replace")
    size = len(data) or 1
    found = words(data)
    count = len(found) or 1
    distinct = set(found)
    kinds = list(map(_KIND.get, found))
    maths = len(data) - len(data.translate(None, _MATHS))
    figures = len(data) - len(data.translate(None, _FIGURES))
    return (
        math.log1p(size) / 6,
        math.log1p(count) / 4,
        (size - count) / count / 5,
        figures / size * 10,
        math.log1p(maths),
        math.log1p(sum(map(data.count, _CODE))),
        math.log1p(kinds.count(0)),
        math.log1p(kinds.count(1)),
        kinds.count(2) / count * 10,
        math.log1p(data.count(b"?")),
        math.log1p(data.count(b"\n")),
        math.log1p(sum(map(data.count, _OPTIONS))),
        math.log1p(turns),
        math.log1p(context_chars) / 6,
        sum(map(_LEXICON.get, distinct, _UNKNOWN)) / math.sqrt(len(distinct) or 1) / 1000,
    )


_DIGITS = bytes(48 if 48 <= code <= 57 else 46 for code in range(256))  # noqa: PLR2004 (the ASCII digits)
_RUN = b"0" * 9
"""Shortest run of digits of interest once blanks and dashes are gone: a social security number."""

_CARD = re.compile(rb"(?<![\d.-])(?:3[0-9]|4\d|5[1-5]|2[2-7]|6[045])\d{2}(?:[ -]?\d){9,15}(?![\d.-]?\d)")
_SSN = re.compile(rb"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_IBAN = re.compile(rb"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_MAIL = re.compile(rb"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,24}")
_MAIL_WORDS = re.compile(
    rb"\b(?:password|passwort|passport|salary|payslip|diagnos\w+|patient|prescription|date of birth|ssn|"
    rb"social security|confidential)\b",
    re.IGNORECASE,
)


def sensitive_mark(content: bytes) -> str:
    """Name of the first mark of personal or secret data in a text, or an empty string.

    Kept precise rather than complete: card numbers must pass the Luhn check, IBANs ISO 7064's mod 97, and an
    e-mail address counts only beside a word such as "password" or "patient". A caller that knows better sends
    the header ``X-Trimtab-Sensitive``.
    """
    if _RUN in content.translate(_DIGITS, b" -"):
        if any(_passes_luhn(match[0]) for match in _CARD.finditer(content)):
            return "card"
        if _SSN.search(content):
            return "ssn"
        if any(_is_iban(match[0]) for match in _IBAN.finditer(content)):
            return "iban"
    if b"PRIVATE KEY" in content and _KEY.search(content):
        return "private-key"
    if b"@" in content and _MAIL_WORDS.search(content) and _MAIL.search(content):
        return "mail"
    return ""


def _passes_luhn(text: bytes) -> bool:
    digits = [byte - 48 for byte in text if 48 <= byte <= 57]  # noqa: PLR2004 (the ASCII digits)
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]  # noqa: PLR2004 (two-figure products)
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: bytes) -> bool:
    plain = text.replace(b" ", b"").decode()
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1
