"""What keeps a secret one: an address that does not leave this machine, a file that only its owner can read."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path

from prm_kit.errors import UsageError


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its name alone, without asking anybody: localhost, 127.0.0.0/8 or ::1.

    Args:
        host: A name or address, an IPv6 address without brackets.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def private_text(path: Path) -> str:
    """The text of a file that only its owner can read.

    Raises:
        UsageError: It is not there, no text, or others can read it.
    """
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise UsageError(f"{path}: others can read it; run: chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: cannot be read: it is no text") from None
