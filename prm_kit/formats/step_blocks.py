"""Step-list JSON lines read block by block into Arrow: the fast path of `prm_kit.formats.steps`.

Whatever is regular in a block is parsed strictly by Arrow and worked on as columns; every other line (malformed,
other keys, odd escapes) goes one by one through `steps.read_row`, which alone decides what is refused and why. So a
malformed line costs time for its block and hides no other line.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from prm_kit.arrow import ANNOTATIONS, LABEL, SOLUTIONS, annotations_batch, solutions_batch, texts
from prm_kit.errors import InputError
from prm_kit.formats.format import Row
from prm_kit.formats.row_files import BadRow, parse_object
from prm_kit.formats.steps import NAME, REPEATED, StepsLayout, provenance, read_row
from prm_kit.records import Annotation, LabelValue, Rater, RaterKind, annotation_text

Booleans = np.ndarray[Any, np.dtype[np.bool_]]
Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

BLOCK_BYTES = 4 << 20
"""Text worked on at a time."""


@dataclass
class Block:
    """What one block of lines gave.

    Attributes:
        rows: Lines that are not blank.
        solutions: Rows of `arrow.SOLUTIONS`, in the order of the lines.
        annotations: Rows of `arrow.ANNOTATIONS`, in the order of the lines.
        rejects: Lines that were refused.
        seen: Labels as the rows word them.
        notes: What was left out or kept elsewhere.
    """

    rows: int
    solutions: pa.RecordBatch
    annotations: pa.RecordBatch
    rejects: list[BadRow] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def read_blocks(path: Path, layout: StepsLayout, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Read a file of step lists.

    Args:
        path: JSON lines, `.gz` or plain.
        layout: The options of the format.
        block_bytes: Text worked on at a time; memory is a small multiple of it (or of the longest line).

    Raises:
        InputError: The file cannot be read.
    """
    number = 1
    try:
        for data in _blocks(path, block_bytes):
            lines = data.split(b"\n")
            yield _read_lines(lines, str(path), number, layout)
            number += len(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


class _Columns(NamedTuple):
    """Rows that are regular: columns of the file, what their `meta` says, and the number of each in its block."""

    table: pa.RecordBatch
    meta: pa.RecordBatch
    row: Integers

    def where(self, keep: Booleans) -> _Columns:
        if keep.all():
            return self
        mask = pa.array(keep)
        return _Columns(self.table.filter(mask), self.meta.filter(mask), self.row[keep])


def _blocks(path: Path, block_bytes: int) -> Iterator[bytes]:
    with cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as file:
        rest: list[bytes] = []
        while data := file.read(block_bytes):
            end = data.rfind(b"\n")
            if end < 0:
                rest.append(data)
                continue
            yield b"".join([*rest, data[:end]])
            rest = [data[end + 1 :]]
        if last := b"".join(rest):
            yield last


def _read_lines(lines: list[bytes], file: str, first_number: int, layout: StepsLayout) -> Block:
    regular = _regular(lines, layout)
    block, judged = _block(regular, layout)
    taken = np.zeros(len(lines), dtype=bool)
    taken[regular.row] = True
    orders = [regular.row], [judged]
    batches = [block.solutions], [block.annotations]
    for row in np.flatnonzero(~taken).tolist():
        if not lines[row].strip():
            block.rows -= 1
            continue
        one = _read_line(lines[row], file, first_number + row, layout)
        if isinstance(one, BadRow):
            block.rejects.append(one)
            continue
        block.seen += one.seen
        block.notes += one.notes
        for order, batch, read in zip(orders, batches, (one.solutions, one.annotations), strict=True):
            order.append(np.full(len(read), row, dtype=np.int64))
            batch.append(read)
    block.rows += len(lines)
    block.solutions, block.annotations = (_in_order(*pair) for pair in zip(batches, orders, strict=True))
    return block


def _read_line(line: bytes, file: str, number: int, layout: StepsLayout) -> Block | BadRow:
    text = line.decode("utf-8", "backslashreplace").removeprefix("\ufeff" if number == 1 else "").rstrip("\r")
    try:
        line.decode("utf-8")
        reading = read_row(Row(parse_object(text), file, number), layout)
    except UnicodeDecodeError as error:
        return BadRow(file, number, f"not UTF-8: {error.reason}", text)
    except InputError as error:
        return BadRow(file, number, str(error), text)
    annotations = [annotation for item in reading.items for annotation in item.annotations]
    solutions = solutions_batch([item.solution for item in reading.items])
    return Block(1, solutions, annotations_batch(annotations), [], reading.seen, reading.notes)


def _in_order(batches: list[pa.RecordBatch], rows: list[Integers]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    order = np.argsort(np.concatenate(rows), kind="stable")
    return cast(pa.RecordBatch, pa.concat_batches(batches).take(pa.array(order)))


# ---- what is regular


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

_IRREGULAR = b"{"


def _regular(lines: list[bytes], layout: StepsLayout) -> _Columns:
    """Parse the lines that need no second look. Arrow is strict: a wrong type or key fails the whole block."""
    heads, tails = _cut_meta(lines)
    codes: dict[bytes | None, int] = {}
    code = np.array([codes.setdefault(tail, len(codes)) for tail in tails], dtype=np.int64)
    metas = pa.RecordBatch.from_pylist([_read_meta(tail, layout) for tail in codes], schema=_META)
    body = b"}\n".join(heads) + b"}\n"
    try:
        body.decode("utf-8")
        table = pj.read_json(
            pa.BufferReader(body),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(body) + 1),
            parse_options=pj.ParseOptions(explicit_schema=_TABLE, unexpected_field_behavior="error"),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        table = _TABLE.empty_table()
    if len(table) != len(lines):
        return _Columns(_empty(_TABLE), _empty(_META), np.zeros(0, dtype=np.int64))
    (batch,) = table.combine_chunks().to_batches()
    rows = _Columns(batch, metas.take(pa.array(code)), np.arange(len(lines)))
    rows = rows.where(_is_complete(rows))
    return rows.where(_agrees(rows))


def _cut_meta(lines: list[bytes]) -> tuple[list[bytes], list[bytes | None]]:
    """Cut `meta`, the last key, off each line; a line without it becomes an empty object.

    The marker cannot stand inside a JSON string, where its quotes would be escaped.
    """
    marker = b', "meta": ' if b', "meta": ' in lines[0] else b',"meta":'
    heads: list[bytes] = []
    tails: list[bytes | None] = []
    for line in lines:
        head, _, tail = line.rpartition(marker)
        if tail[-1:] == b"\r":
            tail = tail[:-1]
        if head[:1] == b"{" and tail[:1] == b"{" and tail[-2:] == b"}}":
            heads.append(head)
            tails.append(tail[:-1])
        else:
            heads.append(_IRREGULAR)
            tails.append(None)
    return heads, tails


def _read_meta(tail: bytes | None, layout: StepsLayout) -> dict[str, Any]:
    """What a `meta` object says, and its text without the opening brace. All null: not regular."""
    nothing = dict.fromkeys(_META.names)
    if tail is None:
        return nothing
    try:
        text = tail.decode("utf-8")
        value = parse_object(text)
        about = provenance(value, layout)
    except (InputError, UnicodeDecodeError):
        return nothing
    if "row_id" in value or "\\ud" in text or "\\uD" in text:  # perhaps half a character
        return nothing
    if layout.split is not None:
        text = json.dumps({"split": layout.split} | value, ensure_ascii=False)
        value = {"split": layout.split}
    rest = (", " + text[1:].lstrip()) if value else "}"
    human = about.rater_kind == "human" if layout.rater_kind is None else False
    return {"rest": rest, "generator": about.generator, "human": human, "branch": about.branch_step}


def _is_complete(rows: _Columns) -> Booleans:
    """Rows that have every required value, plain ids, at least one step and as many labels as steps."""
    table = rows.table
    n_steps = _lengths(table.column("steps"))
    return cast(
        Booleans,
        _mask(table.column("id").is_valid())
        & ~_mask(pc.match_substring_regex(table.column("id"), r'["\\\x00-\x1f]'))
        & _mask(pc.not_equal(table.column("source"), ""), null=True)
        & _mask(table.column("problem").is_valid())
        & _mask(rows.meta.column("rest").is_valid())
        & ~np.logical_or.reduce([_holds_nul(table.column(name)) for name in _TEXTS])
        & (n_steps > 0)
        & (n_steps == _lengths(table.column("labels"))),
    )


def _agrees(rows: _Columns) -> Booleans:
    """Rows whose steps are text, whose labels are labels, and whose `first_error` and `branch_step` fit them."""
    table = rows.table
    keep = np.ones(len(table), dtype=bool)
    if not len(table):
        return keep
    steps = table.column("steps")
    n_steps = _lengths(steps)
    row = np.repeat(np.arange(len(table)), n_steps)
    flat = steps.flatten()
    values = table.column("labels").flatten().fill_null(0).to_numpy()
    keep[row[~_mask(flat.is_valid())]] = False
    keep[row[_blank(flat)]] = False
    keep[row[_holds_nul(flat)]] = False
    keep[row[(values < -1) | (values > 1)]] = False
    errors = np.flatnonzero(values == -1)[::-1]
    found = np.full(len(table), -1)
    found[row[errors]] = errors - _starts(n_steps)[row[errors]]  # backwards: the first one stays
    declared = table.column("first_error")
    keep &= declared.fill_null(-1).to_numpy() == found
    keep &= _mask(pc.greater_equal(declared, 0), null=True)
    keep &= rows.meta.column("branch").to_numpy() < n_steps
    return keep


_TEXTS = ("source", "license", "problem", "final_answer", "reference_answer")


def _holds_nul(column: pa.Array) -> Booleans:
    """Which texts hold a NUL character (rare, so the bytes are looked through first)."""
    if not np.any(np.frombuffer(column.buffers()[2] or b"", dtype=np.uint8) == 0):
        return np.zeros(len(column), dtype=bool)
    return _mask(pc.match_substring(column, "\0"))


def _blank(flat: pa.Array) -> Integers:
    """Positions of the steps that are white space only."""
    at = np.frombuffer(flat.buffers()[1], dtype=np.int32)[flat.offset :][: len(flat) + 1]
    data = np.append(np.frombuffer(flat.buffers()[2] or b"", dtype=np.uint8), np.uint8(32))
    suspects = np.flatnonzero(_MAY_BEGIN_SPACE[data[at[:-1]]] | (np.diff(at) == 0))
    blank = [position for position in suspects.tolist() if not (flat[position].as_py() or "").strip()]
    return np.array(blank, dtype=np.int64)


_MAY_BEGIN_SPACE = np.zeros(256, dtype=bool)
_MAY_BEGIN_SPACE[[*range(0x21), 0xC2, 0xE1, 0xE2, 0xE3]] = True
"""First bytes of every character that Python calls white space, in UTF-8."""


# ---- from columns to records


def _block(rows: _Columns, layout: StepsLayout) -> tuple[Block, Integers]:
    """The records of regular rows, and the line of each annotation."""
    if not len(rows.row):
        return Block(0, _empty(SOLUTIONS), _empty(ANNOTATIONS)), rows.row
    solutions = _solutions(rows, layout)
    values = rows.table.column("labels").flatten()
    seen = Counter({str(label): int(np.sum(values.fill_null(2).to_numpy() == label)) for label in (-1, 0, 1)})
    block = Block(0, solutions, _empty(ANNOTATIONS), seen=+(seen + Counter(null=values.null_count)))
    labelled, repeated = _labelled_steps(rows, layout)
    if repeated:
        block.notes[REPEATED] = repeated
    n_labels = np.add.reduceat(labelled, _starts(_lengths(rows.table.column("steps"))), dtype=np.int32)
    judged = np.flatnonzero(n_labels)
    block.annotations = _annotations(rows, layout, solutions, labelled, n_labels)
    return block, rows.row[judged]


def _solutions(rows: _Columns, layout: StepsLayout) -> pa.RecordBatch:
    table = rows.table
    steps, problem = table.column("steps"), table.column("problem")
    offsets, flat = _offsets(steps), steps.flatten()
    completion = pc.binary_join(pa.ListArray.from_arrays(offsets, flat), layout.separator)
    starts, ends = _spans(flat, offsets.to_numpy(), len(layout.separator))
    where = pc.binary_join_element_wise(starts.cast(pa.string()), ends.cast(pa.string()), "-")
    hashed = pc.binary_join_element_wise(  # the text that records.solution_id hashes
        pc.utf8_length(problem).cast(pa.string()),
        ":",
        problem,
        pc.utf8_length(completion).cast(pa.string()),
        ":",
        completion,
        pc.binary_join(pa.ListArray.from_arrays(offsets, where), ","),
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


def _labelled_steps(rows: _Columns, layout: StepsLayout) -> tuple[Booleans, int]:
    """Which steps of the block carry a label that is kept, and how many labels repeat a trunk's."""
    steps, values = rows.table.column("steps"), rows.table.column("labels").flatten()
    labelled = _mask(values.is_valid())
    branch = rows.meta.column("branch").to_numpy()
    if layout.keep_repeated or not branch.any():
        return labelled, 0
    n_steps = _lengths(steps)
    repeated = labelled & (_step_index(n_steps) < np.repeat(branch, n_steps)) & (values.fill_null(0).to_numpy() != -1)
    return labelled & ~repeated, int(repeated.sum())


def _annotations(
    rows: _Columns,
    layout: StepsLayout,
    solutions: pa.RecordBatch,
    labelled: Booleans,
    n_labels: Integers,
) -> pa.RecordBatch:
    n_steps = _lengths(rows.table.column("steps"))
    judged = np.flatnonzero(n_labels)
    step = _step_index(n_steps)[labelled]
    value = rows.table.column("labels").flatten().filter(pa.array(labelled))
    offsets = pa.array(np.append(0, np.cumsum(n_labels[judged])).astype(np.int32))
    human = rows.meta.column("human").take(pa.array(judged))
    solutions = solutions.take(pa.array(judged)) if len(judged) < len(solutions) else solutions
    kind = pc.if_else(human, "human", layout.rater_kind or "import")
    name = pa.array([layout.rater_name] * len(judged)) if layout.rater_name else solutions.column("source")
    pairs = pc.binary_join_element_wise(kind, name, "\n").dictionary_encode()
    raters = [
        Rater(cast(RaterKind, kind), name) for kind, name in (p.split("\n", 1) for p in pairs.dictionary.to_pylist())
    ]
    head, middles, tail = _annotation_texts(raters)
    pieces = _label_texts(int(step.max(initial=0)) + 1).take(pa.array(step * 3 + value.to_numpy() + 1))
    hashed = pc.binary_join_element_wise(  # the text that Annotation.id hashes
        head,
        pc.binary_join(pa.ListArray.from_arrays(offsets, pieces), ", "),
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
        "rater_version": pa.array([""] * n, pa.string()),
        "time": pa.array([""] * n, pa.string()),
        "flags": pa.array([[]] * n, pa.list_(pa.string())),
        "lead_time": pa.nulls(n, pa.float64()),
        "comment": pa.nulls(n, pa.string()),
        "meta": pa.array(["{}"] * n, pa.string()),
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


@lru_cache(maxsize=64)
def _label_texts(n_steps: int) -> pa.Array:
    """The JSON text of every possible label, that of value v of step s at 3 s + v + 1."""
    values: tuple[LabelValue, ...] = (-1, 0, 1)
    return pa.array([json.dumps({"step": step, "value": v}) for step in range(n_steps) for v in values], pa.string())


def _spans(flat: pa.Array, offsets: Integers, gap: int) -> tuple[pa.Array, pa.Array]:
    """Start and end of each step in its completion, in characters."""
    lengths = pc.utf8_length(flat).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths + gap)
    before = np.append(0, ends)[offsets[:-1]]
    ends = ends - gap - np.repeat(before, np.diff(offsets))
    return pa.array((ends - lengths).astype(np.int32)), pa.array(ends.astype(np.int32))


def _digests(column: pa.Array) -> pa.Array:
    """The first 16 bytes of each string's SHA-256, in hex."""
    sha256 = hashlib.sha256
    digests = b"".join([sha256(text).digest() for text in texts(column)])
    halves = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)[:, :16].tobytes().hex().encode()
    at = np.arange(0, 32 * len(column) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(column), pa.py_buffer(at), pa.py_buffer(halves))


def _step_index(n_steps: Integers) -> Integers:
    return np.arange(n_steps.sum(), dtype=np.int32) - np.repeat(_starts(n_steps), n_steps).astype(np.int32)


def _starts(n_steps: Integers) -> Integers:
    """The position of each row's first step among all steps."""
    return np.cumsum(n_steps, dtype=np.int64) - n_steps


def _lengths(lists: pa.ListArray) -> Integers:
    return cast(Integers, pc.list_value_length(lists).fill_null(-1).to_numpy())


def _offsets(lists: pa.ListArray) -> pa.Array:
    return pa.array(np.append(0, np.cumsum(_lengths(lists))).astype(np.int32))


def _mask(column: pa.Array, null: bool = False) -> Booleans:
    return cast(Booleans, column.fill_null(null).to_numpy(zero_copy_only=False))


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)
