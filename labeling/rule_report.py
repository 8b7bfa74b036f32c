"""How much the rules cover, and how often they agree with a reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prm_kit.records import LABEL_VALUES, Annotation

RULES = ("arithmetic", "identity", "repeated", "restates", "filler", "number", "too_long")


def rule_report(annotations: Iterable[Annotation], reference: Iterable[Annotation] | None = None) -> dict[str, Any]:
    """Count what the rules said.

    Args:
        annotations: Those of the rule labeller; their meta holds the number of steps. Read once.
        reference: Annotations to compare with, matched by solution; steps that they do not judge do not count.

    Returns:
        JSON data: solutions, steps, labelled steps, coverage, counts by value and flag, and per rule and value the
        number of steps ("steps") and its share ("coverage"). With a reference also how many of them it judges
        ("compared"), with how many it agrees ("agree"), "precision", and per value how many steps the reference has
        ("reference") and which share of them was found ("recall").
    """
    judged = _by_solution(reference) if reference is not None else None
    counts: Counter[str] = Counter()
    flags: Counter[str] = Counter()
    fired: Counter[tuple[str, int | None]] = Counter()
    compared: Counter[tuple[str, int | None]] = Counter()
    agreed: Counter[tuple[str, int | None]] = Counter()
    found: Counter[int] = Counter()
    wanted: Counter[int] = Counter()
    for annotation in annotations:
        counts["solutions"] += 1
        counts["steps"] += annotation.meta["steps"]
        counts["empty"] += not any(label.value is not None for label in annotation.labels)
        flags.update(annotation.flags)
        truth = judged.get(annotation.solution_id, {}) if judged is not None else {}
        wanted.update(truth.values())
        for label in annotation.labels:
            rules = {line.partition(":")[0] for line in (label.comment or "").splitlines()}
            if label.value is not None:
                rules.add("all")
                counts[str(label.value)] += 1
                found[label.value] += truth.get(label.step) == label.value
            for rule in rules:
                key = (rule, None if rule in ("number", "too_long") else label.value)
                fired[key] += 1
                if label.step in truth:
                    compared[key] += 1
                    agreed[key] += truth[label.step] == label.value
    labelled = sum(counts[str(value)] for value in LABEL_VALUES)
    report: dict[str, Any] = {
        "solutions": counts["solutions"],
        "solutions_without_labels": counts["empty"],
        "steps": counts["steps"],
        "labelled_steps": labelled,
        "coverage": _share(labelled, counts["steps"]),
        "values": {str(value): counts[str(value)] for value in LABEL_VALUES},
        "flags": dict(flags),
        "rules": {},
    }
    for rule, value in sorted(fired, key=lambda key: (key[0], str(key[1]))):
        row: dict[str, Any] = {
            "steps": fired[rule, value],
            "coverage": _share(fired[rule, value], counts["steps"]),
        }
        if judged is not None and value is not None:
            row |= {
                "compared": compared[rule, value],
                "agree": agreed[rule, value],
                "precision": _share(agreed[rule, value], compared[rule, value]),
            }
        report["rules"].setdefault(rule, {})["null" if value is None else str(value)] = row
    if judged is not None:
        report["reference"] = {str(value): wanted[value] for value in LABEL_VALUES}
        report["recall"] = {str(value): _share(found[value], wanted[value]) for value in LABEL_VALUES}
    return report


def _by_solution(reference: Iterable[Annotation]) -> Mapping[str, dict[int, int]]:
    judged: dict[str, dict[int, int]] = {}
    for annotation in reference:
        steps = judged.setdefault(annotation.solution_id, {})
        steps.update({label.step: label.value for label in annotation.labels if label.value is not None})
    return judged


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
