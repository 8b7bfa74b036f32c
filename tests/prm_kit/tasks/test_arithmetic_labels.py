import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.tasks.arithmetic import ArithmeticTask, parse_problem
from prm_kit.tasks.arithmetic_labels import Chain, label_chain

CHAIN = Chain(37, (("-", 7), ("*", 3)))  # 37 - 7 = 30, 30 * 3 = 90
RIGHT = ["Step 1: 37 - 7 = 30", "Step 2: 30 * 3 = 90", "Answer: 90"]


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        (RIGHT, (1, 1, 1)),
        # restating: the value reached, a right line once more, also later; the answer once more
        (["So far 37", *RIGHT], (0, 1, 1, 1)),
        ([RIGHT[0], "So far 30", RIGHT[1], RIGHT[1], RIGHT[2]], (1, 0, 1, 0, 1)),
        ([RIGHT[0], RIGHT[1], RIGHT[0], RIGHT[2], RIGHT[2]], (1, 1, 0, 1, 0)),
        # a wrong step; what follows is judged on the value as written: 20 * 3 = 60 is right, and so is its answer
        (["Step 1: 37 - 7 = 20", "Step 2: 20 * 3 = 60", "Answer: 60"], (-1, 1, 1)),
        # going back to the true value is not what stands there
        (["Step 1: 37 - 7 = 20", "Step 2: 30 * 3 = 90", "Answer: 90"], (-1, -1, 1)),
        # a wrong line is no better the second time, and skips no operation
        (["Step 1: 37 - 7 = 20", "Step 1: 37 - 7 = 20", "Step 2: 20 * 3 = 60"], (-1, -1, 1)),
        # a wrong restatement moves the value
        ([RIGHT[0], "So far 31", "Step 2: 31 * 3 = 93", "Answer: 93"], (1, -1, 1, 1)),
        # an operation left out; it is the step that leaves it out which is wrong
        (["Step 1: 37 * 3 = 111", "Answer: 111"], (-1, 1)),
        # another operand or sign takes the place of the operation; 37 - 8 = 29, 29 * 3 = 87
        (["Step 1: 37 - 8 = 29", "Step 2: 29 * 3 = 87", "Answer: 87"], (-1, 1, 1)),
        # an operation that nobody asked for is put in between
        (["Step 1: 37 + 9 = 46", "Step 1: 46 - 7 = 39", "Step 2: 39 * 3 = 117"], (-1, 1, 1)),
        # an answer too early, and work after the answer
        ([RIGHT[0], "Answer: 30", RIGHT[1]], (1, -1, -1)),
        ([*RIGHT, "So far 90", "Step 3: 90 * 3 = 270"], (1, 1, 1, 0, -1)),
        # nothing that can be checked, and a line too long to be one of the task's
        (["Let us think.", RIGHT[0]], (-1, 1)),
        (["So far " + "3" * 100], (-1,)),
    ],
)
def test_each_step_is_judged_given_the_steps_before_it_as_written(steps, labels):
    assert label_chain(CHAIN, steps) == labels


def test_the_step_number_changes_nothing():
    bare = [step.partition(": ")[2] if step.startswith("Step") else step for step in RIGHT]
    assert label_chain(CHAIN, bare) == label_chain(CHAIN, RIGHT) == (1, 1, 1)


def test_the_next_operation_comes_before_repeating():
    # 0 * 2 twice: the second line is the second operation, the third adds nothing
    chain = Chain(0, (("*", 2), ("*", 2)))
    assert label_chain(chain, ["0 * 2 = 0", "0 * 2 = 0", "0 * 2 = 0"]) == (1, 1, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(0, 10**6))
def test_later_steps_never_change_earlier_labels(cut, seed):
    demonstration = ArithmeticTask().demonstrations("train", 1, seed)[0]
    chain, steps = parse_problem(demonstration.problem), demonstration.completion.splitlines()
    assert label_chain(chain, steps[:cut]) == label_chain(chain, steps)[:cut]
