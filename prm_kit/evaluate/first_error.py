"""The first-error protocol of ProcessBench (arXiv 2412.06559).

A scorer names the first step whose score falls below a threshold, or no step. Error-accuracy is the share of
solutions with an error whose first wrong step is named exactly; correct-accuracy the share of solutions without an
error where no step is named; F1 is their harmonic mean. The threshold is chosen on a named development split and is
never looked for on the evaluated rows. A step on which the scorer abstains is never named.

Step indices are 0-based. Arrays hold -1 for "no error" and -2 for a solution whose labels do not settle the matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prm_kit.aggregate import step_numbers
from prm_kit.errors import InputError
from prm_kit.evaluate.bootstrap import FloatArray, IntArray, ratio
from prm_kit.records import Labelled
from prm_kit.score import StepScores

NO_ERROR = -1
UNSETTLED = -2
NO_THRESHOLD = {"value": None, "rule": "value", "chosen_on": None, "f1": None, "n": None}


@dataclass(frozen=True)
class Threshold:
    """A step is named when its score is below `value`.

    Attributes:
        value: In the units of the rule.
        rule: The score that is compared: a name in `prm_kit.aggregate.STEP_NUMBERS`, "value" = p(+1) - p(-1), or
            "p_ok" = 1 - p(-1) (so that "below 0.7" says the same as "p(-1) above 0.3").
        chosen_on: Name of the development split it was chosen on; None: fixed beforehand.
        f1: F1 on that split, in [0, 1].
        n: Solutions of that split with settled labels.
    """

    value: float
    rule: str = "value"
    chosen_on: str | None = None
    f1: float | None = None
    n: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Sweep:
    """Accuracies and F1 at every threshold that makes a difference, ascending. Arrays [T]."""

    threshold: FloatArray
    error_accuracy: FloatArray
    correct_accuracy: FloatArray
    f1: FloatArray


def true_first_errors(labelled: Sequence[Labelled]) -> IntArray:
    """Index of the first step labelled -1 per solution [L]; `NO_ERROR` where every step is judged and none is -1.

    `UNSETTLED` where a step before the first -1 is unjudged, or where no step is -1 and some step is unjudged.
    """
    return np.array([_true_first_error(item.annotation.values(len(item.solution.spans))) for item in labelled], int)


def below(scores: StepScores, threshold: Threshold) -> FloatArray:
    """1 where a step's score is below the threshold, 0 elsewhere, per step [S]; a step without a score is not below."""
    numbers = step_numbers(scores, threshold.rule)
    return np.array([x is not None and x < threshold.value for x in numbers], dtype=np.float64)


def predicted_first_error(scores: StepScores, threshold: Threshold | None) -> int | None:
    """Index of the first step whose score is below the threshold, None if there is none (or no threshold)."""
    named = below(scores, threshold) if threshold else np.zeros(0)
    return int(named.argmax()) if named.any() else None


def predicted_first_errors(scores: Sequence[StepScores], threshold: Threshold | None) -> IntArray:
    """`predicted_first_error` per solution [L], `NO_ERROR` for None."""
    found = (predicted_first_error(score, threshold) for score in scores)
    return np.array([NO_ERROR if step is None else step for step in found], dtype=int)


def sweep(
    labelled: Sequence[Labelled],
    scores: Sequence[StepScores],
    rule: str = "value",
    thresholds: FloatArray | None = None,
) -> Sweep:
    """Accuracies at the given thresholds, or (exactly, in one sort) at every threshold that makes a difference.

    A solution with an error is found for thresholds in (score of the true step, lowest score before it]; one without
    passes for thresholds up to its lowest score.

    Raises:
        InputError: No solution has settled labels.
    """
    start, end, lowest = [], [], []
    for truth, score in zip(true_first_errors(labelled).tolist(), scores, strict=True):
        numbers = [np.inf if x is None else x for x in step_numbers(score, rule)]
        if truth == NO_ERROR:
            lowest.append(min(numbers, default=np.inf))
        elif truth != UNSETTLED:
            start.append(numbers[truth])
            end.append(min(numbers[:truth], default=np.inf))
    if not start and not lowest:
        raise InputError("no solution has labels that settle its first error: every step judged, or all up to a -1")
    starts, ends, ok = (np.array(part, dtype=np.float64) for part in (start, end, lowest))
    threshold = _differing(np.concatenate([starts, ends, ok])) if thresholds is None else thresholds
    real = starts < ends
    hits = np.searchsorted(np.sort(starts[real]), threshold) - np.searchsorted(np.sort(ends[real]), threshold)
    passed = len(ok) - np.searchsorted(np.sort(ok), threshold)
    error_accuracy = ratio(hits.astype(float), np.array(float(len(starts))))
    correct_accuracy = ratio(passed.astype(float), np.array(float(len(ok))))
    return Sweep(threshold, error_accuracy, correct_accuracy, harmonic_mean(error_accuracy, correct_accuracy))


def choose_threshold(
    labelled: Sequence[Labelled], scores: Sequence[StepScores], name: str, rule: str = "value"
) -> Threshold:
    """Choose the threshold with the best F1 on a development split.

    Among equals the higher mean of both accuracies wins, then the middle one.

    Args:
        labelled: The development split.
        scores: The scorer's answers to it.
        name: What reports call the split.
        rule: The score that is compared, see `Threshold`.

    Raises:
        InputError: The split lacks solutions with an error, or without one; F1 needs both.
    """
    truth = true_first_errors(labelled)
    n_error, n_ok = int((truth >= 0).sum()), int((truth == NO_ERROR).sum())
    if not n_error or not n_ok:
        raise InputError(
            f"a threshold cannot be chosen on {name!r}: it has {n_error} solutions with an error and {n_ok} without"
        )
    swept = sweep(labelled, scores, rule)
    ranks = np.round(np.stack([swept.f1, swept.error_accuracy + swept.correct_accuracy]), 12)
    best = np.flatnonzero(ranks[0] == ranks[0].max())
    best = best[ranks[1, best] == ranks[1, best].max()]
    chosen = int(best[(len(best) - 1) // 2])
    return Threshold(float(swept.threshold[chosen]), rule, name, float(swept.f1[chosen]), n_error + n_ok)


def harmonic_mean(a: FloatArray, b: FloatArray) -> FloatArray:
    """2ab / (a + b); 0 where both are 0, NaN where one is undefined."""
    both_zero = (a == 0) & (b == 0)
    return np.where(both_zero, 0.0, ratio(2 * a * b, a + b))


def _true_first_error(values: Sequence[int | None]) -> int:
    for step, value in enumerate(values):
        if value is None:
            return UNSETTLED
        if value == -1:
            return step
    return NO_ERROR


def _differing(scores: FloatArray) -> FloatArray:
    """One threshold below all scores, one between each two neighbours, one above all."""
    seen = np.unique(scores[np.isfinite(scores)])
    if not len(seen):
        seen = np.zeros(1)
    middle = (seen[:-1] + seen[1:]) / 2
    middle = np.where(middle > seen[:-1], middle, seen[1:])
    return np.concatenate([seen[:1], middle, seen[-1:] + 1e-6])
