"""The reversible tokenizer and the answers that are decided at admission."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim.engine_sim import answers, book, logprobs, tokens


def answer_to(prompt: str = "what is a trim tab", **options: object) -> answers.Answer:
    values = {"max_tokens": 50, "mean_tokens": 100, **options}
    return answers.plan_answer(answers.AnswerRequest(prompt=tokens.encode(prompt), **values))  # type: ignore[arg-type]


def text_of(answer: answers.Answer) -> str:
    return answer.text(len(answer.ids))


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    assert tokens.decode(tokens.encode(text)) == text


@given(st.text(alphabet=" abcdefghijklmnopqrstuvwxyz", min_size=0, max_size=400))
def test_lower_case_prose_has_four_characters_a_token(text: str) -> None:
    assert len(tokens.encode(text)) == -(-len(text) // 4)


@given(common=st.text(alphabet="abc ", max_size=60), left=st.text(max_size=20), right=st.text(max_size=20))
def test_a_common_prefix_shares_all_its_tokens_but_the_last(common: str, left: str, right: str) -> None:
    one, other = tokens.encode(common + left), tokens.encode(common + right)
    whole = len(common) // 4
    assert one[:whole] == other[:whole]


@given(st.integers(min_value=0, max_value=tokens.VOCABULARY_SIZE - 1))
def test_every_id_of_the_vocabulary_has_bytes(token: int) -> None:
    assert tokens.token_bytes(token)


@pytest.mark.parametrize("token", [-1, tokens.VOCABULARY_SIZE, 999_999])
def test_an_id_outside_the_vocabulary_is_an_error(token: int) -> None:
    with pytest.raises(ValueError, match=f"Token id {token} is out of vocabulary"):
        tokens.token_bytes(token)


def test_a_conversation_is_wrapped_in_special_tokens() -> None:
    ids = tokens.encode_chat([("user", "hi")])
    assert tokens.decode(ids) == "<s><|user|>\nhi<|end|>\n<|assistant|>\n"
    assert len(ids) == 8  # <s>, <|user|>, newline, hi, <|end|>, newline, <|assistant|>, newline


def test_special_tokens_in_user_text_are_plain_text() -> None:
    assert tokens.encode("<s>") != [tokens.BOS]


def test_an_unknown_role_is_spelt_out() -> None:
    assert tokens.decode(tokens.encode_chat([("wizard", "x")], generation_prompt=False)) == "<s><|wizard|>\nx<|end|>\n"


def test_the_ring_is_the_same_text_in_ids_deltas_and_fragments() -> None:
    ring = book.ring()
    assert len(ring.ids) == len(ring.deltas) == len(ring.fragments)
    assert tokens.decode(ring.ids) == "".join(ring.deltas)
    assert json.loads(b'"' + b"".join(ring.fragments) + b'"') == "".join(ring.deltas)


def test_the_ring_has_letters_that_take_two_tokens() -> None:
    """So that a client which counts events as tokens is found out."""
    assert "" in book.ring().deltas


@given(prompt=st.text(min_size=1, max_size=80), seed=st.none() | st.integers(), length=st.integers(1, 300))
def test_equal_requests_get_equal_answers(prompt: str, seed: int | None, length: int) -> None:
    first, second = (answer_to(prompt, seed=seed, max_tokens=length) for _ in range(2))
    assert first == second


@given(st.lists(st.text(alphabet="abcdef ", min_size=1, max_size=30), min_size=2, max_size=5, unique=True))
def test_different_prompts_differ_within_the_first_tokens(prompts: list[str]) -> None:
    openings = {answer_to(prompt, max_tokens=3, ignore_eos=True).text(3) for prompt in prompts}
    assert len(openings) == len(prompts)


def test_seed_and_choice_change_the_answer() -> None:
    variants = [answer_to(), answer_to(seed=1), answer_to(seed=2), answer_to(choice=1)]
    assert len({text_of(variant) for variant in variants}) == 4


@given(length=st.integers(1, 6000))
def test_ignoring_the_end_runs_to_max_tokens(length: int) -> None:
    answer = answer_to(max_tokens=length, ignore_eos=True)
    assert (len(answer.ids), answer.finish_reason, answer.stop_reason) == (length, "length", None)
    assert len(answer.ids) == len(answer.deltas) == len(answer.fragments)


@given(prompt=st.text(min_size=1, max_size=40), longest=st.integers(1, 400), mean=st.integers(1, 300))
def test_an_answer_that_may_end_is_never_longer_than_asked(prompt: str, longest: int, mean: int) -> None:
    answer = answer_to(prompt, max_tokens=longest, mean_tokens=mean)
    assert 1 <= len(answer.ids) <= longest
    assert (answer.finish_reason == "stop") == (answer.ids[-1] == tokens.EOS)
    if answer.finish_reason == "length":
        assert len(answer.ids) == longest


@given(prompt=st.text(min_size=1, max_size=40), mean=st.integers(20, 200))
def test_natural_length_is_within_half_of_the_mean(prompt: str, mean: int) -> None:
    assert 0.5 * mean - 1 <= len(answer_to(prompt, max_tokens=10_000, mean_tokens=mean).ids) <= 1.5 * mean + 1


def test_min_tokens_delays_the_end() -> None:
    assert len(answer_to(max_tokens=500, mean_tokens=10, min_tokens=300).ids) > 300


def test_what_was_generated_tokenizes_to_the_same_ids() -> None:
    """So that a later turn which carries the answer finds its blocks in the prefix cache."""
    answer = answer_to(max_tokens=200, ignore_eos=True)
    assert tokens.encode(text_of(answer)) == answer.ids[: len(tokens.encode(text_of(answer)))]


@pytest.mark.parametrize("keep", [False, True])
def test_a_stop_string_ends_the_answer_and_is_cut_unless_it_is_to_be_kept(*, keep: bool) -> None:
    whole = text_of(answer_to(max_tokens=100, ignore_eos=True))
    word = whole[41:47]
    at = whole.find(word)
    answer = answer_to(max_tokens=100, ignore_eos=True, stop=("never there", word), keep_stop=keep)
    assert text_of(answer) == whole[: at + len(word) if keep else at]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", word)
    assert len(answer.ids) == len(answer.deltas) < 100


def test_text_that_could_start_a_stop_string_is_held_back() -> None:
    whole = answer_to(max_tokens=20, ignore_eos=True)
    held = answer_to(max_tokens=20, ignore_eos=True, stop=("zzzzzzzz",))
    assert text_of(held) == text_of(whole)
    assert held.finish_reason == "length"
    assert held.text(10) == whole.text(10)[:-7]  # one less than the stop string is long


def test_a_stop_string_before_min_tokens_does_not_count() -> None:
    whole = text_of(answer_to(max_tokens=60, ignore_eos=True))
    answer = answer_to(max_tokens=60, ignore_eos=True, stop=(whole[2:5],), min_tokens=40)
    assert len(answer.ids) >= 40


def test_forced_text_is_the_answer_and_ends_by_itself() -> None:
    answer = answer_to(forced_text='{"a": 7}', max_tokens=50)
    assert (text_of(answer), answer.finish_reason) == ('{"a": 7}', "stop")


def test_forced_text_is_cut_at_max_tokens() -> None:
    answer = answer_to(forced_text='{"a": "abcdefgh"}', max_tokens=3)
    assert (len(answer.ids), answer.finish_reason) == (3, "length")


@given(st.lists(st.integers(7, tokens.VOCABULARY_SIZE - 1), min_size=1, max_size=10), st.integers(0, 5))
def test_log_probabilities_have_one_entry_a_token_and_are_negative(ids: list[int], top: int) -> None:
    entries = logprobs.for_chat(ids, top)["content"]
    assert len(entries) == len(ids)
    assert all(entry["logprob"] < 0 and len(entry["top_logprobs"]) == top for entry in entries)
    completion = logprobs.for_completion(ids, top, first_unknown=True)
    assert len({len(values) for values in completion.values()}) == 1
    assert completion["token_logprobs"][0] is None
    assert len(logprobs.for_prompt(ids, top)) == len(ids)
