import json

import pytest

from prm_kit.run_directory import RunDirectory


def test_a_run_directory_says_what_ran_with_what_and_what_came_out(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.start({"name": "x"})
    run.log(update=1, loss=0.5)
    with run.timed("train"):
        pass
    run.finish({"ok": True})
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"recipe.yaml", "versions.json", "metrics.jsonl", "timings.jsonl", "summary.json"}
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["packages"]["torch"]
    assert "git_commit" in versions


def test_metrics_hold_no_clock_so_that_equal_runs_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        RunDirectory(tmp_path / name).log(update=1, loss=0.1)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_a_resumed_run_keeps_the_lines_that_were_logged_when_it_was_saved(tmp_path):
    run = RunDirectory(tmp_path)
    for update in range(4):
        run.log(update=update)
    run.truncate_metrics(2)
    assert run.metrics_lines() == 2
    run.log(update=2)
    assert [json.loads(line)["update"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]


def test_the_time_of_a_failed_stage_is_kept(tmp_path):
    run = RunDirectory(tmp_path)
    with pytest.raises(RuntimeError), run.timed("train"):
        raise RuntimeError
    assert json.loads((tmp_path / "timings.jsonl").read_text())["stage"] == "train"


def test_a_value_that_json_cannot_hold_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        RunDirectory(tmp_path).log(loss=float("nan"))
