import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.score import score_into
from prm_kit.endpoint import Key
from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution
from prm_kit.score import StepScores
from prm_kit.serve import remote
from prm_kit.serve.app import create_app
from prm_kit.serve.remote import RemoteError, RemoteScorer
from prm_kit.serve.settings import ServeSettings


def some(number: int) -> list[Solution]:
    return [
        Solution.from_steps(f"{n % 3} + 1 = ?", [f"{n} + 1 = {n + 1}", "so again", f"so {n + 1}"][: 1 + n % 3], " ")
        for n in range(number)
    ] + [Solution("1 + 1 = ?", "nothing", ())]


@pytest.fixture
def answering():
    """Serves fixed (status, headers, body) answers one after the other, the last one for ever; notes what was asked."""
    servers = []

    def start(*answers):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
                status, headers, body = answers[min(len(asked), len(answers)) - 1]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    waits = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    return waits


def right_answer(solutions) -> bytes:
    step = {"probabilities": [0.0, 0.0, 1.0], "value": 1.0, "reward": 1.0}
    items = [
        {"spans": s.spans, "steps": [step] * len(s.spans), "score": 1.0, "bounded": True}
        for s in sorted(solutions, key=lambda s: s.problem)
    ]
    return json.dumps({"scorer": "x", "aggregation": "min", "items": items}).encode()


def test_scores_equal_the_local_scorers(backbone, serving):
    scorer = PrmScorer(Prm.from_backbone(backbone))
    solutions = some(11)
    with serving(create_app(scorer, token=Key("s3cret"), aggregation="last")) as url:
        asked = RemoteScorer(url, Key("s3cret"), items=4)
        found = asked.score(solutions)
    assert asked.aggregation == "last"
    for there, here in zip(found, scorer.score(solutions), strict=True):
        assert list(there.probabilities) == [pytest.approx(p, abs=1e-6) for p in here.probabilities]


def test_how_unsure_the_scorer_is_comes_along(serving):
    class Unsure:
        name = "unsure"

        def score(self, solutions):
            return [StepScores(((0.0, 0.0, 1.0),) * 2, uncertainty=(0.25, None)) for _ in solutions]

    asked = [Solution.from_steps("p", ["abc", "a"])]
    with serving(create_app(Unsure())) as url:
        assert RemoteScorer(url).score(asked) == Unsure().score(asked)


def test_unbounded_scores_stay_unbounded(lengths, serving):
    lengths.unbounded = True
    with serving(create_app(lengths)) as url:
        (scores,) = RemoteScorer(url).score([Solution.from_steps("p", ["abc", "a"])])
    assert scores == lengths.score([Solution.from_steps("p", ["abc", "a"])])[0]
    assert not scores.is_bounded


def test_requests_that_are_too_large_go_in_halves(lengths, serving):
    with serving(create_app(lengths, ServeSettings(max_items=3, max_characters=40))) as url:
        solutions = some(10)
        assert RemoteScorer(url).score(solutions) == lengths.score(solutions)
        with pytest.raises(InputError, match="51 characters, more than the 40 allowed"):
            RemoteScorer(url).score([Solution.from_steps("p", ["a" * 50])])


def test_a_solution_too_long_for_the_servers_prm_is_refused_alone_as_it_is_here(backbone, serving, tmp_path):
    prm = Prm.from_backbone(backbone)
    prm.card = prm.card.model_copy(update={"max_tokens": 16})
    solutions = [Solution.from_steps("1 + 2 = ?", ["so 3"], "\n"), Solution.from_steps("1 ?", ["so " * 20], "\n")]
    with serving(create_app(PrmScorer(prm))) as url:
        there = score_into(tmp_path / "there" / "scores.jsonl", RemoteScorer(url), solutions, "min", lambda _: None)
    assert there.scores.keys() == {solutions[0].id}
    (reason,) = there.rejected["first"]
    assert reason.startswith(f"solution {solutions[1].id}: ")


def test_what_the_server_cannot_score_is_named(lengths, serving):
    solutions = [Solution.from_steps("q", ["good"]), Solution.from_steps("p", ["refused"])]
    with serving(create_app(lengths)) as url, pytest.raises(InputError, match=f"{solutions[1].id}: step 0 has too"):
        RemoteScorer(url).score(solutions)


def test_a_busy_server_is_asked_again_when_it_says(answering, no_waiting):
    solutions = some(2)
    busy = (429, {"retry-after": "7"}, b'{"reason": "full"}')
    url, asked = answering(busy, (503, {}, b"<html>"), (200, {}, right_answer(solutions)))
    assert len(RemoteScorer(url).score(solutions)) == 3
    assert len(asked) == 3
    assert no_waiting[0] == 7.0


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b'{"reason": "scoring failed"}', "status 500: scoring failed"),
        (401, b'{"reason": "the token is missing or wrong"}', "status 401: the token"),
        (302, b"", "status 302"),
        (200, b"<html>", "something else than scores"),
        (200, b'{"scorer": "x", "aggregation": "min", "items": []}', "0 answers for 3 solutions"),
        (200, right_answer([*some(1), *some(1)[:1]]), "of other steps than were asked"),
        (200, right_answer(some(2)).replace(b"1.0", b"NaN"), "answers something else|not a probability"),
        (200, right_answer(some(2)).replace(b"[0.0, 0.0, 1.0]", b"[0.0, 0.0, 0.5]"), "not a probability"),
    ],
)
def test_whatever_is_no_scores_raises_and_never_becomes_zeros(answering, status, body, reason):
    url, asked = answering((status, {"location": "http://elsewhere.example/"}, body))
    with pytest.raises((RemoteError, InputError), match=reason):
        RemoteScorer(url).score(some(2))
    assert len(asked) == 1


def test_a_server_that_is_not_there_is_given_up_after_six_attempts(no_waiting):
    with pytest.raises(RemoteError, match="ConnectError"):
        RemoteScorer("http://127.0.0.1:9").score(some(1))
    assert len(no_waiting) == 5


def test_a_server_that_stays_full_is_given_up_at_the_deadline(answering):
    url, _ = answering((429, {"retry-after": "50"}, b'{"reason": "full"}'))
    with pytest.raises(RemoteError, match="full; given up"):
        RemoteScorer(url, deadline=20).score(some(1))


def test_one_part_that_fails_is_not_held_up_by_another_that_is_told_to_wait(answering):
    bad = b'{"reason": "no", "details": [{"where": "items.0", "reason": "bad step"}]}'
    url, _ = answering((429, {"retry-after": "0"}, b'{"reason": "full"}'), (422, {}, bad), (429, {}, b"{}"))
    with pytest.raises(InputError, match="bad step"):
        RemoteScorer(url, items=1, deadline=60).score(some(1))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "http://prm.example:80",
        "http://user:pw@127.0.0.1",
        "127.0.0.1:80",
        "http://127.0.0.1/a\x00b",
        "http://127.0.0.1/a b",
    ],
)
def test_addresses_that_must_not_be_asked_are_refused(url):
    with pytest.raises(UsageError):
        RemoteScorer(url)


def test_a_server_that_was_restarted_with_another_prm_is_not_taken_for_the_old_one(lengths, serving, monkeypatch):
    with serving(create_app(lengths, fingerprint="old")) as address:
        scorer = RemoteScorer(address)
        assert scorer.ask() == "old"
        scorer.score(some(2))
    with serving(create_app(lengths, fingerprint="new")) as address:
        assert RemoteScorer(address).ask() == "new"
        monkeypatch.setattr(scorer, "_address", address)
        with pytest.raises(RemoteError, match=r"another PRM than before \(new, not old\)"):
            scorer.score(some(2))
    with serving(create_app(lengths)) as address:  # one that does not know what it scores with
        assert RemoteScorer(address).ask() is None
        assert RemoteScorer(address).score(some(1))
    with pytest.raises(RemoteError, match=r"ConnectError|Connect"):
        RemoteScorer(address).ask()
