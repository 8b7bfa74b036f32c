"""The one protocol for whoever scores steps, and what comes back.

Evaluation, search, serving and RL ask for a `StepScorer` and never know whether a PRM, a remote PRM, a rule or a
judge answers; only `pipelines` chooses one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prm_kit.errors import InputError
from prm_kit.records import Solution

Probabilities = tuple[float, float, float]
"""Class probabilities of one step in the order (-1, 0, +1), summing to 1."""


@dataclass(frozen=True)
class StepScores:
    """What a scorer says of one solution.

    Attributes:
        probabilities: One entry per step, (p(-1), p(0), p(+1)), or None where the scorer abstains. A scorer that knows
            only right and wrong gives (1 - p, 0, p).
        unbounded: None, or for a scorer whose score is no probability (a sum of log-ratios, a ranking score) one
            number or None per step; every entry of `probabilities` is then None.
        uncertainty: None, or for a scorer that can tell how unsure it is, such as an ensemble whose members disagree,
            one number of at least 0 or None per step; what it counts in is the scorer's.
    """

    probabilities: tuple[Probabilities | None, ...]
    unbounded: tuple[float | None, ...] | None = None
    uncertainty: tuple[float | None, ...] | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether values lie in [-1, 1] and come from probabilities, so that fixed thresholds and calibration apply."""
        return self.unbounded is None

    @property
    def values(self) -> tuple[float | None, ...]:
        """Per step p(+1) - p(-1) in [-1, 1], or any number where unbounded; None where the scorer abstains."""
        if self.unbounded is not None:
            return self.unbounded
        return tuple(None if p is None else p[2] - p[0] for p in self.probabilities)


class StepScorer(Protocol):
    """Problem and steps in, scores out.

    A solution is handed over as a `Solution`: problem, completion and spans; `Solution.from_steps` makes one from
    loose steps. Answers come in the order asked, one entry per step.
    """

    @property
    def name(self) -> str:
        """What reports call this scorer."""
        ...

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution."""
        ...


def check_scores(solutions: Sequence[Solution], scores: Sequence[StepScores]) -> None:
    """Refuse answers that cannot be right: another number of solutions or steps, NaN, or no distribution.

    Raises:
        InputError: Naming the solution and the step.
    """
    if len(solutions) != len(scores):
        raise InputError(f"{len(scores)} answers for {len(solutions)} solutions")
    for solution, score in zip(solutions, scores, strict=True):
        if len(score.probabilities) != len(solution.spans):
            raise InputError(
                f"solution {solution.id}: {len(score.probabilities)} scores for {len(solution.spans)} steps"
            )
        if score.unbounded is not None:
            _check_unbounded(solution, score, score.unbounded)
        if score.uncertainty is not None and len(score.uncertainty) != len(solution.spans):
            raise InputError(
                f"solution {solution.id}: {len(score.uncertainty)} uncertainties for {len(solution.spans)} steps"
            )
        for step, p in enumerate(score.probabilities):
            if p is None:
                continue
            if not all(math.isfinite(x) and -1e-6 <= x <= 1 + 1e-6 for x in p) or abs(sum(p) - 1) > 1e-3:
                raise InputError(f"solution {solution.id}, step {step}: {p} is not a probability distribution")


def _check_unbounded(solution: Solution, score: StepScores, unbounded: Sequence[float | None]) -> None:
    if len(unbounded) != len(solution.spans):
        raise InputError(f"solution {solution.id}: {len(unbounded)} unbounded scores for {len(solution.spans)} steps")
    if any(p is not None for p in score.probabilities):
        raise InputError(f"solution {solution.id}: both probabilities and unbounded scores")
    for step, value in enumerate(unbounded):
        if value is not None and not math.isfinite(value):
            raise InputError(f"solution {solution.id}, step {step}: the score is not a number")
