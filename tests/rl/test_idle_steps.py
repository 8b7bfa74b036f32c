import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.records import Solution
from rl.idle_steps import idle_steps, valued


def solution(*steps):
    return Solution.from_steps("1 + 1 ?", list(steps), separator="\n")


def test_a_step_that_was_said_before_holds_nothing_or_follows_the_answer_is_idle():
    steps = ["1 + 1 = 2", "1 +  1 = 2 ", "----", "so 2", "Answer: 2", "I am sure of it", "1 + 1 = 3"]
    assert idle_steps(solution(*steps)) == (False, True, True, False, False, True, True)


def test_an_answer_that_is_stated_again_was_not_the_end():
    steps = ["Answer: 3", "Wait, 1 + 1 = 2", "Answer: 2"]
    assert idle_steps(solution(*steps)) == (False, False, False)
    assert idle_steps(solution("one", "two")) == (False, False)  # no answer: nothing follows it


def test_idle_steps_have_no_value_and_a_completion_without_others_is_worth_the_least():
    assert valued(solution("a", "a", "b"), [0.9, 0.8, None]) == (0.9, None, None)
    assert valued(solution("...", "---"), [0.9, 0.9]) == (-1.0, None)
    assert valued(Solution("1 + 1 ?", "\n\n", ()), []) == (-1.0,)


def test_values_must_be_those_of_the_steps():
    with pytest.raises(ValueError, match="zip"):
        valued(solution("a", "b"), [0.5])


@given(st.lists(st.sampled_from(["a", "A", "b ", "c", "--", "Answer: 1"]), min_size=1, max_size=8))
def test_it_is_what_looking_at_every_pair_gives(steps):
    levelled = [" ".join(step.split()).casefold() for step in steps]
    last = max((k for k, step in enumerate(steps) if step.startswith("Answer")), default=len(steps))
    by_hand = [step in levelled[:k] or step == "--" or k > last for k, step in enumerate(levelled)]
    assert list(idle_steps(solution(*steps))) == by_hand
