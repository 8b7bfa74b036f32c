"""What an evaluation is given: scores by scorer, and the split on which thresholds are chosen; and what it refuses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from prm_kit.aggregate import STEP_NUMBERS
from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.records import Labelled
from prm_kit.score import StepScores, check_scores

Scores = Mapping[str, Sequence[StepScores]]
"""By scorer name, one entry per solution."""


@dataclass(frozen=True)
class DevSplit:
    """The named split on which thresholds are chosen: its solutions, and every scorer's answers to them."""

    name: str
    labelled: Sequence[Labelled]
    scores: Scores = field(default_factory=dict)


def check_inputs(
    labelled: Sequence[Labelled], scores: Scores, dev: DevSplit | None, baselines: Collection[str], rule: str
) -> None:
    """Refuse what cannot be evaluated.

    Raises:
        UsageError: No scorer, an unknown rule, or a baseline that was not given.
        InputError: Scores that do not fit their solutions, or a development split that lacks a scorer or shares
            solutions with the evaluated ones.
    """
    if not scores:
        raise UsageError("an evaluation needs the scores of at least one scorer")
    if rule not in STEP_NUMBERS:
        raise unknown_name("rule", rule, STEP_NUMBERS)
    for baseline in baselines:
        if baseline not in scores:
            raise unknown_name("scorer", baseline, scores)
    _check_answers("", labelled, scores)
    for scorer, answers in scores.items():
        if rule != "value" and not is_bounded(answers):
            raise UsageError(f"scorer {scorer!r} is unbounded, so its steps have no {rule!r}; the rule must be 'value'")
    if dev is None:
        return
    lacking = [scorer for scorer in scores if scorer not in dev.scores]
    if lacking:
        raise InputError(f"the development split {dev.name!r} lacks the scores of {', '.join(lacking)}")
    _check_answers(f"{dev.name}: ", dev.labelled, dev.scores)
    both = {item.solution.id for item in labelled} & {item.solution.id for item in dev.labelled}
    if both:
        raise InputError(
            f"{len(both)} solutions are both evaluated and in the development split {dev.name!r} (such as {min(both)}):"
            " a threshold may not be chosen on the rows that it is tested on"
        )


def _check_answers(where: str, labelled: Sequence[Labelled], scores: Scores) -> None:
    solutions = [item.solution for item in labelled]
    for scorer, answers in scores.items():
        try:
            check_scores(solutions, answers)
        except InputError as error:
            raise InputError(f"{where}scorer {scorer!r}: {error}") from None
        if len({answer.is_bounded for answer in answers}) > 1:
            raise InputError(f"{where}scorer {scorer!r}: some scores are probabilities and others unbounded")


def is_bounded(answers: Sequence[StepScores]) -> bool:
    """Whether a scorer's answers are probabilities, so that classes, calibration and fixed thresholds apply."""
    return all(answer.is_bounded for answer in answers)
