"""Judged steps as arrays: what every step-level table is computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prm_kit.evaluate.bootstrap import FloatArray, IntArray, problem_numbers
from prm_kit.records import Labelled
from prm_kit.score import StepScores


@dataclass(frozen=True)
class StepRows:
    """The judged steps of a data set, one entry each (N entries).

    A step that the rater left unjudged (None), such as those after a first error, is no row. Branches of one trunk
    repeat its steps: a step reached by the same problem and the same steps before it, with the same label, is one
    row, the first.

    Attributes:
        solution: Index of the solution in the input.
        step: 0-based step index.
        problem: Number of the problem (see `problem_numbers`).
        label: -1, 0 or +1.
        n_steps: How many steps the solution has.
        n_problems: How many problems the data set has (not only those with rows).
        n_repeated: How many judged steps were left out because they repeat another.
    """

    solution: IntArray
    step: IntArray
    problem: IntArray
    label: IntArray
    n_steps: IntArray
    n_problems: int
    n_repeated: int

    def __len__(self) -> int:
        return len(self.label)


def judged_steps(labelled: Sequence[Labelled]) -> StepRows:
    """Collect the judged steps."""
    problems = problem_numbers([item.solution.problem for item in labelled])
    seen: set[tuple[bytes, int]] = set()
    rows: list[tuple[int, int, int, int, int]] = []
    judged = 0
    for index, (solution, annotation) in enumerate(labelled):
        reached = hashlib.sha256(solution.problem.encode()).digest()
        values = annotation.values(len(solution.spans))
        for step, (text, value) in enumerate(zip(solution.steps, values, strict=True)):
            reached = hashlib.sha256(reached + text.encode()).digest()
            if value is None:
                continue
            judged += 1
            if (reached, value) not in seen:
                seen.add((reached, value))
                rows.append((index, step, int(problems[index]), value, len(values)))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    at, steps, of, label, n_steps = columns
    return StepRows(at, steps, of, label, n_steps, int(problems.max(initial=-1)) + 1, n_repeated=judged - len(rows))


def values_of(rows: StepRows, scores: Sequence[StepScores]) -> FloatArray:
    """Values [N] of the judged steps, bounded or not; NaN where the scorer abstains."""
    values = [score.values for score in scores]
    at = zip(rows.solution.tolist(), rows.step.tolist(), strict=True)
    return np.array([values[solution][step] for solution, step in at], dtype=np.float64)


def probabilities_of(rows: StepRows, scores: Sequence[StepScores]) -> FloatArray:
    """Class probabilities [N, 3] of the judged steps; a row of NaN where the scorer abstains or has none."""
    abstained = (np.nan, np.nan, np.nan)
    return np.array(
        [
            scores[solution].probabilities[step] or abstained
            for solution, step in zip(rows.solution.tolist(), rows.step.tolist(), strict=True)
        ],
        dtype=np.float64,
    ).reshape(-1, 3)
