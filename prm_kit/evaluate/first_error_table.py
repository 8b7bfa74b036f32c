"""The table of the first-error protocol: accuracies and F1 per subset with intervals, and how far off the names are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, ratio, sums_by_problem
from prm_kit.evaluate.first_error import (
    NO_ERROR,
    NO_THRESHOLD,
    UNSETTLED,
    Threshold,
    harmonic_mean,
    predicted_first_errors,
    true_first_errors,
)
from prm_kit.records import Labelled
from prm_kit.score import StepScores

FAR = 5
"""Distances from the true first error are counted one by one up to this many steps, then together."""


def first_error_table(
    labelled: Sequence[Labelled],
    scores: Sequence[StepScores],
    threshold: Threshold | None,
    subsets: Sequence[str],
    bootstrap: Bootstrap,
    problem_L: IntArray,
) -> tuple[dict[str, Any], FloatArray]:
    """The first-error part of an evaluation for one scorer, and the replicates of its headline.

    Args:
        labelled: The evaluated solutions (L).
        scores: The scorer's answers.
        threshold: Chosen elsewhere; None where there is none (an unbounded scorer without a development split):
            every figure is then undefined.
        subsets: The subset of each solution.
        bootstrap: Resamples of problems.
        problem_L: Number of each solution's problem.

    Returns:
        The table (keys in `prm_kit.evaluate.evaluation`) and the replicates [R] of `f1_mean`.
    """
    truth, predicted = true_first_errors(labelled), predicted_first_errors(scores, threshold)
    unsettled = int((truth == UNSETTLED).sum())
    if threshold is None:
        truth = np.full_like(truth, UNSETTLED)
    names = sorted(set(subsets))
    hits_L4 = _hits(truth, predicted)
    member = np.array([[subset == name for name in names] for subset in subsets], dtype=float)
    cells = (member[:, :, None] * hits_L4[:, None, :]).reshape(len(subsets), -1)
    shape = (-1, len(names), 4)
    sums = sums_by_problem(problem_L, cells, bootstrap.n_problems)
    points = _accuracies(sums.sum(axis=0).reshape(shape))
    replicates = _accuracies(bootstrap.of_sums(sums, lambda drawn: drawn).reshape(shape))
    n_error, n_ok = points.pop("n_error")[0], points.pop("n_correct")[0]
    sizes = {"error_accuracy": n_error, "correct_accuracy": n_ok, "f1": n_error + n_ok}

    def measured(key: str, column: int) -> dict[str, Any]:
        return bootstrap.measure(points[key][0, column], replicates[key][:, column], int(sizes[key][column]))

    rows = [
        {key: measured(key, column) for key in sizes}
        | {"n_error": int(n_error[column]), "n_correct": int(n_ok[column])}
        for column in range(len(names) + 1)
    ]
    n = int((n_error + n_ok)[-1])
    means = {key: bootstrap.measure(points[key][0], replicates[key], n) for key in ("f1_mean", "f1_weighted_mean")}
    table = {
        "threshold": threshold.to_json() if threshold else NO_THRESHOLD,
        "n_unsettled": unsettled,
        "subsets": dict(zip(names, rows, strict=False)),
        "all": rows[-1],
        **means,
        "right_answer_wrong_process": _right_answer(labelled, truth, predicted, bootstrap, problem_L),
        "distance": distances(truth, predicted),
    }
    return table, replicates["f1_mean"]


def distances(truth_L: IntArray, predicted_L: IntArray) -> dict[str, int]:
    """How far from the true first error the named step is, over solutions with an error.

    Keys "<=-5", "-4", ... "0" ... "4", ">=5" (negative: too early), and "none" where no step was named.
    """
    wrong = truth_L >= 0
    off = (predicted_L - truth_L)[wrong & (predicted_L >= 0)]
    counts = {
        f"<=-{FAR}" if step == -FAR else f">={FAR}" if step == FAR else str(step): int(
            (np.clip(off, -FAR, FAR) == step).sum()
        )
        for step in range(-FAR, FAR + 1)
    }
    return counts | {"none": int((wrong & (predicted_L == NO_ERROR)).sum())}


def _hits(truth_L: IntArray, predicted_L: IntArray) -> FloatArray:
    """Columns [L, 4]: has an error, found exactly, has none, passed. A solution with unsettled labels is all 0."""
    wrong, ok, exact = truth_L >= 0, truth_L == NO_ERROR, truth_L == predicted_L
    return np.stack([wrong, wrong & exact, ok, ok & exact], axis=1).astype(float)


def _accuracies(counts_RS4: FloatArray) -> dict[str, FloatArray]:
    """Accuracies and F1 [R, S + 1]: each subset, then all solutions together; the two means of F1 over subsets [R].

    A subset whose F1 is undefined (no solution with an error, or none without) has no part in the means.
    """
    counts = np.concatenate([counts_RS4, counts_RS4.sum(axis=1, keepdims=True)], axis=1)
    n_error, n_ok = counts[..., 0], counts[..., 2]
    error_accuracy, correct_accuracy = ratio(counts[..., 1], n_error), ratio(counts[..., 3], n_ok)
    f1 = harmonic_mean(error_accuracy, correct_accuracy)
    defined = np.isfinite(f1[:, :-1])
    parts, size = np.where(defined, f1[:, :-1], 0.0), np.where(defined, (n_error + n_ok)[:, :-1], 0.0)
    return {
        "error_accuracy": error_accuracy,
        "correct_accuracy": correct_accuracy,
        "f1": f1,
        "f1_mean": ratio(parts.sum(axis=1), defined.sum(axis=1).astype(float)),
        "f1_weighted_mean": ratio((parts * size).sum(axis=1), size.sum(axis=1)),
        "n_error": n_error,
        "n_correct": n_ok,
    }


def _right_answer(
    labelled: Sequence[Labelled],
    truth: IntArray,
    predicted: IntArray,
    bootstrap: Bootstrap,
    problem_L: IntArray,
) -> Mapping[str, Any]:
    """Solutions with the right final answer and a wrong step: found exactly, and noticed at all."""
    right = np.array([item.solution.is_correct is True for item in labelled], dtype=bool)
    inside = right & (truth >= 0)
    columns = np.stack([inside, inside & (predicted == truth), inside & (predicted >= 0)], axis=1).astype(float)
    sums = sums_by_problem(problem_L, columns, bootstrap.n_problems)
    replicates = bootstrap.of_sums(sums, lambda drawn: ratio(drawn[:, 1:], drawn[:, :1]))
    points = ratio(sums.sum(axis=0)[1:], sums.sum(axis=0)[:1])
    n = int(inside.sum())
    return {
        "exact": bootstrap.measure(points[0], replicates[:, 0], n),
        "noticed": bootstrap.measure(points[1], replicates[:, 1], n),
    }
