"""Rows from files, streamed: JSON lines, a JSON array, either gzipped, and Parquet. A bad row hides no other."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from prm_kit.errors import InputError
from prm_kit.formats.format import Row

_CHUNK = 1 << 20


@dataclass(frozen=True)
class BadRow:
    """A row that is no JSON object: its place, why, and the text as it stands in the file."""

    file: str
    number: int
    reason: str
    raw: str


def rows_of_file(path: Path) -> Iterator[Row | BadRow]:
    """Read a file row by row. Blank lines are no rows.

    Args:
        path: `.parquet`, or JSON lines, or one JSON array of objects; `.gz` is unpacked on the way.

    Raises:
        InputError: The file cannot be read, or an array is malformed (what follows cannot be trusted).
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
            return
        with _opened(path) as file:
            head = _first_character(file)
        with _opened(path) as file:
            yield from _array_rows(file, str(path)) if head == b"[" else _line_rows(file, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def is_json_lines(path: Path) -> bool:
    """Whether a file holds JSON lines, as far as its first character says."""
    if path.suffix == ".parquet" or not path.is_file():
        return False
    try:
        with _opened(path) as file:
            return _first_character(file) == b"{"
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def parse_object(text: str) -> dict[str, Any]:
    """One JSON object.

    Raises:
        InputError: Not JSON, no object, nested too deeply, or it holds NaN or an infinity, which JSON has not.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from None
    except RecursionError:
        raise InputError("nested too deeply") from None
    if not isinstance(value, dict):
        raise InputError(f"{type(value).__name__} is not an object")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _first_character(file: IO[bytes]) -> bytes:
    while chunk := file.read(4096):
        found = chunk.removeprefix(codecs.BOM_UTF8).lstrip()
        if found:
            return found[:1]
    return b""


def _line_rows(file: IO[bytes], name: str) -> Iterator[Row | BadRow]:
    # Only b"\n" ends a line: str.splitlines would also cut at U+2028, which may stand inside a JSON string.
    for number, line in enumerate(file, 1):
        data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not data.strip():
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raw = data.decode("utf-8", "backslashreplace").rstrip("\r\n")
            yield BadRow(name, number, f"not UTF-8: {error.reason}", raw)
            continue
        try:
            yield Row(parse_object(text), name, number)
        except InputError as error:
            yield BadRow(name, number, str(error), text.rstrip("\r\n"))


def _array_rows(file: IO[bytes], name: str) -> Iterator[Row | BadRow]:
    text = codecs.getreader("utf-8-sig")(file)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    buffer, number, wanted = text.read(_CHUNK).lstrip().removeprefix("["), 0, _CHUNK
    while True:
        buffer = buffer.lstrip()
        if buffer.startswith("]"):
            if buffer[1:].strip() or text.read().strip():
                raise InputError(f"{name}: text after the array")
            return
        try:
            if number and buffer:
                if not buffer.startswith(","):
                    raise InputError(f"{name}: element {number}: no comma after it")
                value, end = decoder.raw_decode(buffer, len(buffer) - len(buffer[1:].lstrip()))
            else:
                value, end = decoder.raw_decode(buffer)
        except (ValueError, RecursionError) as error:
            # Either more text is needed, or it is malformed: read on, twice as much each time, to find out.
            more = text.read(wanted)
            wanted *= 2
            if not more:
                raise InputError(f"{name}: element {number + 1}: not JSON: {error}") from None
            buffer += more
            continue
        number, wanted, buffer = number + 1, _CHUNK, buffer[end:]
        if isinstance(value, dict):
            yield Row(value, name, number)
        else:
            yield BadRow(name, number, f"{type(value).__name__} is not an object", json.dumps(value))


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(value, str(path), number)
    except pa.ArrowException as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
