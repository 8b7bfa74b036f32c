"""Step scores to one solution score: min, last, product, mean.

A step is first turned into one number (`STEP_NUMBERS`), then the numbers of a solution are aggregated
(`AGGREGATIONS`). Where a scorer abstains, the caller says what that means; nothing is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.score import Probabilities, StepScores

Aggregation = Callable[[Sequence[float]], float]
"""At least one number per step, in step order, to one number."""

StepNumber = Callable[[Probabilities], float]
"""Class probabilities (-1, 0, +1) of one step to one number, higher is better."""

Abstained = Literal["skip", "none"]


def step_numbers(scores: StepScores, of: str = "value") -> tuple[float | None, ...]:
    """One number per step, None where the scorer abstains.

    Args:
        scores: What a scorer said of a solution.
        of: A name in `STEP_NUMBERS`: "value" is p(+1) - p(-1) in [-1, 1], or what an unbounded scorer says; "p_ok" is
            1 - p(-1) in [0, 1].

    Raises:
        UsageError: Unknown name, or "p_ok" of scores that are no probabilities.
    """
    if of not in STEP_NUMBERS:
        raise unknown_name("step number", of, STEP_NUMBERS)
    if of == "value":
        return scores.values
    if not scores.is_bounded:
        raise UsageError(f"unbounded scores are no probabilities, so they have no {of!r}; ask for 'value'")
    number = STEP_NUMBERS[of]
    return tuple(None if p is None else number(p) for p in scores.probabilities)


def aggregate(numbers: Sequence[float | None], how: str = "min", abstained: Abstained = "skip") -> float | None:
    """Fold the numbers of a solution's steps into one.

    Args:
        numbers: One per step in step order; None where the scorer abstained.
        how: A name in `AGGREGATIONS`.
        abstained: "skip" folds the steps that were scored ("last" is then the last scored one); "none" answers None
            as soon as one step was not scored.

    Returns:
        The score, or None if no step was scored (or, with "none", if any was not).

    Raises:
        UsageError: Unknown aggregation.
        InputError: A product of numbers that are not all in [0, 1].
    """
    if how not in AGGREGATIONS:
        raise unknown_name("aggregation", how, AGGREGATIONS)
    scored = [number for number in numbers if number is not None]
    if not scored or (abstained == "none" and len(scored) < len(numbers)):
        return None
    return AGGREGATIONS[how](scored)


def solution_score(
    scores: StepScores, how: str = "min", of: str | None = None, abstained: Abstained = "skip"
) -> float | None:
    """Score a solution by its steps; the defaults read "the chance that the worst step is not wrong".

    Args:
        scores: What a scorer said of the solution.
        how: See `aggregate`.
        of: See `step_numbers`; None: "p_ok", or "value" where the scores are unbounded.
        abstained: See `aggregate`.
    """
    return aggregate(step_numbers(scores, of or ("p_ok" if scores.is_bounded else "value")), how, abstained)


def _product(numbers: Sequence[float]) -> float:
    for step, number in enumerate(numbers):
        if not 0.0 <= number <= 1.0:
            raise InputError(f"step {step}: a product needs numbers in [0, 1], not {number}; aggregate p_ok instead")
    return math.prod(numbers)


STEP_NUMBERS: dict[str, StepNumber] = {
    "value": lambda p: p[2] - p[0],
    "p_ok": lambda p: min(1.0, max(0.0, 1.0 - p[0])),
}

AGGREGATIONS: dict[str, Aggregation] = {
    "min": min,
    "last": lambda numbers: numbers[-1],
    "product": _product,
    "mean": lambda numbers: math.fsum(numbers) / len(numbers),
}
