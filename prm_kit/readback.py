"""What a foreign format made of a solution: compare what was written with what its own reader finds in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from prm_kit.errors import InputError
from prm_kit.formats.format import Item, Judged
from prm_kit.records import Annotation, StepLabel

_SOLUTION_FIELDS = ("final_answer", "reference_answer", "is_correct", "generator", "source", "licence")
_ANNOTATION_FIELDS = ("time", "flags", "lead_time", "comment")
_LABEL_FIELDS = ("shares", "count", "stderr", "comment", "sources")


def compare(group: Sequence[Judged], items: Sequence[Item], *, labels: bool = True) -> Counter[str]:
    """Check that every solution comes back with its problem, its steps and its folded labels.

    Args:
        group: What was written as one row.
        items: What the reader found in that row.
        labels: Whether the format has labels at all.

    Returns:
        Fields with something in them that come back otherwise, each counted once per solution.

    Raises:
        InputError: A solution does not come back, or its labels do not.
    """
    by_id = {item.solution.id: item for item in items}
    by_steps = {(item.solution.problem, item.solution.steps): item for item in reversed(items)}
    lost: Counter[str] = Counter()
    for judged in group:
        solution = judged.solution
        item = by_id.get(solution.id) or by_steps.get((solution.problem, solution.steps))
        if item is None and not labels:  # a chat has no steps: the completion says it all
            item = next((item for item in items if item.solution.completion == solution.completion), None)
        if item is None or item.solution.problem != solution.problem:
            raise InputError("does not read back with the same problem and steps")
        if labels and not any(_same_labels(judged, annotation) for annotation in _annotations(item)):
            raise InputError("does not read back with the same labels")
        lost.update(_lost(judged, item))
    return lost


def _annotations(item: Item) -> Sequence[Annotation | None]:
    return item.annotations or (None,)


def _same_labels(judged: Judged, annotation: Annotation | None) -> bool:
    read = {label.step: label for label in annotation.labels} if annotation else {}
    return all(_number(target) == _label_number(read.get(step)) for step, target in enumerate(judged.folded.targets))


def _number(target: float | None) -> Any:
    if target is None:
        return "null"
    if target == 0 and isinstance(target, int):
        return "neutral"
    return target if isinstance(target, float) else (target + 1) / 2


def _label_number(label: StepLabel | None) -> Any:
    if label is None or (label.value is None and label.shares is None):
        return "null"
    if label.value is None:
        assert label.shares is not None
        return label.shares[2]
    return "neutral" if label.value == 0 else (label.value + 1) / 2


def _lost(judged: Judged, item: Item) -> list[str]:
    solution, annotation, _ = judged
    back = item.solution
    lost = [name for name in _SOLUTION_FIELDS if _differs(getattr(solution, name), getattr(back, name))]
    if back.completion != solution.completion:
        lost.append("text between the steps")
    if solution.spans and not back.spans:
        lost.append("steps")
    lost += [f"meta.{key}" for key, value in solution.meta.items() if _differs(value, back.meta.get(key))]
    if annotation is None:
        return lost
    matches = [other for other in item.annotations if _same_labels(judged, other)] or list(item.annotations)
    if not matches:
        return [*lost, "annotation"]
    return lost + _annotation_lost(annotation, matches[0])


def _annotation_lost(annotation: Annotation, back: Annotation) -> list[str]:
    lost = [name for name in _ANNOTATION_FIELDS if _differs(getattr(annotation, name), getattr(back, name))]
    if annotation.rater != back.rater:
        lost.append("rater")
    lost += [f"annotation.meta.{key}" for key, value in annotation.meta.items() if _differs(value, back.meta.get(key))]
    read = {label.step: label for label in back.labels}
    for name in _LABEL_FIELDS:
        for label in annotation.labels:
            other = read.get(label.step)
            if _differs(getattr(label, name), getattr(other, name) if other else None):
                lost.append(f"label.{name}")
                break
    if any(label.value is not None and label.step not in read for label in annotation.labels):
        lost.append("label.value")
    return lost


def _differs(value: Any, other: Any) -> bool:
    if value is None or value == () or value == "":
        return False
    as_list = list(value) if isinstance(value, tuple) else value
    return bool(as_list != (list(other) if isinstance(other, tuple) else other))
