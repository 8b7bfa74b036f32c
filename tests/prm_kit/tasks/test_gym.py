import importlib.util

import pytest

from prm_kit.errors import UsageError
from prm_kit.tasks.gym import GymTask
from prm_kit.tasks.task import SPLITS, split_of


@pytest.fixture
def task():
    pytest.importorskip("reasoning_gym", reason="the extra `tasks` is not installed")
    return GymTask("basic_arithmetic")


def test_problems_are_seeded_distinct_and_of_their_split(task):
    for split in SPLITS:
        problems = task.problems(split, 5, 0)
        assert problems == task.problems(split, 5, 0)
        assert len({p.text for p in problems}) == 5
        assert {split_of(p.text) for p in problems} == {split}


def test_the_data_set_itself_judges_the_stated_answer(task):
    problem = task.problems("test", 1, 0)[0]
    assert task.verify(problem, f"The answer is: {problem.reference_answer}") is True
    assert task.verify(problem, f"The answer is: {int(problem.reference_answer) + 1}") is False
    assert task.verify(problem, "no idea") is False
    assert task.verify(problem, "The answer is: " + "9" * 5000) is None


def test_an_answer_of_several_lines_stands_in_tags(task):
    problem = task.problems("test", 1, 0)[0]
    assert task.verify(problem, f"<answer>1</answer> no:\n<answer>\n{problem.reference_answer}\n</answer>") is True


def test_a_checker_that_evaluates_code_never_sees_any(task, tmp_path):
    spiral = GymTask("spiral_matrix")
    problem = spiral.problems("train", 1, 0)[0]
    file = tmp_path / "touched"
    for hostile in (f"open({str(file)!r}, 'w')", "[[0] * 9]", "9**9**9", "9* *9", "().__class__"):
        assert spiral.verify(problem, f"<answer>{hostile}</answer>") is None
    assert not file.exists()
    assert spiral.verify(problem, f"<answer>{problem.reference_answer}</answer>") is True
    assert spiral.verify(problem, "<answer>1 2</answer>") is False


def test_an_unknown_data_set_names_the_nearest(task):
    with pytest.raises(UsageError, match="Did you mean 'basic_arithmetic'"):
        GymTask("basic_arithmetics")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'prm-kit\[tasks\]'"):
        GymTask("basic_arithmetic")
