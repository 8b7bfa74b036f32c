import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.records import Problem, Solution
from prm_kit.tasks.arithmetic import ArithmeticTask, final_answer, parse_problem, problem_text
from prm_kit.tasks.arithmetic_labels import Chain
from prm_kit.tasks.task import SPLITS, DemonstratedTask, StepLabelledTask, split_of

TASK = ArithmeticTask()


def test_the_task_offers_demonstrations_and_step_labels():
    assert isinstance(TASK, DemonstratedTask)
    assert isinstance(TASK, StepLabelledTask)
    assert TASK.rater.kind == "rule"


def test_a_problem_is_written_and_read_back():
    chain = Chain(37, (("-", 7), ("*", 3)))
    assert problem_text(chain) == "Start with 37, subtract 7, times 3."
    assert parse_problem("Start with 37, subtract 7, times 3.") == chain
    assert chain.values == [37, 30, 90]


def test_the_same_seed_gives_the_same_problems_and_another_seed_others():
    first = TASK.problems("train", 20, 3)
    assert first == TASK.problems("train", 20, 3)
    assert first != TASK.problems("train", 20, 4)
    assert first == TASK.problems("train", 30, 3)[:20]


def test_splits_share_no_problem_whatever_the_seeds():
    texts = {split: {p.text for seed in (0, 1) for p in TASK.problems(split, 150, seed)} for split in SPLITS}
    assert len(texts["train"] & texts["dev"]) == len(texts["train"] & texts["test"]) == 0
    assert not texts["dev"] & texts["test"]
    assert all(split_of(text) == split for split, members in texts.items() for text in members)


def test_values_stay_between_0_and_99_and_the_reference_is_where_they_lead():
    for problem in TASK.problems("train", 300, 0):
        chain = parse_problem(problem.text)
        assert 3 <= len(chain.operations) <= 4
        assert all(0 <= value <= 99 for value in chain.values)
        value = chain.start  # computed the slow way, by Python's own arithmetic on the text
        for symbol, operand in chain.operations:
            value = eval(f"{value} {symbol} {operand}")
        assert problem.reference_answer == str(value)


def test_demonstrations_are_half_right_and_restate_now_and_then():
    problems = TASK.problems("train", 600, 0)
    demonstrations = TASK.demonstrations("train", 600, 0)
    assert [d.problem for d in demonstrations] == [p.text for p in problems]
    right = sum(TASK.verify(p, d.completion) for p, d in zip(problems, demonstrations, strict=True)) / 600
    assert 0.45 < right < 0.65
    counts = {-1: 0, 0: 0, 1: 0}
    for d in demonstrations:
        for label in TASK.label_steps(Solution.from_steps(d.problem, d.completion.split("\n")[:-1], "\n")):
            counts[label] += 1
    assert all(count > 100 for count in counts.values())


def test_a_demonstration_without_slips_is_right_in_every_step():
    careful = ArithmeticTask(slip_rate=0.0)
    for problem, d in zip(careful.problems("dev", 50, 1), careful.demonstrations("dev", 50, 1), strict=True):
        assert careful.verify(problem, d.completion)
        assert -1 not in careful.label_steps(Solution.from_steps(d.problem, d.completion.split("\n")[:-1], "\n"))


def test_the_last_answer_line_counts_and_no_answer_is_wrong():
    problem = Problem("Start with 37, subtract 7, times 3.", "90")
    assert TASK.verify(problem, "Step 1: 37 - 7 = 30\nAnswer: 30\nAnswer: 90\n")
    assert not TASK.verify(problem, "Answer: 90\nAnswer: 30\n")
    assert not TASK.verify(problem, "Step 2: 30 * 3 = 90\n")
    assert final_answer("Answer: 9 or 10\n") is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 999)), min_size=1, max_size=6))
def test_any_chain_survives_being_written_as_text(start, operations):
    chain = Chain(start % 1_000_000, tuple(operations))
    assert parse_problem(problem_text(chain)) == chain


@pytest.mark.parametrize("text", ["", "Start with 3.", "Start with 3, divide 2.", "Start with 3, add 2", "x"])
def test_another_text_is_no_problem_of_the_task(text):
    with pytest.raises(InputError, match="not a problem"):
        parse_problem(text)


def test_an_unknown_split_and_an_unknown_number_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'test'"):
        TASK.problems("tests", 1, 0)
    with pytest.raises(UsageError, match="say how many"):
        TASK.problems("test", None, 0)
    with pytest.raises(UsageError, match="no 9999999 different"):
        ArithmeticTask(fewest=1, most=1).problems("test", 9_999_999, 0)
