"""Simulated annotators: people's place in tests and demonstrations, with error rates that are known.

Their rater kind is "simulated", so that no report passes them off for people. What one says of a step depends on the
seed, its name, the step and the truth alone, so the order of solutions changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.files import value_sha256
from prm_kit.records import LABEL_VALUES, Annotation, LabelValue, Rater, Solution

Confusion = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
"""Row: the true label (-1, 0, +1); column: what is said. Rows sum to 1."""

HABITS: Mapping[str, Confusion] = {
    "exact": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "careful": ((0.92, 0.03, 0.05), (0.05, 0.85, 0.10), (0.02, 0.03, 0.95)),
    "lenient": ((0.65, 0.10, 0.25), (0.02, 0.58, 0.40), (0.01, 0.02, 0.97)),
    "strict": ((0.97, 0.02, 0.01), (0.30, 0.65, 0.05), (0.12, 0.10, 0.78)),
    "careless": ((0.60, 0.15, 0.25), (0.15, 0.60, 0.25), (0.10, 0.15, 0.75)),
}
"""Ways to err, by name: P(said | true)."""


class SimulatedAnnotator:
    """Answers like a person with known error rates; implements `labeling.labeler.Labeler`.

    Args:
        name: Of the annotator.
        truth: The true labels by solution id; a solution that is not here gets an annotation without labels, and a
            step that it does not judge gets no label.
        confusion: P(said | true), or a name in `HABITS`.
        skip: Chance, per step, of saying nothing.
        fatigue: Added per step of a solution to the chance of a wrong answer of the two others, evenly; a long
            solution is judged worse at its end.
        first_error_only: Stop after the first step that is called wrong.
        seed: Another seed, other errors.

    Attributes:
        rater: Signs the annotations. Its version changes with the settings and with the truth.

    Raises:
        UsageError: The confusion matrix or a chance is none.
    """

    def __init__(
        self,
        name: str,
        truth: Mapping[str, Annotation],
        confusion: Confusion | str = "careful",
        *,
        skip: float = 0.0,
        fatigue: float = 0.0,
        first_error_only: bool = False,
        seed: int = 0,
    ) -> None:
        if isinstance(confusion, str):
            if confusion not in HABITS:
                raise unknown_name("habit", confusion, HABITS)
            confusion = HABITS[confusion]
        for row in confusion:
            if len(row) != 3 or any(p < 0 for p in row) or abs(sum(row) - 1) > 1e-9:
                raise UsageError(f"{row} is not a row of three probabilities that sum to 1")
        if not (0 <= skip <= 1 and 0 <= fatigue <= 1):
            raise UsageError(f"skip and fatigue are chances in [0, 1], not {skip} and {fatigue}")
        self._truth, self._confusion = truth, confusion
        self._skip, self._fatigue, self._first_error_only, self._seed = skip, fatigue, first_error_only, seed
        settings = [confusion, skip, fatigue, first_error_only, seed]
        told = sorted(annotation.id for annotation in truth.values())
        self.rater = Rater("simulated", name, value_sha256([settings, told])[:12])

    def label(self, solutions: Iterable[Solution]) -> Iterator[Annotation]:
        """Annotate each solution; the meta says how many steps it has ("steps")."""
        for solution in solutions:
            n = len(solution.spans)
            truth = self._truth.get(solution.id)
            values = self._values(solution, truth) if truth is not None else [None] * n
            yield Annotation.of(solution, self.rater, values, meta={"steps": n})

    def _values(self, solution: Solution, truth: Annotation) -> list[LabelValue | None]:
        n = len(solution.spans)
        if truth.labels and truth.labels[-1].step >= n:
            raise InputError(f"solution {solution.id}: the truth labels step {truth.labels[-1].step} of {n}")
        said: list[LabelValue | None] = [None] * n
        for step, true in enumerate(truth.values(n)):
            if true is None or self._chance(solution.id, step, "skip") < self._skip:
                continue
            value = self._said(solution.id, step, true)
            said[step] = value
            if value == -1 and self._first_error_only:
                break
        return said

    def _said(self, solution_id: str, step: int, true: LabelValue) -> LabelValue:
        k = LABEL_VALUES.index(true)
        row = list(self._confusion[k])
        slips = min(row[k], self._fatigue * step)
        row = [p - slips if j == k else p + slips / 2 for j, p in enumerate(row)]
        point = self._chance(solution_id, step, "said")
        edges = list(accumulate(row))
        return next((value for value, edge in zip(LABEL_VALUES, edges, strict=True) if point < edge), true)

    def _chance(self, solution_id: str, step: int, what: str) -> float:
        text = f"{self._seed}:{self.rater.name}:{solution_id}:{step}:{what}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
