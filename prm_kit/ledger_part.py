"""What a ledger held at one moment, as columns: a part of a view, beside the snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from prm_kit.arrow import ANNOTATIONS, LABEL, SOLUTIONS, meta_text
from prm_kit.errors import InputError
from prm_kit.ledger import Ledger
from prm_kit.snapshot import READ_ROWS


class LedgerPart:
    """The current annotations of a ledger and its solutions, read once.

    Columns go from SQLite to Arrow without records between them. As with a snapshot, ids are checked where a solution
    becomes a record; `Ledger.current` and `Ledger.history` check those of annotations too.

    Args:
        ledger: The ledger.
        annotations: False: only its solutions are wanted; there are no annotations then.

    Raises:
        InputError: An annotation has not the number of labels that it was written with.
    """

    def __init__(self, ledger: Ledger, annotations: bool = True) -> None:
        with ledger.moment():
            pages = ledger.current_rows(READ_ROWS) if annotations else iter(())
            found = [_annotations(rows, ledger.label_rows(rows[0][0], rows[-1][0]), ledger) for rows in pages]
            self._annotations = pa.Table.from_batches(found, ANNOTATIONS)
            self._solutions = pa.Table.from_batches(map(_solutions, ledger.solution_rows(READ_ROWS)), SOLUTIONS)

    def solutions(self) -> pl.LazyFrame:
        """Columns of `arrow.SOLUTIONS`."""
        return pl.LazyFrame(pl.from_arrow(self._solutions))

    def annotations(self) -> pl.LazyFrame:
        """Columns of `arrow.ANNOTATIONS`."""
        return pl.LazyFrame(pl.from_arrow(self._annotations))

    def solution_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The solutions."""
        return iter((self._solutions.select(columns) if columns else self._solutions).to_batches())

    def annotation_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The annotations."""
        return iter((self._annotations.select(columns) if columns else self._annotations).to_batches())


def _annotations(rows: Sequence[tuple[Any, ...]], labels: Sequence[tuple[Any, ...]], ledger: Ledger) -> pa.RecordBatch:
    """Rows of `Ledger.current_rows`, and of `Ledger.label_rows`, which may be of superseded annotations too."""
    seq, ids, solution_ids, kinds, names, versions, times, flags, lead_times, comments, metas, n_labels = zip(
        *rows, strict=True
    )
    number = {own: row for row, own in enumerate(seq)}
    labels = [label for label in labels if label[0] in number]
    counts = np.bincount([number[label[0]] for label in labels], minlength=len(rows))
    wrong = np.flatnonzero(counts != np.array(n_labels))
    if len(wrong):
        raise InputError(f"{ledger.path}: annotation {ids[wrong[0]]} has {counts[wrong[0]]} of its labels")
    columns = {
        "id": ids,
        "solution_id": solution_ids,
        "rater_kind": kinds,
        "rater_name": names,
        "rater_version": versions,
        "time": times,
        "flags": _lists(flags),
        "lead_time": lead_times,
        "comment": comments,
        "meta": metas,
    }
    arrays = [pa.array(column, ANNOTATIONS.field(name).type) for name, column in columns.items()]
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    return pa.RecordBatch.from_arrays([*arrays, pa.ListArray.from_arrays(offsets, _labels(labels))], schema=ANNOTATIONS)


def _labels(rows: Sequence[tuple[Any, ...]]) -> pa.StructArray:
    _, step, value, wrong, neutral, right, count, stderr, comment, sources = (
        zip(*rows, strict=True) if rows else [()] * 10
    )
    columns = {
        "step": step,
        "value": value,
        "shares": [None if some[0] is None else some for some in zip(wrong, neutral, right, strict=True)],
        "count": count,
        "stderr": stderr,
        "comment": comment,
        "sources": [some or None for some in _lists(sources)],
    }
    return pa.StructArray.from_arrays(
        [pa.array(columns[field.name], field.type) for field in LABEL], fields=list(LABEL)
    )


def _lists(texts: Sequence[str]) -> list[list[str]]:
    """JSON lists; most of them are the same few."""
    known = {text: json.loads(text) for text in set(texts)}
    return [known[text] for text in texts]


def _solutions(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Rows of `Ledger.solution_rows`."""
    records = [json.loads(record) | {"id": own} for _, own, record in rows]
    columns = {name: [record.get(name) for record in records] for name in SOLUTIONS.names}
    columns["spans"] = [[{"start": start, "end": end} for start, end in spans] for spans in columns["spans"]]
    columns["meta"] = [meta_text(meta) for meta in columns["meta"]]
    return pa.RecordBatch.from_pydict(columns, schema=SOLUTIONS)
