import pytest

from prm_kit.errors import UsageError
from prm_kit.secrecy import is_loopback, private_text


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("128.0.0.1", False), ("localhost.example.org", False), ("127.0.0.1.example.org", False)],
)  # fmt: skip
def test_only_what_cannot_leave_this_machine_is_loopback(host, local):
    assert is_loopback(host) is local


def test_a_secret_is_read_only_from_a_text_that_nobody_else_can_read(tmp_path):
    path = tmp_path / "secret"
    with pytest.raises(UsageError, match=r"secret: cannot be read: No such file"):
        private_text(path)
    path.write_bytes(b"\xff")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="no text"):
        private_text(path)
    path.write_text("abc\n")
    assert private_text(path) == "abc\n"
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(UsageError, match="chmod 600"):
            private_text(path)
