import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, StepLabel, step_hash
from prm_kit.view import View


def row(i, **fields):
    return {"problem": f"problem {i}", "steps": ["a", "b"], "is_correct": i % 2 == 0, **fields}


@pytest.fixture
def pool(tmp_path):
    """Forty solutions without labels, in a file."""
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(40)))
    return path


def queue(*words):
    return CliRunner().invoke(app, ["label", "queue", *map(str, words)])


def lines(out):
    return [json.loads(line) for line in (out / "queue.jsonl").read_text().splitlines()]


@pytest.fixture
def ids(pool, tmp_path):
    """Ids as the importer makes them."""
    done = queue(pool, "--random-share", 1, "--limit", 40, "--out", tmp_path / "all")
    assert done.exit_code == 0, done.output
    return [line["solution_id"] for line in lines(tmp_path / "all")]


def test_scores_order_the_queue_with_a_random_share(pool, ids, tmp_path):
    scores = tmp_path / "scores.jsonl"
    scored = [
        {"solution_id": id_, "probabilities": [[0.0, 0.0, 1.0], [i / 100, 0.0, 1 - i / 100]]}
        for i, id_ in enumerate(ids)
    ]
    scores.write_text("".join(json.dumps(line) + "\n" for line in scored))
    done = queue(pool, "--scores", scores, "--by", "uncertainty", "--limit", 10, "--random-share", 0.2, "--out",
                 tmp_path / "out", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    found = lines(tmp_path / "out")
    assert [line["rank"] for line in found] == list(range(10))
    drawn = [line["solution_id"] for line in found if line["reason"] == "random"]
    left = [id_ for id_ in reversed(ids) if id_ not in drawn]
    assert [line["solution_id"] for line in found if line["reason"] == "uncertain"] == left[:8]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["reasons"] == {"random": 2, "uncertain": 8}
    assert summary["scored"] == summary["solutions"] == 40


def test_labels_of_a_prm_in_the_ledger_serve_as_scores_and_people_are_not_asked_again(pool, tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    out = tmp_path / "out"
    assert queue(pool, "--random-share", 1, "--out", out).exit_code == 0
    solutions = list(View([next((out / "imported").iterdir())]).iter_solutions())
    with Ledger(ledger) as opened:
        for i, about in enumerate(solutions):
            label = StepLabel(0, None, step_hash("a"), shares=(i / 100, 0.0, 1 - i / 100))
            opened.append([Annotation(about.id, Rater("prm", "p"), (label,))], [about])
        opened.append([Annotation.of(solutions[-1], Rater("human", "ann"), [1, 1])])
    done = queue(pool, "--ledger", ledger, "--limit", 3, "--random-share", 0, "--by", "uncertainty", "--out", out)
    assert done.exit_code == 0, done.output
    assert [line["solution_id"] for line in lines(out)] == [s.id for s in solutions[-2:-5:-1]]
    again = queue(pool, "--ledger", ledger, "--limit", 1, "--random-share", 0, "--again", "--out", out)
    assert again.exit_code == 0
    assert lines(out)[0]["solution_id"] == solutions[-1].id


def test_gold_is_mixed_in_and_its_answers_stay_out_of_the_file(pool, tmp_path):
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row(i, labels=[1, -1], meta={"human": True})) + "\n" for i in range(90, 95)))
    out = tmp_path / "out"
    done = queue(pool, "--gold", gold, "--gold-rate", 0.1, "--limit", 20, "--random-share", 1, "--out", out)
    assert done.exit_code == 0, done.output
    assert [line["reason"] for line in lines(out)].count("gold") == 2
    assert all(set(line) == {"solution_id", "rank", "reason", "score"} for line in lines(out))


def test_gold_that_people_have_answered_comes_last_also_outside_the_data(pool, tmp_path):
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row(i, labels=[1, -1], meta={"human": True})) + "\n" for i in range(90, 93)))
    out, ledger = tmp_path / "out", tmp_path / "ledger.sqlite"
    asked = []
    for _ in range(3):
        known = ("--ledger", ledger) if asked else ()
        done = queue(pool, "--gold", gold, *known, "--gold-rate", 0.1, "--limit", 10, "--random-share", 1, "--out", out)
        assert done.exit_code == 0, done.output
        asked += [line["solution_id"] for line in lines(out) if line["reason"] == "gold"]
        every = View(list((out / "imported").iterdir())).iter_solutions()
        [answered] = [solution for solution in every if solution.id == asked[-1]]
        with Ledger(ledger) as opened:
            opened.append([Annotation.of(answered, Rater("human", "ann"), [1, 1])], [answered])
    assert len(set(asked)) == len(asked) == 3


def test_nothing_to_order_by_is_wrong_use(pool, tmp_path):
    assert queue(pool, "--out", tmp_path / "out").exit_code == 2
    done = queue(pool, "--by", "doubt", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "uncertainty" in done.output
