"""A whole recipe on a tiny model: import, label, train, evaluate, report."""

import json

import pytest

from pipelines.cli import app

RECIPE = """
name: tiny
root: {root}
data:
  train: {{paths: [train.jsonl]}}
  test: {{paths: [test.jsonl]}}
label: {{rules: [test]}}
train:
  sources: [train]
  dev_fraction: 0.3
  rater_kinds: [human]
  settings: {{backbone: "{backbone}", updates: 4, batch_tokens: 400, learning_rate: 1e-3, device: cpu}}
evaluate:
  sources: [test]
  rater_kinds: [human]
  resamples: 100
  examples: 2
"""


def run(*words):
    """Run one command; return its exit code."""
    try:
        app([str(word) for word in words])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data, backbone):
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(RECIPE.format(root=data, backbone=backbone))
    assert run("run", folder / "tiny.yaml", "--out", folder / "out", "--json") == 0
    return folder


def test_a_run_leaves_recipe_versions_metrics_timings_summary_checkpoint_and_report(finished):
    out = finished / "out"
    for name in ("recipe.yaml", "versions.json", "timings.jsonl", "summary.json", "report.html"):
        assert (out / name).is_file(), name
    summary = json.loads((out / "summary.json").read_text())
    assert (out / "stages" / "train" / "prm" / "metrics.jsonl").is_file()
    assert (out / "stages" / "train" / "prm" / "checkpoint" / "prm.json").is_file()
    names = [scorer["name"] for scorer in summary["evaluation"]["scorers"]]
    assert names[:2] == ["prm", "orm"]
    assert "class prior" in names
    assert summary["imports"]["train"]["solutions"] == 60


def test_the_same_command_again_runs_no_stage_and_gives_the_same_summary(finished, capsys):
    before = (finished / "out" / "summary.json").read_bytes()
    assert run("run", finished / "tiny.yaml", "--out", finished / "out", "--json") == 0
    captured = capsys.readouterr()
    assert captured.out.encode() == before
    assert "running" not in captured.err
    assert (finished / "out" / "summary.json").read_bytes() == before


def test_a_changed_setting_runs_only_what_stands_on_it(finished, capsys):
    assert run("run", finished / "tiny.yaml", "evaluate.resamples=120", "--out", finished / "out", "--json") == 0
    said = capsys.readouterr().err
    assert "train: unchanged, kept" in said
    assert "evaluate: running" in said


def test_no_problem_that_is_evaluated_on_is_trained_on(tmp_path, data, backbone):
    (tmp_path / "tiny.yaml").write_text(RECIPE.format(root=data, backbone=backbone))
    words = ["data.train.paths=[train.jsonl, test.jsonl]", "train.orm=false"]
    assert run("run", tmp_path / "tiny.yaml", *words, "--out", tmp_path / "out", "--json") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["training"]["rows_of_evaluated_problems_removed"] == 24


def test_a_trained_checkpoint_scores_and_is_evaluated_by_its_own_verbs(finished, data, tmp_path):
    checkpoint = finished / "out" / "stages" / "train" / "prm" / "checkpoint"
    assert run("score", checkpoint, data / "test.jsonl", "--out", tmp_path / "score", "--json") == 0
    lines = [json.loads(line) for line in (tmp_path / "score" / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    assert all(len(line["values"]) == len(line["probabilities"]) == 3 for line in lines)
    assert run("eval", checkpoint, "--data", data / "test.jsonl", "--out", tmp_path / "eval", "--json") == 0
    assert (tmp_path / "eval" / "report.html").is_file()


def test_an_interrupted_scoring_goes_on_after_its_last_whole_line(finished, data, tmp_path):
    checkpoint = finished / "out" / "stages" / "train" / "prm" / "checkpoint"
    words = ("score", checkpoint, data / "test.jsonl", "--out", tmp_path / "score", "--json")
    assert run(*words) == 0
    path = tmp_path / "score" / "scores.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert run(*words) == 0
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_two_inputs_of_one_name_are_both_scored(finished, data, tmp_path):
    checkpoint = finished / "out" / "stages" / "train" / "prm" / "checkpoint"
    for folder, name in (("a", "train"), ("b", "test")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_bytes((data / f"{name}.jsonl").read_bytes())
    inputs = [tmp_path / folder / "rows.jsonl" for folder in ("a", "b")]
    assert run("score", checkpoint, *inputs, "--out", tmp_path / "score", "--json") == 0
    assert len((tmp_path / "score" / "scores.jsonl").read_text().splitlines()) == 60 + 24


def test_scores_of_another_command_are_not_mixed(finished, data, tmp_path, capsys):
    checkpoint = finished / "out" / "stages" / "train" / "prm" / "checkpoint"
    assert run("score", checkpoint, data / "test.jsonl", "--out", tmp_path / "score") == 0
    assert run("score", checkpoint, data / "train.jsonl", "--out", tmp_path / "score") == 2
    assert "another --out" in capsys.readouterr().err


def test_training_by_its_own_verb_resumes_and_holds_out_problems(data, backbone, tmp_path):
    words = ["train", "--data", data / "train.jsonl", "--out", tmp_path / "run", "--json", f"backbone={backbone}"]
    words += ["updates=2", "batch_tokens=400", "device=cpu"]
    assert run(*words) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert run(*words) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_rule_labels_go_to_the_ledger_once(data, tmp_path):
    words = ("label", "rules", data / "test.jsonl", "--out", tmp_path / "label", "--json")
    assert run(*words) == 0
    first = json.loads((tmp_path / "label" / "summary.json").read_text())
    assert first["labelled"] == 24
    assert run(*words) == 0
    again = json.loads((tmp_path / "label" / "summary.json").read_text())
    assert (again["already_labelled"], again["labelled"]) == (24, 0)


def test_import_split_and_export_are_verbs_of_their_own(data, tmp_path):
    assert run("import", "auto", data / "train.jsonl", "--out", tmp_path / "snapshot", "--json") == 0
    assert run("split", tmp_path / "snapshot", "--out", tmp_path / "again", "--method", "newline", "--json") == 0
    words = ["export", "processbench", tmp_path / "snapshot", "--out", tmp_path / "rows.jsonl", "--json"]
    assert run(*words) == 2  # a label 0 does not fit, and what to do with it must be said
    assert run(*words, "--option", "neutral_policy=positive") == 0
    row = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert row["label"] == 1
