"""Records as Arrow record batches and back: the columns that snapshots and views are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from prm_kit.errors import InputError
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash

SOLUTIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        pa.field("spans", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())])), nullable=False),
        pa.field("final_answer", pa.string()),
        pa.field("reference_answer", pa.string()),
        pa.field("is_correct", pa.bool_()),
        pa.field("generator", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string()),
        pa.field("meta", pa.string(), nullable=False),
    ]
)
"""One row a solution; `meta` is JSON text, span offsets count characters of `completion`."""

LABEL = pa.struct(
    [
        ("step", pa.int32()),
        ("value", pa.int8()),
        ("shares", pa.list_(pa.float64())),
        ("count", pa.int32()),
        ("stderr", pa.float64()),
        ("comment", pa.string()),
        ("sources", pa.list_(pa.string())),
    ]
)

_LABEL_FIELDS = tuple(field.name for field in LABEL)

ANNOTATIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("solution_id", pa.string(), nullable=False),
        pa.field("rater_kind", pa.string(), nullable=False),
        pa.field("rater_name", pa.string(), nullable=False),
        pa.field("rater_version", pa.string(), nullable=False),
        pa.field("time", pa.string(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("lead_time", pa.float64()),
        pa.field("comment", pa.string()),
        pa.field("meta", pa.string(), nullable=False),
        pa.field("labels", pa.list_(LABEL), nullable=False),
    ]
)
"""One row an annotation. Step hashes are not columns: a solution's text is fixed by its id, so they are derived from
it on reading. (The ledger, where labels are made, stores and checks them.)"""


def solutions_batch(solutions: Sequence[Solution]) -> pa.RecordBatch:
    """Put solutions into columns, in the order given."""
    spans = [[{"start": start, "end": end} for start, end in solution.spans] for solution in solutions]
    columns: dict[str, list[Any]] = {
        field.name: [getattr(solution, field.name) for solution in solutions]
        for field in SOLUTIONS
        if field.name not in ("spans", "meta")
    }
    columns["spans"] = spans
    columns["meta"] = [meta_text(solution.meta) for solution in solutions]
    return pa.RecordBatch.from_pydict(columns, schema=SOLUTIONS)


def annotations_batch(annotations: Sequence[Annotation]) -> pa.RecordBatch:
    """Put annotations into columns, in the order given."""
    rows = [
        {
            "id": annotation.id,
            "solution_id": annotation.solution_id,
            "rater_kind": annotation.rater.kind,
            "rater_name": annotation.rater.name,
            "rater_version": annotation.rater.version,
            "time": annotation.time,
            "flags": list(annotation.flags),
            "lead_time": annotation.lead_time,
            "comment": annotation.comment,
            "meta": meta_text(annotation.meta),
            "labels": [{name: _plain(getattr(label, name)) for name in _LABEL_FIELDS} for label in annotation.labels],
        }
        for annotation in annotations
    ]
    return pa.RecordBatch.from_pylist(rows, schema=ANNOTATIONS)


def solutions_from(batch: pa.RecordBatch) -> Iterator[Solution]:
    """Read solutions back.

    Raises:
        InputError: The stored id does not fit the content: the file was changed.
    """
    for row in batch.to_pylist():
        known_id = row.pop("id")
        spans = tuple((span["start"], span["end"]) for span in row.pop("spans"))
        solution = Solution(**row | {"spans": spans, "meta": json.loads(row["meta"])})
        if solution.id != known_id:
            raise InputError(f"solution {known_id}: its stored content has the id {solution.id}")
        yield solution


def annotation_from(row: dict[str, Any], solution: Solution) -> Annotation:
    """Read one annotation row back; the step hashes come from the solution's text.

    Args:
        row: A row of `ANNOTATIONS` as plain Python.
        solution: The solution that it is about.

    Raises:
        InputError: It is about another solution, or labels a step that is not there.
    """
    steps = solution.steps
    if row["solution_id"] != solution.id:
        raise InputError(f"annotation {row['id']} is about solution {row['solution_id']}, not {solution.id}")
    beyond = next((label["step"] for label in row["labels"] if not 0 <= label["step"] < len(steps)), None)
    if beyond is not None:
        raise InputError(f"annotation {row['id']}: label of step {beyond}, but the solution has {len(steps)} steps")
    labels = tuple(
        StepLabel(
            step=label["step"],
            value=label["value"],
            step_hash=step_hash(steps[label["step"]]),
            shares=tuple(label["shares"]) if label["shares"] is not None else None,
            count=label["count"],
            stderr=label["stderr"],
            comment=label["comment"],
            sources=tuple(label["sources"] or ()),
        )
        for label in row["labels"]
    )
    return Annotation(
        solution_id=row["solution_id"],
        rater=Rater(row["rater_kind"], row["rater_name"], row["rater_version"]),
        labels=labels,
        time=row["time"],
        flags=tuple(row["flags"]),
        lead_time=row["lead_time"],
        comment=row["comment"],
        meta=json.loads(row["meta"]),
    )


def step_texts(batch: pa.RecordBatch) -> pa.ListArray:
    """Cut the completions of a solutions batch into their steps, without a Python loop over rows.

    Args:
        batch: Rows of `SOLUTIONS`.

    Returns:
        list<string>, one list a row.
    """
    completions, spans = batch.column("completion"), batch.column("spans")
    at = np.frombuffer(completions.buffers()[1], dtype=np.int32)[completions.offset :][: len(completions) + 1]
    data = np.frombuffer(completions.buffers()[2], dtype=np.uint8)
    counts = np.diff(spans.offsets.to_numpy())
    flat = spans.flatten()
    starts, ends = (flat.field(name).to_numpy(zero_copy_only=False).astype(np.int64) for name in ("start", "end"))
    # Character k of the batch begins at byte first_byte[k]; in ASCII text the two counts are the same.
    first = np.repeat(at[:-1].astype(np.int64), counts)
    text = data[at[0] : at[-1]]
    if len(text) and text.max() >= 0x80:
        is_start = (text & 0xC0) != 0x80
        first_byte = np.append(np.flatnonzero(is_start), len(text)) + at[0]
        characters = np.append(0, np.cumsum(is_start))
        first = np.repeat(characters[at[:-1] - at[0]], counts)
        starts, ends = first_byte[first + starts], first_byte[first + ends]
    else:
        starts, ends = first + starts, first + ends
    # Spans are in order and apart, so text between them is every second string of one array over the same bytes.
    edges = np.empty(2 * len(starts) + 1, dtype=np.int32)
    edges[0:-1:2], edges[1::2], edges[-1] = starts, ends, at[-1]
    pieces = pa.StringArray.from_buffers(2 * len(starts), pa.py_buffer(edges), completions.buffers()[2])
    steps = pieces.take(pa.array(np.arange(0, 2 * len(starts), 2, dtype=np.int32)))
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(counts)).astype(np.int32)), steps)


def text_bytes(column: pa.Array) -> tuple[list[int], memoryview]:
    """The UTF-8 bytes of a string column without nulls, not copied, and where each text begins and the last ends."""
    at = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset :][: len(column) + 1]
    return at.tolist(), memoryview(column.buffers()[2] or b"")


def meta_text(meta: Any) -> str:
    """JSON text of a `meta` mapping, as the `meta` columns hold it."""
    return json.dumps(dict(meta), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    return (list(value) or None) if isinstance(value, tuple) else value
