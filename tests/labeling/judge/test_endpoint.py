import pytest

from labeling.judge.endpoint import Key, endpoint, load_key
from prm_kit.errors import UsageError


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/v1/", True),
        ("http://localhost:1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://api.example.org/v1", False),
    ],
)
def test_this_machine_and_tls_are_fine(url, local):
    found = endpoint(url)
    assert found.local is local
    assert found.chat_url == url.rstrip("/") + "/chat/completions"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1",
        "http://0x7f000001/v1",
        "http://10.0.0.5:8000/v1",
        "http://judge.example.org/v1",
        "http://localhost.example.org/v1",
        "file:///etc/passwd",
        "data:text/plain,x",
        "ftp://127.0.0.1/",
        "127.0.0.1:8000/v1",
        "http://user:secret@127.0.0.1/v1",
        "https://api.example.org/v1?key=secret",
        "http://127.0.0.1:99999/v1",
        "https:///v1",
        "",
    ],
)
def test_other_addresses_are_refused_before_a_socket_is_opened(url):
    with pytest.raises(UsageError) as caught:
        endpoint(url)
    assert "user:secret" not in str(caught.value)


def test_plain_http_to_another_machine_needs_to_be_allowed():
    assert endpoint("http://10.0.0.5:8000/v1", insecure=True).local is False


def test_the_key_comes_from_the_environment_or_a_private_file(tmp_path):
    file = tmp_path / "key"
    file.write_text("sk-file\n")
    file.chmod(0o600)
    assert load_key(file=file, environment={"PRM_KIT_API_KEY": "sk-env"}).reveal() == "sk-file"
    assert load_key(environment={"PRM_KIT_API_KEY": " sk-env "}).reveal() == "sk-env"
    assert load_key(environment={"OPENAI_API_KEY": "not for every host"}) is None


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "key"
    file.write_text("sk-file")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_key(file=file)


def test_a_named_variable_that_is_not_set_is_refused_and_a_broken_key_is_not_shown():
    with pytest.raises(UsageError, match="MY_KEY is empty or not set"):
        load_key("MY_KEY", environment={})
    with pytest.raises(UsageError) as caught:
        load_key(environment={"PRM_KIT_API_KEY": "sk-a\nsk-b"})
    assert "sk-a" not in str(caught.value)


def test_a_key_shows_itself_in_no_text():
    key = Key('sk-"quoted"')
    assert "sk-" not in f"{key} {key!r} {endpoint('https://x.org/v1', key)}"
    assert key.redact('bad key sk-"quoted" or {"k": "sk-\\"quoted\\""}') == 'bad key *** or {"k": "***"}'
