import pytest

from prm_kit.evaluate.selection import selection_table, stated_answer
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores

RATER = Rater("import", "final-answer")


def solution(problem, answer, right, steps=("a", "b"), **meta):
    made = Solution.from_steps(
        problem, [f"{step} {answer}" for step in steps], final_answer=answer, is_correct=right, meta=meta
    )
    return Labelled(made, Annotation(made.id, RATER, ()))


def says(*p_ok):
    return StepScores(tuple((1 - p, 0.0, p) for p in p_ok))


ROWS = [solution("p", "1", True), solution("p", "2", False), solution("q", "3", True), solution("r", "4", None)]
SCORES = {"prm": [says(0.9, 0.2), says(0.5, 0.5), says(1, 1), says(1, 1)]}


def lines(found):
    return {line["name"]: [round(figure["value"], 9) for figure in line["figures"]] for line in found["lines"]}


def test_only_problems_with_two_known_outcomes_have_candidates_and_every_aggregation_a_line():
    found = selection_table(ROWS, SCORES, resamples=10)
    assert (found["sizes"], found["problems"], found["candidates"]) == ([1, 2], [1, 1], 2)
    # p: last 0.2 against 0.5 picks the wrong one, mean 0.55 against 0.5 the right one
    told = lines(found)
    assert told["best by prm, last"] == [0.5, 0.0]
    assert told["best by prm, mean"] == [0.5, 1.0]
    assert told["vote by prm, product"] == [0.5, 0.0]
    assert told["majority"] == [0.5, 0.5]
    assert told["oracle"] == [0.5, 1.0]
    assert [line["pick"] for line in found["lines"]][:4] == ["random", "majority", "oracle", "best"]


def test_a_solution_sampled_thrice_counts_thrice():
    rows = [solution("p", "1", True, samples=[0, 3, 5]), solution("p", "2", False)]
    found = selection_table(rows, {"prm": [says(0.1, 0.1), says(0.9, 0.9)]}, resamples=10)
    assert found["candidates"] == 4
    assert lines(found)["random"] == [0.75, 0.75, 0.75]
    assert lines(found)["best by prm, min"][-1] == 0.0


def test_two_annotations_of_a_solution_are_one_candidate():
    twice = [*ROWS[:2], Labelled(ROWS[0].solution, Annotation(ROWS[0].solution.id, Rater("human", "b"), ()))]
    found = selection_table(twice, {"prm": [*SCORES["prm"][:2], SCORES["prm"][0]]}, resamples=10)
    assert found["candidates"] == 2


def test_unbounded_and_abstaining_scorers_are_picked_by_but_have_no_votes():
    unbounded = [StepScores((None, None), (-3.0, 5.0)), StepScores((None, None), (-4.0, 9.0))]
    silent = [StepScores((None, None)), says(0.1, 0.1)]
    found = selection_table(ROWS[:2], {"implicit": unbounded, "shy": silent}, resamples=10)
    names = [line["name"] for line in found["lines"]]
    assert "best by implicit, min" in names
    assert not any(name.startswith("vote") or name == "best by implicit, product" for name in names)
    assert lines(found)["best by shy, min"][-1] == 0.0


def test_without_candidates_there_is_no_table_and_without_answers_no_votes():
    assert selection_table(ROWS[2:], {"prm": SCORES["prm"][2:]}) is None
    mute = [solution("p", None, right, steps=(step,)) for right, step in ((True, "so"), (False, "well"))]
    found = selection_table(mute, {"prm": [says(0.9), says(0.1)]}, resamples=10)
    assert [line["pick"] for line in found["lines"]] == ["random", "oracle", "best", "best", "best", "best"]


@pytest.mark.parametrize(
    ("answer", "text", "vote"),
    [("$\\text{Tom}$", "x", "Tom"), (None, "so \\boxed{42}.", "42"), (None, "nothing said", None)],
)
def test_answers_are_compared_without_their_dressing_and_looked_for_in_the_text(answer, text, vote):
    assert stated_answer(Solution.from_steps("p", [text], final_answer=answer)) == vote
