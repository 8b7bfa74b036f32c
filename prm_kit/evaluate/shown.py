"""Which solutions an evaluation shows in full, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prm_kit.evaluate.first_error import NO_ERROR, UNSETTLED, Threshold, predicted_first_error, true_first_errors
from prm_kit.records import Labelled
from prm_kit.score import StepScores


def shown_solutions(
    labelled: Sequence[Labelled],
    scores: Mapping[str, Sequence[StepScores]],
    thresholds: Mapping[str, Threshold | None],
    subsets: Sequence[str],
    leading: str,
    each: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Up to `each` solutions for each of three reasons; one that has several reasons is shown once.

    The reasons: "disagreement" (the leading scorer contradicts a label most), "right answer, wrong process" (again the
    most contradicted first), and "random". Scores are rounded to four digits.
    """
    truth = true_first_errors(labelled)
    contradicted = np.array(
        [disagreement(item, score) or 0.0 for item, score in zip(labelled, scores[leading], strict=True)]
    )
    by_disagreement = np.argsort(-contradicted, kind="stable").tolist()
    right_wrong = [i for i in by_disagreement if labelled[i].solution.is_correct is True and truth[i] >= 0]
    shuffled = np.random.default_rng(seed).permutation(len(labelled)).tolist()
    reasons: dict[int, list[str]] = {}
    for reason, order in (
        ("disagreement", by_disagreement),
        ("right answer, wrong process", right_wrong),
        ("random", shuffled),
    ):
        for index in order[:each]:
            reasons.setdefault(index, []).append(reason)
    return [
        _shown(labelled[index], int(truth[index]), subsets[index], why)
        | {"scorers": {name: _said(labelled[index], scores[name][index], thresholds[name]) for name in scores}}
        for index, why in reasons.items()
    ]


def disagreement(item: Labelled, score: StepScores) -> float | None:
    """Largest |value - label| over steps that are both judged and scored, in [0, 2].

    None if there is none, or the values are unbounded and cannot be compared with labels.
    """
    if not score.is_bounded:
        return None
    labels = item.annotation.values(len(item.solution.spans))
    pairs = zip(score.values, labels, strict=True)
    return max((abs(value - label) for value, label in pairs if value is not None and label is not None), default=None)


def _shown(item: Labelled, truth: int, subset: str, why: list[str]) -> dict[str, Any]:
    solution, annotation = item
    return {
        "id": solution.id,
        "why": why,
        "subset": subset,
        "source": solution.source,
        "generator": solution.generator,
        "rater": f"{annotation.rater.kind}: {annotation.rater.name}",
        "is_correct": solution.is_correct,
        "problem": solution.problem,
        "steps": list(solution.steps),
        "labels": list(annotation.values(len(solution.spans))),
        "first_error": truth if truth >= 0 else None,
        "settled": truth != UNSETTLED,
        "without_error": truth == NO_ERROR,
    }


def _said(item: Labelled, score: StepScores, threshold: Threshold | None) -> dict[str, Any]:
    apart = disagreement(item, score)
    return {
        "values": [None if value is None else round(value, 4) for value in score.values],
        "first_error": predicted_first_error(score, threshold),
        "disagreement": None if apart is None else round(apart, 4),
    }
