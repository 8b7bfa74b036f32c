import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from labeling.judge.budget import Ceilings
from labeling.judge.client import EndpointError, Patience
from labeling.judge.run import HOPELESS, judge_into
from prm_kit.ledger import Ledger
from prm_kit.records import Solution
from tests.labeling.judge.scripted_server import steps_of

ROOT = Path(__file__).parents[3]
SOLUTIONS = [Solution.from_steps(f"problem {n}", [f"begin {n}", f"go on {n}"]) for n in range(60)]


def run(judge, ledger, solutions=SOLUTIONS, stop=lambda: False):
    return asyncio.run(judge_into(judge, solutions, ledger, lambda done, session: None, stop))


def labelled(ledger):
    with Ledger(ledger) as opened:
        return Counter(annotation.solution_id for annotation in opened.everything())


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "ledger.sqlite"


def test_every_solution_gets_one_annotation_in_the_ledger(scripted, judge_at, ledger):
    outcome = run(judge_at(scripted()), ledger)
    assert outcome.labelled == 60
    assert labelled(ledger) == Counter(solution.id for solution in SOLUTIONS)
    assert outcome.counts()["unanswered"] == {}


def test_a_limit_ends_the_run_keeps_what_was_done_and_more_goes_on_from_there(scripted, judge_at, ledger):
    server = scripted(latency=0.005)
    outcome = run(judge_at(server, ceilings=Ceilings(calls=25)), ledger)
    assert "limit of 25 calls reached" in str(outcome.limit)
    assert outcome.labelled == len(server.requests) == 25
    done = labelled(ledger)
    rest = [solution for solution in SOLUTIONS if solution.id not in done]
    assert run(judge_at(server, ceilings=Ceilings(calls=25)), ledger, rest).labelled == 0
    outcome = run(judge_at(server, ceilings=Ceilings(calls=60)), ledger, rest)
    assert (outcome.labelled, outcome.limit, len(server.requests)) == (35, None, 60)
    assert set(labelled(ledger).values()) == {1}


def test_a_few_failures_leave_those_solutions_for_later_and_stop_nothing(scripted, judge_at, ledger):
    def behaviour(number, steps, body):
        return {"status": 500} if "begin 7" in steps[0][1] else {}

    outcome = run(judge_at(scripted(behaviour)), ledger)
    assert outcome.labelled == 59
    assert dict(outcome.unanswered) == {"status 500": 1}
    assert SOLUTIONS[7].id not in labelled(ledger)


def test_an_endpoint_that_answers_nothing_is_given_up_soon(scripted, judge_at, ledger):
    server = scripted(lambda number, steps, body: {"status": 500})
    patience = Patience(attempt=5.0, deadline=9.0, attempts=1)
    with pytest.raises(EndpointError, match=f"{HOPELESS} solutions in a row"):
        run(judge_at(server, patience=patience, concurrency=4), ledger)
    assert len(server.requests) <= HOPELESS + 8


def test_an_error_of_the_whole_run_keeps_what_was_answered(scripted, judge_at, ledger):
    server = scripted(lambda number, steps, body: {"status": 401} if number >= 30 else {})
    with pytest.raises(EndpointError, match="401"):
        run(judge_at(server, concurrency=4), ledger)
    assert 20 <= len(labelled(ledger)) <= 30


def test_asked_to_stop_it_ends_and_goes_on_later_without_asking_twice(scripted, judge_at, ledger):
    server = scripted(latency=0.05)
    asked = threading.Event()
    outcome = run(judge_at(server, concurrency=5), ledger, stop=lambda: asked.is_set() or asked.set())
    assert outcome.interrupted
    done = labelled(ledger)
    assert outcome.labelled == len(done) < 60
    run(judge_at(server, concurrency=50), ledger, [s for s in SOLUTIONS if s.id not in done])
    assert labelled(ledger) == Counter(solution.id for solution in SOLUTIONS)
    assert len(server.requests) == 60


LIFE = """
import asyncio, sys
from pathlib import Path
from labeling.judge.endpoint import endpoint
from labeling.judge.labeler import JudgeLabeler
from labeling.judge.prompt import load_prompt
from labeling.judge.run import judge_into
from labeling.judge.session import Connection
from labeling.judge.settings import JudgeSettings
from prm_kit.records import Solution
url, folder = sys.argv[1], Path(sys.argv[2])
connection = Connection(endpoint(url), folder / "answers.sqlite", "m", concurrency=5, commit_seconds=0.05)
judge = JudgeLabeler(connection, load_prompt("facets"), JudgeSettings(model="m", votes=2), "json_schema")
solutions = [Solution.from_steps(f"problem {n}", [f"begin {n}", f"go on {n}"]) for n in range(60)]
asyncio.run(judge_into(judge, solutions, folder / "ledger.sqlite", lambda done, session: None))
"""


def committed(folder):
    with sqlite3.connect(folder / "answers.sqlite") as db:
        found = {key for (key,) in db.execute("SELECT key FROM answers WHERE usable")}
    db.close()
    return found


def test_killed_at_any_moment_it_asks_nothing_again_that_was_on_the_disk(scripted, ledger, tmp_path):
    """Two votes for each of 60 solutions; killed when 30, 60 and 90 requests had come; the last life ends."""
    server = scripted(latency=0.01)
    on_disk = set()
    for requests in (30, 60, 90, None):
        start = len(server.headers)
        life = subprocess.Popen([sys.executable, "-c", LIFE, server.url, str(tmp_path)], cwd=ROOT)
        while life.poll() is None and (requests is None or len(server.headers) < requests):
            time.sleep(0.001)
        life.kill()
        assert life.wait() == (0 if requests is None else -signal.SIGKILL)
        asked = [headers["x-client-request-id"] for headers in server.headers[start:]]
        assert len(asked) == len(set(asked))
        assert on_disk.isdisjoint(asked)
        assert len(set(asked)) > 0
        on_disk = committed(tmp_path)
        assert set(labelled(ledger).values()) <= {1}
    assert labelled(ledger) == Counter(solution.id for solution in SOLUTIONS)
    assert len(on_disk) == 120
    assert len(server.headers) - 120 <= 3 * (64 + 5)


def test_two_judges_label_into_one_ledger_at_once(scripted, judge_at, ledger, tmp_path):
    servers = [scripted(latency=0.01), scripted(latency=0.01)]
    judges = [judge_at(server, settings={"seed": number}) for number, server in enumerate(servers)]
    judges[1].connection.__dict__["store"] = tmp_path / "second.sqlite"
    threads = [threading.Thread(target=run, args=(judge, ledger)) for judge in judges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with Ledger(ledger) as opened:
        versions = Counter(annotation.rater.version for annotation in opened.everything())
    assert versions == {judge.rater.version: 60 for judge in judges}


def test_what_another_process_labelled_meanwhile_is_not_labelled_twice(scripted, judge_at, ledger, tmp_path):
    server = scripted()
    run(judge_at(server), ledger, SOLUTIONS[:20])
    late = judge_at(server)
    late.connection.__dict__["store"] = tmp_path / "second.sqlite"
    outcome = run(late, ledger)
    assert (outcome.labelled, outcome.labelled_meanwhile) == (40, 20)
    assert set(labelled(ledger).values()) == {1}


def test_a_version_that_was_used_before_is_labelled_again_after_another_one(scripted, judge_at, ledger):
    server = scripted()
    first, other = judge_at(server), judge_at(server, settings={"seed": 1})
    for judge in (first, other, first):
        outcome = run(judge, ledger, SOLUTIONS[:3])
        assert (outcome.labelled, outcome.labelled_meanwhile) == (3, 0)
    with Ledger(ledger) as opened:
        assert {annotation.rater for annotation in opened.current()} == {first.rater}
        assert len(list(opened.everything())) == 9


def test_many_votes_of_one_solution_are_asked_at_once(scripted, judge_at, ledger):
    server = scripted(latency=0.05)
    outcome = run(judge_at(server, settings={"votes": 8}), ledger, SOLUTIONS[:4])
    assert len(server.requests) == 32
    assert server.peak >= 8
    assert outcome.spent.calls == 32
    assert all(len(steps_of(body)) == 2 for body in server.requests)
