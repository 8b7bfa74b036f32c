import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.formats.tagged import TaggedLayout, cut_problem, pieces_at, steps_of, tagged_text

LAYOUT = TaggedLayout()


def test_the_last_step_1_before_the_mark_begins_the_first_step():
    assert cut_problem("He said Step 1: add. Why? Step 1: he", LAYOUT) == ("He said Step 1: add. Why?", "Step 1: he")


def test_step_1_within_a_word_begins_no_step():
    with pytest.raises(InputError, match="no 'Step 1:'"):
        cut_problem("SubStep 1: x", LAYOUT)


def test_the_case_of_step_1_does_not_matter():
    assert cut_problem("Why? step 1: he", LAYOUT) == ("Why?", "step 1: he")


def test_without_a_rule_there_is_no_cut():
    with pytest.raises(UsageError):
        cut_problem("a b", TaggedLayout(first_step=""))


def test_text_after_the_last_mark_is_refused():
    assert pieces_at("a ки b ки \n", "ки") == ["a ", " b "]
    with pytest.raises(InputError, match="after the last"):
        pieces_at("a ки b", "ки")


TEXT = st.text(alphabet="ab \r\n+-$é\u2028步", min_size=1, max_size=12).filter(lambda text: text.strip())


@given(TEXT, st.lists(TEXT, min_size=1, max_size=4), st.sampled_from(["in_text", "outside"]))
def test_problem_and_steps_come_back_from_their_text(problem, steps, numbers):
    layout = TaggedLayout(step_numbers=numbers)
    if numbers == "in_text":
        steps = [f"Step 1: {steps[0]}", *steps[1:]]
    text = tagged_text(problem, steps, ["ки"] * len(steps), layout)
    assert steps_of(pieces_at(text, "ки"), layout) == (problem, steps)
