"""What a rater has labelled, as a scorer: judges, rules and people are measured by the same figures as a PRM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prm_kit.errors import InputError
from prm_kit.records import LABEL_VALUES, Annotation, Solution, StepLabel
from prm_kit.score import Probabilities, StepScores


@dataclass(frozen=True)
class RaterScorer:
    """Says what a rater said: certain of a label, its shares where it has them, and nothing of other steps.

    Attributes:
        name: What reports call it.
        labels: The rater's labels by solution id and step.
    """

    name: str
    labels: dict[str, dict[int, StepLabel]] = field(repr=False)

    @classmethod
    def of(cls, name: str, annotations: Iterable[Annotation]) -> RaterScorer:
        """From annotations; of several of one solution the last counts.

        Raises:
            InputError: There are none.
        """
        labels = {one.solution_id: {label.step: label for label in one.labels} for one in annotations}
        if not labels:
            raise InputError(f"{name}: no annotation of this rater is there")
        return cls(name, labels)

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution."""
        found = []
        for solution in solutions:
            said = self.labels.get(solution.id, {})
            found.append(StepScores(tuple(_certain(said.get(step)) for step in range(len(solution.spans)))))
        return found


def _certain(label: StepLabel | None) -> Probabilities | None:
    if label is None:
        return None
    if label.shares is not None:
        return label.shares
    if label.value is None:
        return None
    wrong, neutral, right = (float(label.value == value) for value in LABEL_VALUES)
    return (wrong, neutral, right)
