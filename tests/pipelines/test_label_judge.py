import json
from collections import Counter

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.label.judging import mixed
from prm_kit.ledger import Ledger
from prm_kit.records import Solution
from tests.labeling.judge.scripted_server import ScriptedServer, completion, honest, steps_of


@pytest.fixture
def server():
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def rows(tmp_path):
    """Twelve labelled solutions; the people agree with the scripted judge but for one step."""
    lines = []
    for n in range(12):
        wrong = n % 3 == 0
        labels = [1, -1 if wrong else 1]
        if n == 1:
            labels = [1, -1]
        steps = [f"First comes {n}.", f"Then {n} WRONG." if wrong else f"Then {n + 1}."]
        lines.append(json.dumps({"problem": f"problem {n}", "steps": steps, "labels": labels, "meta": {"human": True}}))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def judge(rows, url, out, *words):
    asked = ["label", "judge", rows, "--base-url", url, "--model", "m", "--out", out, "--json", *words]
    return CliRunner().invoke(app, [str(word) for word in asked])


def summary(out):
    return json.loads((out / "summary.json").read_text())


def annotations(out):
    with Ledger(out / "ledger.sqlite", must_exist=True) as ledger:
        return list(ledger.everything())


def test_the_verb_labels_reports_agreement_and_prints_its_summary(rows, server, tmp_path):
    out = tmp_path / "out"
    done = judge(rows, server.url, out)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (out / "summary.json").read_text()
    said = summary(out)
    assert (said["labelled"], said["already_labelled"], said["coverage"]) == (12, 0, 1.0)
    assert said["values"] == {"-1": 4, "0": 0, "1": 20}
    # people: 5 of -1 and 19 of +1; the judge finds 4 of the 5
    assert said["recall"] == {"-1": 4 / 5, "0": None, "1": 1.0}
    assert said["precision"]["-1"] == 1.0
    assert said["form"] == "json_schema_bounded"
    assert said["window"] == 64
    assert len(annotations(out)) == 12
    assert "at most 64 answers" in done.stderr


def test_again_asks_nothing_and_says_the_same(rows, server, tmp_path):
    judge(rows, server.url, tmp_path / "out")
    asked = len(server.requests)
    before = summary(tmp_path / "out")
    done = judge(rows, server.url, tmp_path / "out")
    after = summary(tmp_path / "out")
    assert done.exit_code == 0
    assert len(server.requests) == asked
    assert (after["already_labelled"], after["labelled"]) == (12, 0)
    assert {key: after[key] for key in ("values", "recall", "spent")} == {
        key: before[key] for key in ("values", "recall", "spent")
    }


def test_a_dry_run_asks_nothing_and_counts_what_the_run_then_asks(rows, server, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("models:\n  m: {input: 1.0, output: 2.0}\ncurrency: EUR\n")
    done = judge(rows, server.url, tmp_path / "out", "--dry-run", "--votes", 2, "--prices", prices)
    assert done.exit_code == 0, done.stderr
    assert server.requests == []
    estimate = summary(tmp_path / "out")["estimate"]
    assert (estimate["solutions"], estimate["calls"], estimate["currency"]) == (12, 24, "EUR")
    assert estimate["cost"] == pytest.approx((estimate["prompt_tokens"] + 2 * estimate["completion_tokens"]) / 1e6)
    done = judge(rows, server.url, tmp_path / "out", "--votes", 2, "--structured", "json_schema")
    assert done.exit_code == 0, done.stderr
    probes = 1
    assert len(server.requests) == estimate["calls"] + probes


def test_a_limit_stops_with_exit_code_3_and_a_raised_one_goes_on(rows, server, tmp_path):
    out = tmp_path / "out"
    done = judge(rows, server.url, out, "--max-calls", 6)
    assert done.exit_code == 3
    assert "limit of 6 calls reached" in done.stderr
    assert summary(out)["stopped"]
    first = {annotation.solution_id for annotation in annotations(out)}
    assert len(first) == 5  # one call was the test request
    assert judge(rows, server.url, out, "--max-calls", 6).exit_code == 3
    assert judge(rows, server.url, out, "--max-calls", 13).exit_code == 0
    assert Counter(annotation.solution_id for annotation in annotations(out)).most_common(1)[0][1] == 1
    assert len(annotations(out)) == 12
    assert len(server.requests) == 13


def test_a_limit_of_cost_is_counted_with_the_users_prices(rows, server, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("models:\n  m: {input: 10000, output: 10000}\n")
    done = judge(rows, server.url, tmp_path / "out", "--prices", prices, "--max-cost", 20)
    assert done.exit_code == 3
    spent = summary(tmp_path / "out")["spent"]
    # a call of 150 tokens costs 1.50
    assert spent["cost"] == spent["calls"] * 1.5 <= 20
    assert "--prices" in judge(rows, server.url, tmp_path / "x", "--max-cost", 20).stderr


def test_solutions_without_an_answer_end_with_exit_code_1_and_are_asked_again(rows, tmp_path):
    def behaviour(number, steps, body):
        return {"status": 400 if server.patient else 503, "body": b"busy"} if "comes 4" in steps[0][1] else {}

    with ScriptedServer(behaviour) as server:
        server.patient = False
        done = judge(rows, server.url, tmp_path / "out", "--deadline", 0.2)
        assert done.exit_code == 1
        assert "1 solutions got no answer {'status 503': 1}" in done.stderr
        assert len(annotations(tmp_path / "out")) == 11
        server.patient = True
        assert judge(rows, server.url, tmp_path / "out").exit_code == 0
    assert len(annotations(tmp_path / "out")) == 12
    assert summary(tmp_path / "out")["flags"] == {"unparsed": 1, "refused": 1}


def test_the_key_is_sent_and_stands_in_no_file(rows, server, tmp_path, monkeypatch):
    monkeypatch.setenv("PRM_KIT_API_KEY", "sk-very-secret")
    out = tmp_path / "out"
    done = judge(rows, server.url, out)
    assert done.exit_code == 0
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
    assert "sk-very-secret" not in done.output
    for path in out.rglob("*"):
        if path.is_file():
            assert b"sk-very-secret" not in path.read_bytes()


def test_spending_elsewhere_needs_a_limit_or_a_yes(rows, tmp_path):
    done = judge(rows, "https://judge.invalid/v1", tmp_path / "out")
    assert done.exit_code == 2
    assert "12 calls to https://judge.invalid/v1 would be made" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--base-url", "http://judge.example.org/v1"], "--insecure"),
        (["--prompt", "facts"], "Did you mean 'facets.en'"),
        (["--structured", "json_shema"], "Did you mean 'json_schema'"),
        (["--structured", "json_object", "--prompt", "processbench"], "json_schema_bounded"),
        (["--set", "temprature=1"], "did you mean 'temperature'"),
        (["--set", "top_p=7"], "top_p"),
        (["--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is empty or not set"),
        (["--key-file", "nowhere"], "cannot be read"),
    ],
)
def test_wrong_use_exits_with_2_before_anything_is_asked(rows, server, tmp_path, words, reason):
    done = judge(rows, server.url, tmp_path / "out", *words)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert server.requests == []


def test_a_batch_is_written_read_and_labelled_offline(rows, server, tmp_path):
    out = tmp_path / "out"
    assert judge(rows, server.url, out, "--batch-out", tmp_path / "batch").exit_code == 0
    assert summary(out) == {"batch_out": str(tmp_path / "batch"), "files": 1, "requests": 12, "answered": 0}
    results = []
    for line in (tmp_path / "batch" / "batch-0001.jsonl").read_text().splitlines():
        request = json.loads(line)
        answer = completion(honest(steps_of(request["body"]), request["body"]))
        results.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": answer}})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results[:10]))
    done = judge(rows, server.url, out, "--batch-in", tmp_path / "results.jsonl", "--offline")
    assert done.exit_code == 0, done.stderr
    assert server.requests == []
    assert summary(out)["labelled"] == 10
    assert summary(out)["unanswered"] == {"not in store": 2}


def test_results_of_a_batch_can_be_read_again_when_all_is_labelled(rows, server, tmp_path):
    out = tmp_path / "out"
    judge(rows, server.url, out, "--batch-out", tmp_path / "batch")
    results = []
    for line in (tmp_path / "batch" / "batch-0001.jsonl").read_text().splitlines():
        request = json.loads(line)
        answer = completion(honest(steps_of(request["body"]), request["body"]))
        results.append(json.dumps({"custom_id": request["custom_id"], "response": {"body": answer}}) + "\n")
    (tmp_path / "1.jsonl").write_text("".join(results[:6]))
    (tmp_path / "2.jsonl").write_text("".join(results[6:]))
    one, two = ("--batch-in", tmp_path / "1.jsonl"), ("--batch-in", tmp_path / "2.jsonl")
    for words, known, labelled in ((one, 0, 6), ((*one, *two, "--limit", 2), 6, 2), (two, 6, 4), (two, 6, 0)):
        done = judge(rows, server.url, out, *words, "--offline")
        assert done.exit_code == 0, done.stderr
        assert (summary(out)["batch"]["known"], summary(out)["labelled"]) == (known, labelled)


def test_the_recipe_says_all_that_changes_labels(rows, server, tmp_path):
    judge(rows, server.url, tmp_path / "out", "--set", "temperature=0.5", "--set", "extra_body.top_k=3")
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert (recipe["temperature"], recipe["extra_body"], recipe["votes"]) == (0.5, {"top_k": 3}, 1)
    assert recipe["prompt"].startswith("facets-1.en.")
    assert len(recipe["prompt_sha256"]) == 64


def test_the_order_is_random_and_the_same_for_a_seed():
    solutions = [Solution.from_steps("p", [f"s{n}"]) for n in range(50)]
    assert list(mixed(solutions, 0)) == list(mixed(iter(solutions), 0)) != list(mixed(solutions, 1))
    assert sorted(s.id for s in mixed(solutions, 0)) == sorted(s.id for s in solutions)
