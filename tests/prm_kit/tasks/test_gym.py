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


def test_a_checker_that_evaluates_answers_as_code_is_refused(task):
    with pytest.raises(UsageError, match="evaluates answers as code"):
        GymTask("spiral_matrix")


def test_an_unknown_data_set_names_the_nearest(task):
    with pytest.raises(UsageError, match="Did you mean 'basic_arithmetic'"):
        GymTask("basic_arithmetics")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'prm-kit\[tasks\]'"):
        GymTask("basic_arithmetic")
