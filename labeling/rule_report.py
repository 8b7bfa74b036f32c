"""What every labeller's report says, and how much each single rule covers and how often it is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from labeling.coverage import LabelTally, share
from prm_kit.records import Annotation

RULES = ("arithmetic", "identity", "repeated", "restates", "filler", "number", "too_long")


def rule_report(annotations: Iterable[Annotation], reference: Iterable[Annotation] | None = None) -> dict[str, Any]:
    """Count what the rules said.

    Args:
        annotations: Those of the rule labeller; their meta holds the number of steps. Read once.
        reference: Annotations to compare with, matched by solution; steps that they do not judge do not count.

    Returns:
        What `labeling.coverage.label_report` returns, and "rules": per rule and value the number of steps ("steps")
        and its share ("coverage"); with a reference also how many of them it judges ("compared"), with how many it
        agrees ("agree"), and "precision".
    """
    tally = LabelTally(reference)
    fired: Counter[tuple[str, int | None]] = Counter()
    compared: Counter[tuple[str, int | None]] = Counter()
    agreed: Counter[tuple[str, int | None]] = Counter()
    for annotation in annotations:
        truth = tally.add(annotation)
        for label in annotation.labels:
            rules = {line.partition(":")[0] for line in (label.comment or "").splitlines()}
            if label.value is not None:
                rules.add("all")
            for rule in rules:
                key = (rule, None if rule in ("number", "too_long") else label.value)
                fired[key] += 1
                if label.step in truth:
                    compared[key] += 1
                    agreed[key] += truth[label.step] == label.value
    report = tally.report() | {"rules": {}}
    for rule, value in sorted(fired, key=lambda key: (key[0], str(key[1]))):
        row: dict[str, Any] = {
            "steps": fired[rule, value],
            "coverage": share(fired[rule, value], report["steps"]),
        }
        if reference is not None and value is not None:
            row |= {
                "compared": compared[rule, value],
                "agree": agreed[rule, value],
                "precision": share(agreed[rule, value], compared[rule, value]),
            }
        report["rules"].setdefault(rule, {})["null" if value is None else str(value)] = row
    return report
