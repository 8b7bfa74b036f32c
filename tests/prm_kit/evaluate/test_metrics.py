import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from prm_kit.evaluate.bootstrap import Bootstrap
from prm_kit.evaluate.metrics import (
    ABSTAINED,
    METRIC_NAMES,
    confusion_counts,
    confusion_metrics,
    predicted_classes,
    step_metrics,
    step_table,
    weighted_auroc,
    weighted_average_precision,
)
from prm_kit.evaluate.rows import StepRows

NAN = [np.nan] * 3


def rows_of(label, problem=None):
    n = len(label)
    label = np.array(label)
    problem = np.arange(n) if problem is None else np.array(problem)
    zeros = np.zeros(n, int)
    return StepRows(zeros, zeros, problem, label, zeros + 1, int(problem.max(initial=-1)) + 1, 0)


def test_the_metrics_of_four_steps_by_hand():
    label = np.array([1, 1, -1, -1])
    p = np.array([[0.1, 0.1, 0.8], [0.6, 0.1, 0.3], [0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])
    # predicted +1, -1, -1, +1; values .7, -.3, -.6, .4
    found = step_metrics(label, p)
    assert found["accuracy"] == 0.5
    assert found["precision -1"] == found["recall -1"] == found["f1 -1"] == 0.5
    assert found["macro_f1"] == found["balanced_accuracy"] == 0.5
    # pairs (+1 above -1): .7>-.6, .7>.4, -.3>-.6, -.3<.4: 3 of 4
    assert found["auroc_right"] == found["auroc_wrong"] == 0.75
    # wrong first by -value: .6 (wrong), .3, -.4 (wrong), -.7: 1/1 and 2/3, mean 5/6
    assert found["average_precision_wrong"] == pytest.approx(5 / 6)
    assert found["precision 0"] is None
    assert found["recall 0"] is None
    assert found["f1 0"] is None


def test_an_abstention_costs_recall_and_accuracy_but_not_precision():
    label = np.array([1, 1, -1])
    p = np.array([[0, 0, 1.0], NAN, [1.0, 0, 0]])
    assert predicted_classes(p).tolist() == [1, ABSTAINED, -1]
    found = step_metrics(label, p)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["recall 1"] == 0.5
    assert found["precision 1"] == 1.0
    assert found["auroc_wrong"] == 1.0
    assert confusion_counts(label, predicted_classes(p)).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]


def test_a_single_class_leaves_rankings_undefined_and_does_not_crash():
    found = step_metrics(np.array([1, 1]), np.array([[0, 0, 1.0], [0.5, 0, 0.5]]))
    assert found["auroc_right"] is None
    assert found["auroc_wrong"] is None
    assert found["average_precision_wrong"] is None
    assert found["accuracy"] == 0.5


def test_no_step_and_a_scorer_that_only_abstains_are_undefined_not_a_crash():
    assert set(step_metrics(np.zeros(0, int), np.zeros((0, 3))).values()) == {None}
    found = step_metrics(np.array([1, -1]), np.array([NAN, NAN]))
    assert found["accuracy"] == 0.0
    assert found["auroc_wrong"] is None
    table, _ = step_table(rows_of([1, -1]), np.array([NAN, NAN]), Bootstrap(2, 20))
    assert table["answered"] == 0
    assert table["auroc_wrong"]["value"] is None


def test_a_class_without_labels_is_not_averaged_in():
    # labels -1 and +1 all found, class 0 predicted never: macro-F1 is 1, not 2/3
    found = step_metrics(np.array([1, -1]), np.array([[0, 0, 1.0], [1.0, 0, 0]]))
    assert found["macro_f1"] == 1.0


numbers = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=12).filter(
    lambda rows: len({row[1] for row in rows if row[2]}) == 2
)


@settings(deadline=None, max_examples=40)
@given(numbers)
def test_weighted_rankings_are_scikit_learns(rows):
    score, positive, weight = (np.array(column) for column in zip(*rows, strict=True))
    weights = weight[None, :].astype(float)
    auroc = roc_auc_score(positive, score, sample_weight=weight)
    assert weighted_auroc(score.astype(float), positive, weights)[0] == pytest.approx(auroc)
    precision = average_precision_score(positive, score, sample_weight=weight)
    assert weighted_average_precision(score.astype(float), positive, weights)[0] == pytest.approx(precision)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 0, 1, 2])), min_size=1, max_size=12))
def test_metrics_from_confusion_counts_are_scikit_learns(pairs):
    label, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    p = np.array([NAN if c == ABSTAINED else np.eye(3)[c + 1] for c in predicted])
    counts = confusion_counts(label, predicted_classes(p))
    found = confusion_metrics(counts[None].astype(float), counts.sum(axis=1) > 0)
    for name, value in step_metrics(label, p).items():
        if name in found:
            assert found[name][0] == pytest.approx(np.nan if value is None else value, nan_ok=True), name


def test_intervals_hold_their_values_and_reach_wider_when_steps_share_problems():
    rng = np.random.default_rng(0)
    problem = np.repeat(np.arange(20), 10)
    easy = np.repeat(rng.random(20) < 0.5, 10)  # a problem is easy or hard as a whole
    label = np.where(rng.random(200) < 0.5, 1, -1)
    right = np.where(label == 1, 0.9, 0.1)
    up = np.where(easy, right, 0.5 + 0.01 * rng.normal(size=200))
    p = np.stack([1 - up, np.zeros(200), up], axis=1)
    clustered, _ = step_table(rows_of(label, problem), p, Bootstrap(20, 300))
    alone, _ = step_table(rows_of(label), p, Bootstrap(200, 300))
    for name in ("accuracy", "auroc_wrong"):
        assert clustered[name]["low"] <= clustered[name]["value"] <= clustered[name]["high"]
        assert clustered[name]["value"] == alone[name]["value"]
    width = {key: t["accuracy"]["high"] - t["accuracy"]["low"] for key, t in (("c", clustered), ("a", alone))}
    assert width["c"] > 1.3 * width["a"]


def test_the_table_names_every_metric_and_counts_support():
    table, replicates = step_table(rows_of([1, -1, 0]), np.eye(3)[[2, 0, 1]], Bootstrap(3, 20))
    assert set(replicates) == set(METRIC_NAMES)
    assert table["classes"]["0"]["support"] == table["classes"]["0"]["predicted"] == 1
    assert table["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert table["confusion"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
