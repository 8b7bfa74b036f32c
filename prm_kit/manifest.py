"""The manifest of a snapshot: what it was made from and how, what it holds, and the hashes of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prm_kit.errors import InputError
from prm_kit.files import file_sha256
from prm_kit.settings import Settings

SCHEMA_VERSION = 1
"""Raised whenever a reader of the version before would misread a snapshot."""

FILES = ("solutions.parquet", "annotations.parquet", "rejects.jsonl")


class FileEntry(Settings):
    """Size and hash of one file."""

    bytes: int
    sha256: str


class Manifest(Settings):
    """What `manifest.json` holds.

    Attributes:
        schema_version: Version of this layout.
        prm_kit: Version of prm-kit that wrote it.
        name: Name of the data set.
        format: The format that it was read from.
        options: The reader's options; `neutral_policy` is "keep", since a snapshot never folds a label.
        inputs: The files it was read from, by path as given.
        counts: Rows, solutions, steps, annotations, labels, duplicates, rejects, and what the reader counted.
        labels: Number of steps by label: "-1", "0", "1" and "null" (labelled without a hard value), over annotations.
        rejects: Number of rejected rows by reason; numbers and quoted values in a reason are blanked.
        licences: Number of solutions by licence ("" where there is none).
        sources: Number of solutions by source.
        files: The files of the snapshot.
    """

    schema_version: int
    prm_kit: str
    name: str
    format: str
    options: dict[str, Any]
    inputs: dict[str, FileEntry]
    counts: dict[str, int]
    labels: dict[str, int]
    rejects: dict[str, int]
    licences: dict[str, int]
    sources: dict[str, int]
    files: dict[str, FileEntry]


def file_entry(path: Path) -> FileEntry:
    """Size and hash of a file."""
    return FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the snapshot in `path`.

    Raises:
        InputError: There is none, it is damaged, or it was written by another version.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise InputError(f"{path}: no manifest.json, so this is no snapshot (or it was never finished)")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        version = values["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: damaged: {error!r}") from None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: snapshot of schema version {version}; this prm-kit reads {SCHEMA_VERSION}. Import the data "
            "again, or use the version that wrote it"
        )
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{file}: damaged: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}") from None
    missing = sorted(set(FILES) - set(manifest.files))
    if missing:
        raise InputError(f"{file}: damaged: it does not list {', '.join(missing)}")
    return manifest
