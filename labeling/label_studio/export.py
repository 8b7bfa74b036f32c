"""The server's export of a project: kept verbatim, and read task by task."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from labeling.label_studio.studio import Studio, StudioDownError, wait_until_healthy
from prm_kit.errors import InputError
from prm_kit.files import whole_file

ATTEMPTS = 5
"""How often an export is asked for while the server keeps breaking off."""

_CHUNK = 1 << 20


def download(studio: Studio, project: int, path: Path, patience: float = 180.0) -> None:
    """Keep the server's export verbatim (gzip); begin again when the server breaks off.

    Raises:
        StudioDownError: The server does not come back, or keeps breaking off.
    """
    for attempt in range(ATTEMPTS):
        end = b""
        try:
            with whole_file(path, "wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                for piece in studio.export(project):
                    packed.write(piece)
                    end = (end + piece)[-64:]
                if not end.rstrip().endswith(b"]"):  # a connection that ends early is not always an error of its own
                    raise StudioDownError("the export broke off")
        except StudioDownError:
            if attempt + 1 == ATTEMPTS:
                raise
            wait_until_healthy(studio, patience)
        else:
            return


def exported_tasks(path: Path) -> Iterator[dict[str, Any]]:
    """The tasks of an export, one after the other: it need not fit into memory at once.

    Args:
        path: From `download`.

    Raises:
        InputError: It is no JSON list of objects.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from _objects(file, path)


def _objects(file: IO[str], path: Path) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    pieces = iter(lambda: file.read(_CHUNK), "")
    text = next(pieces, "").lstrip()
    if not text.startswith("["):
        raise InputError(f"{path}: not the JSON list of tasks that Label Studio exports")
    at, number = 1, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if text[at : at + 1] == "]":
            return
        try:
            row, at = decoder.raw_decode(text, at)
        except ValueError as error:
            more = next(pieces, "")
            if not more:
                raise InputError(f"{path}: task {number}: {error}") from None
            text, at = text[at:] + more, 0
            continue
        if not isinstance(row, dict):
            raise InputError(f"{path}: task {number} is no object")
        number += 1
        yield row
        if at > _CHUNK:
            text, at = text[at:], 0
