"""Step-list JSON lines read block by block into Arrow: the fast path of `prm_kit.formats.steps`.

Whatever is regular in a block is parsed strictly by Arrow and worked on as columns; every other line (malformed,
other keys, odd escapes) goes one by one through `steps.read_row`, which alone decides what is refused and why. So a
malformed line costs time for its block and hides no other line.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa

from prm_kit.arrow import annotations_batch, solutions_batch
from prm_kit.errors import InputError
from prm_kit.formats.format import Row
from prm_kit.formats.row_files import BadRow, parse_object
from prm_kit.formats.step_columns import Integers, regular_rows
from prm_kit.formats.step_records import step_records
from prm_kit.formats.steps import REPEATED, StepsLayout, read_row

BLOCK_BYTES = 4 << 20
"""Text worked on at a time."""

_SCANNED = 1 << 18
"""Bytes searched for line ends at a time: what fits into a cache."""


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
            ends = _line_ends(data)
            yield _read_lines(data, ends, str(path), number, layout)
            number += len(ends)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _blocks(path: Path, block_bytes: int) -> Iterator[bytes]:
    with cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        while data := file.read(block_bytes) + file.readline():
            yield data


def _line_ends(data: bytes) -> Integers:
    text = np.frombuffer(data, dtype=np.uint8)
    pieces = range(0, len(text), _SCANNED)
    ends = np.concatenate([at + np.flatnonzero(text[at : at + _SCANNED] == ord("\n")) for at in pieces])
    return ends if data.endswith(b"\n") else np.append(ends, len(data))


def _read_lines(data: bytes, ends: Integers, file: str, first_number: int, layout: StepsLayout) -> Block:
    regular = regular_rows(data, ends, layout)
    made = step_records(regular, layout)
    block = Block(len(ends), made.solutions, made.annotations, seen=made.seen)
    if made.repeated:
        block.notes[REPEATED] = made.repeated
    taken = np.zeros(len(ends), dtype=bool)
    taken[regular.row] = True
    orders = [regular.row], [made.judged]
    batches = [block.solutions], [block.annotations]
    for row in np.flatnonzero(~taken).tolist():
        line = data[ends[row - 1] + 1 if row else 0 : ends[row]]
        if not line.strip():
            block.rows -= 1
            continue
        one = _read_line(line, file, first_number + row, layout)
        if isinstance(one, BadRow):
            block.rejects.append(one)
            continue
        block.seen += one.seen
        block.notes += one.notes
        for order, batch, read in zip(orders, batches, (one.solutions, one.annotations), strict=True):
            order.append(np.full(len(read), row, dtype=np.int64))
            batch.append(read)
    block.solutions, block.annotations = (_in_order(*pair) for pair in zip(batches, orders, strict=True))
    return block


def _read_line(line: bytes, file: str, number: int, layout: StepsLayout) -> Block | BadRow:
    text = line.decode("utf-8", "backslashreplace").rstrip("\r")
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
