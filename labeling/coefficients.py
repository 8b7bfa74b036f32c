"""Krippendorff's alpha, Cohen's and Fleiss' kappa, as functions of sums. Axes as in `labeling.agreement`."""

from __future__ import annotations

from typing import Literal

import numpy as np

from prm_kit.errors import unknown_name
from prm_kit.evaluate.bootstrap import FloatArray, ratio

Metric = Literal["ordinal", "nominal"]

METRICS: tuple[Metric, ...] = ("ordinal", "nominal")


def coincidences(counts_UK: FloatArray) -> FloatArray:
    """What each unit adds to the coincidence matrix: [U, K, K].

    Args:
        counts_UK: How many raters gave the unit each value; a unit with fewer than two adds nothing.
    """
    counts = np.asarray(counts_UK, dtype=np.float64)
    m = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    k = np.arange(counts.shape[1])
    pairs[:, k, k] -= counts
    return np.where((m >= 2)[:, None, None], pairs / np.maximum(m - 1, 1)[:, None, None], 0.0)


def krippendorff_alpha(coincidence_RKK: FloatArray, metric: Metric = "ordinal") -> FloatArray:
    """Krippendorff's alpha [R] of coincidence matrices: 1 perfect, 0 as by chance, NaN where all values are one.

    Source: Krippendorff, Content Analysis (2004), chapter 11. Ordinal differences come from the matrix's own margins.

    Raises:
        UsageError: Unknown metric.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    margin_RK = coincidence_RKK.sum(axis=2)
    n = margin_RK.sum(axis=1)
    k = coincidence_RKK.shape[1]
    if metric == "ordinal":
        # Sum of the margins from the lower to the higher class, each end counted by half.
        until = np.cumsum(margin_RK, axis=1) - margin_RK / 2
        difference = (until[:, :, None] - until[:, None, :]) ** 2
    else:
        difference = np.broadcast_to(1.0 - np.eye(k), coincidence_RKK.shape)
    observed = (coincidence_RKK * difference).sum(axis=(1, 2))
    expected = (margin_RK[:, :, None] * margin_RK[:, None, :] * difference).sum(axis=(1, 2))
    return 1.0 - ratio((n - 1.0) * observed, expected)


def cohen_kappa(confusion_RKK: FloatArray) -> FloatArray:
    """Cohen's kappa [R] of two raters' cross tables (unweighted); NaN where both gave one and the same value only."""
    n = confusion_RKK.sum(axis=(1, 2))
    observed = ratio(np.trace(confusion_RKK, axis1=1, axis2=2), n)
    expected = ratio((confusion_RKK.sum(axis=2) * confusion_RKK.sum(axis=1)).sum(axis=1), n**2)
    return ratio(observed - expected, 1.0 - expected)


def fleiss_parts(counts_UK: FloatArray) -> FloatArray:
    """What each unit adds to Fleiss' kappa: [U, 2 + K]: whether it counts, its agreeing share of pairs, its shares."""
    counts = np.asarray(counts_UK, dtype=np.float64)
    m = counts.sum(axis=1)
    pairs = (counts * (counts - 1)).sum(axis=1) / np.maximum(m * (m - 1), 1)
    parts = np.concatenate([np.ones((len(m), 1)), pairs[:, None], counts / np.maximum(m, 1)[:, None]], axis=1)
    return np.where((m >= 2)[:, None], parts, 0.0)


def fleiss_kappa(sums_RM: FloatArray) -> FloatArray:
    """Fleiss' kappa [R] of sums of `fleiss_parts`; NaN where there is one value only.

    Units may have different numbers of raters, two at least; each unit weighs the same (with equal numbers this is
    Fleiss 1971).
    """
    means = ratio(sums_RM[:, 1:], sums_RM[:, :1])
    expected = (means[:, 1:] ** 2).sum(axis=1)
    return ratio(means[:, 0] - expected, 1.0 - expected)
