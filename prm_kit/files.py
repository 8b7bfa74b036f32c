"""Files that are whole or not there: write beside, sync, rename. JSON lines and hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from prm_kit.errors import InputError

T = TypeVar("T")


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that appears under its name only when the block ends without an error.

    Args:
        path: The final name; its folder is made if needed.
        mode: "w" (UTF-8 text, newlines as given) or "wb".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with part.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Fill a directory that appears under its name only when the block ends without an error.

    An existing directory of that name is replaced as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            part.rename(path)
            shutil.rmtree(old)
        else:
            part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def complete_lines(file: IO[str], path: Path, read: Callable[[Any], T], what: str) -> Iterator[T]:
    """Read a JSONL file that is open for appending (mode "a+"); a half-written last line is cut off.

    Iterate to the end: only then is the file as it should be, and its position at the end.

    Args:
        file: The open file.
        path: Its name, for messages.
        read: From a line's JSON value to what is yielded.
        what: What a line holds, for messages.

    Raises:
        InputError: A complete line cannot be read; names it.
    """
    file.seek(0)
    number = end = 0
    while (line := file.readline()).endswith("\n"):
        number, end = number + 1, file.tell()
        try:
            found = read(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{path}: line {number} holds no {what} ({reason}); delete the file") from None
        yield found
    file.seek(end)
    file.truncate()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, readable, in a stable key order, whole or not at all."""
    with whole_file(path) as file:
        file.write(json_text(value))


def json_text(value: Mapping[str, Any]) -> str:
    """The text that `write_json` writes; NaN and infinity are refused (ValueError)."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(path: Path) -> str:
    """SHA-256 over the names and bytes of the files directly in a folder, hex: tells one checkpoint from another.

    Raises:
        InputError: There is no such folder, or no file in it.
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else []
    if not files:
        raise InputError(f"{path}: no folder with files in it")
    return value_sha256({file.name: file_sha256(file) for file in files})


def value_sha256(value: Any) -> str:
    """SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
