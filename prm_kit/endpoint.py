"""Where another program is asked over HTTP: the address and the secret, checked before anything is sent."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from prm_kit.errors import UsageError
from prm_kit.secrecy import is_loopback, private_text


class Key:
    """A key or token. It shows itself in no text: only `reveal` gives it."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "Key('***')"

    def reveal(self) -> str:
        """The key itself, for the one header that carries it."""
        return self._secret

    def redact(self, text: str) -> str:
        """The text with the key blotted out, also as JSON would write it."""
        written = json.dumps(self._secret)[1:-1]
        return text.replace(self._secret, "***").replace(written, "***")


def read_key(
    variable: str,
    file: Path | None = None,
    *,
    required: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Key | None:
    """The key from a file that only the user can read, else from an environment variable; None if there is none.

    Raises:
        UsageError: The file is not there, readable by others, or empty; the variable is empty and `required`; or the
            key holds white space or odd signs.
    """
    if file is None:
        secret, where = environment.get(variable, "").strip(), f"environment variable {variable}"
        if not secret and required:
            raise UsageError(f"{where} is empty or not set")
    else:
        where = str(file)
        secret = private_text(file).strip()
        if not secret:
            raise UsageError(f"{file}: holds no key")
    if secret and not re.fullmatch(r"[\x21-\x7e]+", secret):
        raise UsageError(f"{where}: the key holds white space or signs that no header can carry")
    return Key(secret) if secret else None


def check_address(address: str, *, name: str, insecure: bool = False) -> tuple[str, bool]:
    """Check an address. Without TLS only this machine may be asked, since the key and the data would be readable.

    Args:
        address: Such as "http://127.0.0.1:8000/v1".
        name: What messages call it ("--base-url").
        insecure: Allow http to another machine.

    Returns:
        The address without a slash at the end, and whether it is this machine.

    Raises:
        UsageError: No http or https address, one with a user, query, fragment or odd signs, or http to another machine.
    """
    parts = urlsplit(address.strip())
    try:
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{name} {address!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{name} {address!r} is no http or https address such as http://127.0.0.1:8000/v1")
    if not all(sign.isprintable() and sign != " " for sign in address.strip()):
        raise UsageError(f"{name} {address!r} holds white space or signs that no address has")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"{name} of {host}: user, password, query and fragment have no place in it")
    local = is_loopback(host)
    if parts.scheme == "http" and not local and not insecure:
        raise UsageError(
            f"{name} {address!r}: http to another machine sends the key and the data readably; "
            "use https, or --insecure in a network that you trust"
        )
    return address.strip().rstrip("/"), local
