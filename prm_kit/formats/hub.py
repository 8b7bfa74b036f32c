"""Rows from Hugging Face `datasets`: a folder written by `save_to_disk`, or a data set of the hub.

    hf://OWNER/NAME[/CONFIG][@REVISION][:SPLIT]        the hub, streamed
    hf://FOLDER[:SPLIT], or just FOLDER[:SPLIT]        a local folder

Code that comes with a data set is never run: `datasets` 4 and later cannot, and nothing here asks it to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.formats.format import Row

PREFIX = "hf://"


def is_dataset(name: str) -> bool:
    """Whether an input names a data set and not a file."""
    return name.startswith(PREFIX) or _local(name) is not None


def rows_of_dataset(name: str) -> Iterator[Row]:
    """Read a data set row by row.

    Raises:
        InputError: It cannot be reached or read.
        UsageError: A split must be named, or does not exist.
    """
    try:
        rows, place = _loaded(name)
        for number, value in enumerate(rows, 1):
            yield Row(value, place, number)
    # datasets raises ConnectionError, FileNotFoundError (not found, gated), ValueError (config) and RuntimeError
    # (a script) according to what is missing.
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name}: the data set cannot be read: {error}. Without a network give a local folder (save_to_disk) or "
            "a JSONL, JSON or Parquet file instead."
        ) from None


def _loaded(name: str) -> tuple[Any, str]:
    import datasets

    local = _local(name)
    if local is not None:
        folder, split = local
        found = datasets.load_from_disk(str(folder))
        place = str(folder)
    else:
        hub_id, config, revision, split = hub_parts(name)
        place = hub_id
        found = datasets.load_dataset(hub_id, config, revision=revision, streaming=True)
    if not isinstance(found, dict):
        if split is not None:
            raise UsageError(f"{name}: this data set has no splits")
        return found, place
    if split is None and len(found) > 1:
        raise UsageError(f"{name}: name a split with :SPLIT; it has {', '.join(sorted(found))}")
    split = split or next(iter(found))
    if split not in found:
        raise unknown_name(f"split of {place}", split, found)
    return found[split], f"{place}:{split}"


def hub_parts(name: str) -> tuple[str, str | None, str | None, str | None]:
    """Cut "hf://owner/name/config@revision:split" into (id, config, revision, split).

    Raises:
        UsageError: No data set is named.
    """
    rest, _, split = name.removeprefix(PREFIX).partition(":")
    rest, _, revision = rest.partition("@")
    owner, _, below = rest.strip("/").partition("/")
    short, _, config = below.partition("/")
    if not owner or not short:
        raise UsageError(f"{name}: no such folder here, and a data set of the hub is hf://OWNER/NAME")
    return f"{owner}/{short}", config or None, revision or None, split or None


def _local(name: str) -> tuple[Path, str | None] | None:
    rest = name.removeprefix(PREFIX)
    before, colon, split = rest.rpartition(":")
    for folder, part in ((rest, None), (before, split)) if colon else ((rest, None),):
        if folder and Path(folder).is_dir():
            return Path(folder), part
    return None
