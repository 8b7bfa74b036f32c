"""Where the judge is asked: the address and the key, checked before anything is sent."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from prm_kit.errors import UsageError
from prm_kit.secrecy import is_loopback, private_text

DEFAULT_KEY_VARIABLE = "PRM_KIT_API_KEY"


class Key:
    """An API key. It shows itself in no text: only `reveal` gives it."""

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


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server.

    Attributes:
        base_url: Such as "http://127.0.0.1:8000/v1", without a slash at the end.
        key: Sent as a bearer token; None where the server wants none.
        local: Whether the address is this machine.
    """

    base_url: str
    key: Key | None
    local: bool

    @property
    def chat_url(self) -> str:
        """Where chat requests go."""
        return f"{self.base_url}/chat/completions"


def endpoint(base_url: str, key: Key | None = None, insecure: bool = False) -> Endpoint:
    """Check an address. Without TLS only this machine may be asked, since the key and the data would be readable.

    Raises:
        UsageError: No http or https address, one with a user, query or fragment, or http to another machine.
    """
    parts = urlsplit(base_url.strip())
    try:
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--base-url {base_url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--base-url {base_url!r} is no http or https address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"--base-url of {host}: user, password, query and fragment have no place in it")
    local = is_loopback(host)
    if parts.scheme == "http" and not local and not insecure:
        raise UsageError(
            f"--base-url {base_url!r}: http to another machine sends the key and the data readably; "
            "use https, or --insecure in a network that you trust"
        )
    return Endpoint(base_url.strip().rstrip("/"), key, local)


def load_key(
    variable: str = DEFAULT_KEY_VARIABLE,
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Key | None:
    """The key from a file that only the user can read, else from an environment variable; None if there is none.

    Raises:
        UsageError: The file is not there, readable by others, or empty, or the key holds white space or odd signs.
    """
    if file is None:
        secret, where = environment.get(variable, "").strip(), f"environment variable {variable}"
        if not secret and variable != DEFAULT_KEY_VARIABLE:
            raise UsageError(f"{where} is empty or not set")
    else:
        where = str(file)
        secret = private_text(file).strip()
        if not secret:
            raise UsageError(f"{file}: holds no key")
    if secret and not re.fullmatch(r"[\x21-\x7e]+", secret):
        raise UsageError(f"{where}: the key holds white space or signs that no header can carry")
    return Key(secret) if secret else None
