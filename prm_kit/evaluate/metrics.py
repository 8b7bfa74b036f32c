"""Step-level metrics: how well a scorer tells -1, 0 and +1 apart.

The predicted class of a step is the argmax of its three probabilities (the lower class wins a tie). A step on which
the scorer abstains is a fourth answer: it counts against accuracy and recall, never for precision, and the rankings
(AUROC, average precision) are over the answered steps, whose number stands beside them. Values come from
scikit-learn; the intervals from weighted forms of the same metrics, vectorised over resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, number_or_none, ratio, sums_by_problem
from prm_kit.evaluate.rows import StepRows
from prm_kit.records import LABEL_VALUES

ABSTAINED = 2
"""The predicted "class" of a step on which a scorer abstains."""

WeightedRanking = Callable[[FloatArray, NDArray[np.bool_], FloatArray], FloatArray]
"""(scores [N], is positive [N], weights [r, N]) to [r]; NaN where one side has no weight."""


def predicted_classes(probabilities_N3: FloatArray) -> IntArray:
    """Argmax label (-1, 0, +1) per step, `ABSTAINED` where the probabilities are NaN."""
    abstained = np.isnan(probabilities_N3).any(axis=1)
    best = np.nan_to_num(probabilities_N3, nan=-1.0).argmax(axis=1)
    return np.where(abstained, ABSTAINED, np.array(LABEL_VALUES)[best])


def step_metrics(label_N: IntArray, probabilities_N3: FloatArray) -> dict[str, float | None]:
    """Point values of every metric, by name; None where a metric is undefined.

    Undefined are the precision of a class that was never predicted, the recall of a class without labels, the F1 of a
    class that is neither, and rankings that have only one side. `macro_f1` and `balanced_accuracy` are means over the
    classes that have labels.

    Args:
        label_N: -1, 0 or +1 per step.
        probabilities_N3: Class probabilities per step, NaN where the scorer abstains.
    """
    if not len(label_N):
        return dict.fromkeys(METRIC_NAMES)
    predicted = predicted_classes(probabilities_N3)
    present = sorted(set(label_N.tolist()))
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        label_N, predicted, labels=list(LABEL_VALUES), zero_division=np.nan
    )
    of_present = [LABEL_VALUES.index(label) for label in present]
    found: dict[str, float] = {
        "accuracy": float(sk.accuracy_score(label_N, predicted)),
        "balanced_accuracy": float(np.mean(recall[of_present])),
        "macro_f1": float(np.mean(f1[of_present])),
    }
    for index, label in enumerate(LABEL_VALUES):
        found |= {f"precision {label}": precision[index], f"recall {label}": recall[index], f"f1 {label}": f1[index]}
    answered = predicted != ABSTAINED
    value = (probabilities_N3[:, 2] - probabilities_N3[:, 0])[answered]
    found |= ranking_metrics(label_N[answered], value)
    return {name: number_or_none(found[name]) for name in METRIC_NAMES}


def step_table(
    rows: StepRows, probabilities_N3: FloatArray, bootstrap: Bootstrap, unbounded_N: FloatArray | None = None
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """The step-level part of an evaluation for one scorer, and the replicates [R] of its metrics by name.

    `prm_kit.evaluate.evaluation` lists the keys of the table.

    Args:
        rows: Judged steps.
        probabilities_N3: The scorer's class probabilities, NaN where it abstains.
        bootstrap: Resamples of problems.
        unbounded_N: What a scorer without probabilities says, NaN where it abstains: only the rankings are defined.
    """
    if unbounded_N is not None:
        return _ranking_table(rows, unbounded_N, bootstrap)
    points = step_metrics(rows.label, probabilities_N3)
    confusion = confusion_counts(rows.label, predicted_classes(probabilities_N3))
    replicates = metric_replicates(rows, probabilities_N3, bootstrap)
    n, answered = len(rows), int(confusion[:, :3].sum())
    measures = {
        name: bootstrap.measure(points[name], replicates[name], answered if name in RANKINGS else n)
        for name in METRIC_NAMES
    }
    table = _table(n, answered, measures, confusion.sum(axis=1), confusion[:, :3].sum(axis=0))
    return table | {"confusion": confusion.tolist()}, replicates


def ranking_metrics(label_N: IntArray, value_N: FloatArray) -> dict[str, float]:
    """The rankings over answered steps, by name; NaN where there is only one side."""
    found = {}
    for name, (of, sign, ranking, _) in RANKINGS.items():
        positive = label_N == of
        one_sided = positive.all() or not positive.any()
        found[name] = np.nan if one_sided else float(ranking(positive, sign * value_N))
    return found


def metric_replicates(rows: StepRows, probabilities_N3: FloatArray, bootstrap: Bootstrap) -> dict[str, FloatArray]:
    """Replicates [R] of every metric of `step_metrics`, by name."""
    predicted = predicted_classes(probabilities_N3)
    cells = _one_hot_cells(rows.label, predicted)
    counts = bootstrap.of_sums(sums_by_problem(rows.problem, cells, bootstrap.n_problems), lambda sums: sums)
    found = confusion_metrics(counts.reshape(-1, 3, 4), present=cells.sum(axis=0).reshape(3, 4).sum(axis=1) > 0)
    answered = predicted != ABSTAINED
    value = (probabilities_N3[:, 2] - probabilities_N3[:, 0])[answered]
    for name in RANKINGS:
        found[name] = ranking_replicates(name, rows.label[answered], value, rows.problem[answered], bootstrap)
    return found


def ranking_replicates(
    name: str, label_N: IntArray, value_N: FloatArray, problem_N: IntArray, bootstrap: Bootstrap
) -> FloatArray:
    """Replicates [R] of one of `RANKINGS` over answered steps; all NaN where it has only one side."""
    label, sign, _, weighted = RANKINGS[name]
    positive = label_N == label
    if positive.all() or not positive.any():
        return np.full(bootstrap.resamples, np.nan)
    return bootstrap.of_items(problem_N, lambda weights: weighted(sign * value_N, positive, weights))


def confusion_counts(label_N: IntArray, predicted_N: IntArray) -> IntArray:
    """Counts [3, 4]: rows are labels (-1, 0, +1), columns predictions (-1, 0, +1, abstained)."""
    counts: IntArray = _one_hot_cells(label_N, predicted_N).sum(axis=0).reshape(3, 4).astype(np.int64)
    return counts


def confusion_metrics(counts_R34: FloatArray, present: NDArray[np.bool_]) -> dict[str, FloatArray]:
    """The metrics that follow from confusion counts, [R] each, NaN where undefined.

    Args:
        counts_R34: Confusion counts of each resample.
        present: Which of the three classes have labels in the data as a whole; the means are over these.
    """
    hits = np.diagonal(counts_R34[:, :, :3], axis1=1, axis2=2)
    support, predicted = counts_R34.sum(axis=2), counts_R34[:, :, :3].sum(axis=1)
    precision, recall = ratio(hits, predicted), ratio(hits, support)
    f1 = ratio(2 * hits, support + predicted)
    found = {
        "accuracy": ratio(hits.sum(axis=1), support.sum(axis=1)),
        "balanced_accuracy": ratio(recall[:, present].sum(axis=1), np.array(float(present.sum()))),
        "macro_f1": ratio(f1[:, present].sum(axis=1), np.array(float(present.sum()))),
    }
    for index, label in enumerate(LABEL_VALUES):
        found[f"precision {label}"] = precision[:, index]
        found[f"recall {label}"] = recall[:, index]
        found[f"f1 {label}"] = f1[:, index]
    return found


def weighted_auroc(score_N: FloatArray, positive_N: NDArray[np.bool_], weights_rN: FloatArray) -> FloatArray:
    """Area under the ROC curve per row of weights; a tie counts half. NaN where one side has no weight."""
    right, wrong = _tied_weights(score_N, positive_N, weights_rN)
    below = np.cumsum(wrong, axis=1) - wrong
    return ratio((right * (below + wrong / 2)).sum(axis=1), right.sum(axis=1) * wrong.sum(axis=1))


def weighted_average_precision(
    score_N: FloatArray, positive_N: NDArray[np.bool_], weights_rN: FloatArray
) -> FloatArray:
    """Average precision (sum of precision times gain in recall) per row of weights; NaN without a positive."""
    right, wrong = (part[:, ::-1] for part in _tied_weights(score_N, positive_N, weights_rN))
    found = np.cumsum(right, axis=1)
    precision = np.nan_to_num(ratio(found, found + np.cumsum(wrong, axis=1)))
    return ratio((right * precision).sum(axis=1), found[:, -1])


def _ranking_table(
    rows: StepRows, value_N: FloatArray, bootstrap: Bootstrap
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """`step_table` of a scorer that ranks steps and knows no classes."""
    answered = np.isfinite(value_N)
    label, value, problem = rows.label[answered], value_N[answered], rows.problem[answered]
    points = ranking_metrics(label, value)
    replicates = {name: np.full(bootstrap.resamples, np.nan) for name in METRIC_NAMES}
    replicates |= {name: ranking_replicates(name, label, value, problem, bootstrap) for name in RANKINGS}
    measures = {
        name: bootstrap.measure(points.get(name), replicates[name], len(value) if name in RANKINGS else 0)
        for name in METRIC_NAMES
    }
    support = confusion_counts(rows.label, np.full(len(rows), ABSTAINED)).sum(axis=1)
    return _table(len(rows), len(value), measures, support, None) | {"confusion": None}, replicates


def _table(
    n: int, answered: int, measures: dict[str, dict[str, Any]], support: IntArray, predicted: IntArray | None
) -> dict[str, Any]:
    """A step table from its measures by name; those of a class go below the class."""
    classes = {
        str(label): {
            **{name: measures.pop(f"{name} {label}") for name in ("precision", "recall", "f1")},
            "support": int(support[index]),
            "predicted": None if predicted is None else int(predicted[index]),
        }
        for index, label in enumerate(LABEL_VALUES)
    }
    return {"n": n, "answered": answered, **measures, "classes": classes}


def _tied_weights(
    score_N: FloatArray, positive_N: NDArray[np.bool_], weights_rN: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weights of positives and negatives [r, G] at each of the G distinct scores, ascending."""
    order = np.argsort(score_N, kind="stable")
    _, starts = np.unique(score_N[order], return_index=True)
    weights, positive = weights_rN[:, order], positive_N[order]
    return (
        np.add.reduceat(weights * positive, starts, axis=1),
        np.add.reduceat(weights * ~positive, starts, axis=1),
    )


def _one_hot_cells(label_N: IntArray, predicted_N: IntArray) -> FloatArray:
    cells: FloatArray = np.eye(12)[(label_N + 1) * 4 + predicted_N + 1]
    return cells


RANKINGS: dict[str, tuple[int, float, Callable[..., float], WeightedRanking]] = {
    "auroc_right": (1, 1.0, sk.roc_auc_score, weighted_auroc),
    "auroc_wrong": (-1, -1.0, sk.roc_auc_score, weighted_auroc),
    "average_precision_wrong": (-1, -1.0, sk.average_precision_score, weighted_average_precision),
}
"""Rankings by the value p(+1) - p(-1): the positive label, the sign of the value, the metric, its weighted form."""

METRIC_NAMES: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    *RANKINGS,
    *(f"{name} {label}" for label in LABEL_VALUES for name in ("precision", "recall", "f1")),
)
