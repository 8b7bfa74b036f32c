import pytest

from prm_kit.evaluate.first_error import Threshold
from prm_kit.evaluate.prmbench import CLASSES, is_prmbench, prmbench_table
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores

FIXED = Threshold(0.0)


def row(name, idx, labels, variant="modified"):
    meta = {"idx": idx, "variant": variant} | ({"classification": name} if name else {})
    solution = Solution.from_steps(f"{name} {idx}", [f"{name} {idx} {k}" for k in range(len(labels))], meta=meta)
    return Labelled(solution, Annotation.of(solution, Rater("construction", "prmbench"), labels))


def says(*values):
    return StepScores(tuple(((1 - value) / 2, 0.0, (1 + value) / 2) for value in values))


# counterfactual: labels + - +, called + - -: TP 1, FN 1, TN 1, FP 0
# redundency:     labels + 0, called + +:      TP 1, FN 0, TN 0, FP 1 (a redundant step is an error)
# multi_solutions: labels + +, called + -:     TP 1, FN 1
ROWS = [
    row("counterfactual", "p0", [1, -1, 1]),
    row("redundency", "redundency_p0", [1, 0]),
    row("multi_solutions", "m0", [1, 1]),
    row(None, "circular_p0", [1, 1], variant="original"),
]
SCORES = [says(0.5, -0.5, -0.5), says(0.5, 0.5), says(0.5, -0.5), says(0.5, 0.5)]


def test_scores_worked_by_hand():
    found = prmbench_table(ROWS, SCORES, FIXED, resamples=20)
    of = found["classes"]
    # F1 2/(2+0+1) = 2/3, negative F1 2/(2+1+0) = 2/3
    assert of["counterfactual"]["prmscore"]["value"] == pytest.approx(2 / 3)
    # F1 2/(2+1+0) = 2/3, negative F1 0/(0+1+0) = 0: 1/3
    assert of["redundency"]["prmscore"]["value"] == pytest.approx(1 / 3)
    # no errors: F1 alone, 2/(2+0+1)
    assert of["multi_solutions"]["prmscore"]["value"] == pytest.approx(2 / 3)
    assert of["multi_solutions"]["negative_f1"]["value"] is None
    # together TP 3, FN 2, TN 1, FP 1: F1 6/9, negative F1 2/5
    assert found["overall"]["prmscore"]["value"] == pytest.approx((6 / 9 + 2 / 5) / 2)
    assert found["overall"]["first_error_accuracy"]["value"] == 0.5
    # a category needs all its classes
    assert found["categories"]["simplicity"]["prmscore"]["value"] is None
    assert of["circular"]["prmscore"]["value"] is None
    assert list(of) == list(CLASSES)


def test_similarity_is_between_a_solution_and_its_original_whatever_class_stands_before_the_name():
    found = prmbench_table(ROWS, SCORES, FIXED, resamples=20)["classes"]
    # the original is called right throughout; 1/3 of the counterfactual one is, all of the redundant one
    assert found["counterfactual"]["similarity"]["value"] == pytest.approx(2 / 3)
    assert found["redundency"]["similarity"]["value"] == pytest.approx(0.0)
    assert found["multi_solutions"]["similarity"]["value"] is None
    rejected = [*SCORES[:3], says(-0.5, -0.5)]
    assert prmbench_table(ROWS, rejected, FIXED, resamples=20)["overall"]["similarity"]["value"] is None


def test_a_name_counts_once_in_a_class():
    again = row("counterfactual", "counterfactual_p0", [1, 1])
    found = prmbench_table([*ROWS, again], [*SCORES, says(-1, -1)], FIXED, resamples=20)
    assert (found["repeated"], found["solutions"]) == (1, 3)
    assert found["overall"] == prmbench_table(ROWS, SCORES, FIXED, resamples=20)["overall"]


def test_a_scorer_that_says_the_labels_is_perfect_in_every_class_and_category():
    rows = [row(name, f"p{i}", [1, 1] if name == "multi_solutions" else [1, -1]) for i, name in enumerate(CLASSES)]
    scores = [says(*(item.annotation.values(2))) for item in rows]
    found = prmbench_table(rows, scores, FIXED, resamples=20)
    assert {figure["prmscore"]["value"] for figure in found["classes"].values()} == {1.0}
    assert {figure["prmscore"]["value"] for figure in found["categories"].values()} == {1.0}


def test_it_agrees_with_confusion_counts_of_scikit_learn():
    import random

    from sklearn.metrics import f1_score

    rng = random.Random(0)
    rows = [row("circular", f"p{i}", [rng.choice([1, -1, 0]) for _ in range(4)]) for i in range(30)]
    scores = [says(*(rng.uniform(-1, 1) for _ in range(4))) for _ in rows]
    truth = [label == 1 for item in rows for label in item.annotation.values(4)]
    called = [value >= 0 for score in scores for value in score.values]
    expected = [f1_score(truth, called, pos_label=positive) for positive in (True, False)]
    found = prmbench_table(rows, scores, FIXED, resamples=20)["classes"]["circular"]
    assert [found["f1"]["value"], found["negative_f1"]["value"]] == pytest.approx(expected)
    assert found["prmscore"]["value"] == pytest.approx(sum(expected) / 2)


def test_without_a_threshold_there_is_no_table_and_other_data_are_not_prmbench():
    assert prmbench_table(ROWS, SCORES, None) is None
    assert is_prmbench(ROWS)
    assert not is_prmbench(ROWS[3:])
