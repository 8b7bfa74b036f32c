"""An imported data set: an immutable directory of Parquet files with a manifest, written whole or not at all.

DIR/
  solutions.parquet     one row a solution, each id once, in the order of the source
  annotations.parquet   one row an annotation, in the order of the source
  rejects.jsonl         rows that could not be read: file, line, reason, raw text
  manifest.json         what it was made from and how, counts, and the size and SHA-256 of the files above
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prm_kit import __version__
from prm_kit.arrow import ANNOTATIONS, SOLUTIONS, annotations_batch, solutions_batch, solutions_from
from prm_kit.errors import InputError, UsageError
from prm_kit.files import file_sha256, whole_directory, write_json
from prm_kit.manifest import FILES, SCHEMA_VERSION, FileEntry, Manifest, file_entry, read_manifest
from prm_kit.records import Annotation, Solution, check_annotation
from prm_kit.snapshot_tallies import ParquetRows, Tallies

READ_ROWS = 4096
"""Rows a batch when reading back."""

_RECORDS = 1024


class SnapshotWriter:
    """Writes one snapshot; a context manager. The directory appears when the block ends without an error.

    Solutions with an id already written, and annotations with one, are counted and not written again. Memory: about
    two row groups, and 16 bytes (about 100 in Python) for every id.

    Args:
        directory: The final name. A snapshot of that name is replaced as a whole; anything else there is refused.
        name: Name of the data set.
        format: The format it is read from.
        options: The reader's options, for the manifest.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        format: str,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.counts: Counter[str] = Counter()
        self.manifest: Manifest | None = None
        self._about: dict[str, Any] = {
            "name": name,
            "format": format,
            "options": {"neutral_policy": "keep", **(options or {})},
        }
        self._tallies = Tallies()
        self._inputs: dict[str, FileEntry] = {}
        self._records: list[tuple[Solution, Sequence[Annotation]]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        there = self.directory
        if there.exists() and not (there / "manifest.json").is_file() and (there.is_file() or any(there.iterdir())):
            raise UsageError(f"{there}: exists and is no snapshot, so it is not replaced; choose another name")
        self._folder = self._stack.enter_context(whole_directory(self.directory))
        self._files = ExitStack()
        self._solutions = self._files.enter_context(ParquetRows(self._folder / "solutions.parquet", SOLUTIONS))
        self._annotations = self._files.enter_context(ParquetRows(self._folder / "annotations.parquet", ANNOTATIONS))
        rejects = (self._folder / "rejects.jsonl").open("w", encoding="utf-8", newline="")
        self._rejects: IO[str] = self._files.enter_context(rejects)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.manifest is None:
            try:
                self.finish()
            except BaseException as failure:
                self._abandon(failure)
                raise
        elif self.manifest is None:
            assert error is not None
            self._abandon(error)

    def add(self, solution: Solution, annotations: Iterable[Annotation] = ()) -> None:
        """Add one solution and annotations of it.

        Raises:
            InputError: An annotation does not fit the solution.
        """
        annotations = tuple(annotations)
        for annotation in annotations:
            check_annotation(solution, annotation)
        self._records.append((solution, annotations))
        if len(self._records) >= _RECORDS:
            self._flush_records()

    def add_batches(self, solutions: pa.RecordBatch, annotations: pa.RecordBatch) -> None:
        """Add rows of the schemas `arrow.SOLUTIONS` and `arrow.ANNOTATIONS`, ids included.

        Args:
            solutions: Solutions; their ids are trusted here and checked whenever a record is read back.
            annotations: Annotations of these or of earlier solutions.

        Raises:
            InputError: An annotation is about a solution that was never added, or these are other columns.
        """
        for batch, schema in ((solutions, SOLUTIONS), (annotations, ANNOTATIONS)):
            if not batch.schema.equals(schema):
                raise InputError(f"columns {batch.schema.names} are not {schema.names}, or of other types")
        self._flush_records()
        self._add_batches(solutions, annotations)

    def reject(self, file: str | Path, line: int, reason: str, raw: str | bytes) -> None:
        """Record a row that could not be read: it goes to rejects.jsonl with its place, and is counted."""
        if isinstance(raw, bytes):
            raw = raw.decode("utf-8", errors="backslashreplace")
        row = {"file": str(file), "line": line, "reason": reason, "raw": raw}
        self._rejects.write(json.dumps(row) + "\n")
        self.counts["rejected"] += 1
        self._tallies.reject(reason)

    def count(self, **more: int) -> None:
        """Add to counts of the manifest: `rows` read, and whatever else the reader counts."""
        self.counts.update(more)

    def add_input(self, path: Path) -> None:
        """Record a file that was read, with its size and hash."""
        self._inputs[str(path)] = file_entry(Path(path))

    def finish(self) -> Manifest:
        """Write what is held back, the manifest, and give the directory its name."""
        self._flush_records()
        self._files.close()
        counts = {key: self.counts[key] for key in _COUNTS} | {k: v for k, v in self.counts.items() if k not in _COUNTS}
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            prm_kit=__version__,
            inputs=self._inputs,
            counts=counts,
            labels=self._tallies.labels,
            rejects=dict(self._tallies.rejects),
            licences=dict(self._tallies.licences),
            sources=dict(self._tallies.sources),
            files={name: file_entry(self._folder / name) for name in FILES},
            **self._about,
        )
        write_json(self._folder / "manifest.json", manifest.model_dump())
        self._stack.close()
        self.manifest = manifest
        return manifest

    def _flush_records(self) -> None:
        records, self._records = self._records, []
        if records:
            annotations = [annotation for _, given in records for annotation in given]
            self._add_batches(solutions_batch([solution for solution, _ in records]), annotations_batch(annotations))

    def _add_batches(self, solutions: pa.RecordBatch, annotations: pa.RecordBatch) -> None:
        tallies = self._tallies
        new = tallies.solutions.new(solutions.column("id"))
        one_each = annotations.column("solution_id").equals(solutions.column("id"))
        about = None if one_each else tallies.solutions.unknown(annotations.column("solution_id"))
        if about is not None:
            raise InputError(f"annotation of solution {about}, which was not added")
        if one_each and len(new) == len(solutions):  # about solutions of which there was nothing yet
            tallies.annotations.add(annotations.column("id"))
            new_annotations: pa.Array | Sequence[int] = new
        else:
            new_annotations = tallies.annotations.new(annotations.column("id"))
        self.counts["duplicate_solutions"] += len(solutions) - len(new)
        self.counts["duplicate_annotations"] += len(annotations) - len(new_annotations)
        solutions = solutions if len(new) == len(solutions) else solutions.take(new)
        annotations = annotations if len(new_annotations) == len(annotations) else annotations.take(new_annotations)
        values = annotations.column("labels").flatten().field("value")
        self.counts.update(
            solutions=len(solutions),
            steps=len(solutions.column("spans").flatten()),
            annotations=len(annotations),
            labels=len(values),
        )
        tallies.add(solutions, values)
        self._solutions.add(solutions)
        self._annotations.add(annotations)

    def _abandon(self, error: BaseException) -> None:
        self._files.close()
        self._stack.__exit__(type(error), error, error.__traceback__)


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot. Nothing but the manifest is read until it is asked for."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, verify: bool = False) -> Snapshot:
        """Open a snapshot.

        Args:
            path: Its directory.
            verify: Also hash every file. Sizes and the schema version are always checked.

        Raises:
            InputError: It is no snapshot, was written by another version, or was truncated or changed.
        """
        path = Path(path)
        manifest = read_manifest(path)
        for name, entry in manifest.files.items():
            file = path / name
            if not file.is_file():
                raise InputError(f"{path}: {name} is missing")
            if file.stat().st_size != entry.bytes:
                raise InputError(
                    f"{file}: {file.stat().st_size} bytes, {entry.bytes} were written: truncated or changed"
                )
            if verify and file_sha256(file) != entry.sha256:
                raise InputError(f"{file}: its content is not what was written (SHA-256 differs): changed")
            if file.suffix == ".parquet":
                try:
                    pq.read_metadata(file)
                except pa.ArrowException as error:
                    raise InputError(f"{file}: its content is not what was written: {error}") from None
        return cls(path, manifest)

    def solutions(self) -> pl.LazyFrame:
        """Columns of `arrow.SOLUTIONS`, read when collected."""
        return pl.scan_parquet(self.path / "solutions.parquet", glob=False)

    def annotations(self) -> pl.LazyFrame:
        """Columns of `arrow.ANNOTATIONS`, read when collected."""
        return pl.scan_parquet(self.path / "annotations.parquet", glob=False)

    def solution_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The solutions in order, a few thousand rows at a time."""
        return self._batches("solutions.parquet", columns)

    def annotation_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The annotations in order, a few thousand rows at a time."""
        return self._batches("annotations.parquet", columns)

    def iter_solutions(self) -> Iterator[Solution]:
        """The solutions in order, as records.

        Raises:
            InputError: A stored id does not fit its content.
        """
        for batch in self.solution_batches():
            yield from solutions_from(batch)

    def _batches(self, name: str, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path / name) as file:
            yield from file.iter_batches(READ_ROWS, columns=list(columns) if columns else None, use_threads=False)


_COUNTS = (
    "rows",
    "solutions",
    "steps",
    "annotations",
    "labels",
    "duplicate_solutions",
    "duplicate_annotations",
    "rejected",
)
