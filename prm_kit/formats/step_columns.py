"""The regular rows among lines of step lists, as columns: parsed strictly by Arrow and checked without a Python loop.

A row counts as regular only if `steps.read_row` would surely accept it; all others are left to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from prm_kit.errors import InputError
from prm_kit.formats.row_files import parse_object
from prm_kit.formats.steps import StepsLayout, provenance
from prm_kit.record_checks import check_meta, check_text

Booleans = np.ndarray[Any, np.dtype[np.bool_]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

MAX_STEPS = 1000
"""A solution with more steps is not regular."""

MAX_BYTES = 1 << 18
"""One with more bytes in its steps neither."""

_MAX_BLOCK = 1 << 31
"""Arrow counts the bytes of a block in 32 bits."""


class Columns(NamedTuple):
    """Rows that are regular: columns of the file, what their `meta` says, and the number of each in its block."""

    table: pa.RecordBatch
    meta: pa.RecordBatch
    row: Integers

    def where(self, keep: Booleans) -> Columns:
        """Only the rows to keep."""
        if keep.all():
            return self
        mask = pa.array(keep)
        return Columns(self.table.filter(mask), self.meta.filter(mask), self.row[keep])


_TABLE = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("problem", pa.string()),
        ("steps", pa.list_(pa.string())),
        ("labels", pa.list_(pa.int8())),
        ("first_error", pa.int32()),
        ("final_answer", pa.string()),
        ("reference_answer", pa.string()),
        ("is_correct", pa.bool_()),
    ]
)

_META = pa.schema([("rest", pa.string()), ("generator", pa.string()), ("human", pa.bool_()), ("branch", pa.int32())])


def regular_rows(data: bytes, ends: Integers, layout: StepsLayout) -> Columns:
    """Parse the lines that need no second look. Arrow is strict: a wrong type or key fails the whole block.

    Args:
        data: Lines; at least one.
        ends: Where each line ends; the next one begins one byte later.
        layout: The options of the format.
    """
    nothing = Columns(empty(_TABLE), empty(_META), np.zeros(0, dtype=np.int64))
    if len(data) >= _MAX_BLOCK:
        return nothing
    body, meta, rows = _cut_meta(data, ends)
    if not len(rows):
        return nothing
    try:
        if not data.isascii():
            data.decode("utf-8")
        table = pj.read_json(
            pa.BufferReader(body),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(body) + 1),
            parse_options=pj.ParseOptions(explicit_schema=_TABLE, unexpected_field_behavior="error"),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return nothing
    if len(table) != len(rows):
        return nothing
    (batch,) = table.combine_chunks().to_batches()
    read = pa.RecordBatch.from_pylist([_read_meta(text, layout) for text in meta.dictionary.to_pylist()], schema=_META)
    columns = Columns(batch, read.take(meta.indices), rows)
    columns = columns.where(_is_complete(columns))
    return columns.where(_agrees(columns))


def _cut_meta(data: bytes, ends: Integers) -> tuple[pa.Buffer, pa.DictionaryArray, Integers]:
    """Cut `meta`, the last key, off each line; lines without it are left out.

    The marker cannot stand inside a JSON string, where its quotes would be escaped.

    Returns:
        The lines left; of each the text of `meta`; and its number.
    """
    marker = b', "meta": ' if b', "meta": ' in data else b',"meta":'
    text, starts = np.frombuffer(data, dtype=np.uint8), np.append(0, ends[:-1] + 1)
    last = ends - 1
    last -= text[last] == ord("\r")
    parts = pc.split_pattern(_pieces(data, np.append(starts, len(data))), marker, max_splits=1, reverse=True)
    rows = np.flatnonzero((text[starts] == ord("{")) & (text[last] == ord("}")) & (lengths(parts) == 2))
    cuts = starts[rows] + np.diff(edges(parts.values))[parts.offsets.to_numpy()[rows]]
    # Of each line five pieces: what comes before the marker, the marker, meta, the closing brace, the line's end. With
    # the brace goes one byte of the line's end, so that no text begun on one line can end on another.
    after = np.minimum(last[rows] + 2, len(data))
    pieces = np.stack([starts[rows], cuts, cuts + len(marker), last[rows], after], axis=1)
    lines, first = _pieces(data, np.append(pieces, len(data))), 5 * np.arange(len(rows), dtype=np.int32)
    body = lines.take(pa.array(np.stack([first, first + 3], axis=1).ravel())).buffers()[2]
    return body, lines.take(pa.array(first + 2)).dictionary_encode(), rows


def _pieces(data: bytes, at: Integers) -> pa.BinaryArray:
    """The bytes between one place and the next."""
    return pa.Array.from_buffers(
        pa.binary(), len(at) - 1, [None, pa.py_buffer(at.astype(np.int32)), pa.py_buffer(data)]
    )


def _read_meta(meta: bytes, layout: StepsLayout) -> dict[str, Any]:
    """What a `meta` object says, and its text without the opening brace. All null: not regular."""
    nothing = dict.fromkeys(_META.names)
    try:
        text = meta.strip().decode("utf-8")
        value = parse_object(text)
        about = provenance(value, layout)
        check_meta(value)
        check_text("generator", about.generator or "")
    except (InputError, UnicodeDecodeError):
        return nothing
    if "row_id" in value or about.branch_step >= MAX_STEPS:
        return nothing
    if layout.split is not None:
        text = json.dumps({"split": layout.split} | value, ensure_ascii=False)
        value = {"split": layout.split}
    rest = (", " + text[1:].lstrip()) if value else "}"
    human = about.rater_kind == "human" if layout.rater_kind is None else False
    return {"rest": rest, "generator": about.generator, "human": human, "branch": about.branch_step}


def _is_complete(rows: Columns) -> Booleans:
    """Rows that have every required value, plain ids, at least one step and as many labels as steps."""
    table = rows.table
    n_steps = lengths(table.column("steps"))
    return cast(
        Booleans,
        as_mask(table.column("id").is_valid())
        & ~_holds(table.column("id"), _is_escaped)
        & as_mask(pc.not_equal(table.column("source"), ""), null=True)
        & as_mask(table.column("problem").is_valid())
        & as_mask(rows.meta.column("rest").is_valid())
        & ~np.logical_or.reduce([_holds(table.column(name), _is_nul) for name in _TEXTS])
        & (n_steps > 0)
        & (n_steps <= MAX_STEPS)
        & (n_steps == lengths(table.column("labels"))),
    )


def _agrees(rows: Columns) -> Booleans:
    """Rows whose steps are text, whose labels are labels, and whose `first_error` and `branch_step` fit them."""
    table = rows.table
    keep = np.ones(len(table), dtype=bool)
    if not len(table):
        return keep
    steps = table.column("steps")
    n_steps = lengths(steps)
    row = np.repeat(np.arange(len(table)), n_steps)
    flat = steps.flatten()
    values = table.column("labels").flatten().fill_null(0).to_numpy()
    keep[row[~as_mask(flat.is_valid())]] = False
    keep[row[_blank(flat)]] = False
    keep[row[_holds(flat, _is_nul)]] = False
    keep[row[(values < -1) | (values > 1)]] = False
    keep &= np.diff(edges(flat)[np.append(first_steps(n_steps), len(flat))]) <= MAX_BYTES
    errors = np.flatnonzero(values == -1)[::-1]
    found = np.full(len(table), -1)
    found[row[errors]] = errors - first_steps(n_steps)[row[errors]]  # backwards: the first one stays
    declared = table.column("first_error")
    keep &= declared.fill_null(-1).to_numpy() == found
    keep &= as_mask(pc.greater_equal(declared, 0), null=True)
    keep &= rows.meta.column("branch").to_numpy() < n_steps
    return keep


_TEXTS = ("source", "license", "problem", "final_answer", "reference_answer")


_ESCAPED = np.zeros(256, dtype=bool)
_ESCAPED[[*range(0x20), ord('"'), ord("\\")]] = True
"""What JSON text cannot hold as it is."""


def _holds(column: pa.Array, wanted: Callable[[Bytes], Booleans]) -> Booleans:
    """Which texts hold one of some rare ASCII characters."""
    held = np.zeros(len(column), dtype=bool)
    found = np.flatnonzero(wanted(np.frombuffer(column.buffers()[2] or b"", dtype=np.uint8)))
    if len(found):
        at = edges(column)
        places = np.searchsorted(at, found, side="right") - 1
        held[places[(places >= 0) & (places < len(column))]] = True
    return held


def _is_nul(data: Bytes) -> Booleans:
    return cast(Booleans, data == 0)


def _is_escaped(data: Bytes) -> Booleans:
    return cast(Booleans, _ESCAPED[data])


def _blank(flat: pa.Array) -> Integers:
    """Positions of the steps that are white space only."""
    at = edges(flat)
    data = np.append(np.frombuffer(flat.buffers()[2] or b"", dtype=np.uint8), np.uint8(32))
    suspects = np.flatnonzero(_MAY_BEGIN_SPACE[data[at[:-1]]] | (np.diff(at) == 0))
    blank = [position for position in suspects.tolist() if not (flat[position].as_py() or "").strip()]
    return np.array(blank, dtype=np.int64)


_MAY_BEGIN_SPACE = np.zeros(256, dtype=bool)
_MAY_BEGIN_SPACE[[*range(0x21), 0xC2, 0xE1, 0xE2, 0xE3]] = True
"""First bytes of every character that Python calls white space, in UTF-8."""


def first_steps(n_steps: Integers) -> Integers:
    """The position of each row's first step among all steps."""
    return np.cumsum(n_steps, dtype=np.int64) - n_steps


def edges(texts: pa.StringArray) -> Integers:
    """Where in its bytes each text begins, and the last one ends."""
    return cast(Integers, np.frombuffer(texts.buffers()[1], dtype=np.int32)[texts.offset :][: len(texts) + 1])


def lengths(lists: pa.ListArray) -> Integers:
    """The length of each list, -1 for null."""
    return cast(Integers, pc.list_value_length(lists).fill_null(-1).to_numpy())


def as_mask(column: pa.Array, null: bool = False) -> Booleans:
    """A column of booleans as an array, with `null` where it is null."""
    return cast(Booleans, column.fill_null(null).to_numpy(zero_copy_only=False))


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """No rows of a schema."""
    return pa.RecordBatch.from_pylist([], schema=schema)
