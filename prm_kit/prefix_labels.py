"""Labels of a trunk for the branches that leave it.

A branch of PRM800K carries the label of its own step only; what the steps before it are worth is said once, in the
annotation of the trunk. Finding the first error of a branch needs both.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

from prm_kit.records import Labelled, Solution, StepLabel

Place = tuple[bytes, str]
"""The same step after the same steps of the same problem, judged by the same kind of rater."""


def with_prefix_labels(rows: Sequence[Labelled]) -> list[Labelled]:
    """Fill unjudged steps with what other rows say of the same step after the same steps.

    Only raters of the same kind lend their labels, and only where all of them agree; a label that is there stays.
    Evaluation counts such a step once, however many rows hold it.

    Args:
        rows: Solutions with one annotation each.
    """
    said: dict[Place, StepLabel | None] = {}
    for solution, annotation in rows:
        places = list(_places(solution, annotation.rater.kind))
        for label in annotation.labels:
            if label.value is None:
                continue
            other = said.setdefault(places[label.step], label)
            if other is not None and other.value != label.value:
                said[places[label.step]] = None
    return [_filled(pair, said) for pair in rows]


def _filled(pair: Labelled, said: dict[Place, StepLabel | None]) -> Labelled:
    solution, annotation = pair
    own = {label.step: label for label in annotation.labels}
    for step, place in enumerate(_places(solution, annotation.rater.kind)):
        lent = said.get(place)
        if step not in own and lent is not None:
            own[step] = dataclasses.replace(lent, step=step)
    if len(own) == len(annotation.labels):
        return pair
    labels = tuple(label for _, label in sorted(own.items()))
    return Labelled(solution, dataclasses.replace(annotation, labels=labels))


def _places(solution: Solution, kind: str) -> Iterator[Place]:
    """One per step: a running hash, so that a long solution costs no more than its length."""
    reached = hashlib.sha256(solution.problem.encode()).digest()
    for text in solution.steps:
        reached = hashlib.sha256(reached + text.encode()).digest()
        yield reached, kind
