import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.rl.report import run_data

RECIPE = """
rl: {algorithm: rloo-min, seed: 3, updates: 5, split: newline, policy: some/policy}
algorithm: {estimator: leave_one_out, credit: min_form}
task: sums
"""


@pytest.fixture
def run(tmp_path):
    lines = [
        {"update": n, "part": "train", "accuracy": 0.5, "errors": {"accuracy": 0.1}, "sampled": 4} for n in range(3)
    ]
    lines[2]["alarms"] = [{"name": "steps", "kind": "prm", "began": 1, "text": "steps grow"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"update": 3, "pa')
    rollout = {"update": 0, "problem": "p", "completion": "a\nb", "correct": False, "reward": 0.5, "parts": {}}
    kept = [{**rollout, "step_values": [0.5, 0.75]}, {**rollout, "step_values": []}]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(app, ["rl", "report", *map(str, words)])


def test_a_run_that_is_still_going_is_read_up_to_its_last_whole_line(run):
    before = (run / "metrics.jsonl").read_bytes()
    result = invoke(run)
    assert result.exit_code == 0, result.output
    assert "update 2: steps grow" in result.output
    page = (run / "report.html").read_text()
    assert "3 of 5 updates" in page
    assert "rloo-min, seed 3" in page
    assert (run / "metrics.jsonl").read_bytes() == before
    assert json.loads(invoke(run, "--json").stdout)["alarms"][0]["update"] == 2


def test_rollouts_are_split_as_the_run_split_them(run):
    (one,) = run_data(run)["rollouts"]  # the other was scored by nobody
    assert one["steps"] == ["a", "b"]


def test_a_run_from_before_alarms_had_names_is_read_with_todays_rules(run):
    lines = [{"update": n, "part": "train", "accuracy": x, "alarms": ["old"]} for n, x in enumerate([0.6, 0.61] * 6)]
    lines += [{"update": n, "part": "train", "accuracy": x} for n, x in enumerate([0.3, 0.31] * 6, 12)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [alarm["name"] for alarm in run_data(run)["alarms"]] == ["accuracy"]


def test_the_composition_has_the_group_size_that_was_asked_for(run):
    assert "group_size" not in run_data(run)["parts"]
    (run / "recipe.yaml").write_text(RECIPE.replace("seed: 3", "seed: 3, group_size: 4"))
    assert run_data(run)["parts"]["group_size"] == 4


def test_a_character_that_is_being_written_is_no_error(run):
    with (run / "rollouts.jsonl").open("ab") as file:
        file.write('{"problem": "é'.encode()[:-1])
    assert len(run_data(run)["rollouts"]) == 1


def test_a_run_of_something_else_is_refused(run):
    (run / "recipe.yaml").write_text("train: {}\ndata: {}\n")
    result = invoke(run)
    assert result.exit_code == 2
    assert "its recipe.yaml has train, data" in result.output


def test_what_is_no_run_is_refused(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert invoke(empty).exit_code == 2
    (run / "metrics.jsonl").write_text("{}\nnonsense\n")
    broken = invoke(run)
    assert broken.exit_code == 1
    assert "metrics.jsonl:2" in broken.output
