from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.split.sentences import sentence_cuts


def sentences(text):
    cuts = [0, *sentence_cuts(text), len(text)]
    return [text[a:b].strip() for a, b in pairwise(cuts)]


@pytest.mark.parametrize(
    "parts",
    [
        ["He has 3.5 apples.", "She has 2.", "Is it 5.5?", "Yes!", "So 5.5."],
        ["We use e.g. Newton's method, i.e. Iteration, as in Fig. 3 and Eq. (2).", "Then we stop."],
        ["Dr. Smith and John F. Kennedy met J. K. Rowling.", "They talked."],
        ["The answer is B.", "Then we check option C.", "It fails for X.", "So it is B."],
        ["It starts at 5 p.m. and ends at 8 p.m.", "He leaves."],
        ['She said "It is 5."', "Then (she left.)", "He stayed."],
        ["5! = 120 and n! is large.", "Next, 3! + 2 = 8."],
        ["Is it no. 5?", "The answer is no.", "We go on."],
        ["1. Add the numbers.", "2. Divide."],
        ["Step 1. Add the numbers.", "The rest..."],
        ["小明有3.5元。", "他买了什么？", "“苹果。”", "真好！", "答案是5。"],
        ["We get 6 < 7.", "$x$ is small.", "\\(y\\) is not.", "**Done.**"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(parts):
    separator = "" if "。" in parts[0] else " "
    assert sentences(separator.join(parts)) == parts


def test_a_sentence_end_before_a_line_end_counts_in_lower_case_too():
    assert sentences("x is 3.\ny is 4, approx. five") == ["x is 3.", "y is 4, approx. five"]


@given(st.text(alphabet="aB1.!?。 \n\"')(", max_size=40))
def test_cuts_are_inside_the_text_in_order_and_behind_a_stop(text):
    cuts = sentence_cuts(text)
    assert cuts == sorted(set(cuts))
    for cut in cuts:
        assert 0 < cut < len(text)
        assert text[:cut].rstrip().rstrip("\"')")[-1] in ".!?。"
