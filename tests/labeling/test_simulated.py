from collections import Counter

import pytest

from labeling.simulated import HABITS, SimulatedAnnotator
from prm_kit.errors import UsageError
from prm_kit.records import Annotation, Rater, Solution

EXPERT = Rater("human", "expert")


def truth_of(rows):
    solutions = [Solution.from_steps(f"p{i}", [f"s{j}" for j in range(len(row))]) for i, row in enumerate(rows)]
    return solutions, {s.id: Annotation.of(s, EXPERT, row) for s, row in zip(solutions, rows, strict=True)}


def answers(rows, confusion="careful", **fields):
    solutions, truth = truth_of(rows)
    annotator = SimulatedAnnotator("ann", truth, confusion, **fields)
    return [list(a.values(len(r))) for a, r in zip(annotator.label(solutions), rows, strict=True)]


def test_the_exact_one_says_the_truth_and_nothing_of_what_the_truth_leaves_open():
    rows = [[1, 0, -1, None], [None, 1]]
    assert answers(rows, "exact") == rows


def test_error_rates_are_those_asked_for():
    rows = [[-1, 0, 1]] * 1
    solutions = [Solution.from_steps(f"p{i}", ["a", "b", "c"]) for i in range(4000)]
    truth = {s.id: Annotation.of(s, EXPERT, rows[0]) for s in solutions}
    confusion = HABITS["careless"]
    said = [Counter(), Counter(), Counter()]
    for annotation in SimulatedAnnotator("ann", truth, confusion).label(solutions):
        for step, value in enumerate(annotation.values(3)):
            said[step][value] += 1
    for counts, row in zip(said, confusion, strict=True):
        # Four standard errors of a share of 4,000 draws are below 0.032.
        assert [counts[value] / 4000 for value in (-1, 0, 1)] == pytest.approx(row, abs=0.032)


def test_the_order_of_solutions_and_other_annotators_change_nothing():
    solutions, truth = truth_of([[1, -1, 0]] * 3 + [[1, 1]] * 3)
    one = {a.solution_id: a.id for a in SimulatedAnnotator("ann", truth, "careless").label(solutions)}
    other = {a.solution_id: a.id for a in SimulatedAnnotator("ann", truth, "careless").label(solutions[::-1])}
    assert one == other
    by_ben = [a.values(3) for a in SimulatedAnnotator("ben", truth, "careless").label(solutions)]
    assert by_ben != [a.values(3) for a in SimulatedAnnotator("ann", truth, "careless").label(solutions)]


def test_it_is_called_simulated_and_its_version_changes_with_settings_and_truth():
    solutions, truth = truth_of([[1], [1]])
    first = SimulatedAnnotator("ann", truth)
    assert first.rater.kind == "simulated"
    others = [
        SimulatedAnnotator("ann", truth, seed=1),
        SimulatedAnnotator("ann", truth, "strict"),
        SimulatedAnnotator("ann", {solutions[0].id: truth[solutions[0].id]}),
    ]
    assert len({rater.rater.version for rater in [first, *others]}) == 4


def test_fatigue_makes_late_steps_worse():
    rows = [[1] * 20] * 60
    solutions = [Solution.from_steps(f"p{i}", [f"s{j}" for j in range(20)]) for i in range(60)]
    truth = {s.id: Annotation.of(s, EXPERT, row) for s, row in zip(solutions, rows, strict=True)}
    said = [a.values(20) for a in SimulatedAnnotator("ann", truth, "exact", fatigue=0.03).label(solutions)]
    wrong = [sum(row[step] != 1 for row in said) for step in range(20)]
    assert wrong[0] == 0
    assert sum(wrong[10:]) > 2 * sum(wrong[:10])


def test_whoever_stops_at_the_first_error_says_nothing_after_it_and_whoever_skips_leaves_steps_out():
    assert answers([[1, -1, 1], [1, 1, 1]], "exact", first_error_only=True) == [[1, -1, None], [1, 1, 1]]
    assert answers([[1, -1, 1]], "exact", skip=1.0) == [[None, None, None]]


def test_an_unknown_solution_is_left_without_labels():
    [annotation] = SimulatedAnnotator("ann", {}).label([Solution.from_steps("p", ["x", "y"])])
    assert (annotation.labels, annotation.meta) == ((), {"steps": 2})


def test_what_is_no_distribution_and_no_habit_is_refused():
    with pytest.raises(UsageError, match="sum to 1"):
        SimulatedAnnotator("ann", {}, ((0.5, 0.5, 0.5), (0, 1, 0), (0, 0, 1)))
    with pytest.raises(UsageError, match="careful"):
        SimulatedAnnotator("ann", {}, "carefull")
    with pytest.raises(UsageError, match="skip"):
        SimulatedAnnotator("ann", {}, skip=2)
