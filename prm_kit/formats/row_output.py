"""Where exported rows go: JSON lines, a JSON array, either gzipped, Parquet, or a folder of Hugging Face `datasets`.

Whole or not there at all. JSON streams; Parquet and `datasets` need all rows in memory, for a column has one type.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_directory, whole_file

if TYPE_CHECKING:
    import pyarrow as pa

WriteRow = Callable[[bytes], None]
"""Takes one row as JSON text."""


def row_output(path: Path) -> AbstractContextManager[WriteRow]:
    """Open an output by the ending of its name.

    Args:
        path: `.jsonl`, `.json`, `.jsonl.gz`, `.json.gz`, `.parquet`, or a name without ending: a folder that
            `datasets.load_from_disk` reads.

    Raises:
        UsageError: Another ending, or a folder of that name exists and is no saved data set.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".json")):
        return _json_file(path, array=name.endswith(".json"))
    if path.suffix == ".parquet":
        return _parquet_file(path)
    if path.suffix:
        raise UsageError(f"{path}: an export ends in .jsonl, .json, .parquet (the first two also .gz), or in nothing")
    if path.exists() and not (path / "dataset_info.json").is_file():
        raise UsageError(f"{path}: exists and is no saved data set, so it is not replaced; choose another name")
    return _dataset_folder(path)


@contextmanager
def _json_file(path: Path, *, array: bool) -> Iterator[WriteRow]:
    with whole_file(path, "wb") as raw, _packed(raw) if path.suffix == ".gz" else nullcontext(raw) as file:
        first = True

        def write(line: bytes) -> None:
            nonlocal first
            file.write((b"[\n" if first else b",\n") + line if array else line + b"\n")
            first = False

        yield write
        if array:
            file.write(b"[]\n" if first else b"\n]\n")


def _packed(raw: Any) -> gzip.GzipFile:
    """A file whose bytes depend on the rows alone: no time, no name."""
    return gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="")


@contextmanager
def _parquet_file(path: Path) -> Iterator[WriteRow]:
    import pyarrow.parquet as pq

    rows: list[Any] = []
    with whole_file(path, "wb") as file:
        yield lambda line: rows.append(json.loads(line))
        pq.write_table(_table(rows, path), file)


@contextmanager
def _dataset_folder(path: Path) -> Iterator[WriteRow]:
    rows: list[Any] = []
    yield lambda line: rows.append(json.loads(line))
    import datasets

    table = _table(rows, path)
    with whole_directory(path) as folder:
        datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(str(folder))


def _table(rows: list[Any], path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.Table.from_pylist(rows)
    except pa.ArrowException as error:
        raise InputError(f"{path}: these rows have no common columns: {error}; write JSON lines instead") from None
