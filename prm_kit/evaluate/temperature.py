"""Temperature scaling (arXiv 1706.04599): one number that the logits are divided by, fitted away from the test data.

Dividing logits by T before the softmax is the same as raising the probabilities to the power 1/T and normalising, so
probabilities are all that is needed. A class that has probability 0 keeps it. Nothing is reordered within a step, so
the predicted class stays; rankings across steps can change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from prm_kit.errors import InputError, UsageError
from prm_kit.evaluate.bootstrap import FloatArray, IntArray
from prm_kit.evaluate.calibration import FLOOR
from prm_kit.evaluate.inputs import is_bounded
from prm_kit.evaluate.rows import judged_steps, probabilities_of
from prm_kit.records import LABEL_VALUES, Labelled
from prm_kit.score import Probabilities, StepScores

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures are looked for between these. One at a bound says that there was nothing to fit."""


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: Above 1 softens, below 1 sharpens.
        chosen_on: Name of the development split it was fitted on.
        n: Judged steps of that split that the scorer answered.
        nll: Negative log-likelihood there, in nats, with the temperature.
        nll_before: The same without it.
    """

    value: float
    chosen_on: str
    n: int
    nll: float
    nll_before: float

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


def fit_temperature(labelled: Sequence[Labelled], scores: Sequence[StepScores], name: str) -> Temperature:
    """Find the temperature with the least negative log-likelihood of the labels of a development split.

    Args:
        labelled: The split; never the data that is evaluated.
        scores: A scorer's answers to it.
        name: What reports call the split.

    Raises:
        UsageError: The scores are unbounded: they are no probabilities, so there is nothing to calibrate.
        InputError: No judged step was answered.
    """
    if not is_bounded(scores):
        raise UsageError(f"{name}: unbounded scores are no probabilities; a temperature cannot be fitted to them")
    rows = judged_steps(labelled)
    probabilities = probabilities_of(rows, scores)
    answered = np.isfinite(probabilities).all(axis=1)
    if not answered.any():
        raise InputError(f"{name}: no judged step was answered, so no temperature can be fitted")
    label, probabilities = rows.label[answered], probabilities[answered]

    def loss(temperature: float) -> float:
        return _nll(label, tempered(probabilities, temperature))

    value, before = _lowest(loss), loss(1.0)
    if loss(value) >= before:  # flat, as for a scorer that is always certain
        value = 1.0
    return Temperature(value, name, int(answered.sum()), loss(value), before)


def tempered(probabilities_N3: FloatArray, temperature: float) -> FloatArray:
    """Class probabilities after dividing the logits by a temperature; NaN stays NaN."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities_N3) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)


def at_bound(temperature: float) -> bool:
    """Whether the search for it ended at one of its bounds."""
    return not LOWEST * 1.01 < temperature < HIGHEST / 1.01


def with_temperature(scores: Sequence[StepScores], temperature: float) -> list[StepScores]:
    """A scorer's answers at a temperature."""
    return [replace(score, probabilities=tuple(_one(p, temperature) for p in score.probabilities)) for score in scores]


def _lowest(loss: Callable[[float], float]) -> float:
    """Where a function of a temperature is lowest: in the logarithm, ever finer around the best point so far.

    The likelihood is convex in 1 / T, so there is one valley.
    """
    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    for _ in range(6):
        points = np.linspace(low, high, 17)
        best = int(np.argmin([loss(float(np.exp(point))) for point in points]))
        low, high = float(points[max(best - 1, 0)]), float(points[min(best + 1, 16)])
    return float(np.exp((low + high) / 2))


def _one(p: Probabilities | None, temperature: float) -> Probabilities | None:
    if p is None:
        return None
    low, middle, high = tempered(np.array([p]), temperature)[0].tolist()
    return (low, middle, high)


def _nll(label_N: IntArray, probabilities_N3: FloatArray) -> float:
    given = probabilities_N3[np.arange(len(label_N)), np.searchsorted(np.array(LABEL_VALUES), label_N)]
    return float(-np.log(np.clip(given, FLOOR, 1.0)).mean())
