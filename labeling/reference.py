"""Raters against a reference: the merged label, or gold. Confusion, lean, first errors, and change over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from labeling.agreement import grouped_measures, pair_figures, pair_sums
from labeling.consensus import Merged
from labeling.label_table import NAMED_NONE, LabelTable, first_error_of, settled_first_error
from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, ratio, sums_by_problem
from prm_kit.records import LABEL_VALUES

_K = len(LABEL_VALUES)

_ALONE = (pl.col("sources").list.len() == 1) & (pl.col("sources").list.first() == pl.col("id"))

WINDOWS = 8
"""At most so many windows of time a rater."""

WINDOW_ANNOTATIONS = 20
"""At least so many annotations a window."""


class Reference(NamedTuple):
    """What raters are compared with, in the numbers of the table that they stand in.

    Attributes:
        labels: solution, step, truth (-1, 0, +1), sources (ids of the annotations that it came from).
        first_errors: solution, truth: as `first_error` of a `LabelTable`, where it is settled; sources: of the labels
            until there.
    """

    labels: pl.DataFrame
    first_errors: pl.DataFrame


def merged_reference(table: LabelTable, merged: Merged) -> Reference:
    """A consensus made of `table` a moment ago as reference."""
    labels = merged.labels.filter(pl.col("value").is_not_null()).select("solution", "step", "sources", truth="value")
    said = labels.group_by("solution").agg(**first_error_of("truth")).join(table.solutions, on="solution")
    return _with_sources(labels, said.select("solution", truth=settled_first_error()))


def reference_of(table: LabelTable, raters: Sequence[int], reference: LabelTable | None = None) -> Reference:
    """The labels of some raters as reference; of several about one step the last counts.

    Args:
        table: The table whose raters are compared.
        raters: Numbers of the reference's raters.
        reference: The table that they stand in, if it is another one: solutions are matched by id.
    """
    source = (reference or table).of_raters(raters)
    ids = source.annotations.select("annotation", "id")
    labels = source.labels.join(ids, on="annotation", maintain_order="left")
    own = pl.when(pl.col("sources").list.len() > 0).then("sources").otherwise(pl.concat_list("id"))
    labels = labels.select("solution", "step", sources=own, truth="value")
    first = source.annotations.select("solution", truth="first_error")
    if reference is not None:
        numbers = reference.solutions.select("id", there="solution").join(
            table.solutions.select("id", "solution"), on="id"
        )
        numbers = numbers.select("there", "solution")
        labels = labels.rename({"solution": "there"}).join(numbers, on="there", maintain_order="left").drop("there")
        first = first.rename({"solution": "there"}).join(numbers, on="there", maintain_order="left").drop("there")
    return _with_sources(
        labels.unique(["solution", "step"], keep="last", maintain_order=True),
        first.unique("solution", keep="last", maintain_order=True),
    )


def against(table: LabelTable, reference: Reference, bootstrap: Bootstrap) -> dict[int, dict[str, Any]]:
    """Every rater that shares a step or a first error with the reference, compared with it.

    Steps and first errors whose reference came from this rater alone are left out: agreeing with oneself shows nothing.

    Returns:
        By rater: JSON data: steps, confusion [truth][said] as counts, the measures percent, kappa, lean (mean of said
        minus truth: below 0 the rater is stricter), precision and recall by value, and first_error (as in
        `labeling.agreement.pair_agreement`; a is the reference, b the rater).
    """
    rows, firsts = _joined(table, reference), _joined_first(table, reference)
    raters = [r for r in table.raters["rater"].to_list() if r in set(rows["rater"]) | set(firsts["rater"])]
    if not raters:
        return {}
    by_rater, first_by_rater = _parts(rows), _parts(firsts)
    sums = [
        pair_sums(_columns(by_rater.get(rater)), _columns(first_by_rater.get(rater)), bootstrap.n_problems)
        for rater in raters
    ]
    figures = pair_figures(sums, bootstrap)
    cross = np.stack([s[:, : _K * _K] for s in sums], axis=1)
    totals = cross.sum(axis=0).reshape(-1, _K, _K).astype(np.int64)
    said, true = totals.sum(axis=1), totals.sum(axis=2)
    steps = np.repeat(totals.sum(axis=(1, 2))[:, None], 1, axis=1)
    keys = ["lean", *(f"precision {value}" for value in LABEL_VALUES), *(f"recall {value}" for value in LABEL_VALUES)]
    more = grouped_measures(keys, cross, _class_statistic, bootstrap, np.concatenate([steps, said, true], axis=1))
    found = {}
    for g, rater in enumerate(raters):
        own = more[g]
        by_value = {
            name: {str(value): own[f"{name} {value}"] for value in LABEL_VALUES} for name in ("precision", "recall")
        }
        kept = {key: figures[g][key] for key in ("steps", "confusion", "percent", "kappa", "first_error")}
        found[rater] = {**kept, "lean": own["lean"], **by_value}
    return found


def drift(table: LabelTable, reference: Reference, bootstrap: Bootstrap) -> dict[int, dict[str, Any]]:
    """How every rater changes over time, for raters whose annotations carry times.

    A rater's annotations, in order of time, are cut into windows of equal numbers. One who has fewer than two windows'
    worth has none.

    Returns:
        By rater: JSON data: windows (each: first and last time, annotations, values (labels by value), agreement with
        the reference (measure)), and change: the measure of the agreement in the later half minus that in the earlier.
    """
    placed = _windows(table)
    if placed.is_empty():
        return {}
    rows = _joined(table, reference).join(placed.select("annotation", "window", "half"), on="annotation")
    values = [(pl.col("value") == value).sum().alias(str(value)) for value in LABEL_VALUES]
    counted = table.labels.join(placed.select("annotation", "window"), on="annotation")
    counts = counted.group_by("rater", "window").agg(values)
    windows = (
        placed.group_by("rater", "window")
        .agg(first=pl.col("time").min(), last=pl.col("time").max(), annotations=pl.len())
        .join(counts, on=["rater", "window"], how="left")
        .sort("rater", "window")
    )
    by_window = rows.partition_by("rater", "window", as_dict=True)
    agreement = _agreements([by_window.get(key) for key in windows.select("rater", "window").iter_rows()], bootstrap)
    found: dict[int, dict[str, Any]] = {}
    for row, measure in zip(windows.to_dicts(), agreement, strict=True):
        window = {key: row[key] for key in ("first", "last", "annotations")}
        window["values"] = {str(value): row[str(value)] or 0 for value in LABEL_VALUES}
        found.setdefault(row["rater"], {"windows": []})["windows"].append(window | {"agreement": measure})
    for rater, measure in _changes(rows, list(found), bootstrap).items():
        found[rater]["change"] = measure
    return found


def _with_sources(labels: pl.DataFrame, first_errors: pl.DataFrame) -> Reference:
    """A reference from its labels and from first errors that may be open (null) and have no sources yet."""
    settled = first_errors.filter(pl.col("truth").is_not_null())
    until = labels.join(settled.rename({"truth": "end"}), on="solution")
    until = until.filter((pl.col("end") == NAMED_NONE) | (pl.col("step") <= pl.col("end")))
    sources = until.group_by("solution").agg(pl.col("sources").explode().unique())
    return Reference(labels, settled.join(sources, on="solution"))


def _joined(table: LabelTable, reference: Reference) -> pl.DataFrame:
    """annotation, rater, problem, truth and said (classes) of every label of a step that the reference has."""
    labels = table.labels.drop("sources").join(reference.labels, on=["solution", "step"], maintain_order="left")
    labels = labels.join(table.annotations.select("annotation", "id"), on="annotation", maintain_order="left")
    return (
        labels.filter(~_ALONE)
        .join(table.solutions.select("solution", "problem"), on="solution", maintain_order="left")
        .select("annotation", "rater", "problem", a=pl.col("truth") + 1, b=pl.col("value") + 1)
    )


def _joined_first(table: LabelTable, reference: Reference) -> pl.DataFrame:
    """rater, problem, first error of the reference and of the rater, where both are settled."""
    settled = table.annotations.filter(pl.col("first_error").is_not_null())
    rows = settled.join(reference.first_errors, on="solution", maintain_order="left").filter(~_ALONE)
    rows = rows.join(table.solutions.select("solution", "problem"), on="solution", maintain_order="left")
    return rows.select("rater", "problem", a="truth", b="first_error")


def _parts(rows: pl.DataFrame) -> Mapping[int, pl.DataFrame]:
    return {rater: part for (rater,), part in rows.partition_by("rater", as_dict=True).items()}


def _columns(rows: pl.DataFrame | None) -> tuple[IntArray, IntArray, IntArray]:
    if rows is None:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    problem, a, b = (rows[name].to_numpy().astype(np.int64) for name in ("problem", "a", "b"))
    return problem, a, b


def _class_statistic(sums_RM: FloatArray) -> FloatArray:
    cross = sums_RM.reshape(-1, _K, _K)
    values = np.array(LABEL_VALUES, dtype=np.float64)
    n = cross.sum(axis=(1, 2))
    lean = ratio((cross * (values[None, :] - values[:, None])).sum(axis=(1, 2)), n)
    right = np.diagonal(cross, axis1=1, axis2=2)
    return np.concatenate([lean[:, None], ratio(right, cross.sum(axis=1)), ratio(right, cross.sum(axis=2))], axis=1)


def _windows(table: LabelTable) -> pl.DataFrame:
    """annotation, rater, time, window and half of the annotations with times, of raters with enough of them."""
    timed = table.annotations.filter(pl.col("time") != "").sort("time", "annotation")
    n, at = pl.len().over("rater"), pl.int_range(pl.len()).over("rater")
    windows = (n // WINDOW_ANNOTATIONS).clip(upper_bound=WINDOWS)
    return timed.filter(windows >= 2).select(
        "annotation", "rater", "time", window=(at * windows // n).cast(pl.Int32), half=(2 * at >= n).cast(pl.Int32)
    )


def _agreements(parts: Sequence[pl.DataFrame | None], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    sums = [_agreeing(part, bootstrap.n_problems) for part in parts]
    n = np.array([[s[:, 0].sum()] for s in sums], dtype=np.int64)
    found = grouped_measures(
        ["agreement"], np.stack(sums, axis=1), lambda s: ratio(s[:, 1], s[:, 0])[:, None], bootstrap, n
    )
    return [row["agreement"] for row in found]


def _changes(rows: pl.DataFrame, raters: Sequence[int], bootstrap: Bootstrap) -> dict[int, dict[str, Any]]:
    halves = rows.partition_by("rater", "half", as_dict=True)
    sums = [
        np.concatenate([_agreeing(halves.get((rater, half)), bootstrap.n_problems) for half in (0, 1)], axis=1)
        for rater in raters
    ]
    n = np.array([[s[:, 0].sum() + s[:, 2].sum()] for s in sums], dtype=np.int64)

    def statistic(sums_RM: FloatArray) -> FloatArray:
        return (ratio(sums_RM[:, 3], sums_RM[:, 2]) - ratio(sums_RM[:, 1], sums_RM[:, 0]))[:, None]

    found = grouped_measures(["change"], np.stack(sums, axis=1), statistic, bootstrap, n)
    return {rater: row["change"] for rater, row in zip(raters, found, strict=True)}


def _agreeing(part: pl.DataFrame | None, n_problems: int) -> FloatArray:
    """Per problem the number of labels and of those that agree: [P, 2]."""
    problem, a, b = _columns(part)
    return sums_by_problem(problem, np.stack([np.ones(len(a)), (a == b).astype(np.float64)], axis=1), n_problems)
