"""A trained PRM as a labeller: the likeliest class of each step, or nothing where it is not sure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prm_kit.errors import UsageError
from prm_kit.records import LABEL_VALUES, Annotation, Rater, Solution, StepLabel, step_hash
from prm_kit.score import Probabilities, StepScorer, check_scores

VERSION = "1"
"""Goes up whenever a label would come out differently from the same scores."""


class PrmLabeler:
    """Labels every step with the likeliest class; implements `labeling.labeler.Labeler`.

    The class probabilities are the label's shares. A step whose likeliest class is below the confidence gets a null
    label that says so, without shares: shares without a value would be trained on.

    Args:
        scorer: The PRM, calibrated or not; any other `StepScorer` will do.
        rater: Signs the annotations.
        min_confidence: Least probability of the likeliest class, in [0, 1].

    Raises:
        UsageError: The confidence is no probability.
    """

    def __init__(self, scorer: StepScorer, rater: Rater, min_confidence: float = 0.0) -> None:
        if not 0.0 <= min_confidence <= 1.0:
            raise UsageError(f"min_confidence is {min_confidence}; it is a probability, from 0 to 1")
        self.rater = rater
        self._scorer = scorer
        self._min_confidence = min_confidence

    def label(self, solutions: Sequence[Solution]) -> Iterator[Annotation]:
        """Label every solution; what the scorer abstains from gets no label.

        Raises:
            UsageError: The scorer's numbers are no probabilities.
        """
        scores = self._scorer.score(solutions)
        check_scores(solutions, scores)
        if not all(found.is_bounded for found in scores):
            raise UsageError(f"{self._scorer.name}: its scores are without bounds, so no label follows from them")
        for solution, found in zip(solutions, scores, strict=True):
            labels = [
                self._label(step, step_hash(text), probabilities)
                for step, (text, probabilities) in enumerate(zip(solution.steps, found.probabilities, strict=True))
                if probabilities is not None
            ]
            yield Annotation(solution.id, self.rater, tuple(labels), meta={"steps": len(solution.spans)})

    def _label(self, step: int, hashed: str, probabilities: Probabilities) -> StepLabel:
        best = max(probabilities)
        value = LABEL_VALUES[probabilities.index(best)]
        if best < self._min_confidence:
            return StepLabel(step, None, hashed, comment=f"abstains: {value:+d} at {best:.2f}")
        return StepLabel(step, value, hashed, shares=probabilities)
