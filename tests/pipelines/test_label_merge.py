import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution

ANN, BEN = Rater("human", "ann"), Rater("human", "ben")
JUDGE, ROLLOUT = Rater("judge", "j", "v1"), Rater("rollout", "mc", "v1")


def solution(i, steps=3):
    return Solution.from_steps(f"problem {i}", [f"step {j}" for j in range(steps)])


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as opened:
        for i in range(4):
            about = solution(i)
            said = [
                Annotation.of(about, ANN, [1, 1, -1]),
                Annotation.of(about, BEN, [1, -1, -1] if i % 2 else [1, 1, -1]),
                Annotation.of(about, JUDGE, [1, 1, -1]),
                Annotation.of(about, ROLLOUT, [1, 1, -1] if i < 3 else [-1, -1, -1]),
            ]
            opened.append(said, [about])
    return path


def label(*words):
    return CliRunner().invoke(app, ["label", *map(str, words)])


def merged(path, name):
    with Ledger(path) as opened:
        return {a.solution_id: a for a in opened.current() if (a.rater.kind, a.rater.name) == ("merged", name)}


def test_merged_annotations_are_in_the_ledger_and_name_their_sources(ledger, tmp_path):
    done = label("merge", "--ledger", ledger, "--kinds", "human", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["solutions"], summary["appended"], summary["undecided"]) == (4, 4, 2)
    found = merged(ledger, "majority")
    assert found[solution(0).id].values(3) == (1, 1, -1)
    assert found[solution(1).id].values(3) == (1, None, -1)
    assert found[solution(1).id].flags == ("undecided",)
    assert all(len(label.sources) == 2 for annotation in found.values() for label in annotation.labels)
    assert found[solution(0).id].meta == {"steps": 3}


def test_merging_again_adds_nothing_and_a_new_label_supersedes(ledger, tmp_path):
    arguments = ("merge", "--ledger", ledger, "--kinds", "human", "--out", tmp_path / "out")
    assert label(*arguments).exit_code == 0
    assert label(*arguments).exit_code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["appended"] == 0
    with Ledger(ledger) as opened:
        opened.append([Annotation.of(solution(1), BEN, [1, 1, -1], time="2026-01-01T00:00:00Z")])
    assert label(*arguments).exit_code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["appended"] == 1
    assert merged(ledger, "majority")[solution(1).id].values(3) == (1, 1, -1)


def test_merging_fewer_kinds_takes_back_what_only_the_others_had_labelled(ledger, tmp_path):
    about = solution(9)
    with Ledger(ledger) as opened:
        opened.append([Annotation.of(about, JUDGE, [1, 1, 1])], [about])
    assert label("merge", "--ledger", ledger, "--out", tmp_path / "out").exit_code == 0
    assert merged(ledger, "majority")[about.id].values(3) == (1, 1, 1)
    fewer = ("merge", "--ledger", ledger, "--kinds", "human", "--out", tmp_path / "out")
    assert label(*fewer).exit_code == 0
    assert merged(ledger, "majority")[about.id].labels == ()
    assert label(*fewer).exit_code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["appended"] == 0
    assert label("merge", "--ledger", ledger, "--out", tmp_path / "out").exit_code == 0
    assert merged(ledger, "majority")[about.id].values(3) == (1, 1, 1)


def test_the_filter_writes_a_queue_of_the_rest(ledger, tmp_path):
    done = label("merge", "--ledger", ledger, "--policy", "filter", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert len([a for a in merged(ledger, "filter").values() if a.labels]) == 3
    [line] = (tmp_path / "out" / "queue.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert (row["solution_id"], row["rank"], row["reason"]) == (solution(3).id, 0, "disagreement")
    assert row["score"] == pytest.approx(2 / 3)


def test_snapshots_count_beside_the_ledger(ledger, tmp_path):
    row = {
        "problem": "problem 0",
        "steps": ["step 0", "step 1", "step 2"],
        "labels": [-1, -1, -1],
        "meta": {"human": True},
    }
    (tmp_path / "more.jsonl").write_text(json.dumps(row) + "\n")
    done = label("merge", tmp_path / "more.jsonl", "--ledger", ledger, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    raters = json.loads((tmp_path / "out" / "summary.json").read_text())["raters"]
    assert len(raters) == 5


def test_wrong_words_are_refused_with_code_two(ledger, tmp_path):
    out = ("--ledger", ledger, "--out", tmp_path / "out")
    for words in (("--policy", "majorty"), ("--kinds", "humans"), ("--order", "human"), ("--kinds", "prm")):
        extra = ("--policy", "priority") if words[0] == "--order" else ()
        assert label("merge", *words, *extra, *out).exit_code == 2, words
    assert label("merge", "--ledger", tmp_path / "none.sqlite", "--out", tmp_path / "o").exit_code == 1
