"""The errors a person meets, and the exit code each one ends a command with.

Exit codes of every verb: 0 done, 1 failed, 2 wrong use, 3 stopped by a limit and resumable, 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrmKitError(Exception):
    """The command cannot go on. The message names what, where (file, line, key or id), why, and the mend."""

    exit_code = 1


class UsageError(PrmKitError):
    """The caller asked for something that does not exist or does not fit together: a key, a name, an option."""

    exit_code = 2


class InputError(PrmKitError):
    """Data from outside is malformed: a row, a file, a checkpoint."""


class LimitReachedError(PrmKitError):
    """A limit that the caller set was reached; what was done is kept and the command can be resumed."""

    exit_code = 3


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that is not registered: it lists the names and the nearest one.

    Args:
        kind: What the name stands for, in the singular ("format", "recipe").
        name: The name that was asked for.
        known: The names that exist.
    """
    names = sorted(known)
    near = nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, or None if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None
