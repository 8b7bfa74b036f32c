"""Every rater's labels as columns: what consensus, quality and the queue count over.

A rater is a kind and a name, whatever the version. Rows are numbered, so that sums over solutions, problems and raters
are array sums; ten thousand solutions with three raters and ten steps take seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from labeling.labeler import WITHDRAWN
from prm_kit.errors import InputError
from prm_kit.view import View

NAMED_NONE = -1
"""In `first_error`: the rater judged every step and called none wrong."""


@dataclass(frozen=True)
class LabelTable:
    """Solutions, annotations and labels of a view, numbered.

    Attributes:
        solutions: solution (its number), id, problem (number of its problem; texts that differ in case or white space
            are one), steps (how many), is_correct (or null).
        raters: rater (its number), kind, name, label ("kind name", for people to read).
        annotations: annotation (number), id, solution, rater, version, time ("" unknown), lead_time, flags, judged
            (number of steps with a value), first_error: index of the first step labelled -1 where every step before it
            was judged, `NAMED_NONE` where every step was judged and none is -1, null where that is open.
        labels: annotation, solution, rater, step, value (-1, 0, +1), sources (of a merged label, the ids of the
            annotations it came from), one row per judged step.
        shares: annotation, solution, rater, step, wrong, neutral, right: labels that carry shares, valued or not.

    Of several annotations by one rater of one solution the last counts, as in a ledger; if it takes the others back,
    none does.
    """

    solutions: pl.DataFrame
    raters: pl.DataFrame
    annotations: pl.DataFrame
    labels: pl.DataFrame
    shares: pl.DataFrame

    @property
    def n_problems(self) -> int:
        """How many problems there are."""
        return self.solutions["problem"].n_unique()

    def of(self, kinds: Collection[str] | None = None, without: Collection[str] = ()) -> LabelTable:
        """The same solutions with the raters of some kinds only; raters keep their numbers.

        Args:
            kinds: Kinds that stay; None: all.
            without: Kinds that go.
        """
        stays = ~pl.col("kind").is_in(list(without))
        if kinds is not None:
            stays &= pl.col("kind").is_in(list(kinds))
        return self.of_raters(self.raters.filter(stays)["rater"].to_list())

    def of_raters(self, raters: Collection[int]) -> LabelTable:
        """The same solutions with these raters only; they keep their numbers."""
        chosen = pl.col("rater").is_in(list(raters))
        return LabelTable(
            self.solutions,
            self.raters.filter(chosen),
            self.annotations.filter(chosen),
            self.labels.filter(chosen),
            self.shares.filter(chosen),
        )


def label_table(view: View) -> LabelTable:
    """Read a view into columns.

    Raises:
        InputError: There is no annotation.
    """
    frames = view.frames()
    solutions = _solutions(frames.solutions)
    rows = (
        frames.annotations.collect(engine="streaming")
        .join(solutions.select("solution", "steps", solution_id="id"), on="solution_id", maintain_order="left")
        .unique(["solution", "rater_kind", "rater_name"], keep="last", maintain_order=True)
        .filter(~pl.col("flags").list.contains(WITHDRAWN))
        .sort("solution", maintain_order=True)
        .with_row_index("annotation")
    )
    if rows.is_empty():
        raise InputError("nobody has labelled any of these solutions yet")
    raters = (
        rows.select(kind="rater_kind", name="rater_name")
        .unique()
        .sort("kind", "name")
        .with_row_index("rater")
        .with_columns(label=pl.col("kind") + " " + pl.col("name"))
    )
    of_rater = raters.select("rater", rater_kind="kind", rater_name="name")
    rows = rows.join(of_rater, on=["rater_kind", "rater_name"], maintain_order="left")
    every = rows.select("annotation", "solution", "rater", "labels").explode("labels").unnest("labels")
    every = every.filter(pl.col("step").is_not_null())
    labels = every.filter(pl.col("value").is_not_null()).select(
        "annotation", "solution", "rater", "step", "value", "sources"
    )
    wrong, neutral, right = (pl.col("shares").list.get(k) for k in range(3))
    shares = every.filter(pl.col("shares").list.len() == 3).select(
        "annotation", "solution", "rater", "step", wrong=wrong, neutral=neutral, right=right
    )
    return LabelTable(solutions, raters, _annotations(rows, every), labels, shares)


def _solutions(solutions: pl.LazyFrame) -> pl.DataFrame:
    problem = pl.col("problem").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    return (
        solutions.select("id", "is_correct", problem=problem, steps=pl.col("spans").list.len())
        .collect(engine="streaming")
        .with_row_index("solution")
        .with_columns(problem=(pl.col("problem").rank("dense") - 1).cast(pl.UInt32))
        .select("solution", "id", "problem", "steps", "is_correct")
    )


def _annotations(rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    said = labels.filter(pl.col("value").is_not_null()).group_by("annotation").agg(**first_error_of("value"))
    judged = pl.col("judged").fill_null(0)
    return rows.join(said, on="annotation", how="left", maintain_order="left").select(
        "annotation",
        "id",
        "solution",
        "rater",
        "time",
        "lead_time",
        "flags",
        version="rater_version",
        judged=judged,
        first_error=settled_first_error(),
    )


def first_error_of(value: str) -> dict[str, pl.Expr]:
    """What `settled_first_error` needs of the judged steps of a group: judged, error, and before (judged before it).

    Args:
        value: Column with the values, beside `step`; no nulls.
    """
    error = pl.col("step").filter(pl.col(value) == -1).min()
    return {"judged": pl.len(), "error": error.cast(pl.Int32), "before": (pl.col("step") < error).sum()}


def settled_first_error() -> pl.Expr:
    """The first error of a row with `steps` and the columns of `first_error_of`; null where a step leaves it open."""
    return (
        pl.when(pl.col("before") == pl.col("error"))
        .then(pl.col("error"))
        .when(pl.col("error").is_null() & (pl.col("judged") == pl.col("steps")) & (pl.col("judged") > 0))
        .then(pl.lit(NAMED_NONE, dtype=pl.Int32))
    )
