"""How scores change along a solution: by step position, by number of steps, and their histogram by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, ratio, sums_by_problem
from prm_kit.evaluate.metrics import RANKINGS, predicted_classes, ranking_replicates
from prm_kit.evaluate.rows import StepRows
from prm_kit.records import LABEL_VALUES
from prm_kit.score import StepScores

POSITIONS: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 7, 10, 15)
"""First step index of each position slice; the last slice is open."""

STEP_COUNTS: tuple[int, ...] = (1, 4, 6, 8, 11, 16)
"""Lowest number of steps of each step-count slice; the last slice is open."""

HISTOGRAM_BINS = 20


def slice_names(starts: tuple[int, ...]) -> list[str]:
    """Names of the slices: "0", "5-6", "15+"."""
    ends = [start - 1 for start in starts[1:]]
    names = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=False)]
    return [*names, f"{starts[-1]}+"]


def slice_numbers(value_N: IntArray, starts: tuple[int, ...]) -> IntArray:
    """Number of the slice that each value falls in."""
    return np.searchsorted(np.array(starts), value_N, side="right") - 1


def slice_table(
    rows: StepRows,
    probabilities_N3: FloatArray,
    of_N: IntArray,
    starts: tuple[int, ...],
    bootstrap: Bootstrap,
    unbounded_N: FloatArray | None = None,
) -> list[dict[str, Any]]:
    """One entry per slice that has judged steps.

    Args:
        rows: Judged steps.
        probabilities_N3: The scorer's class probabilities, NaN where it abstains.
        of_N: What is sliced: step index or number of steps.
        starts: `POSITIONS` or `STEP_COUNTS`.
        bootstrap: Resamples of problems.
        unbounded_N: The values of a scorer without probabilities; the accuracy is then undefined.
    """
    value = probabilities_N3[:, 2] - probabilities_N3[:, 0] if unbounded_N is None else unbounded_N
    hit = (predicted_classes(probabilities_N3) == rows.label).astype(float)
    hit = hit if unbounded_N is None else np.full(len(rows), np.nan)
    number = slice_numbers(of_N, starts)
    return [
        {"slice": name, **_one_slice(rows, value, hit, np.flatnonzero(number == index), bootstrap)}
        for index, name in enumerate(slice_names(starts))
        if (number == index).any()
    ]


def value_histogram(
    rows: StepRows, probabilities_N3: FloatArray, unbounded_N: FloatArray | None = None
) -> dict[str, Any]:
    """Counts of the value in equal bins, apart for each label; abstentions are left out.

    The bins cover [-1, 1], or what there is of the values of a scorer without probabilities.
    """
    value = probabilities_N3[:, 2] - probabilities_N3[:, 0] if unbounded_N is None else unbounded_N
    answered = np.isfinite(value)
    edges = np.linspace(-1.0, 1.0, HISTOGRAM_BINS + 1)
    if unbounded_N is not None and answered.any():
        edges = np.histogram_bin_edges(value[answered], HISTOGRAM_BINS)
    counts = {
        str(label): np.histogram(value[answered & (rows.label == label)], bins=edges)[0].tolist()
        for label in LABEL_VALUES
    }
    return {"edges": edges.round(6).tolist(), "counts": counts}


def lowest_step(
    scores: Sequence[StepScores], n_steps: Sequence[int], problem_L: IntArray, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Where in a solution its lowest value lies: a scorer that always dips at the end judges the ending, not the steps.

    Only solutions of two steps or more with a single lowest value count. `last` is the share of them in which the last
    step has it; `tenths` counts them by relative position, 0 the first step and 1 the last.
    """
    places: list[float] = []
    problems: list[int] = []
    for score, n, problem in zip(scores, n_steps, problem_L.tolist(), strict=True):
        values = [np.inf if value is None else value for value in score.values]
        low = min(values, default=np.inf)
        if n > 1 and np.isfinite(low) and values.count(low) == 1:
            places.append(values.index(low) / (n - 1))
            problems.append(problem)
    place = np.array(places, dtype=np.float64)
    columns = np.stack([np.ones(len(place)), (place == 1).astype(float)], axis=1)
    sums = sums_by_problem(np.array(problems, dtype=np.int64), columns, bootstrap.n_problems)
    point = float(ratio(sums[:, 1].sum(), sums[:, 0].sum()))
    replicates = bootstrap.of_sums(sums, lambda drawn: ratio(drawn[:, 1], drawn[:, 0]))
    tenths = np.histogram(place, bins=10, range=(0.0, 1.0))[0].tolist()
    return {"last": bootstrap.measure(point, replicates, len(place)), "tenths": tenths}


def _one_slice(
    rows: StepRows, value_N: FloatArray, hit_N: FloatArray, where: IntArray, bootstrap: Bootstrap
) -> dict[str, Any]:
    label, problem, value = rows.label[where], rows.problem[where], value_N[where]
    answered = np.isfinite(value)
    columns = [np.ones(len(where)), hit_N[where]]
    for of in LABEL_VALUES:
        counted = answered & (label == of)
        columns += [counted.astype(float), np.where(counted, np.nan_to_num(value), 0.0)]
    sums = sums_by_problem(problem, np.stack(columns, axis=1), bootstrap.n_problems)
    points, drawn = sums.sum(axis=0), bootstrap.of_sums(sums, lambda found: found)
    n = len(where)
    means = {
        str(of): bootstrap.measure(
            float(ratio(points[column + 1], points[column])),
            ratio(drawn[:, column + 1], drawn[:, column]),
            int(points[column]),
        )
        for of, column in zip(LABEL_VALUES, (2, 4, 6), strict=True)
    }
    return {
        "n": n,
        "n_wrong": int((label == -1).sum()),
        "accuracy": bootstrap.measure(points[1] / points[0], ratio(drawn[:, 1], drawn[:, 0]), n),
        "auroc_wrong": _auroc_wrong(label[answered], value[answered], problem[answered], bootstrap),
        "mean_value": means,
    }


def _auroc_wrong(label: IntArray, value: FloatArray, problem: IntArray, bootstrap: Bootstrap) -> dict[str, Any]:
    of, sign, ranking, _ = RANKINGS["auroc_wrong"]
    positive = label == of
    two_sided = positive.any() and not positive.all()
    point = float(ranking(positive, sign * value)) if two_sided else None
    return bootstrap.measure(point, ranking_replicates("auroc_wrong", label, value, problem, bootstrap), len(label))
