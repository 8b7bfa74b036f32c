"""What an evaluation says in words: what the data are, and what must be known before a figure is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prm_kit.evaluate.first_error import NO_ERROR, UNSETTLED, true_first_errors
from prm_kit.evaluate.inputs import is_bounded
from prm_kit.evaluate.rows import StepRows
from prm_kit.evaluate.temperature import at_bound
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
    tables: Mapping[str, Mapping[str, Any]],
    once: Mapping[str, Any],
    differences: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[str]]:
    """Warnings (to be known before a figure is believed) and notes (good to know).

    Args:
        data: The parts `settings`, `data` and `scorers` of an evaluation.
        scores: The answers of the scorers that were asked about, not of the trivial ones.
        tables: The sections by scorer.
        once: The sections that are there once: best_of_n, contamination.
        differences: Leading scorer minus each other.
    """
    about = data["data"]
    warnings = [
        f"{count} of {about['problems']} evaluated problems are also in the {where} data: figures may flatter"
        for where, count in about["shared_problems"].items()
        if count
    ]
    warnings += _seen_in_training(once["contamination"], "problems")
    warnings += _unbeaten(data, differences)
    for scorer, answers in scores.items():
        table, values = tables["steps"][scorer], {value for answer in answers for value in answer.values}
        if not is_bounded(answers):
            warnings.append(_unbounded(scorer, about["threshold_split"]))
        temperature = tables["calibration_after"].get(scorer, {}).get("temperature")
        if temperature and at_bound(temperature["value"]):
            warnings.append(f"the temperature of {scorer}, {temperature['value']:.3g}, is at the end of the search")
        if len(values) == 1:
            warnings.append(f"{scorer} says the same of every step: {values.pop()}")
        if table["answered"] < table["n"]:
            warnings.append(f"{scorer} abstains on {table['n'] - table['answered']} of {table['n']} judged steps")
    if about["threshold_split"] is None:
        warnings.append(
            "no development split was given: thresholds are fixed, not chosen, and no temperature is fitted"
        )
    notes = [*_seen_in_training(once["contamination"], "solutions"), *_notes_on_picking(once["best_of_n"])]
    if not about["judged_steps"]:
        notes.append("no step is judged: only what final answers say can be measured")
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


def _seen_in_training(found: Mapping[str, Any] | None, kind: str) -> list[str]:
    if not found or not found[kind]["sharing"]:
        return []
    part, words = found[kind], found["words"]
    return [
        f"{part['sharing']} of {part['evaluated']} evaluated {kind} share a run of {words} words with training {kind}, "
        f"{part['exact']} of them being the same text"
    ]


def _unbounded(scorer: str, split: str | None) -> str:
    missing = "calibration, predicted classes and votes are refused"
    if split is None:
        missing += ", and so is every threshold, because none was chosen on a development split"
    return f"the scores of {scorer} are unbounded, no probabilities: {missing}"


def _notes_on_picking(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    notes = []
    if found["sampled"]:
        notes.append("votes among many candidates are means over drawn subsets, which are unbiased; all else is exact")
    if len(set(found["problems"])) > 1:
        of = ", ".join(f"{n:,} at N = {size}" for size, n in zip(found["sizes"], found["problems"], strict=True))
        notes.append(f"problems have different numbers of solutions, so points of a curve are of different ones: {of}")
    if not found["stated"]:
        notes.append("no solution states a final answer, so there are no votes")
    return notes


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
