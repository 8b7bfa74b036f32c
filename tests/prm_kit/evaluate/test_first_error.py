import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.evaluate.bootstrap import Bootstrap, problem_numbers
from prm_kit.evaluate.first_error import (
    NO_ERROR,
    UNSETTLED,
    Threshold,
    choose_threshold,
    harmonic_mean,
    predicted_first_error,
    predicted_first_errors,
    sweep,
    true_first_errors,
)
from prm_kit.evaluate.first_error_table import distances, first_error_table
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores


def labelled(values, problem="p", **fields):
    solution = Solution.from_steps(problem, [f"{problem} step {i}" for i in range(len(values))], **fields)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


def says(*values):
    return StepScores(tuple(None if v is None else ((1 - v) / 2, 0.0, (1 + v) / 2) for v in values))


def table_of(items, scores, subsets, threshold=None, resamples=50):
    problem = problem_numbers([item.solution.problem for item in items])
    bootstrap = Bootstrap(int(problem.max()) + 1, resamples)
    return first_error_table(items, scores, threshold or Threshold(0.0), subsets, bootstrap, problem)[0]


def test_the_first_error_is_zero_based_and_unsettled_where_a_step_before_it_is_unjudged():
    values = [[-1, None], [1, -1], [1, 0], [None, -1], [1, None], [None], []]
    expected = [0, 1, NO_ERROR, UNSETTLED, UNSETTLED, UNSETTLED, NO_ERROR]
    assert true_first_errors([labelled(value) for value in values]).tolist() == expected


def test_the_first_step_below_the_threshold_is_named_and_an_abstention_never_is():
    assert predicted_first_error(says(0.5, -0.1, -0.9), Threshold(0.0)) == 1
    assert predicted_first_error(says(0.5, None, -0.9), Threshold(0.0)) == 2
    assert predicted_first_error(says(0.5, 0.0), Threshold(0.0)) is None
    assert predicted_first_error(says(None, None), Threshold(2.0)) is None
    assert predicted_first_error(StepScores(((0.4, 0.6, 0.0),)), Threshold(0.7, "p_ok")) == 0
    assert predicted_first_error(StepScores(((0.4, 0.6, 0.0),)), Threshold(0.6, "p_ok")) is None


def test_accuracies_and_f1_by_hand():
    items = [labelled([1, -1], "a"), labelled([-1, None], "b"), labelled([1, 1], "c"), labelled([1, 1], "d")]
    scores = [says(0.9, -0.5), says(0.9, -0.5), says(0.9, 0.9), says(0.9, 0.9)]
    found = table_of(items, scores, ["x"] * 4)["all"]
    # one of two errors named exactly, both clean ones passed: F1 = 2 * .5 * 1 / 1.5 = 2/3
    assert found["error_accuracy"]["value"] == 0.5
    assert found["correct_accuracy"]["value"] == 1.0
    assert found["f1"]["value"] == pytest.approx(2 / 3)
    assert (found["n_error"], found["n_correct"], found["f1"]["n"]) == (2, 2, 4)


def test_the_plain_and_the_size_weighted_mean_of_subsets_are_both_named():
    # subset "small": F1 1 over 2 solutions; subset "large": error-accuracy 0, so F1 0, over 4 solutions
    small = [labelled([-1], "a"), labelled([1], "b")]
    large = [labelled([-1], name) for name in "cde"] + [labelled([1], "f")]
    scores = [says(-0.5), says(0.5), *[says(0.5)] * 3, says(0.5)]
    found = table_of(small + large, scores, ["small"] * 2 + ["large"] * 4)
    assert found["f1_mean"]["value"] == 0.5
    assert found["f1_weighted_mean"]["value"] == pytest.approx(1 / 3)
    # as one set: 1 of 4 errors, 2 of 2 clean: 2 * .25 / 1.25 = .4
    assert found["all"]["f1"]["value"] == pytest.approx(0.4)


def test_a_subset_without_clean_solutions_has_no_f1_and_no_part_in_the_means():
    items = [labelled([-1], "a"), labelled([1], "b"), labelled([-1], "c")]
    found = table_of(items, [says(-0.5), says(0.5), says(0.5)], ["both", "both", "errors"])
    assert found["subsets"]["errors"]["f1"]["value"] is None
    assert found["subsets"]["errors"]["error_accuracy"]["value"] == 0.0
    assert found["f1_mean"]["value"] == found["f1_weighted_mean"]["value"] == 1.0


def test_right_answer_wrong_process_is_a_subset_of_its_own():
    items = [
        labelled([1, -1], "a", is_correct=True),
        labelled([-1, None], "b", is_correct=True),
        labelled([1, -1], "c", is_correct=False),
        labelled([1, 1], "d", is_correct=True),
    ]
    scores = [says(0.5, -0.5), says(0.5, -0.5), says(0.5, 0.5), says(0.5, -0.5)]
    found = table_of(items, scores, ["x"] * 4)["right_answer_wrong_process"]
    assert found["exact"]["value"] == 0.5
    assert found["noticed"]["value"] == 1.0
    assert found["exact"]["n"] == 2


def test_solutions_with_unsettled_labels_are_counted_apart_and_nowhere_else():
    items = [labelled([-1], "a"), labelled([1], "b"), labelled([None, -1], "c")]
    found = table_of(items, [says(-0.5), says(0.5), says(0.5, 0.5)], ["x"] * 3)
    assert found["n_unsettled"] == 1
    assert found["all"]["f1"] == {"value": 1.0, "low": None, "high": None, "n": 2}


def test_distances_count_early_late_and_missed():
    truth = np.array([7, 2, 2, 0, NO_ERROR, UNSETTLED])
    named = np.array([0, 2, 3, NO_ERROR, 1, 1])
    found = {key: n for key, n in distances(truth, named).items() if n}
    assert found == {"<=-5": 1, "0": 1, "1": 1, "none": 1}


def test_the_threshold_comes_from_the_named_split_and_separates_it():
    items = [labelled([1, -1], "a"), labelled([1, 1], "b")]
    chosen = choose_threshold(items, [says(0.8, 0.2), says(0.9, 0.6)], "held out")
    # between the wrong step's .2 and the lowest right score .6
    assert chosen == Threshold(pytest.approx(0.4), "value", "held out", 1.0, 2)


def test_a_scorer_that_calls_everything_right_names_no_step_whatever_the_threshold_chosen():
    items = [labelled([1, -1], "a"), labelled([1, 1], "b")]
    scores = [says(1.0, 1.0), says(1.0, 1.0)]
    chosen = choose_threshold(items, scores, "dev")
    assert predicted_first_errors(scores, chosen).tolist() == [NO_ERROR, NO_ERROR]


def test_a_split_that_cannot_settle_a_threshold_is_refused_by_name():
    with pytest.raises(InputError, match="'dev': it has 0 solutions with an error and 1 without"):
        choose_threshold([labelled([1])], [says(0.5)], "dev")
    with pytest.raises(InputError, match="settle its first error"):
        sweep([labelled([None])], [says(0.5)])
    with pytest.raises(UsageError, match="unknown step number"):
        predicted_first_error(says(0.5), Threshold(0.0, "p_bad"))


step = st.one_of(st.none(), st.integers(-4, 4).map(lambda x: x / 4))
solutions = st.lists(
    st.lists(st.tuples(st.sampled_from([1, 0, -1]), step), min_size=1, max_size=4), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=60)
@given(solutions)
def test_the_sweep_agrees_with_counting_at_every_threshold(drawn):
    items = [labelled([label for label, _ in rows], f"p{i}") for i, rows in enumerate(drawn)]
    scores = [says(*(value for _, value in rows)) for rows in drawn]
    truth = true_first_errors(items)
    found = sweep(items, scores)
    for index, threshold in enumerate(found.threshold):
        named = predicted_first_errors(scores, Threshold(float(threshold)))
        for values, group in ((found.error_accuracy, truth >= 0), (found.correct_accuracy, truth == NO_ERROR)):
            expected = (named == truth)[group].mean() if group.any() else np.nan
            assert values[index] == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(solutions)
def test_no_other_threshold_does_better_on_the_split_it_was_chosen_on(drawn):
    items = [labelled([label for label, _ in rows], f"p{i}") for i, rows in enumerate(drawn)]
    scores = [says(*(value for _, value in rows)) for rows in drawn]
    truth = true_first_errors(items)
    if not (truth >= 0).any() or not (truth == NO_ERROR).any():
        return
    chosen = choose_threshold(items, scores, "dev")
    elsewhere = sweep(items, scores, thresholds=np.linspace(-1.1, 1.1, 45))
    assert chosen.f1 >= elsewhere.f1.max() - 1e-9
    at = sweep(items, scores, thresholds=np.array([chosen.value]))
    assert at.f1[0] == pytest.approx(chosen.f1)


def test_the_harmonic_mean_of_two_zeros_is_zero_and_of_nothing_nan():
    found = harmonic_mean(np.array([0.0, 1.0, np.nan]), np.array([0.0, 0.5, 1.0]))
    assert found == pytest.approx([0.0, 2 / 3, np.nan], nan_ok=True)
