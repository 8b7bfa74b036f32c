"""How a checkpoint signs: its name, and a version that changes with its bytes."""

from __future__ import annotations

from pathlib import Path

from prm_kit.errors import UsageError
from prm_kit.files import folder_sha256


def checkpoint_name(folder: Path, given: str | None = None) -> str:
    """What a rater over this checkpoint is called: as given, or after the folder that says most.

    A later annotation supersedes an earlier one of the same name, so two checkpoints need two names.
    """
    path = folder.resolve()
    while given is None and path.name in ("checkpoint", "best", "last", "") and path.parent != path:
        path = path.parent
    return given or path.name or "checkpoint"


def checkpoint_version(folder: Path) -> str:
    """Hash of the checkpoint's files.

    Raises:
        UsageError: It is no local folder.
        InputError: The folder is empty.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; a labeller's checkpoint has to lie on this machine")
    return folder_sha256(folder)
