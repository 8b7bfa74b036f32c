"""Where the judge is asked: the address and the key, checked before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prm_kit.endpoint import Key, check_address, read_key

DEFAULT_KEY_VARIABLE = "PRM_KIT_API_KEY"


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
    address, local = check_address(base_url, name="--base-url", insecure=insecure)
    return Endpoint(address, key, local)


def load_key(
    variable: str = DEFAULT_KEY_VARIABLE,
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Key | None:
    """The key from a file that only the user can read, else from an environment variable; None if there is none.

    Raises:
        UsageError: The file is not there, readable by others, or empty, or the key holds white space or odd signs.
    """
    return read_key(variable, file, required=variable != DEFAULT_KEY_VARIABLE, environment=environment)
