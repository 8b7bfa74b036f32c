"""What an evaluation says in words: what the data are, and what must be known before a figure is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prm_kit.evaluate.first_error import NO_ERROR, UNSETTLED, true_first_errors
from prm_kit.evaluate.rows import StepRows
from prm_kit.records import LABEL_VALUES, Labelled
from prm_kit.score import StepScores


def describe_data(
    labelled: Sequence[Labelled],
    rows: StepRows,
    subsets: Sequence[str],
    dev_name: str | None,
    dev: Sequence[Labelled],
    train: Sequence[Labelled],
) -> dict[str, Any]:
    """The `data` part of an evaluation: counts, subsets, raters, and problems shared with other splits."""
    truth = true_first_errors(labelled)
    problems = {item.solution.problem for item in labelled}
    raters = Counter(f"{item.annotation.rater.kind}: {item.annotation.rater.name}" for item in labelled)
    return {
        "solutions": len(labelled),
        "problems": len(problems),
        "steps": sum(len(item.solution.spans) for item in labelled),
        "judged_steps": len(rows),
        "repeated_steps": rows.n_repeated,
        "labels": {str(label): int((rows.label == label).sum()) for label in LABEL_VALUES},
        "raters": [rater for rater, _ in raters.most_common()],
        "solutions_with_error": int((truth >= 0).sum()),
        "solutions_without_error": int((truth == NO_ERROR).sum()),
        "solutions_unsettled": int((truth == UNSETTLED).sum()),
        "right_answer_wrong_process": sum(
            item.solution.is_correct is True and step >= 0 for item, step in zip(labelled, truth.tolist(), strict=True)
        ),
        "subsets": dict(sorted(Counter(subsets).items())),
        "threshold_split": dev_name,
        "shared_problems": {
            "train": len(problems & {item.solution.problem for item in train}),
            "threshold split": len(problems & {item.solution.problem for item in dev}),
        },
    }


def remarks(
    data: Mapping[str, Any],
    scores: Mapping[str, Sequence[StepScores]],
    steps: Mapping[str, Any],
    differences: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[str]]:
    """Warnings (to be known before a figure is believed) and notes (good to know).

    Args:
        data: The parts `settings`, `data` and `scorers` of an evaluation.
        scores: The answers of the scorers that were asked about, not of the trivial ones.
        steps: The step-level tables.
        differences: Leading scorer minus each other.
    """
    about = data["data"]
    warnings = [
        f"{count} of {about['problems']} evaluated problems are also in the {where} data: figures may flatter"
        for where, count in about["shared_problems"].items()
        if count
    ]
    warnings += _unbeaten(data, differences)
    for scorer, answers in scores.items():
        table, values = steps[scorer], {value for answer in answers for value in answer.values}
        if len(values) == 1:
            warnings.append(f"{scorer} says the same of every step: {values.pop()}")
        if table["answered"] < table["n"]:
            warnings.append(f"{scorer} abstains on {table['n'] - table['answered']} of {table['n']} judged steps")
    if about["threshold_split"] is None:
        warnings.append("no development split was given: thresholds are fixed, not chosen")
    notes = []
    if about["solutions_unsettled"]:
        notes.append(
            f"{about['solutions_unsettled']} solutions have labels that do not settle the first error (a step up to it,"
            " or any step where there is none, is unjudged): they are not in the first-error tables"
        )
    if about["repeated_steps"]:
        notes.append(
            f"{about['repeated_steps']} judged steps repeat another (same problem, same steps before): counted once"
        )
    return warnings, notes


def _unbeaten(data: Mapping[str, Any], differences: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which baselines the leading model is not shown to beat: the interval of the difference holds 0 or less."""
    leading = data["settings"]["leading"]
    roles = {scorer["name"]: scorer["role"] for scorer in data["scorers"]}
    if roles[leading] != "model":
        return []
    found = []
    for metric, words in (("f1_mean", "first-error F1"), ("auroc_wrong", "AUROC of wrong steps")):
        unbeaten = [
            other
            for other, figures in differences.items()
            if roles[other] == "baseline" and figures[metric]["low"] is not None and figures[metric]["low"] <= 0
        ]
        if unbeaten:
            found.append(f"{leading} is not shown to beat {', '.join(unbeaten)} in {words}")
    return found
