import asyncio
import json

import pytest

from labeling.judge import batch
from labeling.judge.batch import read_batch, write_batch
from labeling.judge.budget import Price
from labeling.judge.estimate import estimate
from labeling.judge.settings import request_body
from prm_kit.errors import InputError
from prm_kit.records import Solution
from tests.labeling.judge.scripted_server import completion, honest, steps_of

SOLUTIONS = [
    Solution.from_steps(f"problem {n}", [f"begin {n}", f"go on {n} WRONG", "Thought process:"]) for n in range(5)
]
EMPTY = Solution.from_steps("p", ["..."])


def written(folder):
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def result(request, **changes):
    answer = completion(honest(steps_of(request["body"]), request["body"]))
    response = {"status_code": 200, "request_id": "r", "body": answer}
    return {"id": "b", "custom_id": request["custom_id"], "response": response, "error": None, **changes}


def lines(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_a_batch_goes_out_comes_back_and_is_labelled_without_a_call(judge_at, tmp_path):
    judge = judge_at("http://127.0.0.1:9/v1", settings={"votes": 2})
    assert write_batch(judge, [*SOLUTIONS, EMPTY], tmp_path / "out") == {"files": 1, "requests": 10, "answered": 0}
    requests = written(tmp_path / "out")
    assert {(row["method"], row["url"]) for row in requests} == {("POST", "/v1/chat/completions")}
    assert len({row["custom_id"] for row in requests}) == 10
    results = lines(tmp_path / "in.jsonl", *map(result, reversed(requests)))
    assert read_batch(judge, SOLUTIONS, [results])["read"] == 10
    annotations = list(judge.label([*SOLUTIONS, EMPTY]))
    assert [a.values(3) for a in annotations[:-1]] == [(1, -1, 0)] * 5
    assert write_batch(judge, SOLUTIONS, tmp_path / "again") == {"files": 0, "requests": 0, "answered": 10}
    assert read_batch(judge, SOLUTIONS, [results])["known"] == 10


def test_a_request_in_a_batch_is_the_one_that_would_be_sent(scripted, judge_at, tmp_path):
    server = scripted()
    judge = judge_at(server)
    write_batch(judge, SOLUTIONS, tmp_path / "out")
    list(judge.label(SOLUTIONS))
    assert sorted(map(str, (row["body"] for row in written(tmp_path / "out")))) == sorted(map(str, server.requests))


def test_results_that_are_of_no_use_are_counted_by_reason(judge_at, tmp_path):
    judge = judge_at("http://127.0.0.1:9/v1")
    write_batch(judge, SOLUTIONS, tmp_path / "out")
    rows = written(tmp_path / "out")
    file = lines(
        tmp_path / "in.jsonl",
        result(rows[0]),
        result(rows[0]),
        result(rows[1], error={"code": "expired"}),
        result(rows[2], response={"status_code": 500, "body": {}}),
        result(rows[3], response={"status_code": 200, "body": {"choices": []}}),
        result(rows[4], custom_id="of another run"),
        "no JSON\n",
        '{"custom_id": 7}\n',
        "[" * 20_000 + "\n",
        "\n",
    )
    counts = {"read": 1, "failed": 2, "malformed": 4, "unknown": 1, "twice": 1, "known": 0}
    assert read_batch(judge, SOLUTIONS, [file]) == counts


def test_a_file_of_something_else_is_refused(judge_at, tmp_path):
    judge = judge_at("http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="holds no result for these solutions"):
        read_batch(judge, SOLUTIONS, [lines(tmp_path / "x.jsonl", {"custom_id": "a"})])
    with pytest.raises(InputError, match="cannot be read"):
        read_batch(judge, SOLUTIONS, [tmp_path / "nowhere.jsonl"])


def test_files_stay_below_the_limits_of_services(judge_at, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MOST_REQUESTS", 2)
    judge = judge_at("http://127.0.0.1:9/v1")
    assert write_batch(judge, SOLUTIONS, tmp_path / "out")["files"] == 3
    assert [len(file.read_text().splitlines()) for file in sorted((tmp_path / "out").iterdir())] == [2, 2, 1]


def test_the_estimate_counts_the_calls_that_the_run_makes(scripted, judge_at):
    server = scripted()
    judge = judge_at(server, settings={"votes": 3})
    before = estimate(judge, [*SOLUTIONS, EMPTY])
    assert (before.solutions, before.expected.calls, before.in_store) == (6, 15, 0)
    list(judge.label([*SOLUTIONS, EMPTY]))
    assert len(server.requests) == before.expected.calls
    assert estimate(judge, SOLUTIONS).expected.calls == 0
    assert estimate(judge, SOLUTIONS).in_store == 15


def test_the_estimate_is_worked_from_bytes_and_steps(judge_at):
    judge = judge_at("http://127.0.0.1:9/v1")
    found = estimate(judge, SOLUTIONS[:1])
    [request] = batch.requests_for(judge, SOLUTIONS[:1])
    size = sum(len(m["content"].encode()) for m in request.body["messages"])
    assert found.expected.prompt_tokens == -(-size // 3)
    assert found.at_most.prompt_tokens == size // 2
    # 80 tokens a step by estimate; 256 and 160 a step at most
    assert (found.expected.completion_tokens, found.at_most.completion_tokens) == (3 * 80, 256 + 3 * 160)
    said = found.summary(Price(input=3.0, output=3.0), "EUR")
    assert said["cost"] == pytest.approx((found.expected.prompt_tokens + 240) * 3e-6)


def test_an_answer_may_be_twice_as_long_where_it_was_cut_off(judge_at):
    settings = judge_at("http://127.0.0.1:9/v1").settings
    once, twice = (
        request_body(settings, (), 3, "facets", "text", longer=longer)["max_tokens"] for longer in (False, True)
    )
    assert (once, twice) == (736, 1472)
    assert asyncio.iscoroutinefunction(batch.write_batch) is False
