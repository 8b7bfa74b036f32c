"""Does a scorer like solutions for their length? Rank correlation of the solution score with steps and tokens.

PRMs have a length bias (arXiv 2507.15698), and sums or products of step scores bring one of their own. Spearman's rho,
ties at their mean rank, with intervals over problems; each resample ranks anew. Long solutions are wrong more often,
so the same is said of the solutions without an error alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prm_kit.aggregate import AGGREGATIONS, solution_score
from prm_kit.errors import InputError
from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, ratio
from prm_kit.evaluate.first_error import NO_ERROR, true_first_errors
from prm_kit.records import Labelled
from prm_kit.score import StepScores

_TOKEN = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")

LENGTHS = ("steps", "tokens")


def length_table(
    labelled: Sequence[Labelled], scores: Sequence[StepScores], bootstrap: Bootstrap, problem_L: IntArray
) -> dict[str, Any]:
    """Per aggregation: rho with the number of steps and of tokens, over all solutions and over those without an error.

    A token here is a word, a digit or a sign: a measure of length that depends on no model's tokenizer. Solutions on
    which the scorer abstains throughout are left out. A product of unbounded scores is undefined.

    Returns:
        {aggregation: {"steps", "tokens", "steps_without_error", "tokens_without_error": figures}}.
    """
    clean_L = true_first_errors(labelled) == NO_ERROR
    sizes = {
        "steps": np.array([len(item.solution.spans) for item in labelled], dtype=np.float64),
        "tokens": np.array([len(_TOKEN.findall(item.solution.completion)) for item in labelled], dtype=np.float64),
    }
    table: dict[str, Any] = {}
    for how in AGGREGATIONS:
        score_L = np.array([score_or_nan(score, how) for score in scores], dtype=np.float64)
        scored = np.isfinite(score_L)
        table[how] = {
            name + suffix: _rho(score_L[at], sizes[name][at], problem_L[at], bootstrap)
            for suffix, at in (("", scored), ("_without_error", scored & clean_L))
            for name in LENGTHS
        }
    return table


def score_or_nan(score: StepScores, how: str) -> float:
    """The solution score; NaN where the scorer abstains or the aggregation does not apply to its scores."""
    try:
        number = solution_score(score, how)
    except InputError:
        return float("nan")
    return float("nan") if number is None else number


def weighted_spearman(a_N: FloatArray, b_N: FloatArray, weights_rN: FloatArray) -> FloatArray:
    """Spearman's rho per row of weights, [r]; NaN where one side does not vary."""
    ranks = [_mid_ranks(values, weights_rN) for values in (a_N, b_N)]
    total = weights_rN.sum(axis=1, keepdims=True)
    x, y = (rank - ratio((rank * weights_rN).sum(axis=1, keepdims=True), total) for rank in ranks)
    covariance = (weights_rN * x * y).sum(axis=1)
    return ratio(covariance, np.sqrt((weights_rN * x * x).sum(axis=1) * (weights_rN * y * y).sum(axis=1)))


def _rho(score: FloatArray, size: FloatArray, problem: IntArray, bootstrap: Bootstrap) -> dict[str, Any]:
    n = len(score)
    if n < 2:
        return bootstrap.measure(None, np.zeros(0), n)
    point = float(weighted_spearman(score, size, np.ones((1, n)))[0])
    replicates = bootstrap.of_items(problem, lambda weights: weighted_spearman(score, size, weights))
    return bootstrap.measure(point, replicates, n)


def _mid_ranks(value_N: FloatArray, weights_rN: FloatArray) -> FloatArray:
    """Rank of each item [r, N] when item n stands there weights[n] times: the mean rank of its tie."""
    _, tie_N = np.unique(value_N, return_inverse=True)
    ties: NDArray[np.float64] = np.zeros((len(weights_rN), int(tie_N.max()) + 1))
    for row, weights in enumerate(weights_rN):
        ties[row] = np.bincount(tie_N, weights=weights, minlength=ties.shape[1])
    upto = np.cumsum(ties, axis=1)
    return (upto - ties / 2).take(tie_N, axis=1)
