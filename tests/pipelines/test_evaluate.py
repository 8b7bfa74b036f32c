"""`prm-kit eval` and `prm-kit stress` on a tiny model."""

import json

import pytest

from pipelines.cli import app
from pipelines.evaluate import drawn_per_subset
from prm_kit.card import read_card
from prm_kit.ledger import Ledger
from prm_kit.model import Prm
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.snapshot import SnapshotWriter
from prm_kit.view import View


def run(*words):
    try:
        app([str(word) for word in words])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, backbone):
    path = tmp_path_factory.mktemp("model") / "checkpoint"
    Prm.from_backbone(backbone, seed=0).save(path)
    return path


def processbench(path, number=6):
    rows = [
        {
            "id": f"gsm8k-{i}", "generator": "g", "problem": f"1 + {i} ?",
            "steps": [f"1 + {i} = {i + 1}", "so 3", "so 4"],
            "final_answer_correct": i % 2 == 0, "label": -1 if i % 2 == 0 else 1,
        }
        for i in range(number)
    ]  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


def test_eval_tells_best_of_n_calibration_and_contamination_and_writes_a_calibrated_copy(
    tmp_path, data, checkpoint, capsys
):
    words = ["--dev", data / "train.jsonl", "--train", data / "train.jsonl", "--calibrated", tmp_path / "tempered"]
    assert run("eval", checkpoint, "--data", data / "test.jsonl", *words, "--out", tmp_path / "out", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    fitted = found["calibration_after"]["prm"]["temperature"]
    assert fitted["chosen_on"].endswith("train.jsonl")
    assert read_card(tmp_path / "tempered").temperature == pytest.approx(fitted["value"])
    assert read_card(tmp_path / "tempered").model_copy(update={"temperature": 1.0}) == read_card(checkpoint)
    Prm.load(tmp_path / "tempered")
    assert found["contamination"]["problems"]["evaluated"] == found["data"]["problems"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_solutions_with_outcomes_alone_give_curves(tmp_path, checkpoint, capsys):
    rows = [
        {"problem": f"1 + {p} ?", "steps": [f"so {i}"], "final_answer": str(i), "is_correct": i == p}
        for p in range(3)
        for i in range(4)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("eval", checkpoint, "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["best_of_n"]
    assert (found["sizes"], found["problems"]) == ([1, 2, 4], [3, 3, 3])
    said = capsys.readouterr().out
    assert "best by prm, product" in said
    assert "Picking one of N solutions" in (tmp_path / "out" / "report.html").read_text()


def test_a_benchmark_says_how_much_of_it_is_there_and_refuses_other_data(tmp_path, data, checkpoint, capsys):
    file = processbench(tmp_path / "pb.json")
    words = ["eval", checkpoint, "--benchmark", "processbench", "--json"]
    assert run(*words, "--data", file, "--out", tmp_path / "out") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["about"]["benchmark"].startswith("ProcessBench, 6 of 3,400 solutions: gsm8k 6 of 400")
    assert run(*words, "--data", data / "test.jsonl", "--out", tmp_path / "other") == 1
    assert "no solution of ProcessBench" in capsys.readouterr().err


def test_prmbench_is_read_with_its_originals_and_scored_by_class(tmp_path, checkpoint, capsys):
    rows = [
        {
            "original_question": f"1 + {i} ?", "modified_question": f"1 + {i} ?",
            "original_process": ["1. so 2", "2. so 3"], "modified_process": ["1. so 2", "2. so 5"],
            "modified_steps": [2], "error_steps": [2], "idx": f"p{i}",
            "classification": "circular",
        }
        for i in range(3)
    ]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--benchmark", "prmbench", "--data", tmp_path / "p.jsonl", "--out", tmp_path / "out", "--json"]
    assert run("eval", checkpoint, *words) == 0
    found = json.loads(capsys.readouterr().out)["prmbench"]["prm"]
    assert found["solutions"] == found["classes"]["circular"]["solutions"] == 3
    assert found["overall"]["similarity"]["value"] is not None


def test_a_rater_is_measured_like_a_model_and_is_not_its_own_truth(tmp_path, data, capsys):
    ledger = tmp_path / "l.sqlite"
    words = ["--data", data / "test.jsonl", "--ledger", ledger, "--out", tmp_path / "out", "--json"]
    assert run("label", "rules", data / "test.jsonl", "--ledger", ledger, "--out", tmp_path / "rules", "--json") == 0
    name = next(iter(Ledger(ledger).current())).rater.name
    capsys.readouterr()
    assert run("eval", f"rater:rule/{name}", *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["raters"] == ["human: sums"]
    assert run("eval", "rater:judge/nobody", *words) == 1
    assert "no annotation of this rater" in capsys.readouterr().err


def test_a_rater_that_has_labelled_again_is_measured_by_its_new_labels(tmp_path, data, capsys):
    ledger = Ledger(tmp_path / "l.sqlite")
    words = ["--data", data / "test.jsonl", "--ledger", ledger.path, "--out", tmp_path / "out", "--json"]
    assert run("import", "auto", data / "test.jsonl", "--out", tmp_path / "s", "--json") == 0
    rows = list(View([tmp_path / "s"]).labelled())
    for sign, accuracy in ((1, 1.0), (-1, 0.0)):
        ledger.append([with_sign(row, sign) for row in rows], [row.solution for row in rows])
        capsys.readouterr()
        assert run("eval", "rater:judge/j", *words, "--rater-kind", "human") == 0
        figure = json.loads(capsys.readouterr().out)["steps"]["prm"]["classes"]["1"]["recall"]
        assert figure["value"] == accuracy


def with_sign(row, sign):
    values = [None if value is None else sign * value for value in row.annotation.values(len(row.solution.spans))]
    return Annotation.of(row.solution, Rater("judge", "j", str(sign)), values)


def test_a_branch_keeps_the_labels_of_its_trunk_where_the_trunk_is_not_drawn(tmp_path, checkpoint, capsys):
    rater = Rater("human", "a")
    one, two = sorted((Solution.from_steps("1 ?", ["so 1", f"so {i}"]) for i in range(2)), key=lambda one: one.id)
    with SnapshotWriter(tmp_path / "s", name="s", format="steps") as writer:
        writer.add(one, [Annotation.of(one, rater, [None, -1])])
        writer.add(two, [Annotation.of(two, rater, [1, 1])])
    words = ["--data", tmp_path / "s", "--per-subset", "1", "--out", tmp_path / "out", "--json"]
    assert run("eval", checkpoint, *words) == 0
    found = json.loads(capsys.readouterr().out)["data"]
    assert (found["solutions"], found["judged_steps"], found["solutions_unsettled"]) == (1, 2, 0)


def test_a_subset_may_be_named_by_any_value_of_meta():
    solutions = [Solution.from_steps(f"{i} ?", ["so 1"], meta={"samples": [i % 2]}) for i in range(4)]
    rows = [Labelled(one, Annotation.of(one, Rater("human", "a"), [1])) for one in solutions]
    assert len(drawn_per_subset(rows, "samples", 1)) == 2


def test_wrong_use_is_refused(tmp_path, data, checkpoint, capsys):
    assert run("eval", checkpoint, "--out", tmp_path / "a") == 2
    assert (
        run("eval", checkpoint, "--data", data / "test.jsonl", "--calibrated", tmp_path / "c", "--out", tmp_path / "b")
        == 2
    )
    assert "--calibrated needs --dev" in capsys.readouterr().err
    assert (
        run("stress", checkpoint, "--data", data / "test.jsonl", "--aggregation", "men", "--out", tmp_path / "d") == 2
    )


def test_stress_leaves_a_table_a_page_and_the_figures(tmp_path, data, checkpoint, capsys):
    words = ["--data", data / "test.jsonl", "--each", "3", "--out", tmp_path / "out"]
    assert run("stress", checkpoint, *words) == 0
    said = capsys.readouterr().out
    assert "authority" in said
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["data"] == {"right": 3, "wrong": 3}
    assert "stress" in (tmp_path / "out" / "report.html").read_text()
