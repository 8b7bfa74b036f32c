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
        probabilities: One entry per step, (p(-1), p(0), p(+1)), or None where the scorer abstains.
    """

    probabilities: tuple[Probabilities | None, ...]

    @property
    def values(self) -> tuple[float | None, ...]:
        """Per step p(+1) - p(-1) in [-1, 1]; None where the scorer abstains."""
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
        for step, p in enumerate(score.probabilities):
            if p is None:
                continue
            if not all(math.isfinite(x) and -1e-6 <= x <= 1 + 1e-6 for x in p) or abs(sum(p) - 1) > 1e-3:
                raise InputError(f"solution {solution.id}, step {step}: {p} is not a probability distribution")
