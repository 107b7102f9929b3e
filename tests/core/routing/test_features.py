"""Features and sensitive marks: what prompts look like, and what is precise enough to act on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import features


def named(text: str, turns: int = 1) -> dict[str, float]:
    return dict(zip(features.NAMES, features.extract(text, turns=turns, context_chars=len(text)), strict=True))


@given(st.text(max_size=300), st.integers(1, 1000))
def test_any_text_has_finite_features(text: str, turns: int) -> None:
    values = features.extract(text, turns=turns, context_chars=len(text))
    assert len(values) == len(features.NAMES)
    assert all(map(math.isfinite, values))


@pytest.mark.parametrize(
    ("feature", "more", "less"),
    [
        ("length", "word " * 50, "word"),
        ("digits", "add 12 and 34", "add some numbers"),
        ("maths", "x^2 + y^2 = z^2", "a circle"),
        ("code", "```def f(): return 1```", "a function"),
        ("reasoning", "Prove the lemma, then derive it.", "Say hello."),
        ("tasks", "Write a function and test it.", "Hello there."),
        ("simple", "hello, thanks", "prove it"),
        ("questions", "why? how?", "because"),
        ("lines", "a\nb\nc", "a b c"),
        ("options", "Which?\nA. one\nB. two", "Which one?"),
    ],
)
def test_a_feature_grows_with_what_it_is_named_for(feature: str, more: str, less: str) -> None:
    assert named(more)[feature] > named(less)[feature]


def test_punctuation_and_case_do_not_hide_words() -> None:
    assert named("PROVE: (derive), explain!")["reasoning"] == named("prove derive explain")["reasoning"]


def test_words_of_the_lexicon_count_once_each_whatever_their_order() -> None:
    text = "morally wrong scenarios"
    assert named(text)["lexicon"] > 0 == named("zzyzx qwrtp")["lexicon"]  # words that nobody fitted tell nothing
    assert named("wrong scenarios morally wrong WRONG")["lexicon"] == named(text)["lexicon"]


def test_the_conversation_counts_by_turns() -> None:
    assert named("hi", turns=20)["turns"] > named("hi", turns=1)["turns"]


def test_a_long_text_is_judged_by_its_ends() -> None:
    ends = "prove " * 400
    long = ends + "x" * 100_000 + ends
    assert named(long)["reasoning"] > named("x" * 100_000)["reasoning"]
    assert named(long)["length"] == pytest.approx(math.log1p(features.MAX_CHARS) / 6)


MARKED = {
    "Visa": ("pay with 4111 1111 1111 1111 now", "card"),
    "Visa with dashes": ("4111-1111-1111-1111", "card"),
    "Mastercard": ("5555555555554444", "card"),
    "American Express": ("378282246310005", "card"),
    "card in JSON": ('{"content":"4111111111111111"}', "card"),
    "SSN": ("my ssn is 123-45-6789.", "ssn"),
    "German IBAN": ("DE89 3704 0044 0532 0130 00", "iban"),
    "British IBAN": ("send to GB29NWBK60161331926819 please", "iban"),
    "private key": ("-----BEGIN RSA PRIVATE KEY-----\nabc", "private-key"),
    "OpenSSH key": ("-----BEGIN OPENSSH PRIVATE KEY-----", "private-key"),
    "mail and password": ("login: joe@example.com password: hunter2", "mail"),
    "mail and diagnosis": ("Patient anna.k@example.org was diagnosed", "mail"),
}
PLAIN = {
    "card of a wrong check digit": "4111 1111 1111 1112",
    "sixteen digits of no issuer": "0000000000000000",
    "part of a longer number": "94111111111111111199",
    "a timestamp": "created 1795311832 and 20261122095133",
    "a decimal": "pi is 3.14159265358979323846",
    "SSN that is never given out": "666-45-6789 or 123-00-6789",
    "a phone number": "call 030 123 45 67 89",
    "IBAN of a wrong check sum": "DE88 3704 0044 0532 0130 00",
    "a public key": "-----BEGIN PUBLIC KEY-----",
    "talk of keys": "what is a PRIVATE KEY?",
    "a mail address alone": "write to joe@example.com",
    "talk of passwords": "how do I reset my password?",
    "an at sign and a password": "@bob forgot the password",
    "dates": "2026-11-22 2026-11-23",
}


@pytest.mark.parametrize(("text", "mark"), MARKED.values(), ids=MARKED.keys())
def test_personal_and_secret_data_is_marked(text: str, mark: str) -> None:
    assert features.sensitive_mark(text.encode()) == mark


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN.keys())
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert features.sensitive_mark(text.encode()) == ""


@given(st.integers(10**14, 10**15 - 1))
def test_one_check_digit_of_ten_makes_a_card(number: int) -> None:
    stem = f"4{number}"[:15]
    marked = [digit for digit in range(10) if features.sensitive_mark(f"{stem}{digit}".encode()) == "card"]
    assert len(marked) == 1


@given(st.binary(max_size=200))
def test_no_bytes_break_the_search(data: bytes) -> None:
    features.sensitive_mark(data)
