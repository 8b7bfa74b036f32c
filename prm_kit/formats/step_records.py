"""From columns of regular step-list rows to the columns of solutions and annotations, ids included."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prm_kit.arrow import ANNOTATIONS, LABEL, SOLUTIONS, text_bytes
from prm_kit.formats.step_columns import (
    MAX_STEPS,
    Booleans,
    Columns,
    Integers,
    as_mask,
    edges,
    empty,
    first_steps,
    lengths,
)
from prm_kit.formats.steps import NAME, StepsLayout
from prm_kit.records import LABEL_VALUES, Annotation, Rater, RaterKind, annotation_text


class StepRecords(NamedTuple):
    """What regular rows gave.

    Attributes:
        solutions: Rows of `arrow.SOLUTIONS`, one a row.
        annotations: Rows of `arrow.ANNOTATIONS`, at most one a row, in the order of the rows.
        judged: For each annotation the row that it comes from.
        seen: Labels as the rows word them.
        repeated: Labels of a trunk left out where its branches repeat them.
    """

    solutions: pa.RecordBatch
    annotations: pa.RecordBatch
    judged: Integers
    seen: Counter[str]
    repeated: int


def step_records(rows: Columns, layout: StepsLayout) -> StepRecords:
    """Make the records of regular rows."""
    if not len(rows.row):
        return StepRecords(empty(SOLUTIONS), empty(ANNOTATIONS), rows.row, Counter(), 0)
    values = rows.table.column("labels").flatten()
    counts = np.bincount(values.drop_null().to_numpy() + 1, minlength=3).tolist()
    seen = Counter(dict(zip(map(str, LABEL_VALUES), counts, strict=True)) | {"null": values.null_count})
    solutions = _solutions(rows, layout)
    labelled, repeated = _labelled_steps(rows, layout)
    n_labels = np.add.reduceat(labelled, first_steps(lengths(rows.table.column("steps"))), dtype=np.int32)
    annotations = _annotations(rows, layout, solutions, labelled, n_labels)
    return StepRecords(solutions, annotations, rows.row[np.flatnonzero(n_labels)], +seen, repeated)


def _solutions(rows: Columns, layout: StepsLayout) -> pa.RecordBatch:
    table = rows.table
    steps, problem = table.column("steps"), table.column("problem")
    offsets, flat = _offsets(steps), steps.flatten()
    completion = pc.binary_join(pa.ListArray.from_arrays(offsets, flat), layout.separator)
    starts, ends = _spans(flat, offsets.to_numpy(), len(layout.separator))
    hashed = pc.binary_join_element_wise(  # the text that records.solution_id hashes
        pc.utf8_length(problem).cast(pa.string()),
        ":",
        problem,
        pc.utf8_length(completion).cast(pa.string()),
        ":",
        completion,
        _span_texts(starts, ends, offsets.to_numpy()),
        "",
    )
    meta = pc.binary_join_element_wise('{"row_id": "', table.column("id"), '"', rows.meta.column("rest"), "")
    licence = table.column("license")
    columns = {
        "id": _digests(hashed),
        "problem": problem,
        "completion": completion,
        "spans": pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([starts, ends], ["start", "end"])),
        "final_answer": table.column("final_answer"),
        "reference_answer": table.column("reference_answer"),
        "is_correct": table.column("is_correct"),
        "generator": rows.meta.column("generator"),
        "source": table.column("source").fill_null(layout.source or NAME),
        "licence": licence if layout.licence is None else licence.fill_null(layout.licence),
        "meta": meta,
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=SOLUTIONS)


def _labelled_steps(rows: Columns, layout: StepsLayout) -> tuple[Booleans, int]:
    """Which steps of the block carry a label that is kept, and how many labels repeat a trunk's."""
    steps, values = rows.table.column("steps"), rows.table.column("labels").flatten()
    labelled = as_mask(values.is_valid())
    branch = rows.meta.column("branch").to_numpy()
    if layout.keep_repeated or not branch.any():
        return labelled, 0
    n_steps = lengths(steps)
    repeated = labelled & (_step_index(n_steps) < np.repeat(branch, n_steps)) & (values.fill_null(0).to_numpy() != -1)
    return labelled & ~repeated, int(repeated.sum())


def _annotations(
    rows: Columns,
    layout: StepsLayout,
    solutions: pa.RecordBatch,
    labelled: Booleans,
    n_labels: Integers,
) -> pa.RecordBatch:
    n_steps = lengths(rows.table.column("steps"))
    judged = np.flatnonzero(n_labels)
    step = _step_index(n_steps)[labelled]
    value = rows.table.column("labels").flatten().filter(pa.array(labelled))
    offsets = pa.array(np.append(0, np.cumsum(n_labels[judged])).astype(np.int32))
    human = rows.meta.column("human").take(pa.array(judged))
    solutions = solutions.take(pa.array(judged)) if len(judged) < len(solutions) else solutions
    kind = pc.if_else(human, "human", layout.rater_kind or "import")
    name = pa.repeat(layout.rater_name, len(judged)) if layout.rater_name else solutions.column("source")
    pairs = pc.binary_join_element_wise(kind, name, "\n").dictionary_encode()
    raters = [
        Rater(cast(RaterKind, kind), name) for kind, name in (p.split("\n", 1) for p in pairs.dictionary.to_pylist())
    ]
    head, middles, tail = _annotation_texts(raters)
    which = step * 3 + value.to_numpy() + 1
    which[offsets.to_numpy()[1:] - 1] += 3 * MAX_STEPS
    hashed = pc.binary_join_element_wise(  # the text that Annotation.id hashes
        head,
        _together(_label_texts(), which, offsets.to_numpy()),
        pa.array(middles, pa.string()).take(pairs.indices),
        solutions.column("id"),
        tail,
        "",
    )
    labels = pa.StructArray.from_arrays(
        [pa.array(step), value, *(pa.nulls(len(step), entry.type) for entry in list(LABEL)[2:])], fields=list(LABEL)
    )
    n = len(judged)
    columns = {
        "id": _digests(hashed),
        "solution_id": solutions.column("id"),
        "rater_kind": kind,
        "rater_name": name,
        "rater_version": pa.repeat("", n),
        "time": pa.repeat("", n),
        "flags": pa.ListArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), n + 1), pa.nulls(0, pa.string())),
        "lead_time": pa.nulls(n, pa.float64()),
        "comment": pa.nulls(n, pa.string()),
        "meta": pa.repeat("{}", n),
        "labels": pa.ListArray.from_arrays(offsets, labels),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=ANNOTATIONS)


def _annotation_texts(raters: Sequence[Rater]) -> tuple[str, list[str], str]:
    """The text of an annotation cut where its labels and its solution's id stand: head, middle per rater, tail."""
    head = tail = ""
    middles = []
    for rater in raters:
        text = annotation_text(Annotation("@", rater, ()))
        head, _, rest = text.partition('"labels": [')
        middle, _, tail = rest.rpartition('"@"')
        head, tail = head + '"labels": [', '"' + tail
        middles.append(middle + '"')
    return head, middles, tail


@cache
def _label_texts() -> pa.Array:
    """The JSON text of every possible label: of value v of step s, and a comma, at 3 s + v + 1; then without comma."""
    texts = [json.dumps({"step": step, "value": value}) for step in range(MAX_STEPS) for value in LABEL_VALUES]
    return pa.array([text + ", " for text in texts] + texts, pa.string())


def _span_texts(starts: pa.Array, ends: pa.Array, offsets: Integers) -> pa.StringArray:
    """The spans of each row as text: 0-5,7-12."""
    size = 1 << int(ends.to_numpy().max()).bit_length()
    which = np.empty(2 * len(starts), dtype=np.int32)
    which[0::2] = starts
    which[1::2] = ends.to_numpy() + size
    which[2 * offsets[1:] - 1] += size
    return _together(_numbers(size), which, 2 * offsets)


@lru_cache(maxsize=2)
def _numbers(size: int) -> pa.StringArray:
    """The numbers below `size` as text: with a dash, with a comma, bare."""
    bare = pa.array(np.arange(size)).cast(pa.string())
    return pa.concat_arrays([pc.binary_join_element_wise(bare, end, "") for end in ("-", ",", "")])


def _together(texts: pa.StringArray, which: Integers, offsets: Integers) -> pa.StringArray:
    """Some of `texts`, one after the other, in rows that begin at `offsets` of them; copied once."""
    pieces = texts.take(pa.array(which))
    at = edges(pieces)[offsets]
    return pa.StringArray.from_buffers(len(at) - 1, pa.py_buffer(at), pieces.buffers()[2])


def _spans(flat: pa.Array, offsets: Integers, gap: int) -> tuple[pa.Array, pa.Array]:
    """Start and end of each step in its completion, in characters."""
    sizes = pc.utf8_length(flat).to_numpy().astype(np.int64)
    ends = np.cumsum(sizes + gap)
    before = np.append(0, ends)[offsets[:-1]]
    ends = ends - gap - np.repeat(before, np.diff(offsets))
    return pa.array((ends - sizes).astype(np.int32)), pa.array(ends.astype(np.int32))


def _digests(column: pa.Array) -> pa.Array:
    """The first 16 bytes of each string's SHA-256, in hex."""
    sha256 = hashlib.sha256
    at, data = text_bytes(column)
    digests = b"".join([sha256(data[start:end]).digest() for start, end in pairwise(at)])
    halves = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)[:, :16].tobytes().hex().encode()
    ends = np.arange(0, 32 * len(column) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(column), pa.py_buffer(ends), pa.py_buffer(halves))


def _step_index(n_steps: Integers) -> Integers:
    return np.arange(n_steps.sum(), dtype=np.int32) - np.repeat(first_steps(n_steps), n_steps).astype(np.int32)


def _offsets(lists: pa.ListArray) -> pa.Array:
    return pa.array(np.append(0, np.cumsum(lengths(lists))).astype(np.int32))
