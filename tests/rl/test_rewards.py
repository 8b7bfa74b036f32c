import math

import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.records import Solution
from rl.rewards import (
    RewardWeights,
    compose,
    final_rewards,
    format_reward,
    process_reward,
    reasoning_first,
    relative_length,
    self_consistency,
    soft_overlong,
    step_structure,
    think_tags,
)


def test_parts_are_weighed_added_and_kept_apart():
    # 1 x 1 + .5 x .6 + .2 x 1 = 1.5
    found = compose({"final": [1, 0], "process": [0.6, 0.2], "format": [1, 0]}, RewardWeights().model_dump())
    assert found.totals == pytest.approx((1.5, 0.1))
    assert found.parts["process"] == (0.6, 0.2)
    assert found.failed == {"final": 0, "process": 0, "format": 0}
    assert found.kept == [0, 1]


def test_a_failed_reward_is_counted_and_is_not_zero():
    found = compose({"final": [1, None, 0], "process": [None, 0.5, 0.5]}, {"final": 1.0, "process": 0.5})
    assert found.totals == (None, None, 0.25)
    assert found.failed == {"final": 1, "process": 1}
    assert found.kept == [2]
    # a part that does not count costs nothing when it fails, and is counted all the same
    assert compose({"final": [1], "process": [None]}, {"final": 1.0, "process": 0.0}).totals == (1,)


def test_rewards_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="completion 1: its final reward is nan"):
        compose({"final": [1, math.nan]}, {"final": 1})
    with pytest.raises(UsageError, match="do not name the same parts: process"):
        compose({"final": [1]}, {"final": 1, "process": 1})
    with pytest.raises(InputError, match="differ in number"):
        compose({"final": [1], "process": [1, 2]}, {"final": 1, "process": 1})


def test_the_default_weights_let_no_tidy_wrong_answer_win():
    assert RewardWeights().inversion() is None
    # right and sloppy 1 + 0, wrong and tidy .5 + .2 = .7
    assert RewardWeights().inversion(process_range=(-1, 1)) is not None  # -.5 + 1 = .5 against .7
    said = RewardWeights(final=1, process=0.9, format=0.2).inversion()
    assert "1.1 against 1" in said
    assert "final 1, process 0.9, format 0.2" in said
    # with -1 for a wrong answer there is twice the room
    assert RewardWeights(final=1, process=0.9, format=0.2).inversion(wrong=-1.0) is None


def test_the_handbooks_own_numbers_invert_on_minus_one_to_one_and_not_on_zero_to_one():
    # The trap: right with steps -1, -1, 0: 1 - .5 x 2 / 3 = .667; wrong with steps +1 and the format: .5 + .2 = .7.
    sloppy, tidy = [-1, -1, 0], [1, 1, 1]
    assert 1 + 0.5 * sum(sloppy) / 3 < 0.5 * sum(tidy) / 3 + 0.2
    parts = {"final": [1, 0], "process": [process_reward(sloppy), process_reward(tidy)], "format": [0, 1]}
    right, wrong = compose(parts, RewardWeights().model_dump()).totals
    assert right > wrong


def test_process_reward_is_mapped_to_zero_to_one():
    # mean of 1, 0, None, -.5 is 1 / 6: (1 + 1 / 6) / 2
    assert process_reward([1, 0, None, -0.5]) == pytest.approx(7 / 12)
    assert process_reward([1, 0, None, -0.5], "min") == pytest.approx(0.25)
    assert process_reward([None]) is None
    with pytest.raises(InputError, match=r"step value 3.2 is outside of \[-1, 1\]"):
        process_reward([3.2])
    with pytest.raises(UsageError, match="unknown process aggregation 'sum'"):
        process_reward([1], "sum")


def test_easy_steps_dilute_the_mean_and_do_not_move_the_min():
    # The trap: eight trivial steps take a solution with one wrong step from .5 to .9.
    assert process_reward([1, -1]) == pytest.approx(0.5)
    assert process_reward([1, -1] + [1] * 8) == pytest.approx(0.9)
    assert process_reward([1, -1] + [1] * 8, "min") == process_reward([1, -1], "min") == 0


def test_final_rewards():
    assert final_rewards([True, False, None], [False] * 3) == [1, 0, None]
    assert final_rewards([True, None], [True, True], wrong=-1.0) == [-1, -1]


def test_self_consistency_is_membership_of_the_largest_cluster():
    same = lambda a, b: a == b  # noqa: E731
    assert self_consistency(["4", "5", "4", None], same) == [1, 0, 1, 0]
    assert self_consistency(["4", "5"], same) == [0.5, 0.5]
    assert self_consistency([None, None], same) == [0, 0]


def test_an_answer_that_cannot_be_compared_has_no_self_consistency():
    unclear = lambda a, b: None if "?" in a + b else a == b  # noqa: E731
    assert self_consistency(["4", "4", "?"], unclear) == [1, 1, None]


def solution(*steps, **fields):
    return Solution.from_steps("What is 2 + 2?", steps, **fields)


GOOD = solution("We add two and two.", "That gives 4, so we are done.", "The answer is: 4")


def test_format_checks():
    assert step_structure(GOOD)
    assert reasoning_first(GOOD)
    assert not think_tags(GOOD)
    assert format_reward(GOOD, [step_structure, think_tags]) == 0.5
    assert think_tags(solution("<think>two and two</think> The answer is: 4"))
    for bad in ("<think></think> 4", "<think>so</think>", "4 <think>so</think>", "<think>a</think><think>b</think> 4"):
        assert not think_tags(solution(bad)), bad
    with pytest.raises(UsageError, match="think_tags, step_structure, reasoning_first"):
        format_reward(GOOD, [])


@pytest.mark.parametrize(
    "gamed",
    [
        solution(*["."] * 10_000, "The answer is: 4", separator="\n\n"),
        solution(" ".join(["We add two and two."] * 50) + " The answer is: 4"),
        solution("The answer is: 4", "Let me say more.", "And more still."),
        solution("We add two and two.", *["2 + 2 = 4 is right."] * 5, "The answer is: 4"),
    ],
    ids=["ten thousand separators", "one huge step", "answer then filler", "repeated right step"],
)
def test_gamed_completions_do_not_get_the_whole_format_reward(gamed):
    assert format_reward(gamed, [step_structure, reasoning_first]) < format_reward(
        GOOD, [step_structure, reasoning_first]
    )


def test_soft_overlong_by_hand():
    # 100 tokens, buffer 20: nothing to 80, half at 90, all at 100, and no more beyond
    lengths = [80, 90, 100, 500]
    assert soft_overlong(lengths, [True] * 4, [0] * 4, 100, buffer=20) == pytest.approx([0, -0.5, -1, -1])
    assert soft_overlong([100], [True], [0], 100) == [-1]
    with pytest.raises(UsageError, match="does not fit"):
        soft_overlong([1], [True], [0], 10, buffer=11)


def test_relative_length_by_hand():
    # 10, 20, 30 of one group: .5, 0, -.5; never above 0 for a wrong one; another group by itself
    found = relative_length([10, 20, 30, 10, 7], [True, True, True, False, True], [0, 0, 0, 0, 1], 100)
    assert found == pytest.approx([0.5, 0, -0.5, 0, 0])
