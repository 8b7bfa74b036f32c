"""ProcessBench: solutions with the 0-based index of the first wrong step, -1 for none (arXiv 2412.06559).

Steps before the first error are right, the steps after it are not judged. Right answers reached in a wrong way are kept
and flagged `right_answer_wrong_process`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, hard_labels, single
from prm_kit.records import Annotation, LabelValue, Solution


class ProcessBenchLayout(Layout):
    """Options.

    Attributes:
        separator: What stands between two steps of the completion.
    """

    separator: str = "\n\n"


def read_row(row: Row, layout: ProcessBenchLayout) -> Reading:
    """One row, one solution."""
    steps = row.texts("steps")
    first_error = row.value.get("label")
    if isinstance(first_error, bool) or not isinstance(first_error, int) or not -1 <= first_error < len(steps):
        raise InputError(f"label: not the 0-based index of one of {len(steps)} steps, nor -1")
    is_correct = row.value.get("final_answer_correct")
    if is_correct is not None and not isinstance(is_correct, bool):
        raise InputError("final_answer_correct: not true, false or null")
    row_id = row.optional_text("id")
    fields = layout.fields("processbench", row, row_id, subset=_subset(row_id))
    fields["generator"] = row.optional_text("generator") or layout.generator
    solution = Solution.from_steps(row.text("problem"), steps, layout.separator, is_correct=is_correct, **fields)
    annotation = Annotation(
        solution.id,
        layout.rater("human", "processbench-experts"),
        hard_labels(solution, labels_of(first_error, len(steps))),
        flags=("right_answer_wrong_process",) if is_correct and first_error >= 0 else (),
    )
    reading = Reading([Item(solution, (annotation,))])
    reading.seen["no error" if first_error < 0 else "first error"] += 1
    return reading


def labels_of(first_error: int, n_steps: int) -> list[LabelValue | None]:
    """+1 before the 0-based first error, -1 at it, None after it; all +1 where it is negative."""
    if first_error < 0:
        return [1] * n_steps
    before: list[LabelValue | None] = [1] * first_error
    return [*before, -1, *[None] * (n_steps - first_error - 1)]


def _subset(row_id: str | None) -> str | None:
    name, dash, number = (row_id or "").rpartition("-")
    return name if dash and number.isdigit() else None


def write_rows(group: Sequence[Judged], layout: ProcessBenchLayout) -> dict[str, Any]:
    """One solution, one row: the index of its first -1, or -1 where every step is right."""
    solution, _, folded = single(group)
    first_error = next((step for step, target in enumerate(folded.targets) if target == -1), -1)
    return {
        "id": solution.meta.get("row_id", solution.id),
        "generator": solution.generator,
        "problem": solution.problem,
        "steps": list(solution.steps),
        "final_answer_correct": solution.is_correct,
        "label": first_error,
    }


PROCESSBENCH = Format(
    name="processbench",
    about="ProcessBench: steps and the 0-based index of the first wrong one",
    layout=ProcessBenchLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(missing_after_error=True),
    warning="labels after the first error are not written: the format holds the first error only",
)
