"""The scores of PRMBench (arXiv 2501.03124), as its authors' evaluation and leaderboard scripts compute them.

A step is an error where it is marked, redundant steps included; a scorer calls it one where its value is below the
threshold. Over steps, with "right" as the positive class, F1, and with "error" as the positive class, negative F1:

    PRMScore of a class of errors   (F1 + negative F1) / 2; of `multi_solutions`, which has no error, F1 alone
    PRMScore of a category          plain mean over its classes
    overall PRMScore                (F1 + negative F1) / 2 over the steps of all nine classes together

Further fields there: accuracy of steps (of all, of right ones, of errors), of the first error, and similarity, the mean
|share of steps called right in the modified solution - the same in the original one|, high where a scorer tells the two
apart. As published, solutions that repeat a name within a class count once, and an original of which no step is called
right has no part in similarity.

What differs: an F1 that is 0 or undefined counts as -1 there, here as 0 and None. Thresholds there are fixed per model,
mostly p_ok 0.5, which a value of 0 is for a scorer without a neutral class. For models with a redundancy output (there
ReasonEval alone) the two simplicity classes are judged there by that output; here every class is judged by the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, problem_numbers, ratio, sums_by_problem
from prm_kit.evaluate.first_error import Threshold, below
from prm_kit.records import Labelled, Solution
from prm_kit.score import StepScores

CATEGORIES: dict[str, dict[str, str]] = {
    "simplicity": {"redundency": "NR", "circular": "NCL"},
    "soundness": {
        "counterfactual": "ES", "step_contradiction": "SC", "domain_inconsistency": "DC", "confidence": "CI",
    },
    "sensitivity": {"missing_condition": "PS", "deception": "DR", "multi_solutions": "MS"},
}  # fmt: skip
"""Classes of errors by category, spelt as in the data, with the names of the leaderboard's columns."""

CLASSES: tuple[str, ...] = tuple(name for classes in CATEGORIES.values() for name in classes)

FIELDS = ("f1", "negative_f1", "step_accuracy", "right_step_accuracy", "error_step_accuracy", "first_error_accuracy",
          "similarity")  # fmt: skip

_NO_ERRORS = "multi_solutions"
# Columns of the counts: right steps called right (TP) and called wrong (FN), errors called wrong (TN) and called right
# (FP); solutions with an error, first error called wrong; pairs with an original, sum of their differences.
_COUNTS = 8


def is_prmbench(labelled: Sequence[Labelled]) -> bool:
    """Whether these solutions carry PRMBench's classes of errors."""
    return any(class_of(item.solution) is not None for item in labelled)


def class_of(solution: Solution) -> str | None:
    """The class of errors of a modified solution; None for an original or another data set's solution."""
    name = solution.meta.get("classification")
    return name if isinstance(name, str) and name in CLASSES else None


def prmbench_table(
    labelled: Sequence[Labelled],
    scores: Sequence[StepScores],
    threshold: Threshold | None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The PRMBench part of an evaluation for one scorer.

    Args:
        labelled: PRMBench's solutions; originals (`meta.variant` "original") serve similarity.
        scores: The scorer's answers.
        threshold: A step is called wrong below it; None (an unbounded scorer for which none was chosen): no table.
        resamples: How many resamples an interval is made of; original problems are drawn, with all their variants.
        seed: Of the resamples.

    Returns:
        threshold, solutions, repeated (left out), overall, categories {name}, classes {name: prmscore, the figures of
        `FIELDS`, solutions}; "fields" are those of all classes together.
    """
    if threshold is None:
        return None
    kept, repeated = _distinct(labelled)
    called_right = [1.0 - below(score, threshold) for score in scores]
    originals = {pair: float(called_right[index].mean()) for pair, index in _originals(labelled).items()}
    counts_LM = np.array([_counts(labelled[index], called_right[index], originals) for index in kept])
    pair_L = problem_numbers([_pair(labelled[index].solution) or "" for index in kept])
    names = [class_of(labelled[index].solution) for index in kept]
    member_LC = np.array([[name == of for of in CLASSES] for name in names], dtype=float)
    cells = (member_LC[:, :, None] * counts_LM[:, None, :]).reshape(len(kept), -1)
    bootstrap = Bootstrap(int(pair_L.max()) + 1, resamples, seed)
    sums = sums_by_problem(pair_L, cells, bootstrap.n_problems)
    points = _scores(sums.sum(axis=0)[None])
    drawn = bootstrap.of_sums(sums, lambda found: found)
    replicates = _scores(drawn)

    def figures(name: str, n: int) -> dict[str, Any]:
        fields = ("prmscore", *FIELDS) if name not in CATEGORIES else ("prmscore",)
        return {f: bootstrap.measure(points[f"{name} {f}"][0], replicates[f"{name} {f}"], n) for f in fields}

    n_of = {name: int(member_LC[:, column].sum()) for column, name in enumerate(CLASSES)}
    return {
        "threshold": threshold.to_json(),
        "solutions": len(kept),
        "repeated": repeated,
        "overall": figures("overall", len(kept)),
        "categories": {name: figures(name, sum(n_of[c] for c in classes)) for name, classes in CATEGORIES.items()},
        "classes": {name: figures(name, n) | {"solutions": n} for name, n in n_of.items()},
    }


def _distinct(labelled: Sequence[Labelled]) -> tuple[list[int], int]:
    """Indices of the modified solutions, the first of each class and name; and how many repeat one."""
    seen: set[tuple[str, str]] = set()
    kept, repeated = [], 0
    for index, item in enumerate(labelled):
        name, pair = class_of(item.solution), _pair(item.solution)
        if name is None:
            continue
        if pair is not None and (name, pair) in seen:
            repeated += 1
            continue
        seen.add((name, pair or item.solution.id))
        kept.append(index)
    return kept, repeated


def _originals(labelled: Sequence[Labelled]) -> dict[str, int]:
    """Index of the original solution by the name of the pair."""
    found: dict[str, int] = {}
    for index, item in enumerate(labelled):
        pair = _pair(item.solution)
        if item.solution.meta.get("variant") == "original" and pair is not None:
            found.setdefault(pair, index)
    return found


def _pair(solution: Solution) -> str | None:
    """The name that a modified solution and its original share: `idx`, without the class that some files put first."""
    name = solution.meta.get("pair_id") or solution.meta.get("idx")
    if not isinstance(name, str):
        return None
    return next((name.removeprefix(f"{of}_") for of in (*CLASSES, "correct") if name.startswith(f"{of}_")), name)


def _counts(item: Labelled, called_right_S: FloatArray, originals: dict[str, float]) -> list[float]:
    labels = item.annotation.values(len(item.solution.spans))
    right = np.array([label == 1 for label in labels], dtype=bool)
    error = np.array([label in (-1, 0) for label in labels], dtype=bool)
    first = np.flatnonzero(error)[:1]
    original = originals.get(_pair(item.solution) or "")
    apart = abs(float(called_right_S.mean()) - original) if original else 0.0
    return [
        float(called_right_S[right].sum()),
        float((1 - called_right_S[right]).sum()),
        float((1 - called_right_S[error]).sum()),
        float(called_right_S[error].sum()),
        float(len(first)),
        float((1 - called_right_S[first]).sum()),
        float(bool(original)),
        apart,
    ]


def _scores(sums_RM: FloatArray) -> dict[str, FloatArray]:
    """Every score [R], by "name field"; NaN where it is undefined."""
    counts_RCM = sums_RM.reshape(len(sums_RM), len(CLASSES), _COUNTS)
    found: dict[str, FloatArray] = {}
    parts = {name: counts_RCM[:, column] for column, name in enumerate(CLASSES)}
    for name, counts in (*parts.items(), ("overall", counts_RCM.sum(axis=1))):
        tp, fn, tn, fp, wrong, first, pairs, apart = counts.T
        fields = {
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "negative_f1": np.where(tn + fp > 0, ratio(2 * tn, 2 * tn + fp + fn), np.nan),
            "step_accuracy": ratio(tp + tn, tp + fn + tn + fp),
            "right_step_accuracy": ratio(tp, tp + fn),
            "error_step_accuracy": ratio(tn, tn + fp),
            "first_error_accuracy": ratio(first, wrong),
            "similarity": ratio(apart, pairs),
        }
        fields["prmscore"] = fields["f1"] if name == _NO_ERRORS else (fields["f1"] + fields["negative_f1"]) / 2
        found |= {f"{name} {field}": values for field, values in fields.items()}
    for name, classes in CATEGORIES.items():
        found[f"{name} prmscore"] = np.mean([found[f"{of} prmscore"] for of in classes], axis=0)
    return found
