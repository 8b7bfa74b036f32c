"""What can be promised of credentials, installation and server without an installed Label Studio."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from labeling.label_studio import installation, server
from labeling.label_studio.client import SdkStudio, check_url
from labeling.label_studio.credentials import made_or_read, token_for
from labeling.label_studio.studio import StudioDownError, StudioError
from prm_kit.errors import InputError, PrmKitError, UsageError


def test_credentials_are_made_once_and_only_the_user_can_read_them(tmp_path):
    path = tmp_path / "credentials.json"
    made = made_or_read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made_or_read(path) == made
    assert len(made.password) >= 20
    assert made.password not in repr(made)
    assert made.token not in repr(made)


def test_credentials_that_others_can_read_are_refused(tmp_path):
    path = tmp_path / "credentials.json"
    made_or_read(path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        made_or_read(path)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(InputError, match="no credentials file"):
        made_or_read(path)


def test_a_token_comes_from_a_private_file_or_the_environment(tmp_path):
    path = tmp_path / "token"
    path.write_text("  abc\n")
    path.chmod(0o600)
    assert token_for("http://x", path, {}) == "abc"
    assert token_for("http://x", None, {"LABEL_STUDIO_API_KEY": "def"}) == "def"
    with pytest.raises(UsageError, match="LABEL_STUDIO_API_KEY"):
        token_for("http://x", None, {})
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        token_for("http://x", path, {})


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "example.org", "http://", "file:///etc/passwd", "https://u:p@example.org", "http://example.org",
     "http://10.0.0.1:8080", "https://x/?a=1", "http://localhost.example.org",
     "http://127.0.0.1.example.org"],
)  # fmt: skip
def test_addresses_that_would_leak_the_token_or_are_none_are_refused(url):
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert "u:p" not in str(caught.value)


def test_loopback_and_https_are_addresses_and_a_path_is_kept():
    assert check_url("http://127.0.0.1:8080") == "http://127.0.0.1:8080/"
    assert check_url("http://127.0.0.2:8080") == "http://127.0.0.2:8080/"
    assert check_url("http://[::1]:8080") == "http://[::1]:8080/"
    assert check_url("https://labels.example.org/studio/") == "https://labels.example.org/studio/"
    assert check_url("http://10.0.0.1", insecure=True) == "http://10.0.0.1/"


class RefusedError(Exception):
    """As the SDK's error: its text holds a cookie."""

    def __init__(self, status_code, body):
        self.status_code, self.body = status_code, body

    def __str__(self):
        return "headers: {'set-cookie': 'sessionid=secret'}"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RefusedError(400, {"detail": "bad config"}), StudioError),
        (RefusedError(401, {"detail": "bad config"}), StudioError),
        (RefusedError(502, "<html>secret</html>"), StudioDownError),
        (RefusedError(500, "bad config: database is locked"), StudioDownError),
        (TimeoutError("bad config"), StudioDownError),
    ],
)
def test_an_error_of_the_server_is_told_without_its_headers(error, kind):
    studio = object.__new__(SdkStudio)
    studio.url, studio._errors, studio._down = "http://127.0.0.1:1/", (RefusedError,), (TimeoutError,)
    with pytest.raises(StudioError) as caught, studio._asking("something"):
        raise error
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_without_the_sdk_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "label_studio_sdk", None)
    monkeypatch.setitem(sys.modules, "label_studio_sdk.client", None)
    with pytest.raises(UsageError, match=r"pip install 'prm-kit\[label-studio\]'"):
        SdkStudio("http://127.0.0.1:1", "token")


def test_a_port_that_is_taken_is_refused_and_a_free_one_is_found(monkeypatch):
    monkeypatch.setattr(server, "PORT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(UsageError, match="take another --port"):
            server._free_port("127.0.0.1", taken.getsockname()[1])
        assert server._free_port("127.0.0.1", None) != taken.getsockname()[1]


def test_the_child_gets_a_clean_environment_that_reaches_nobody(monkeypatch):
    for name in ("HOST", "PORT", "DEBUG", "USERNAME", "PASSWORD", "LABEL_STUDIO_API_KEY", "DJANGO_DB"):
        monkeypatch.setenv(name, "x")
    env = installation.clean_environment(LABEL_STUDIO_USERNAME="a")
    assert not {"HOST", "PORT", "DEBUG", "USERNAME", "PASSWORD", "LABEL_STUDIO_API_KEY", "DJANGO_DB"} & set(env)
    assert env["LABEL_STUDIO_USERNAME"] == "a"
    assert env["HTTPS_PROXY"] == "http://127.0.0.1:9"
    assert env["LABEL_STUDIO_COLLECT_ANALYTICS"] == "false"


def test_nothing_runs_in_a_new_directory_and_down_says_so(tmp_path):
    assert server.running(tmp_path) is None
    assert server.down(tmp_path) is False


@pytest.mark.parametrize("pid", [None, 2**22 + 1])
def test_a_process_of_that_number_that_is_no_server_of_ours_is_left_alone(tmp_path, pid):
    row = {"url": "http://127.0.0.1:1", "host": "127.0.0.1", "port": 1, "pid": pid or os.getpid()}
    (tmp_path / "server.json").write_text(json.dumps(row))
    assert server.running(tmp_path) is None
    assert server.down(tmp_path) is False


FAKE = """#!{python}
import sys, time
sys.stderr.write("no module named django\\n")
sys.exit(3)
"""


ANSWERS = """#!{python}
import http.server, pathlib, socket, sys
words = dict(zip(sys.argv, sys.argv[1:]))
place = pathlib.Path(words["--data-dir"])
(place / "words").write_text(" ".join(sys.argv))
host = words["--internal-host"]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
Server((host.strip("[]"), int(words["--port"])), Handler).serve_forever()
"""


def put_a_server_in_place(tmp_path, monkeypatch, text):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    program = venv / "bin" / "label-studio"
    program.write_text(text.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv(installation.ENVIRONMENT_VARIABLE, str(venv))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """A server that answers everything, in place of Label Studio; what was started is stopped."""
    put_a_server_in_place(tmp_path, monkeypatch, ANSWERS)
    empty = tmp_path / "home" / "prm-kit" / f"label-studio-{installation.VERSION}-empty"
    empty.mkdir(parents=True)
    (empty / installation.DATABASE).touch(0o644)
    started = []
    start = server._start

    def remembered(*words):
        started.append(start(*words))
        return started[-1]

    monkeypatch.setattr(server, "_start", remembered)
    yield started
    for process in started:
        process.returncode = None  # `up` set it
        process.kill()
        process.wait()


def test_a_server_is_found_and_stopped_by_any_name_of_its_directory(answering, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, _ = server.up(Path("ls"), print)
    monkeypatch.chdir("/")
    again, started = server.up(tmp_path / "ls", print)
    assert (again, started, len(answering)) == (first, False, 1)
    (tmp_path / "link").symlink_to(tmp_path / "ls")
    assert server.running(tmp_path / "link") == first
    assert server.down(tmp_path / "link" / ".." / "ls")
    assert server.running(tmp_path / "ls") is None
    assert not server._is_ours(first.pid, first.data)


def test_an_interrupted_start_leaves_no_process(answering, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.up(tmp_path / "ls", print)
    (process,) = answering
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "ls" / "server.json").exists()


def others(path):
    """What others may do with it."""
    return stat.S_IMODE(path.stat().st_mode) & 0o077


@pytest.mark.parametrize("was_there", [True, False])
def test_nobody_else_can_read_what_a_server_keeps_and_a_directory_of_the_users_keeps_its_mode(
    answering, tmp_path, was_there
):
    data = tmp_path / "ls"
    if was_there:
        data.mkdir()
        data.chmod(0o755)
    server.up(data, print)
    assert others(data) == (0o055 if was_there else 0)
    kept = [data / name for name in (installation.DATABASE, "server.log", "credentials.json", "words")]
    assert [others(path) for path in kept] == [0] * 4


def test_a_directory_that_others_write_to_or_that_holds_something_else_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "notes.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(UsageError, match="something else"):
        server.up(tmp_path, print)
    with pytest.raises(UsageError, match="File exists"):
        server.up(tmp_path / "notes.txt", print)
    tmp_path.chmod(0o777 | stat.S_ISVTX)
    with pytest.raises(UsageError, match="others can write"):
        server.up(tmp_path, print)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777 | stat.S_ISVTX
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_server_of_a_directory_whose_name_only_begins_alike_is_another(answering, tmp_path):
    longer, _ = server.up(tmp_path / "ls2", print)
    assert server._is_ours(longer.pid, tmp_path / "ls2")
    assert not server._is_ours(longer.pid, tmp_path / "ls")


def test_the_address_of_an_ipv6_server_has_brackets(answering, tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    found, _ = server.up(tmp_path / "ls", print, host="::1")
    assert check_url(found.url) == f"http://[::1]:{found.port}/"
    assert "--internal-host [::1] " in (tmp_path / "ls" / "words").read_text()


def test_a_server_that_dies_at_its_start_is_reported_with_the_end_of_its_log(tmp_path, monkeypatch):
    put_a_server_in_place(tmp_path, monkeypatch, FAKE)
    with pytest.raises(PrmKitError, match="no module named django"):
        server.up(tmp_path / "data", print)
    empty = tmp_path / "home" / "prm-kit" / f"label-studio-{installation.VERSION}-empty"
    empty.mkdir(parents=True)
    (empty / installation.DATABASE).touch()
    with pytest.raises(PrmKitError, match=r"did not start[^!]*no module named django"):
        server.up(tmp_path / "data", print)
    assert server.running(tmp_path / "data") is None


def test_installing_into_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="no virtual environment"):
        installation.install(tmp_path, print)


def test_a_failing_pip_is_reported(tmp_path, monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "no matching distribution")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(PrmKitError, match="no matching distribution"):
        installation.install(tmp_path / "venv", lambda _: None)
