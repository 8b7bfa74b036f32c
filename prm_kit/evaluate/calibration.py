"""Calibration: do the probabilities mean what they say?

Expected calibration error (arXiv 1706.04599) per class, the class against the rest, over equal-width bins of [0, 1]
and over bins of equal mass (edges at quantiles of all predictions; equal predictions share a bin; the edges stay fixed
while problems are resampled). ECE is biased upward in small samples, and its resamples more so. Brier score over the
three classes, in [0, 2]; negative log-likelihood in nats, probabilities floored at `FLOOR`. Steps on which the scorer
abstains are left out; `answered` says how many remain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, ratio, sums_by_problem
from prm_kit.evaluate.rows import StepRows
from prm_kit.records import LABEL_VALUES

FLOOR = 1e-6
"""Lowest probability that the log-likelihood sees; a scorer that is certain and wrong pays -log of this."""

BINS = 10
"""Bins of a calibration error where the caller does not say."""

BINNINGS = ("equal_mass", "equal_width")


def bin_edges(probability_N: FloatArray, bins: int, binning: str) -> FloatArray:
    """Inner edges of the bins, ascending and distinct (at most bins - 1). A value on an edge falls in the upper bin."""
    if binning == "equal_width":
        return np.linspace(0.0, 1.0, bins + 1)[1:-1]
    if not len(probability_N):
        return np.zeros(0)
    return np.unique(np.quantile(probability_N, np.linspace(0.0, 1.0, bins + 1)[1:-1])).astype(np.float64)


def expected_calibration_error(
    probability_N: FloatArray, truth_N: FloatArray, bins: int = BINS, binning: str = "equal_mass"
) -> float:
    """Mean over predictions of |share that is true - mean probability| of the bin; NaN without predictions.

    Args:
        probability_N: In [0, 1].
        truth_N: 0 or 1.
        bins: How many bins.
        binning: "equal_mass" or "equal_width".
    """
    cells = _bin_cells(probability_N, truth_N, bin_edges(probability_N, bins, binning))
    return float(_ece(cells.sum(axis=0)[None, :])[0])


def reliability_curve(probability_N: FloatArray, truth_N: FloatArray, bins: int = BINS) -> list[dict[str, float]]:
    """One point per non-empty bin of equal mass: n, mean probability, share that is true."""
    cells = _bin_cells(probability_N, truth_N, bin_edges(probability_N, bins, "equal_mass"))
    return [
        {"n": int(n), "probability": float(total / n), "share": float(true / n)}
        for n, total, true in cells.sum(axis=0).reshape(-1, 3)
        if n
    ]


def calibration_table(
    rows: StepRows, probabilities_N3: FloatArray, bootstrap: Bootstrap, bins: int = BINS
) -> dict[str, Any]:
    """The calibration part of an evaluation for one scorer: see `prm_kit.evaluate.evaluation` for its keys."""
    answered = np.isfinite(probabilities_N3).all(axis=1)
    probabilities, problem = probabilities_N3[answered], rows.problem[answered]
    truth_N3 = (rows.label[answered, None] == np.array(LABEL_VALUES)).astype(float)
    n = int(answered.sum())
    losses = np.stack(
        [
            np.ones(n),
            ((probabilities - truth_N3) ** 2).sum(axis=1),
            -np.log(np.clip((probabilities * truth_N3).sum(axis=1), FLOOR, 1.0)),
        ],
        axis=1,
    )
    means = _mean_measures(losses, problem, bootstrap)
    table: dict[str, Any] = {"answered": n, "brier": means[0], "nll": means[1], "bins": bins, "classes": {}}
    for index, label in enumerate(LABEL_VALUES):
        probability, truth = probabilities[:, index], truth_N3[:, index]
        table["classes"][str(label)] = {
            **{f"ece_{how}": _ece_measure(probability, truth, problem, bootstrap, bins, how) for how in BINNINGS},
            "reliability": reliability_curve(probability, truth, bins),
        }
    return table


def _mean_measures(columns: FloatArray, problem: IntArray, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Measures of the means of all columns but the first, which counts."""
    sums = sums_by_problem(problem, columns, bootstrap.n_problems)
    points = ratio(sums.sum(axis=0)[1:], sums.sum(axis=0)[:1])
    replicates = bootstrap.of_sums(sums, lambda drawn: ratio(drawn[:, 1:], drawn[:, :1]))
    return [bootstrap.measure(points[k], replicates[:, k], len(columns)) for k in range(len(points))]


def _ece_measure(
    probability: FloatArray, truth: FloatArray, problem: IntArray, bootstrap: Bootstrap, bins: int, binning: str
) -> dict[str, Any]:
    cells = _bin_cells(probability, truth, bin_edges(probability, bins, binning))
    sums = sums_by_problem(problem, cells, bootstrap.n_problems)
    value = float(_ece(sums.sum(axis=0)[None, :])[0])
    return bootstrap.measure(value, bootstrap.of_sums(sums, _ece), len(probability))


def _bin_cells(probability_N: FloatArray, truth_N: FloatArray, edges: FloatArray) -> FloatArray:
    """Columns [N, 3 * bins]: per bin whether the prediction is in it, its probability there, its truth there."""
    member = np.eye(len(edges) + 1)[np.digitize(probability_N, edges)]
    parts = np.stack([np.ones_like(probability_N), probability_N, truth_N], axis=1)
    return (member[:, :, None] * parts[:, None, :]).reshape(len(probability_N), 3 * (len(edges) + 1))


def _ece(sums_RM: FloatArray) -> FloatArray:
    counts, totals, trues = np.moveaxis(sums_RM.reshape(len(sums_RM), -1, 3), 2, 0)
    return ratio(np.abs(trues - totals).sum(axis=1), counts.sum(axis=1))
