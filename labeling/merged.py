"""From what a policy merged to annotations: one a solution, signed by the policy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from labeling.consensus import Merged, MergeSettings
from labeling.label_table import LabelTable
from prm_kit.records import Annotation, Solution, StepLabel, step_hash

UNDECIDED = "undecided"
"""Flag of a merged annotation in which the raters left a step undecided."""


def merged_annotations(
    solutions: Iterable[Solution],
    table: LabelTable,
    merged: Merged,
    settings: MergeSettings,
    time: str,
    before: Collection[str] = (),
) -> Iterator[tuple[Solution, Annotation]]:
    """Turn merged labels into annotations, one a solution that any rater of the table has annotated, in order.

    A solution for which the policy has no label gets an annotation without labels: it takes an earlier one back. So
    does one that was merged before and that no rater of the table has annotated.
    Flags of the annotations that went in are kept.

    Args:
        solutions: Those that the table was made of; read once. One that comes again, or that the table does not
            know, is passed over.
        table: The table.
        merged: What the policy made of it.
        settings: The policy.
        time: When, ISO 8601 in UTC.
        before: Ids of the solutions that this rater, the policy, has merged before.
    """
    flags = table.annotations.group_by("solution").agg(pl.col("flags").explode().drop_nulls().unique().sort())
    flags_of = dict(flags.iter_rows())
    numbers = dict(table.solutions.select("id", "solution").iter_rows())
    rows_of = merged.labels.partition_by("solution", as_dict=True, include_key=False)
    for solution in solutions:
        number = numbers.pop(solution.id, None)
        if number is None or (number not in flags_of and solution.id not in before):
            continue
        frame = rows_of.get((number,))
        rows = frame.to_dicts() if frame is not None else []
        labels = tuple(_label(solution, row) for row in rows)
        undecided = {UNDECIDED} if any(label.value is None for label in labels) else set()
        yield (
            solution,
            Annotation(
                solution.id,
                settings.rater,
                labels,
                time=time,
                flags=tuple(sorted({*flags_of.get(number, ()), *undecided})),
                meta={"steps": len(solution.spans)},
            ),
        )


def _label(solution: Solution, row: dict[str, Any]) -> StepLabel:
    start, end = solution.spans[row["step"]]
    shares = None if row["shares"] is None else _normalised(row["shares"])
    return StepLabel(
        row["step"],
        row["value"],
        step_hash(solution.completion[start:end]),
        shares=shares,
        count=row["count"],
        comment=row["comment"],
        sources=tuple(row["sources"]),
    )


def _normalised(shares: Sequence[float]) -> tuple[float, float, float]:
    wrong, neutral, right = (min(1.0, max(0.0, share)) for share in shares)
    return wrong, neutral, right
