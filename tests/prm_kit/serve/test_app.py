import asyncio
import json
import threading
import time
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from prm_kit.aggregate import solution_score
from prm_kit.endpoint import Key
from prm_kit.errors import UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution
from prm_kit.serve.app import create_app
from prm_kit.serve.service import Service
from prm_kit.serve.settings import ServeSettings

SMALL = ServeSettings(max_items=3, max_steps=4, max_characters=60, max_tokens=40, max_body_bytes=2000, queue_items=3)


def client_of(scorer, settings=SMALL, **options) -> TestClient:
    return TestClient(create_app(scorer, settings, **options), base_url="http://127.0.0.1")


@pytest.fixture
def client(lengths):
    with client_of(lengths) as client:
        yield client


def step(probabilities, value, reward):
    return {"probabilities": probabilities, "value": value, "reward": reward, "uncertainty": None}


def test_steps_come_back_with_probabilities_values_rewards_and_a_score(client):
    item = {"problem": "p", "steps": ["a" * 20, "b" * 11, "c" * 10], "separator": "|"}
    answer = client.post("/v1/score", json={"items": [item]})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "scorer": "lengths",
        "fingerprint": None,
        "aggregation": "min",
        "items": [
            {
                "spans": [[0, 20], [21, 32], [33, 43]],
                "steps": [
                    # p(-1) = 0.2, p(0) = 0.2, p(+1) = 0.6: value 0.6 - 0.2, reward 1 - 0.2
                    step([0.2, 0.2, pytest.approx(0.6)], pytest.approx(0.4), 0.8),
                    step(None, None, None),  # abstained
                    step([0.1, 0.225, 0.675], pytest.approx(0.575), 0.9),
                ],
                "score": 0.8,
                "bounded": True,
            }
        ],
    }


@pytest.mark.parametrize(("how", "score"), [("min", 0.8), ("last", 0.9), ("mean", 0.85), ("product", 0.72)])
def test_the_solutions_score_is_the_rewards_aggregated_as_asked(client, how, score):
    body = {"items": [{"problem": "p", "steps": ["a" * 20, "c" * 10]}], "aggregation": how}
    (item,) = client.post("/v1/score", json=body).json()["items"]
    assert item["score"] == pytest.approx(score)


def test_a_text_is_split_here_and_its_spans_are_told(client):
    text = "Step 1: so\nStep 2: thus"
    (item,) = client.post("/v1/score", json={"items": [{"problem": "p", "completion": text}]}).json()["items"]
    assert [text[start:end] for start, end in item["spans"]] == ["Step 1: so", "Step 2: thus"]
    assert len(item["steps"]) == 2


def test_a_solution_without_steps_has_no_score(client):
    body = {"items": [{"problem": "p", "completion": "", "spans": []}, {"problem": "p", "steps": ["a"]}]}
    first, second = client.post("/v1/score", json=body).json()["items"]
    assert (first["steps"], first["score"]) == ([], None)
    assert second["score"] == 0.99


def test_unbounded_scores_say_so_and_have_no_product(lengths, client):
    lengths.unbounded = True
    item = {"problem": "p", "steps": ["a" * 20, "b" * 10]}
    (found,) = client.post("/v1/score", json={"items": [item]}).json()["items"]
    assert found["bounded"] is False
    assert found["steps"][0] == step(None, 20.0, 20.0)
    assert found["score"] == 10.0
    refused = client.post("/v1/score", json={"items": [item], "aggregation": "product"})
    assert (refused.status_code, "no product" in refused.json()["reason"]) == (422, True)


def test_scores_over_http_are_the_scorers_own(backbone):
    scorer = PrmScorer(Prm.from_backbone(backbone))
    solutions = [
        Solution.from_steps(f"{n} + 1 = ?", [f"{n} + 1 = {n + 1}", "so again", f"so {n + 1}"], " ") for n in range(5)
    ]
    with client_of(scorer, ServeSettings(batch_tokens=30)) as client:
        items = [{"problem": s.problem, "completion": s.completion, "spans": s.spans} for s in solutions]
        answers = client.post("/v1/score", json={"items": items}).json()["items"]
    for scores, answer in zip(scorer.score(solutions), answers, strict=True):
        got = [step["probabilities"] for step in answer["steps"]]
        assert got == [pytest.approx(p, abs=1e-6) for p in scores.probabilities]
        assert answer["score"] == pytest.approx(solution_score(scores), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.items"),
        ({"items": []}, "body.items"),
        ({"items": [{"problem": "p"}]}, "body.items.0.completion.completion"),
        ({"items": [{"problem": "p", "steps": ["a"], "completion": "a"}]}, "body.items.0.steps.completion"),
        ({"items": [{"problem": "p", "steps": [1]}]}, "body.items.0.steps.steps.0"),
        ({"items": [{"problem": "p", "steps": ["a", " "]}]}, "items.0"),
        ({"items": [{"problem": "p", "completion": "a", "spans": [[0, 2]]}]}, "items.0"),
        ({"items": [{"problem": "p\0", "steps": ["a"]}]}, "items.0"),
        ({"items": [{"problem": "p", "steps": ["a"]}], "aggregation": "max"}, "body.aggregation"),
        ({"items": [{"problem": "p", "steps": ["a"]}], "agregation": "min"}, "body.agregation"),
    ],
)
def test_malformed_requests_are_refused_with_the_place_and_without_what_was_sent(client, body, where):
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 422
    assert [detail["where"] for detail in answer.json()["details"]] == [where]


@pytest.mark.parametrize(
    "body", ["", "{", "NaN", "[" * 1500, '{"items": 1' + "0" * 1900 + "}", '{"items": "\\ud800"}', "\udcff"]
)
def test_what_is_no_json_is_refused(client, body):
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/score", content=body.encode("utf-8", "surrogateescape"), headers=headers)
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"reason", "details"}


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"problem": "p", "steps": ["a"]}] * 4, "4 items, more than the 3 allowed"),
        ([{"problem": "p", "steps": ["a"] * 5}], "5 steps, more than the 4 allowed"),
        ([{"problem": "p", "steps": ["a" * 59, "b"]}], "63 characters, more than the 60 allowed"),
        ([{"problem": "p", "completion": "因" * 50, "spans": []}], "51 tokens, more than the 40 allowed"),
    ],
)
def test_too_much_is_refused_with_the_number_and_the_limit(client, items, reason):
    answer = client.post("/v1/score", json={"items": items})
    assert answer.status_code == 413
    assert reason in [answer.json()["reason"], *(detail["reason"] for detail in answer.json()["details"])]


def test_a_body_beyond_the_limit_is_refused_whether_or_not_it_says_how_long_it_is(client):
    assert client.post("/v1/score", content=b" " * 2001).status_code == 413
    assert client.post("/v1/score", content=(b" " * 100 for _ in range(30))).status_code == 413


def test_an_item_that_cannot_be_scored_is_named_and_other_errors_keep_their_text_to_themselves(client):
    items = [{"problem": "p", "steps": ["good"]}, {"problem": "p", "steps": ["refused"]}]
    refused = client.post("/v1/score", json={"items": items})
    assert refused.status_code == 422
    assert refused.json()["details"] == [{"where": "items.1", "reason": "step 0 has too many tokens"}]
    broken = client.post("/v1/score", json={"items": [{"problem": "p", "steps": ["broken"]}]})
    assert broken.status_code == 500
    assert "secret" not in broken.text


def test_a_failure_of_the_server_itself_leaves_without_its_trace(lengths, caplog, monkeypatch):
    def make(service, items):
        raise ZeroDivisionError(f"{items[0].problem} " * 100)

    monkeypatch.setattr(Service, "solutions", make)
    with client_of(lengths) as client:
        answer = client.post("/v1/score", json={"items": [{"problem": "SENT TEXT", "steps": ["a"]}]})
    assert (answer.status_code, answer.json()["reason"]) == (500, "the server failed; its log says why")
    assert "ZeroDivisionError" in caplog.text
    assert caplog.text.count("SENT TEXT") <= 20


def test_the_token_is_asked_of_everybody_but_health(lengths):
    with client_of(lengths, token=Key("s3cret")) as client:
        body = {"items": [{"problem": "p", "steps": ["a"]}]}
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "s3cret"},
            {"authorization": "Basic ?"},
        ):
            answer = client.post("/v1/score", json=body, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics", headers=headers).status_code == 401
        assert client.post("/v1/score", json=body, headers={"authorization": "Bearer s3cret"}).status_code == 200
        # What http://any:s3cret@host/ becomes, for clients that can send no header.
        assert client.post("/v1/score", json=body, auth=("any", "s3cret")).status_code == 200
        assert client.get("/health").json() == {"alive": True, "ready": True}


def test_without_a_token_only_loopback_names_are_answered(client):
    body = {"items": [{"problem": "p", "steps": ["a"]}]}
    for host, status in (("localhost:80", 200), ("[::1]:8000", 200), ("attacker.example", 403), ("", 403)):
        assert client.post("/v1/score", json=body, headers={"host": host}).status_code == status


def test_a_full_queue_answers_429_with_the_time_to_come_back(lengths):
    app = create_app(lengths, SMALL.model_copy(update={"batch_tokens": 1}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        slow = threading.Thread(target=client.post, args=("/v1/score",), kwargs={"json": items_of("slow", "a", "b")})
        slow.start()
        while not lengths.calls:
            time.sleep(0.002)
        answer = client.post("/v1/score", json=items_of("c", "d"))  # two wait, two more would be four
        lengths.go.set()
        slow.join()
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def items_of(*steps):
    return {"items": [{"problem": "p", "steps": [step]} for step in steps]}


def test_requests_that_wait_together_are_scored_together_and_their_metrics_add_up(lengths):
    with client_of(lengths, ServeSettings()) as client:
        slow = threading.Thread(target=client.post, args=("/v1/score",), kwargs={"json": items_of("slow")})
        slow.start()
        while not lengths.calls:
            time.sleep(0.002)
        others = [
            threading.Thread(target=client.post, args=("/v1/score",), kwargs={"json": items_of("a", "b")})
            for _ in range(4)
        ]
        for other in others:
            other.start()
        while "prm_kit_queue_items 8.0" not in client.get("/metrics").text:
            time.sleep(0.002)
        lengths.go.set()
        for thread in (slow, *others):
            thread.join()
        figures = client.get("/metrics").text
    assert lengths.calls == [1, 8]
    assert 'prm_kit_requests_total{route="/v1/score",status="200"} 5.0' in figures
    assert "prm_kit_items_total 9.0" in figures
    assert "prm_kit_batch_items_count 2.0" in figures
    assert "prm_kit_queue_items 0.0" in figures


def test_a_request_whose_client_leaves_is_dropped(lengths):
    app = create_app(lengths, ServeSettings(batch_tokens=1))
    body = json.dumps(items_of("slow", "never scored")).encode()
    sent = []

    async def leave():
        messages = [{"type": "http.request", "body": body}]

        async def receive():
            if messages:
                return messages.pop()
            while not lengths.calls:
                await asyncio.sleep(0.002)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/score", "query_string": b"", "headers": headers}
        async with app.router.lifespan_context(app):
            await app(scope | {"http_version": "1.1", "scheme": "http", "root_path": ""}, receive, send)
            lengths.go.set()

    asyncio.run(leave())
    assert sent[0]["status"] == 499
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.post("/v1/score", json=items_of("a")).status_code == 200
        assert "prm_kit_cancelled_total 1.0" in client.get("/metrics").text
    assert lengths.calls == [1, 1]


def test_unknown_paths_and_methods_are_refused_and_counted_under_no_name_of_theirs(client):
    assert client.get("/v1/score").status_code == 405
    answer = client.get("/nowhere/" + "x" * 50)
    assert (answer.status_code, answer.json()) == (404, {"reason": "Not Found", "details": []})
    figures = client.get("/metrics").text
    assert 'prm_kit_requests_total{route="other",status="404"} 1.0' in figures
    assert "nowhere" not in figures


def test_a_product_of_numbers_that_are_no_probabilities_is_refused_at_the_start(lengths):
    lengths.prm = SimpleNamespace(card=SimpleNamespace(readout="unbounded"))
    with pytest.raises(UsageError, match="aggregation product: the scores of lengths are no probabilities"):
        create_app(lengths, aggregation="product")
    create_app(lengths, aggregation="min")


def test_a_server_says_what_it_scores_with(lengths):
    app = create_app(lengths, aggregation="mean", fingerprint="abc")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/v1/prm").json() == {"scorer": "lengths", "fingerprint": "abc", "aggregation": "mean"}
        answer = client.post("/v1/score", json={"items": [{"problem": "p", "steps": ["one"]}]}).json()
        assert answer["fingerprint"] == "abc"
