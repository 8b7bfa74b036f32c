"""prm-kit's own JSONL: a solution with its annotations on one line, everything kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, as_mapping
from prm_kit.record_json import annotation_from_json, annotation_to_json, solution_from_json, solution_to_json


class OwnLayout(Layout):
    """No options of its own; the rows say everything."""


def read_row(row: Row, layout: OwnLayout) -> Reading:
    """One line, one solution with all its annotations."""
    solution = solution_from_json(as_mapping(row.value, "solution"))
    reading = Reading()
    annotations = []
    for index, value in enumerate(row.array("annotations")):
        if not isinstance(value, dict):
            raise InputError(f"annotations[{index}]: not an object")
        annotation = annotation_from_json(value)
        if annotation.solution_id != solution.id:
            raise InputError(f"annotations[{index}]: belongs to solution {annotation.solution_id}, not {solution.id}")
        reading.seen.update(
            "soft" if label.value is None and label.shares else str(label.value) for label in annotation.labels
        )
        annotations.append(annotation)
    reading.items.append(Item(solution, tuple(annotations)))
    return reading


def write_rows(group: Sequence[Judged], layout: OwnLayout) -> dict[str, Any]:
    """One solution, one line, with every annotation given."""
    return {
        "solution": solution_to_json(group[0].solution),
        "annotations": [annotation_to_json(judged.annotation) for judged in group if judged.annotation],
    }


OWN = Format(
    name="prm-kit",
    about="prm-kit's own JSONL: a solution and its annotations a line, lossless",
    layout=OwnLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(neutral=True, soft=True, missing=True),
    labels="whole",
)
