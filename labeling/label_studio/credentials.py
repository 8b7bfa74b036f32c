"""Secrets in files and a directory that only the user can read, and where a token may come from."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prm_kit.errors import InputError, UsageError
from prm_kit.secrecy import private_text

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"  # noqa: S105 - the variable's name
"""Environment variable that holds the token of a server given by its address."""

ADMINISTRATOR = "admin@localhost"


@dataclass(frozen=True)
class Credentials:
    """The first account of a local server. Password and token do not show in its repr."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def made_or_read(path: Path) -> Credentials:
    """The credentials in a file; made, with a new password and token, if the file is not there.

    Raises:
        InputError: The file is malformed.
        UsageError: Others can read it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read(path)
    made = Credentials(ADMINISTRATOR, secrets.token_urlsafe(18), secrets.token_hex(20))
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(made), file, indent=2)
    return made


def read(path: Path) -> Credentials:
    """The credentials in a file.

    Raises:
        InputError: The file is malformed.
        UsageError: It is not there, or others can read it.
    """
    text = private_text(path)
    try:
        return Credentials(**json.loads(text))
    except (ValueError, TypeError):
        raise InputError(f"{path}: no credentials file") from None


def token_for(url: str, token_file: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The token of a server that was given by its address: from a file, or the environment. Never from an argument.

    Raises:
        UsageError: There is none, or others can read the file.
    """
    token = private_text(token_file) if token_file is not None else environment.get(TOKEN_VARIABLE, "")
    if not token.strip():
        raise UsageError(
            f"no token for {url}: set {TOKEN_VARIABLE}, or give --token-file FILE (readable by you alone); "
            "Label Studio shows it under Account & Settings"
        )
    return token.strip()


def private_directory(path: Path, ours: Collection[str]) -> Path:
    """A directory for secrets, made for us alone if it is not there; returned by its one real name.

    One that is there keeps its mode: it is somebody's, and all that is kept in it must be for us alone by itself.

    Args:
        path: The directory.
        ours: Names of files by which one that is not empty is known to be ours.

    Raises:
        UsageError: It cannot be made, others can write to it, or it holds something else.
    """
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        names, about = {found.name for found in path.iterdir()}, path.stat()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; take another --data") from None
    if os.name == "posix" and (about.st_mode & 0o022 or about.st_uid != os.geteuid()):
        raise UsageError(f"{path}: others can write to it; take another --data")
    if names and not names & set(ours):
        raise UsageError(f"{path}: holds something else; take another --data")
    return path
