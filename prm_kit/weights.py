"""What a checkpoint folder holds, told without running any of it: safetensors headers and JSON, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prm_kit.errors import InputError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def tensor_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor, by the tensor's name.

    Raises:
        InputError: There are no safetensors; one is damaged or truncated; or the index names a file that is missing.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: the weights must be safetensors; {_instead(folder)}")
    found: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                found.update(dict.fromkeys(tensors.keys(), file))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: damaged or truncated ({error}); download or copy it again") from None
    for index in sorted(folder.glob("*.safetensors.index.json")):
        listed = read_json(index).get("weight_map", {})
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise InputError(f"{index}: weight_map does not name the file of each tensor; download it again")
        missing = sorted({name for name in listed.values() if not (folder / name).is_file()})
        if missing:
            raise InputError(f"{index}: names {missing[0]}, which is missing; download it again")
        absent = sorted(set(listed) - set(found))
        if absent:
            raise InputError(f"{index}: names the tensor {absent[0]}, which no file holds; download them again")
    return found


def read_tensor(files: Mapping[str, Path], name: str, rows: Sequence[int] | None = None) -> Tensor:
    """One tensor in float32, or some of its rows, read without the rest.

    Args:
        files: What `tensor_files` said.
        name: The tensor.
        rows: Indices along the first dimension, in the order wanted; None: the whole tensor.

    Raises:
        InputError: There is no such tensor, or no such row.
    """
    if name not in files:
        raise InputError(f"{next(iter(files.values())).parent}: the tensor {name} is missing")
    with safe_open(files[name], framework="pt") as tensors:
        if rows is None:
            return tensors.get_tensor(name).float()  # type: ignore[no-any-return]
        part = tensors.get_slice(name)
        height = part.get_shape()[0]
        if beyond := [row for row in rows if row >= height]:
            raise InputError(f"{files[name]}: {name} has {height} rows, so token {beyond[0]} has none")
        return torch.cat([part[row : row + 1] for row in rows]).float()


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: It is missing, or no JSON object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file}: no JSON object")
    return found


def _instead(folder: Path) -> str:
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if not pickles:
        return "there are none"
    return (
        f"{pickles[0]} is a pickle, which can run code when it is read: ask for the safetensors revision that many hub "
        "repositories keep (owner/name@refs/pr/N), or convert it where you trust it"
    )
