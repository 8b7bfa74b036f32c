import numpy as np

from prm_kit.evaluate.rows import judged_steps, probabilities_of
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores


def labelled(problem, steps, values):
    solution = Solution.from_steps(problem, steps)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


def test_steps_after_the_first_error_that_nobody_judged_are_no_rows():
    rows = judged_steps([labelled("p", ["a", "b", "c"], [1, -1, None])])
    assert rows.label.tolist() == [1, -1]
    assert rows.step.tolist() == [0, 1]
    assert rows.n_steps.tolist() == [3, 3]


def test_the_shared_prefix_of_branches_counts_once():
    trunk = labelled("p", ["a", "b"], [1, 1])
    branch = labelled("p", ["a", "x"], [1, -1])
    other_problem = labelled("q", ["a"], [1])
    same_text_later = labelled("p", ["b", "b"], [0, 1])
    rows = judged_steps([trunk, branch, other_problem, same_text_later])
    assert rows.solution.tolist() == [0, 0, 1, 2, 3, 3]
    assert rows.n_repeated == 1
    assert rows.problem.tolist() == [0, 0, 0, 1, 0, 0]


def test_raters_that_disagree_on_the_same_step_both_count():
    rows = judged_steps([labelled("p", ["a"], [1]), labelled("p", ["a"], [-1])])
    assert rows.label.tolist() == [1, -1]
    assert rows.n_repeated == 0


def test_an_abstention_is_a_row_of_nan():
    rows = judged_steps([labelled("p", ["a", "b"], [1, 1])])
    found = probabilities_of(rows, [StepScores(((0.2, 0.3, 0.5), None))])
    assert found[0].tolist() == [0.2, 0.3, 0.5]
    assert np.isnan(found[1]).all()


def test_no_solution_gives_no_row():
    rows = judged_steps([])
    assert len(rows) == 0
    assert rows.n_problems == 0
    assert probabilities_of(rows, []).shape == (0, 3)
