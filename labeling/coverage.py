"""How much any labeller covers, and how often it agrees with a reference: the report that all labelling verbs share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prm_kit.records import LABEL_VALUES, Annotation


def label_report(annotations: Iterable[Annotation], reference: Iterable[Annotation] | None = None) -> dict[str, Any]:
    """Count what a labeller said.

    Args:
        annotations: The labeller's, one a solution; read once. Their meta says how many steps there were ("steps");
            where it does not, the number of steps and the coverage are null.
        reference: Annotations to compare with (people's, say), matched by solution. Of several about one solution the
            later one counts, step by step.

    Returns:
        JSON data: solutions, solutions_without_labels, steps, labelled_steps, coverage (share of the steps), values
        (steps by value), flags. With a reference also, over the solutions that stand in both:
        reference (judged steps by value), compared and agree (steps by the value that the labeller said), precision
        (by that value), recall (by the reference's value; a step that the labeller leaves out is not found),
        confusion (by the reference's value, what the labeller said; "null" is nothing) and first_error, see
        `LabelTally`.
    """
    tally = LabelTally(reference)
    for annotation in annotations:
        tally.add(annotation)
    return tally.report()


class LabelTally:
    """Counts annotations one by one; `report` gives the counts.

    The first error counts where the reference settles it: it names one and judged every step before it, or it judged
    every step and named none. `first_error` then holds: compared (such solutions that the labeller labelled at all),
    agree, agreement; with_error and without_error (how the labeller did on solutions with and without one: exact,
    early, late, missed; none_named, named), and mean_distance in steps over the solutions where both name one.
    """

    def __init__(self, reference: Iterable[Annotation] | None = None) -> None:
        self._reference = None if reference is None else _by_solution(reference)
        self._counts: Counter[str] = Counter()
        self._values: Counter[int] = Counter()
        self._flags: Counter[str] = Counter()
        self._confusion: Counter[tuple[int, int | None]] = Counter()
        self._first: Counter[str] = Counter()
        self._distance = 0

    def add(self, annotation: Annotation) -> Mapping[int, int]:
        """Count one annotation.

        Returns:
            The reference's value by step, empty where it has none.
        """
        said = {label.step: label.value for label in annotation.labels if label.value is not None}
        steps = annotation.meta.get("steps")
        self._counts["solutions"] += 1
        self._counts["unknown_length"] += steps is None
        self._counts["steps"] += steps or 0
        self._counts["empty"] += not said
        self._flags.update(annotation.flags)
        self._values.update(said.values())
        truth = (self._reference or {}).get(annotation.solution_id, {})
        self._confusion.update((value, said.get(step)) for step, value in truth.items())
        if said and truth:
            self._compare_first_errors(said, truth, steps)
        return truth

    def report(self) -> dict[str, Any]:
        """What was counted so far, see `label_report`."""
        counts = self._counts
        steps = None if counts["unknown_length"] else counts["steps"]
        labelled = self._values.total()
        report: dict[str, Any] = {
            "solutions": counts["solutions"],
            "solutions_without_labels": counts["empty"],
            "steps": steps,
            "labelled_steps": labelled,
            "coverage": None if steps is None else share(labelled, steps),
            "values": {str(value): self._values[value] for value in LABEL_VALUES},
            "flags": dict(self._flags),
        }
        return report if self._reference is None else report | self._comparison()

    def _comparison(self) -> dict[str, Any]:
        confusion = self._confusion
        agree = {value: confusion[value, value] for value in LABEL_VALUES}
        compared = {said: sum(confusion[value, said] for value in LABEL_VALUES) for said in LABEL_VALUES}
        wanted = {value: sum(confusion[value, said] for said in (*LABEL_VALUES, None)) for value in LABEL_VALUES}
        return {
            "reference": {str(value): wanted[value] for value in LABEL_VALUES},
            "compared": {str(value): compared[value] for value in LABEL_VALUES},
            "agree": {str(value): agree[value] for value in LABEL_VALUES},
            "precision": {str(value): share(agree[value], compared[value]) for value in LABEL_VALUES},
            "recall": {str(value): share(agree[value], wanted[value]) for value in LABEL_VALUES},
            "confusion": {
                str(value): {
                    "null" if said is None else str(said): confusion[value, said] for said in (*LABEL_VALUES, None)
                }
                for value in LABEL_VALUES
            },
            "first_error": self._first_errors(),
        }

    def _compare_first_errors(self, said: Mapping[int, int], truth: Mapping[int, int], steps: int | None) -> None:
        true = _first_error(truth)
        until = true if true is not None else steps
        if until is None or any(step not in truth for step in range(until)):
            return  # the reference does not settle it
        named = _first_error(said)
        if true is None:
            self._first["none_named" if named is None else "named"] += 1
        elif named is None:
            self._first["missed"] += 1
        else:
            self._first["exact" if named == true else "early" if named < true else "late"] += 1
            self._distance += abs(named - true)

    def _first_errors(self) -> dict[str, Any]:
        first = self._first
        both = first["exact"] + first["early"] + first["late"]
        agree = first["exact"] + first["none_named"]
        return {
            "compared": first.total(),
            "agree": agree,
            "agreement": share(agree, first.total()),
            "with_error": {key: first[key] for key in ("exact", "early", "late", "missed")},
            "without_error": {key: first[key] for key in ("none_named", "named")},
            "mean_distance": share(self._distance, both),
        }


def share(part: float, whole: float) -> float | None:
    """The quotient, or None for a part of nothing."""
    return part / whole if whole else None


def _first_error(values: Mapping[int, int]) -> int | None:
    return min((step for step, value in values.items() if value == -1), default=None)


def _by_solution(reference: Iterable[Annotation]) -> Mapping[str, dict[int, int]]:
    judged: dict[str, dict[int, int]] = {}
    for annotation in reference:
        steps = judged.setdefault(annotation.solution_id, {})
        steps.update({label.step: label.value for label in annotation.labels if label.value is not None})
    return judged
