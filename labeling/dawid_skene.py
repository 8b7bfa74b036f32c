"""Dawid-Skene: the true labels and every rater's confusion matrix, estimated from the raters' labels alone.

Dawid and Skene, Applied Statistics 28 (1979): expectation maximisation from the vote shares. Raters are taken to err
independently of each other given the true label. Why our own: the kept-up library for it (crowd-kit 1.4) would bring
pandas and nltk into every installation for what is a few lines of array sums here; the two agree to 1e-6 (a test holds
figures of theirs).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prm_kit.errors import InputError
from prm_kit.evaluate.bootstrap import FloatArray, IntArray

_FLOOR = 1e-10
"""Lowest probability of an answer, so that one answer never rules a class out for good."""


class DawidSkene(NamedTuple):
    """An estimate.

    Attributes:
        posterior: [U, K] probability of each class per unit.
        confusion: [raters, K, K] probability that the rater says the last axis when the middle one is true.
        prior: [K] share of each class.
        iterations: How many were run.
        converged: Whether the log-likelihood stopped rising before the last allowed iteration.
    """

    posterior: FloatArray
    confusion: FloatArray
    prior: FloatArray
    iterations: int
    converged: bool


def dawid_skene(
    unit_N: IntArray,
    rater_N: IntArray,
    class_N: IntArray,
    n_classes: int = 3,
    iterations: int = 500,
    tolerance: float = 1e-7,
) -> DawidSkene:
    """Estimate true classes and confusion matrices.

    Args:
        unit_N: Unit of each label, 0 to U - 1, each at least once.
        rater_N: Its rater, from 0.
        class_N: Its class, 0 to n_classes - 1.
        n_classes: K.
        iterations: At most so many.
        tolerance: Stop when the log-likelihood per label rises by less.

    Raises:
        InputError: There is no label.
    """
    if not len(unit_N):
        raise InputError("Dawid-Skene needs at least one label")
    n_units, n_raters = int(unit_N.max()) + 1, int(rater_N.max()) + 1
    cell_N = rater_N * n_classes + class_N
    posterior = np.zeros((n_units, n_classes))
    np.add.at(posterior, (unit_N, class_N), 1.0)
    posterior /= posterior.sum(axis=1, keepdims=True)
    before = -np.inf
    for iteration in range(1, iterations + 1):
        prior = posterior.mean(axis=0)
        confusion = _confusion(posterior[unit_N], cell_N, n_raters, n_classes)
        with np.errstate(divide="ignore"):
            log_prior = np.log(prior)  # of a class that nobody names: minus infinity, it stays out
        log_said = np.log(confusion).transpose(0, 2, 1).reshape(-1, n_classes)
        joint = np.stack(
            [np.bincount(unit_N, weights=log_said[cell_N, k], minlength=n_units) for k in range(n_classes)], axis=1
        )
        joint += log_prior
        top = joint.max(axis=1, keepdims=True)
        likelihood = np.exp(joint - top)
        total = likelihood.sum(axis=1, keepdims=True)
        posterior = likelihood / total
        now = float((np.log(total) + top).sum()) / len(unit_N)
        if now - before < tolerance:
            return DawidSkene(posterior, confusion, prior, iteration, True)
        before = now
    return DawidSkene(posterior, confusion, prior, iterations, False)


def _confusion(weight_NK: FloatArray, cell_N: IntArray, n_raters: int, n_classes: int) -> FloatArray:
    """[raters, true, said], rows summing to 1; a class that a rater never met gets floors only, evenly."""
    counts = np.stack(
        [
            np.bincount(cell_N, weights=weight_NK[:, k], minlength=n_raters * n_classes).reshape(n_raters, n_classes)
            for k in range(n_classes)
        ],
        axis=1,
    )
    counts = np.maximum(counts, _FLOOR)
    shares: FloatArray = counts / counts.sum(axis=2, keepdims=True)
    return shares
