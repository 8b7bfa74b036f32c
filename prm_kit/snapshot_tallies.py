"""What a snapshot's writer keeps between batches: rows held back for a row group, ids seen, counts by value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prm_kit.arrow import text_bytes
from prm_kit.records import LABEL_VALUES

ROW_GROUP_BYTES = 32 << 20
"""Rows are held back and written in groups of about this size: what bounds the writer's memory."""

WRITE_BATCH = 1 << 16
"""Values encoded at a time; at the usual 1,024 what is done per batch adds up."""

_DICTIONARY = ["rater_kind", "rater_name", "rater_version", "source", "licence", "generator"]
_RANDOM = ("id", "solution_id")
"""Digests, which do not get smaller."""

_STATISTICS = ["id", "solution_id", "source", "rater_kind", "rater_name"]


class ParquetRows:
    """One Parquet file, written in row groups of about `ROW_GROUP_BYTES`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        names = set(schema.names)
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression={leaf: "none" if leaf in _RANDOM else "lz4" for leaf in leaves(schema)},
            use_dictionary=[name for name in _DICTIONARY if name in names],
            write_statistics=[name for name in _STATISTICS if name in names],
            write_batch_size=WRITE_BATCH,
        )
        self._schema = schema
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows; they are written when a row group is full, or at the end."""
        if len(batch):
            self._held.append(batch)
            self._bytes += batch.nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        held, self._held, self._bytes = self._held, [], 0
        if held:
            self._writer.write_table(pa.Table.from_batches(held, self._schema), row_group_size=1 << 30)


def leaves(fields: Iterable[pa.Field], above: str = "") -> Iterator[str]:
    """Names of the columns of a Parquet file, nested ones by their path."""
    for entry in fields:
        path, kind = above + entry.name, entry.type
        while pa.types.is_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if pa.types.is_struct(kind):
            yield from leaves(kind, f"{path}.")
        else:
            yield path


class IdSet:
    """A set of ids, 16 bytes each."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._unasked: list[pa.Array] = []

    def add(self, ids: pa.Array) -> None:
        """Take in ids that cannot have been seen before; that is put off until it matters."""
        self._unasked.append(ids)

    def new(self, ids: pa.Array) -> pa.Array | Sequence[int]:
        """Positions of the ids not seen before, which are seen from now on."""
        while self._unasked:
            self._seen.update(_keys(self._unasked.pop()))
        keys = _keys(ids)
        fresh = set(keys)
        if len(fresh) == len(keys) and self._seen.isdisjoint(fresh):
            self._seen |= fresh
            return range(len(keys))
        positions = []
        for position, key in enumerate(keys):
            if key not in self._seen:
                self._seen.add(key)
                positions.append(position)
        return pa.array(positions, pa.int32())

    def unknown(self, ids: pa.Array) -> str | None:
        """An id never seen, or None."""
        missing = set(_keys(ids)) - self._seen
        return missing.pop().hex() if missing else None


@dataclass
class Tallies:
    """What the manifest counts by value, and the ids seen."""

    solutions: IdSet = field(default_factory=IdSet)
    annotations: IdSet = field(default_factory=IdSet)
    labels: dict[str, int] = field(default_factory=lambda: {str(value): 0 for value in (*LABEL_VALUES, "null")})
    rejects: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, solutions: pa.RecordBatch, values: pa.Array) -> None:
        """Count licences, sources, and the hard values of labels."""
        hard = np.bincount(values.drop_null().to_numpy() + 1, minlength=3)
        for value, count in zip((*LABEL_VALUES, "null"), (*hard.tolist(), values.null_count), strict=True):
            self.labels[str(value)] += count
        for tally, column in ((self.licences, "licence"), (self.sources, "source")):
            for entry in pc.value_counts(solutions.column(column)).to_pylist():
                tally[entry["values"] or ""] += entry["counts"]

    def reject(self, reason: str) -> None:
        """Count a reason, with what is peculiar to the row blanked."""
        kind = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", reason)
        kind = re.sub(r"-?\d+(\.\d+)?", "#", kind)
        self.rejects[kind if kind in self.rejects or len(self.rejects) < 100 else "other"] += 1


def _keys(ids: pa.Array) -> list[bytes]:
    at, data = text_bytes(ids)
    raw = bytes.fromhex(str(data[at[0] : at[-1]], "ascii"))
    found: list[bytes] = np.frombuffer(raw, dtype="V16").tolist()
    return found
