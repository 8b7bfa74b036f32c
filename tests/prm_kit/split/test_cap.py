import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.split.cap import cap, estimate_tokens
from prm_kit.split.protect import NO_BLOCKS, protect


def words(text):
    return len(text.split())


def steps(text, limit, count=words):
    spans, _ = cap(text, [(0, len(text))], protect(text), limit, count)
    return [text[start:end] for start, end in spans]


def test_the_estimate_is_a_third_of_the_bytes():
    assert [estimate_tokens(text) for text in ("", "a", "abc", "abcd", "三只苹果")] == [0, 1, 1, 2, 4]


def test_a_step_within_the_cap_stays_as_it_is():
    assert cap("a b c", [(0, 5)], NO_BLOCKS, 3, words) == ([(0, 5)], 0)


def test_a_long_step_is_cut_at_line_ends_first():
    assert steps("a b. C\nd e. F", 3) == ["a b. C", "d e. F"]


def test_then_at_sentence_ends_then_at_white_space_then_anywhere():
    assert steps("A b. C d.", 3) == ["A b.", "C d."]
    # Six words, at most four to a step: two steps of three.
    assert steps("a b c d e f", 4) == ["a b c", "d e f"]
    assert steps("abcdefgh", 2, count=len) == ["ab", "cd", "ef", "gh"]


def test_a_block_is_cut_only_where_it_is_too_long_by_itself():
    block = "\\[ a\nb\nc \\]"
    assert steps(f"x y\n{block}\nz", 5) == ["x y", block, "z"]
    # The block has five words, the cap is three: now it is cut, at its own line ends.
    assert steps(f"x y\n{block}\nz", 3) == ["x y", "\\[ a\nb", "c \\]", "z"]


def test_what_was_too_long_is_counted():
    assert cap("a b c\nd", [(0, 5), (6, 7)], NO_BLOCKS, 2, words)[1] == 1


LONG = ["word " * 2000, "x" * 5000, "One two. " * 900, "a\n" * 3000, "\\[" + "a " * 3000 + "\\]"]


@pytest.mark.parametrize("text", LONG)
def test_counting_stays_linear_in_the_text(text):
    counted = []

    def count(piece):
        counted.append(len(piece))
        return len(piece)

    spans, _ = cap(text, [(0, len(text.rstrip()))], protect(text), 50, count)
    assert max(end - start for start, end in spans) <= 50
    # Every level reads the text at most twice (atoms, packed steps); halving reads it once a halving.
    assert sum(counted) <= 2 * len(text) * 12


@given(st.text(alphabet="aB. \n\\[]$", max_size=80), st.integers(1, 9))
def test_capped_steps_fit_and_only_white_space_lies_between(text, limit):
    text = text.strip()
    spans, _ = cap(text, [(0, len(text))] if text else [], protect(text), limit, len)
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", "".join(text[a:b] for a, b in spans))
    assert all(0 < end - start <= limit and text[start:end].strip() == text[start:end] for start, end in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_a_character_is_never_cut():
    assert steps("ab", 1, count=lambda text: 4 * len(text)) == ["a", "b"]
