"""Scorers that read no reasoning. A PRM that does not beat them has learnt nothing about steps.

All are `prm_kit.score.StepScorer`s; the class prior and the lengths are fitted on training labels only. The outcome
reward model of the same backbone and data is a model like any other and is not built here: its score of each prefix
arrives from outside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from prm_kit.errors import InputError
from prm_kit.evaluate.bootstrap import FloatArray
from prm_kit.evaluate.rows import judged_steps
from prm_kit.records import LABEL_VALUES, Labelled, Solution
from prm_kit.score import Probabilities, StepScorer, StepScores

ALL_CORRECT: Probabilities = (0.0, 0.0, 1.0)
WRONG: Probabilities = (1.0, 0.0, 0.0)

ALL_CORRECT_NAME = "all correct"
RANDOM_NAME = "random"
PRIOR_NAME = "class prior"
GUESSER_NAME = "guesser (knows the answer)"
HARD_NAMES = (ALL_CORRECT_NAME, GUESSER_NAME)
"""Baselines whose answers are 0 or 1: a threshold between the two is fixed, there is none to choose."""

CONSTANT_NAMES = (ALL_CORRECT_NAME, RANDOM_NAME, PRIOR_NAME, GUESSER_NAME)
"""Baselines that pick a solution as random does, by what they are, or (the guesser) as the oracle does."""


@dataclass(frozen=True)
class ConstantScorer:
    """Says the same of every step."""

    name: str
    probabilities: Probabilities

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution."""
        return [StepScores((self.probabilities,) * len(solution.spans)) for solution in solutions]


@dataclass(frozen=True)
class RandomScorer:
    """Class probabilities drawn evenly over all distributions; the same solution always gets the same."""

    seed: int = 0
    name: str = RANDOM_NAME

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution."""
        found = []
        for solution in solutions:
            rng = np.random.default_rng([self.seed, int(solution.id, 16)])
            found.append(_scores(rng.dirichlet(np.ones(3), size=len(solution.spans))))
        return found


@dataclass(frozen=True)
class LengthScorer:
    """Logistic regression that sees lengths and places, never a word.

    Features of a step: its length in characters (log), index, relative index, the number of steps, the length of the
    problem (log), each standardised.
    """

    model: Pipeline
    name: str = "length and position"

    @classmethod
    def fit(cls, train: Sequence[Labelled]) -> LengthScorer:
        """Fit on judged steps.

        Raises:
            InputError: The training labels have fewer than two classes.
        """
        rows = judged_steps(train)
        if len(set(rows.label.tolist())) < 2:
            raise InputError("the length baseline needs training labels of at least two classes")
        features = [_length_features(item.solution) for item in train]
        found = np.array([features[i][s] for i, s in zip(rows.solution.tolist(), rows.step.tolist(), strict=True)])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        return cls(model.fit(found, rows.label))

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution; a class without training labels gets probability 0."""
        features = [_length_features(solution) for solution in solutions]
        if not sum(map(len, features)):
            return [StepScores(()) for _ in solutions]
        known = self.model.predict_proba(np.concatenate(features))
        probabilities = np.zeros((len(known), len(LABEL_VALUES)))
        probabilities[:, [LABEL_VALUES.index(label) for label in self.model.classes_]] = known
        ends = np.cumsum([len(part) for part in features])[:-1]
        return [_scores(part) for part in np.split(probabilities, ends)]


@dataclass(frozen=True)
class GuesserScorer:
    """Knows whether the final answer is right, and the commonest first-error index of the evaluated labels.

    It is a bar, not a model: it may look at what nothing else may, and still says nothing about steps.

    A right answer: no step is wrong. A wrong one: the commonest index is (the last step, where the solution is
    shorter). An unknown one: it abstains.
    """

    index: int
    name: str = GUESSER_NAME

    @classmethod
    def fit(cls, evaluated: Sequence[Labelled]) -> GuesserScorer:
        """Count first errors; the lower index wins a tie.

        Raises:
            InputError: No solution has a step labelled -1, or none says whether its final answer is right.
        """
        if all(item.solution.is_correct is None for item in evaluated):
            raise InputError("the guesser needs solutions that say whether their final answer is right")
        found = (item.annotation.first_error for item in evaluated)
        counts = Counter(index for index in found if index is not None)
        if not counts:
            raise InputError("the guesser needs a solution with a step labelled -1")
        return cls(min(counts, key=lambda index: (-counts[index], index)))

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution."""
        return [StepScores(tuple(self._of(solution))) for solution in solutions]

    def _of(self, solution: Solution) -> list[Probabilities | None]:
        n = len(solution.spans)
        if solution.is_correct is None:
            return [None] * n
        named = -1 if solution.is_correct else min(self.index, n - 1)
        return [WRONG if step == named else ALL_CORRECT for step in range(n)]


def class_prior(train: Sequence[Labelled]) -> ConstantScorer:
    """Says the shares of -1, 0 and +1 among the judged training steps of every step.

    Raises:
        InputError: No training step is judged.
    """
    label = judged_steps(train).label
    if not len(label):
        raise InputError("the class prior needs judged training steps")
    shares = [float((label == value).mean()) for value in LABEL_VALUES]
    return ConstantScorer(PRIOR_NAME, (shares[0], shares[1], shares[2]))


def trivial_scorers(
    train: Sequence[Labelled], evaluated: Sequence[Labelled], seed: int = 0
) -> tuple[list[StepScorer], list[str]]:
    """The baselines that the data allow, and one sentence for each that they do not.

    Args:
        train: Training solutions and labels, for the class prior and the lengths.
        evaluated: The evaluated solutions and labels, for the guesser alone.
        seed: Of the random scorer.
    """
    scorers: list[StepScorer] = [ConstantScorer(ALL_CORRECT_NAME, ALL_CORRECT), RandomScorer(seed)]
    missing: list[str] = []
    fits: list[tuple[Callable[[Sequence[Labelled]], StepScorer], Sequence[Labelled]]] = [
        (class_prior, train),
        (LengthScorer.fit, train),
        (GuesserScorer.fit, evaluated),
    ]
    for fit, fitted_on in fits:
        try:
            scorers.append(fit(fitted_on))
        except InputError as error:
            missing.append(f"a baseline is missing: {error}")
    return scorers, missing


def _length_features(solution: Solution) -> FloatArray:
    n = len(solution.spans)
    return np.array(
        [
            (math.log(end - start), step, step / n, n, math.log1p(len(solution.problem)))
            for step, (start, end) in enumerate(solution.spans)
        ],
        dtype=np.float64,
    ).reshape(n, 5)


def _scores(probabilities_S3: FloatArray) -> StepScores:
    return StepScores(tuple((float(a), float(b), float(c)) for a, b, c in probabilities_S3))
