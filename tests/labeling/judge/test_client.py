"""Every way in which an endpoint misbehaves, against a scripted one."""

import asyncio
import json
import time
from collections import Counter
from email.utils import formatdate

import pytest

from labeling.judge.budget import Budget, Ceilings, Need
from labeling.judge.client import ChatClient, EndpointError, Patience, RefusedError, UnansweredError
from labeling.judge.endpoint import Key, endpoint
from labeling.judge.limiter import AdaptiveLimit
from labeling.judge.reply import MalformedReplyError, Usage, reply_of
from prm_kit.errors import LimitReachedError
from tests.labeling.judge.conftest import IMPATIENT
from tests.labeling.judge.scripted_server import completion

BODY = {
    "model": "m",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "The mark is 00000000."}],
}
UNLIMITED = Ceilings()
HTML = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"


class Sent:
    """What came of some requests, and the client that sent them."""

    def __init__(self, url, number=1, key=None, patience=IMPATIENT, ceilings=UNLIMITED, start=10, most=100):
        asyncio.run(self._send(url, number, key, patience, ceilings, start, most))

    async def _send(self, url, number, key, patience, ceilings, start, most):
        self.budget = Budget(ceilings)
        self.limit = AdaptiveLimit(start, most)

        async def deliver(reply):
            return reply

        async with ChatClient(endpoint(url, key), self.limit, self.budget, patience) as client:
            asked = (client.send(BODY, Need(10, 10), deliver) for _ in range(number))
            self.results = await asyncio.gather(*asked, return_exceptions=True)
            self.retries = client.retries
        self.texts = [result.text for result in self.results if not isinstance(result, BaseException)]
        self.errors = [result for result in self.results if isinstance(result, BaseException)]


def first(times, action):
    """Misbehave so many times, then be honest."""
    return lambda number, steps, body: action if number < times else {"body": completion("fine")}


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ({"status": 429}, "429"),
        ({"status": 429, "headers": {"retry-after": "0.05"}}, "429"),
        ({"status": 429, "headers": {"retry-after-ms": "50"}}, "429"),
        ({"status": 429, "headers": {"retry-after": "soon"}}, "429"),
        ({"status": 429, "headers": {"retry-after": formatdate(0)}}, "429"),
        ({"status": 429, "headers": {"retry-after": "-5"}}, "429"),
        ({"status": 500, "body": HTML}, "status 500"),
        ({"status": 503}, "status 503"),
        ({"status": 408}, "status 408"),
        ({"status": 529}, "status 529"),
        ({"close": True}, "connection"),
        ({"body": HTML}, "garbage"),
        ({"body": b""}, "garbage"),
        ({"body": b"{"}, "garbage"),
        ({"body": b"\xff\xfe\x00"}, "garbage"),
        ({"body": b'{"choices": []}'}, "garbage"),
        ({"body": b"[" * 10_000}, "garbage"),
        ({"body": completion("fine"), "headers": {"content-encoding": "gzip"}}, "garbage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_passes_is_tried_again_and_counted(scripted, action, kind):
    server = scripted(first(1, action))
    sent = Sent(server.url)
    assert sent.texts == ["fine"]
    assert sent.retries == {kind: 1}
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "action", [{"delay": 60.0}, {"body": completion("x" * 2_000), "drip": 0.02}], ids=["late", "slow"]
)
def test_an_answer_that_does_not_come_whole_in_time_is_asked_for_again(scripted, action):
    server = scripted(first(1, action))
    sent = Sent(server.url, patience=Patience(attempt=1.0, deadline=60.0, attempts=20, first_wait=0.01))
    assert sent.texts == ["fine"]
    assert sent.retries["timeout"] >= 1
    assert sent.budget.spent.calls == len(server.requests)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 301, 307])
def test_what_concerns_the_whole_run_stops_it_at_once(scripted, status):
    server = scripted(first(99, {"status": status, "headers": {"location": "http://127.0.0.1:9/elsewhere"}}))
    sent = Sent(server.url)
    assert isinstance(sent.errors[0], EndpointError)
    assert str(status) in str(sent.errors[0])
    assert len(server.requests) == 1


def test_a_spent_quota_is_not_waited_for(scripted):
    server = scripted(first(99, {"status": 429, "body": {"error": {"code": "insufficient_quota"}}}))
    assert isinstance(Sent(server.url).errors[0], EndpointError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_concerns_one_request_is_not_tried_again(scripted, status):
    server = scripted(first(99, {"status": status, "body": {"error": "context too long"}}))
    sent = Sent(server.url)
    assert isinstance(sent.errors[0], RefusedError)
    assert "context too long" in str(sent.errors[0])
    assert len(server.requests) == 1


def test_an_endless_failure_ends_after_some_attempts(scripted):
    server = scripted(first(99, {"status": 500}))
    sent = Sent(server.url)
    assert isinstance(sent.errors[0], UnansweredError)
    assert sent.errors[0].kind == "status 500"
    assert len(server.requests) == IMPATIENT.attempts


def test_nobody_there_is_told_soon():
    sent = Sent("http://127.0.0.1:9/v1")
    assert isinstance(sent.errors[0], UnansweredError)
    assert sent.errors[0].kind == "connection"


def test_too_many_requests_is_waited_out_until_the_deadline(scripted):
    server = scripted(first(10**9, {"status": 429}))
    patience = Patience(attempt=1.0, deadline=0.5, attempts=2, first_wait=0.01, longest_wait=0.05)
    start = time.monotonic()
    sent = Sent(server.url, patience=patience)
    assert sent.errors[0].kind == "429"
    assert len(server.requests) > 2
    assert time.monotonic() - start < 3.0


def test_an_absurd_retry_after_is_bounded(scripted):
    server = scripted(first(1, {"status": 429, "headers": {"retry-after": "999999"}}))
    assert Sent(server.url).texts == ["fine"]


def test_a_storm_of_429s_halves_the_requests_in_flight_and_everybody_is_answered(scripted):
    busy = Counter()

    def behaviour(number, steps, body):
        busy["refused"] += (over := server.in_flight > 8)
        return {"status": 429, "delay": 0.005} if over else {"body": completion("fine"), "delay": 0.005}

    server = scripted(behaviour)
    patience = Patience(attempt=5.0, deadline=60.0, attempts=4, first_wait=0.01, longest_wait=0.1)
    sent = Sent(server.url, number=300, patience=patience, start=64)
    assert len(sent.texts) == 300
    assert sent.retries == {"429": busy["refused"]}
    assert sent.limit.cuts > 1
    assert sent.limit.limit < 64


def test_a_body_of_fifty_megabytes_is_not_read(scripted):
    server = scripted(first(99, {"body": b" " * (50 * 2**20)}))
    sent = Sent(server.url, patience=Patience(attempt=5.0, deadline=9.0, attempts=1))
    assert sent.errors[0].kind == "garbage"
    assert "larger than" in str(sent.errors[0])


def test_the_key_is_sent_and_never_told(scripted):
    server = scripted(first(99, {"status": 401, "body": {"error": "Incorrect API key provided: sk-very-secret."}}))
    sent = Sent(server.url, key=Key("sk-very-secret"))
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in str(sent.errors[0])
    assert "***" in str(sent.errors[0])


def test_a_server_that_sends_the_key_back_does_not_get_it_stored(scripted):
    server = scripted(first(99, {"body": completion("your key is sk-very-secret")}))
    assert Sent(server.url, key=Key("sk-very-secret")).texts == ["your key is ***"]


def test_only_answered_requests_cost_and_a_timeout_may_have(scripted):
    server = scripted(first(2, {"status": 500}))
    assert Sent(server.url).budget.spent == Usage(1, 100, 50)
    late = scripted(first(99, {"delay": 60.0}))
    patience = Patience(attempt=0.1, deadline=60.0, attempts=2, first_wait=0.01)
    assert Sent(late.url, patience=patience).budget.spent == Usage(2, 20, 20, estimated=True)


@pytest.mark.parametrize(
    ("action", "spent"),
    [
        ({"body": HTML}, Usage(2, 110, 60, estimated=True)),
        ({"body": b"{", "headers": {"transfer-encoding": "chunked"}}, Usage(2, 110, 60, estimated=True)),
        ({"cut": 40}, Usage(2, 110, 60, estimated=True)),
        ({"close": True}, Usage(1, 100, 50)),
        ({"status": 503}, Usage(1, 100, 50)),
    ],
    ids=["garbage", "broken chunks", "cut within the body", "closed before the response", "turned down"],
)
def test_an_attempt_that_may_have_been_charged_counts_as_all_that_it_needs(scripted, action, spent):
    """Needs 10 + 10 at most; the answer that follows is counted by the server as 100 + 50."""
    assert Sent(scripted(first(1, action)).url).budget.spent == spent


def test_the_limit_of_calls_is_never_exceeded(scripted):
    server = scripted(first(0, {}), latency=0.01)
    sent = Sent(server.url, number=50, ceilings=Ceilings(calls=20))
    assert len(server.requests) == len(sent.texts) == 20
    assert {type(error) for error in sent.errors} == {LimitReachedError}


def test_tokens_are_estimated_where_the_server_does_not_count():
    for usage in (None, {}, {"prompt_tokens": -1, "completion_tokens": 5}, {"prompt_tokens": "many"}):
        value = completion("abcdef", usage=None) | {"usage": usage}
        assert reply_of(json.dumps(value).encode(), 301).usage == Usage(1, 101, 2, estimated=True)


@pytest.mark.parametrize(
    ("message", "text", "refused"),
    [
        ({"content": None, "refusal": "I will not"}, "", True),
        ({"content": ""}, "", False),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}, "ab", False),
        ({"content": {"odd": 1}}, "", False),
    ],
)
def test_replies_of_every_shape_are_read(message, text, refused):
    reply = reply_of(json.dumps({"choices": [{"message": message}]}).encode(), 0)
    assert (reply.text, reply.refused) == (text, refused)


@pytest.mark.parametrize(
    "body", [b"null", b"3", b'{"choices": {}}', b'{"choices": [3]}', b'{"choices": [{"message": 1}]}']
)
def test_json_that_is_no_completion_is_malformed(body):
    with pytest.raises(MalformedReplyError):
        reply_of(body, 0)
