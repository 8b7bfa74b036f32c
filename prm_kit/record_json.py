"""Records as JSON objects and back: the project's own JSONL form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prm_kit.errors import InputError
from prm_kit.records import Annotation, Rater, Solution, StepLabel, annotation_fields


def solution_to_json(solution: Solution) -> dict[str, Any]:
    """One JSON object per solution: the project's own JSONL form. The id is written, and checked on reading."""
    return {
        "id": solution.id,
        "problem": solution.problem,
        "completion": solution.completion,
        "spans": [list(span) for span in solution.spans],
        "final_answer": solution.final_answer,
        "reference_answer": solution.reference_answer,
        "is_correct": solution.is_correct,
        "generator": solution.generator,
        "source": solution.source,
        "licence": solution.licence,
        "meta": dict(solution.meta),
    }


def solution_from_json(row: Mapping[str, Any]) -> Solution:
    """Read what `solution_to_json` wrote.

    Raises:
        InputError: A field is missing or wrong, or the id does not fit the content.
    """
    fields = {key: row[key] for key in _SOLUTION_FIELDS if key in row}
    missing = [key for key in ("problem", "completion", "spans") if key not in fields]
    if missing:
        raise InputError(f"solution lacks {', '.join(missing)}")
    given = fields.pop("spans")
    try:
        spans = tuple((int(start), int(end)) for start, end in given)
    except (TypeError, ValueError):
        raise InputError(f"spans: {str(given)[:80]!r} is not a list of pairs of offsets") from None
    solution = Solution(spans=spans, **fields)
    if "id" in row and row["id"] != solution.id:
        raise InputError(f"solution id {row['id']} does not fit its content ({solution.id})")
    return solution


def annotation_to_json(annotation: Annotation) -> dict[str, Any]:
    """One JSON object per annotation: the project's own JSONL form."""
    fields = annotation_fields(annotation)
    labels = zip(fields["labels"], annotation.labels, strict=True)
    return fields | {"labels": [{"step": label.step, "step_hash": label.step_hash} | told for told, label in labels]}


def annotation_from_json(row: Mapping[str, Any]) -> Annotation:
    """Read what `annotation_to_json` wrote.

    Raises:
        InputError: A field is missing or wrong.
    """
    try:
        labels = tuple(
            StepLabel(
                **{
                    **label,
                    "shares": tuple(label["shares"]) if label.get("shares") else None,
                    "sources": tuple(label.get("sources", ())),
                }
            )
            for label in row["labels"]
        )
        return Annotation(
            solution_id=row["solution_id"],
            rater=Rater(**row["rater"]),
            labels=labels,
            time=row.get("time", ""),
            flags=tuple(row.get("flags", ())),
            lead_time=row.get("lead_time"),
            comment=row.get("comment"),
            meta=row.get("meta", {}),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"annotation is malformed: {error}") from None


_SOLUTION_FIELDS = (
    "problem",
    "completion",
    "spans",
    "final_answer",
    "reference_answer",
    "is_correct",
    "generator",
    "source",
    "licence",
    "meta",
)
