"""Label Studio in a virtual environment of its own, and an empty database that a new server starts from.

It is 1 GB of packages that hold others of ours back, so it never shares an environment with prm-kit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from prm_kit.errors import PrmKitError, UsageError
from prm_kit.files import whole_directory

VERSION = "1.23.2"
"""The version that the page was tried on."""

ENVIRONMENT_VARIABLE = "PRM_KIT_LABEL_STUDIO"
"""Names the virtual environment that holds label-studio, if it is not to be the usual one."""

DATABASE = "label_studio.sqlite3"

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SYSTEMROOT", "TEMP", "USERPROFILE", "APPDATA")
_NOWHERE = "http://127.0.0.1:9"
_QUIET = {
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_FEATURE_FLAGS_OFFLINE": "true",
    # One page fetches its tips from the network whatever is set; a proxy that is not there stops it.
    "HTTPS_PROXY": _NOWHERE,
    "HTTP_PROXY": _NOWHERE,
    "NO_PROXY": "127.0.0.1,localhost",
}


def home() -> Path:
    """Where prm-kit keeps what it installs: $XDG_DATA_HOME/prm-kit, or ~/.local/share/prm-kit."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "prm-kit"


def environment() -> Path:
    """The virtual environment of Label Studio."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(named) if named else home() / f"label-studio-{VERSION}"


def program(place: Path) -> Path:
    """The server's program in a virtual environment."""
    return place / "Scripts" / "label-studio.exe" if os.name == "nt" else place / "bin" / "label-studio"


def install(place: Path, say: Callable[[str], None]) -> Path:
    """Make the virtual environment with Label Studio in it, unless it is there; return the server's program.

    Raises:
        PrmKitError: pip fails.
        UsageError: `place` is something else.
    """
    found = program(place)
    if found.is_file():
        return found
    if place.exists() and any(place.iterdir()) and not (place / "pyvenv.cfg").is_file():
        raise UsageError(f"{place}: is no virtual environment; name another in {ENVIRONMENT_VARIABLE}")
    say(f"installing Label Studio {VERSION} into {place} (once; about 260 MB to download, 1 GB on disk)")
    python = found.with_name("python.exe" if os.name == "nt" else "python")
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"label-studio=={VERSION}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
        if done.returncode:
            raise PrmKitError(f"installing Label Studio failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return found


def template(server: Path, cache: Path, say: Callable[[str], None]) -> Path:
    """An empty, migrated database to copy: making it takes minutes, and without it every new server would.

    It holds no account and no secret.

    Raises:
        PrmKitError: Label Studio fails.
    """
    made = cache / f"label-studio-{VERSION}-empty"
    if not (made / DATABASE).is_file():
        say("making the empty database (once; one to three minutes)")
        with whole_directory(made) as part:
            work = part / "work"
            done = subprocess.run(  # noqa: S603 - our own words
                [str(server), "version", "--data-dir", str(work)],  # any of its commands migrates the database first
                env=clean_environment(),
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode or not (work / DATABASE).is_file():
                raise PrmKitError(f"Label Studio could not make its database:\n{(done.stdout + done.stderr)[-2000:]}")
            shutil.copyfile(work / DATABASE, part / DATABASE)
            shutil.rmtree(work)  # with its secret key: every server makes its own
    return made / DATABASE


def clean_environment(**more: str) -> dict[str, str]:
    """The environment for Label Studio: it would take HOST, PORT, DEBUG, USERNAME and more from ours.

    Nothing in it lets the server talk to anyone.
    """
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | _QUIET | more
