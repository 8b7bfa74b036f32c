import asyncio
import json

import pytest

from labeling.judge import batch
from labeling.judge.batch import read_batch, write_batch
from labeling.judge.budget import Price
from labeling.judge.estimate import estimate
from labeling.judge.settings import request_body
from labeling.judge.store import AnswerStore
from prm_kit.errors import InputError, UsageError
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
    with pytest.raises(InputError, match=r"x\.jsonl: no result for these solutions"):
        read_batch(judge, SOLUTIONS, [lines(tmp_path / "x.jsonl", {"custom_id": "a"})])
    with pytest.raises(InputError, match="cannot be read"):
        read_batch(judge, SOLUTIONS, [tmp_path / "nowhere.jsonl"])


def test_an_answer_cut_off_goes_into_the_next_batch_with_twice_the_tokens(judge_at, tmp_path):
    judge = judge_at("http://127.0.0.1:9/v1", offline=True)
    write_batch(judge, SOLUTIONS[:1], tmp_path / "first")
    [first] = written(tmp_path / "first")
    cut = completion(honest(steps_of(first["body"]), first["body"])[:150], finish="length")
    results = lines(tmp_path / "1.jsonl", result(first, response={"status_code": 200, "body": cut}))
    assert read_batch(judge, SOLUTIONS, [results])["read"] == 1
    assert estimate(judge, SOLUTIONS[:1]).expected.calls == 1
    write_batch(judge, SOLUTIONS[:1], tmp_path / "second")
    [second] = written(tmp_path / "second")
    assert second["body"] == first["body"] | {"max_tokens": 2 * first["body"]["max_tokens"]}
    assert second["custom_id"] != first["custom_id"]
    assert read_batch(judge, SOLUTIONS, [lines(tmp_path / "2.jsonl", result(second))])["read"] == 1
    assert [a.values(3) for a in judge.label(SOLUTIONS[:1])] == [(1, -1, 0)]
    assert write_batch(judge, SOLUTIONS[:1], tmp_path / "third")["requests"] == 0


def test_an_unusable_result_read_twice_is_counted_once_and_another_one_is_taken(judge_at, tmp_path):
    judge = judge_at("http://127.0.0.1:9/v1")
    write_batch(judge, SOLUTIONS[:1], tmp_path / "out")
    [row] = written(tmp_path / "out")
    prose = result(row, response={"status_code": 200, "body": completion("All is well.")})
    results = lines(tmp_path / "in.jsonl", prose)
    assert read_batch(judge, SOLUTIONS, [results])["read"] == 1
    assert read_batch(judge, SOLUTIONS, [results])["known"] == 1
    store = AnswerStore(judge.connection.store)
    assert store.spent("m").calls == 1
    assert read_batch(judge, SOLUTIONS, [lines(tmp_path / "again.jsonl", result(row))])["read"] == 1
    assert store.spent("m").calls == 2
    store.close()


def test_a_folder_with_an_earlier_batch_is_refused(judge_at, tmp_path):
    judge = judge_at("http://127.0.0.1:9/v1")
    (tmp_path / "batch-0002.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"holds batch-0002\.jsonl of an earlier batch"):
        write_batch(judge, SOLUTIONS, tmp_path)
    assert len(list(tmp_path.glob("batch-*.jsonl"))) == 1


def test_one_file_that_fits_is_enough(judge_at, tmp_path):
    judge = judge_at("http://127.0.0.1:9/v1")
    write_batch(judge, SOLUTIONS, tmp_path / "out")
    strange = lines(tmp_path / "strange.jsonl", {"custom_id": "a"})
    fits = lines(tmp_path / "fits.jsonl", *map(result, written(tmp_path / "out")))
    counts = read_batch(judge, SOLUTIONS, [strange, fits])
    assert (counts["read"], counts["unknown"]) == (5, 1)


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
    named = settings.model_copy(update={"extra_body": {"max_tokens": None, "max_completion_tokens": 900}})
    body = request_body(named, (), 3, "facets", "text", longer=True)
    assert (body.get("max_tokens"), body["max_completion_tokens"]) == (None, 1800)
    assert asyncio.iscoroutinefunction(batch.write_batch) is False
