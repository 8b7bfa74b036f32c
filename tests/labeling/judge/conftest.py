import pytest

from labeling.judge.client import Patience
from labeling.judge.endpoint import endpoint
from labeling.judge.labeler import JudgeLabeler
from labeling.judge.prompt import load_prompt
from labeling.judge.session import Connection
from labeling.judge.settings import JudgeSettings
from tests.labeling.judge.scripted_server import ScriptedServer

IMPATIENT = Patience(attempt=30.0, deadline=60.0, attempts=4, first_wait=0.01, longest_wait=0.2)


@pytest.fixture
def scripted():
    """Start a server with a behaviour; it ends with the test."""
    open_servers = []

    def start(behaviour=None, **options):
        server = ScriptedServer(behaviour, **options).__enter__()
        open_servers.append(server)
        return server

    yield start
    for server in open_servers:
        server.__exit__()


@pytest.fixture
def judge_at(tmp_path):
    """A judge that asks a server, with a store of its own."""

    def make(server, prompt="facets", form="json_schema", patience=IMPATIENT, key=None, settings=None, **connection):
        reached = Connection(
            endpoint(server if isinstance(server, str) else server.url, key),
            tmp_path / "answers.sqlite",
            "m",
            patience=patience,
            commit_seconds=0.02,
            **connection,
        )
        return JudgeLabeler(reached, load_prompt(prompt), JudgeSettings(model="m", **(settings or {})), form)

    return make
