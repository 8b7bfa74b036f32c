"""How far raters agree: Krippendorff's alpha, Cohen's and Fleiss' kappa, and the distance between first errors.

Every figure is a function of sums over problems, so that its interval comes from resampling problems. Axes:
R resamples, U units (a unit is one step of one solution), K classes in order, P problems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from labeling.coefficients import METRICS, cohen_kappa, coincidences, fleiss_kappa, fleiss_parts, krippendorff_alpha
from labeling.label_table import NAMED_NONE, LabelTable
from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, ratio, sums_by_problem
from prm_kit.records import LABEL_VALUES

_COLUMNS = 1500
"""Columns of sums that are resampled at once."""

_K = len(LABEL_VALUES)


def overall_agreement(table: LabelTable, bootstrap: Bootstrap) -> dict[str, Any]:
    """Agreement of all raters of a table taken together.

    Returns:
        JSON data: raters, units (steps that at least two of them judged), labels (theirs of those steps), values (by
        value), and the measures alpha (ordinal), alpha_nominal, fleiss and percent (agreeing share of pairs of
        labels), each {value, low, high, n}; None is undefined.
    """
    counts, problem = _units(table)
    matrix = coincidences(counts).reshape(-1, _K * _K)
    sums = sums_by_problem(problem, np.concatenate([matrix, fleiss_parts(counts)], axis=1), bootstrap.n_problems)

    def statistic(sums_RM: FloatArray) -> FloatArray:
        pairs = sums_RM[:, : _K * _K].reshape(-1, _K, _K)
        rest = sums_RM[:, _K * _K :]
        alphas = [krippendorff_alpha(pairs, metric) for metric in METRICS]
        return np.stack([*alphas, fleiss_kappa(rest), ratio(rest[:, 1], rest[:, 0])], axis=1)

    keys = ("alpha", "alpha_nominal", "fleiss", "percent")
    return {
        "raters": table.raters.height,
        "units": len(counts),
        "labels": int(counts.sum()),
        "values": {str(value): int(n) for value, n in zip(LABEL_VALUES, counts.sum(axis=0), strict=True)},
        **grouped_measures(keys, sums[:, None, :], statistic, bootstrap, np.full((1, len(keys)), len(counts)))[0],
    }


def pair_agreement(table: LabelTable, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Agreement of every two raters that judged a step or a first error in common, in the raters' order.

    Returns:
        JSON data per pair: a and b (the raters' numbers), steps (that both judged), confusion [value of a][value of b]
        as counts, the measures alpha (ordinal), kappa (Cohen) and percent, and first_error: solutions (for which both
        settle it: they name a first error, or judged every step and named none), agreement (measure), only_a and
        only_b (only that one names an error), both (name one) and distance (measure: mean number of steps between
        the errors that they name).
    """
    raters = table.raters["rater"].to_list()
    steps, solutions = _by_unit(table, raters), _by_solution(table, raters)
    pairs = [(i, j) for i in range(len(raters)) for j in range(i + 1, len(raters))]
    kept, sums = [], []
    for i, j in pairs:
        both = (steps.said[:, i] != _NOTHING) & (steps.said[:, j] != _NOTHING)
        first = (solutions.said[:, i] != _NOTHING) & (solutions.said[:, j] != _NOTHING)
        if both.any() or first.any():
            kept.append((raters[i], raters[j]))
            sums.append(
                pair_sums(
                    (steps.problem[both], steps.said[both, i], steps.said[both, j]),
                    (solutions.problem[first], solutions.said[first, i], solutions.said[first, j]),
                    bootstrap.n_problems,
                )
            )
    return [{"a": a, "b": b, **row} for (a, b), row in zip(kept, pair_figures(sums, bootstrap), strict=True)]


def grouped_measures(
    keys: Sequence[str],
    sums_PGM: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    bootstrap: Bootstrap,
    n_GK: IntArray,
) -> list[dict[str, dict[str, Any]]]:
    """Measures of each of G groups: the values of a statistic of its sums over problems, and their intervals.

    Args:
        keys: Names of the K columns that `statistic` gives.
        sums_PGM: What each problem adds to each group, M numbers.
        statistic: From [R, M] to [R, K]; NaN where it is undefined.
        bootstrap: The resamples.
        n_GK: What each figure is about, for {value, low, high, n}.
    """
    found = []
    columns = sums_PGM.shape[2]
    step = max(1, _COLUMNS // columns)
    for start in range(0, sums_PGM.shape[1], step):
        sums = sums_PGM[:, start : start + step].reshape(len(sums_PGM), -1)

        def each(sums_RM: FloatArray) -> FloatArray:
            return statistic(sums_RM.reshape(-1, columns)).reshape(len(sums_RM), -1, len(keys))

        values = each(sums.sum(axis=0)[None, :])[0]
        replicates = bootstrap.of_sums(sums, each)
        for g in range(len(values)):
            n = n_GK[start + g]
            found.append(
                {key: bootstrap.measure(values[g, k], replicates[:, g, k], n[k]) for k, key in enumerate(keys)}
            )
    return found


def _units(table: LabelTable) -> tuple[FloatArray, IntArray]:
    """Counts [U, K] of the steps that at least two raters judged, and their problems [U]."""
    units = (
        table.labels.group_by("solution", "step", maintain_order=True)
        .agg(*((pl.col("value") == value).sum().alias(str(value)) for value in LABEL_VALUES))
        .filter(pl.sum_horizontal(*map(str, LABEL_VALUES)) >= 2)
    )
    problem = table.solutions["problem"].to_numpy()[units["solution"].to_numpy()]
    return units.select(map(str, LABEL_VALUES)).to_numpy().astype(np.float64), problem.astype(np.int64)


_NOTHING = -9

Judged = tuple[IntArray, IntArray, IntArray]
"""Problems [N] of what two raters judged, and what each of them said [N]: classes, or first errors."""


class _Said(NamedTuple):
    """What each rater said [N, raters], `_NOTHING` where nothing, and the problems [N]."""

    said: IntArray
    problem: IntArray


def _by_unit(table: LabelTable, raters: list[int]) -> _Said:
    """Classes per judged step."""
    units = table.labels.select("solution", "step").unique(maintain_order=True).with_row_index("unit")
    rows = table.labels.join(units, on=["solution", "step"], maintain_order="left")
    return _wide(rows["unit"], rows["rater"], rows["value"] + 1, raters, units, table)


def _by_solution(table: LabelTable, raters: list[int]) -> _Said:
    """First errors, as in `LabelTable`, per solution for which they are settled."""
    settled = table.annotations.filter(pl.col("first_error").is_not_null())
    units = settled.select("solution").unique(maintain_order=True).with_row_index("unit")
    rows = settled.join(units, on="solution", maintain_order="left")
    return _wide(rows["unit"], rows["rater"], rows["first_error"], raters, units, table)


def _wide(
    unit: pl.Series, rater: pl.Series, value: pl.Series, raters: list[int], units: pl.DataFrame, table: LabelTable
) -> _Said:
    wide = np.full((units.height, len(raters)), _NOTHING, dtype=np.int64)
    column = np.zeros(max(raters, default=0) + 1, dtype=np.int64)
    column[raters] = np.arange(len(raters))
    wide[unit.to_numpy(), column[rater.to_numpy()]] = value.to_numpy()
    return _Said(wide, table.solutions["problem"].to_numpy()[units["solution"].to_numpy()].astype(np.int64))


def pair_sums(steps: Judged, first_errors: Judged, n_problems: int) -> FloatArray:
    """What each problem adds to the comparison of two raters: [P, K * K + 6].

    A cross table [class of the first][class of the second]; then solutions for which both settle the first error, of
    them the same, only the first names one, only the second does, both do, and the distance in steps between theirs.
    """
    problem, a, b = steps
    cross = np.bincount(problem * _K * _K + a * _K + b, minlength=n_problems * _K * _K).reshape(-1, _K * _K)
    problem, a, b = first_errors
    both = (a != NAMED_NONE) & (b != NAMED_NONE)
    columns = [
        np.ones(len(a)),
        a == b,
        (a != NAMED_NONE) & (b == NAMED_NONE),
        (a == NAMED_NONE) & (b != NAMED_NONE),
        both,
        np.where(both, np.abs(a - b), 0),
    ]
    first = sums_by_problem(problem, np.stack(columns, axis=1).astype(np.float64), n_problems)
    return np.concatenate([cross.astype(np.float64), first], axis=1)


def pair_figures(sums: Sequence[FloatArray], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Figures of pairs of raters from their `pair_sums`: as `pair_agreement` gives them, without the raters."""
    if not sums:
        return []
    totals = np.stack([s.sum(axis=0) for s in sums]).astype(np.int64)
    steps, (n, _, only_a, only_b, both, _) = totals[:, : _K * _K].sum(axis=1), totals[:, _K * _K :].T
    figures = grouped_measures(
        ("alpha", "kappa", "percent", "agreement", "distance"),
        np.stack(sums, axis=1),
        _pair_statistic,
        bootstrap,
        np.stack([steps, steps, steps, n, both], axis=1),
    )
    return [
        {
            "steps": int(steps[g]),
            "confusion": totals[g, : _K * _K].reshape(_K, _K).tolist(),
            **{key: figures[g][key] for key in ("alpha", "kappa", "percent")},
            "first_error": {
                "solutions": int(n[g]),
                "only_a": int(only_a[g]),
                "only_b": int(only_b[g]),
                "both": int(both[g]),
                "agreement": figures[g]["agreement"],
                "distance": figures[g]["distance"],
            },
        }
        for g in range(len(sums))
    ]


def _pair_statistic(sums_RM: FloatArray) -> FloatArray:
    cross = sums_RM[:, : _K * _K].reshape(-1, _K, _K)
    n, same, _, _, both, distance = sums_RM[:, _K * _K :].T
    return np.stack(
        [
            krippendorff_alpha(cross + cross.transpose(0, 2, 1)),
            cohen_kappa(cross),
            ratio(np.trace(cross, axis1=1, axis2=2), cross.sum(axis=(1, 2))),
            ratio(same, n),
            ratio(distance, both),
        ],
        axis=1,
    )
