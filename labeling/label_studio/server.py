"""A Label Studio server of one's own: started, found again and stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labeling.label_studio.credentials import Credentials, made_or_read, private_directory, read
from labeling.label_studio.installation import (
    DATABASE,
    clean_environment,
    environment,
    home,
    install,
    template,
)
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.files import write_json

START_SECONDS = 300.0
STOP_SECONDS = 20.0
PORT_SECONDS = 3.0
"""How long a port is waited for: a server that was killed holds it for a moment."""

LOOPBACK = "127.0.0.1"

_LOCK = "up.lock"


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        url: Its address on this machine.
        host: The address that it is bound to.
        port: Its port.
        pid: Its process.
        data: Its directory: database, log, credentials.
    """

    url: str
    host: str
    port: int
    pid: int
    data: Path

    @property
    def credentials(self) -> Credentials:
        """The first account."""
        return read(self.data / "credentials.json")


def data_directory() -> Path:
    """Where the usual server keeps its data."""
    return home() / "label-studio"


def up(
    data: Path, say: Callable[[str], None], port: int | None = None, host: str = LOOPBACK, public_url: str | None = None
) -> tuple[Running, bool]:
    """Start the server of a data directory, unless it runs; install it and make its database if need be.

    Args:
        data: Its directory, made if it is not there.
        say: Told what takes long.
        port: Its port; None: any free one.
        host: The address to bind to.
        public_url: The https address under which others reach it through a proxy.

    Returns:
        The server, and whether it was started now.

    Raises:
        UsageError: The port is taken.
        PrmKitError: It does not start.
    """
    data = private_directory(data, {_LOCK, "credentials.json", DATABASE})
    with _alone(data):
        there = running(data)
        if there is not None:
            return there, False
        server = install(environment(), say)
        if not (data / DATABASE).exists():
            empty = template(server, home(), say)
            part = data / f"{DATABASE}.part"
            shutil.copyfile(empty, part)
            part.chmod(0o600)  # before there is a token in it
            part.replace(data / DATABASE)
        account = made_or_read(data / "credentials.json")
        number = _free_port(host, port)
        say(f"starting Label Studio on port {number}")
        process = _start(server, data, account, host, number, public_url)
        try:
            shown = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - only compared
            started = Running(f"http://{_bracketed(shown)}:{number}", host, number, process.pid, data)
            _wait(process, started, account)
            write_json(data / "server.json", asdict(started) | {"data": str(data)})
        except BaseException:  # Ctrl-C too: it does not reach the child, which would run on, known to nobody
            process.kill()
            process.wait()
            raise
        process.returncode = 0  # it is meant to outlive us: Popen need not warn of it
    return started, True


def running(data: Path) -> Running | None:
    """The server of a data directory, if it runs."""
    data = data.resolve()  # as on its command line, wherever we are called
    try:
        row: dict[str, Any] = json.loads((data / "server.json").read_text(encoding="utf-8"))
        found = Running(row["url"], row["host"], int(row["port"]), int(row["pid"]), data)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if _is_ours(found.pid, data) else None


def down(data: Path) -> bool:
    """Stop the server of a data directory; return whether it ran. Its data stays.

    Raises:
        PrmKitError: It does not stop.
    """
    data = data.resolve()
    there = running(data)
    if there is not None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(there.pid, sign)
            until = time.monotonic() + STOP_SECONDS
            while _is_ours(there.pid, data):
                if time.monotonic() > until:
                    break
                time.sleep(0.1)
            else:
                break
        else:
            raise PrmKitError(f"the server (process {there.pid}) does not stop")
    (data / "server.json").unlink(missing_ok=True)
    return there is not None


def _start(
    server: Path, data: Path, account: Credentials, host: str, port: int, public_url: str | None
) -> subprocess.Popen[bytes]:
    secret = {  # in the environment, because arguments are there for everyone to see
        "LABEL_STUDIO_USERNAME": account.email,
        "LABEL_STUDIO_PASSWORD": account.password,
        "LABEL_STUDIO_USER_TOKEN": account.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    }
    if public_url:
        secret |= {
            "LABEL_STUDIO_HOST": public_url,
            "CSRF_TRUSTED_ORIGINS": public_url.rstrip("/"),
            "SESSION_COOKIE_SECURE": "1",
        }
    command = [str(server), "start", "--no-browser", "--data-dir", str(data)]
    command += ["--internal-host", _bracketed(host), "--port", str(port), "--enable-legacy-api-token"]
    with open(data / "server.log", "ab", opener=_for_us_alone) as log:
        return subprocess.Popen(  # noqa: S603 - our own words
            command,
            env=clean_environment(**secret),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o077,  # the database holds the token
            start_new_session=True,  # it outlives this command, and no Ctrl-C in this terminal reaches it
        )


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _wait(process: subprocess.Popen[bytes], server: Running, account: Credentials) -> None:
    """Wait until it is this server that answers: on a port taken meanwhile it could be anything."""
    until = time.monotonic() + START_SECONDS
    while not _knows(server.url, account.token):
        if process.poll() is not None or time.monotonic() > until:
            log = (server.data / "server.log").read_text(encoding="utf-8", errors="replace")
            raise PrmKitError(f"Label Studio did not start; the end of {server.data / 'server.log'}:\n{log[-2000:]}")
        time.sleep(0.3)


def _knows(url: str, token: str) -> bool:
    request = urllib.request.Request(  # noqa: S310 - an http address that we made
        f"{url}/api/current-user/whoami", headers={"Authorization": f"Token {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port(host: str, port: int | None) -> int:
    """The port if it is free, or any: Label Studio would silently take another one.

    Raises:
        UsageError: It is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: one stopped just now is free
        until = time.monotonic() + PORT_SECONDS
        while True:
            try:
                probe.bind((host, port or 0))
                return int(probe.getsockname()[1])
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                    what = f"{host} port {port or 'any'}: {error.strerror}"
                    raise UsageError(f"{what}; take another --port or --host") from None
            time.sleep(0.1)


def _is_ours(pid: int, data: Path) -> bool:
    """Whether the process is a Label Studio server on this directory, and no other one that got its number."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # if it is a child of ours that has ended, let it go
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    record = Path("/proc") / str(pid) / "cmdline"
    if not record.parent.parent.joinpath("self").exists():
        shown = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=False)  # noqa: S603, S607
        words = shown.stdout
    else:
        try:
            words = record.read_bytes().replace(b"\0", b" ")
        except OSError:
            return False
    # With what follows it on the command line: the directory's name may be the beginning of another's.
    return b"label-studio start " in words and os.fsencode(f" --data-dir {data} --internal-host ") in words


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Only one `up` at a time works on a directory."""
    if os.name != "posix":
        yield
        return
    import fcntl

    with (data / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
