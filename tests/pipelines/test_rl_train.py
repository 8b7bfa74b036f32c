import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.rl.train import _to_be_known
from prm_kit.model import Prm
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.train_settings import RlSettings


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path / "policy")
    Prm.from_backbone(path / "policy").save(path / "prm")
    return path


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_policy_is_taught_by_demonstrations_and_then_by_a_prm(models, tmp_path):
    sizes = ["--demonstrations", 20, "--held-out", 5, "batch_tokens=500"]
    taught = invoke("rl", "sft", "arithmetic", "--policy", models / "policy", "--out", tmp_path / "sft", *sizes)
    assert taught.exit_code == 0, taught.output
    small = ["updates=1", "problems=2", "group_size=2", "max_new_tokens=8", "split=newline"]
    result = invoke(
        "rl", "train", "arithmetic", "--policy", tmp_path / "sft" / "checkpoint", "--prm", models / "prm",
        "--algorithm", "rloo-min", "--out", tmp_path / "rl", "--problems", 4, "--held-out", 3, "--json", *small,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["parts"]["credit"] == "min_form"
    assert len(summary["held_out"]["after"]["sampled"]) == 3
    assert Policy.load(tmp_path / "rl" / "checkpoint").template == Policy.load(models / "policy").template


def test_a_prm_that_was_trained_anew_is_another_run(models, tmp_path):
    small = ["updates=1", "problems=2", "group_size=2", "max_new_tokens=8", "split=newline", "--problems", 4]
    ask = ["rl", "train", "arithmetic", "--policy", models / "policy", "--prm", tmp_path / "prm",
           "--algorithm", "rloo-min", "--out", tmp_path / "rl", "--held-out", 0, *small]  # fmt: skip
    Prm.load(models / "prm").save(tmp_path / "prm")
    assert invoke(*ask).exit_code == 0
    assert invoke(*ask).exit_code == 0
    (tmp_path / "prm" / "trained.txt").write_text("anew")
    again = invoke(*ask)
    assert again.exit_code == 2
    assert "about.sha256" in again.stderr


def test_algorithms_are_compared_on_the_same_rollouts_and_seeds(models, tmp_path):
    small = ["updates=1", "problems=2", "max_new_tokens=8", "split=newline"]
    ask = ["rl", "compare", "arithmetic", "--policy", models / "policy", "--out", tmp_path, "-a", "rloo", "-a", "grpo",
           "--seeds", 2, "--problems", 4, "--held-out", 3, *small]  # fmt: skip
    first = invoke(*ask, "--json")
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)["algorithms"]
    assert [one["rollouts"] for one in found.values()] == [
        32,
        32,
    ]  # two groups of 16, the larger of the two presets' sizes
    assert len(found["grpo"]["sampled_after"]["seeds"]) == 2
    assert found["grpo"]["sampled_before"] == found["rloo"]["sampled_before"]
    again = invoke(*ask)
    assert again.exit_code == 0
    assert "dense rewards beat outcomes alone: not run" in again.output
    assert all((tmp_path / name / "report.html").exists() for name in ("", "grpo/seed-1"))


def test_a_contested_name_says_what_it_means_and_a_dense_algorithm_asks_for_a_prm(models, tmp_path):
    sizes = ["updates=1", "problems=2", "group_size=2", "max_new_tokens=8", "split=newline"]
    ask = ["rl", "train", "arithmetic", "--policy", models / "policy", "--problems", 4, "--held-out", 0, *sizes]
    dense = invoke(*ask, "--algorithm", "dapo", "--out", tmp_path / "a")
    assert dense.exit_code == 2
    assert "--prm PATH|URL" in dense.stderr
    assert "ByteDance's (2503.14476) is dapo-dynamic" in dense.output
    # weights that let a tidy wrong answer win say so at the start, not after the run
    tidy = invoke(*ask, "--algorithm", "dapo", "--out", tmp_path / "b", "parts={weights: {process: 1.0}}")
    assert tidy.exit_code == 2
    assert "a tidy wrong answer can beat" in " ".join(tidy.output.split())


def test_the_arithmetic_that_is_told_counts_branches():
    # 2 roots with 4 branches each are 10 rollouts of a problem, whatever the preset's own group size is
    asked = RlSettings(policy="any", algorithm="gfpo", problems=4, branching={"roots": 2, "branches": 4})
    assert _to_be_known(asked, 1)[-1] == "4 groups of 10 are 40 rollouts an update"


def test_a_task_without_demonstrations_and_a_wrong_key_are_refused(models, tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"problem": "1 + 1", "answer": "2"}\n')
    bare = invoke("rl", "sft", f"file:{problems}", "--policy", models / "policy", "--out", tmp_path / "a")
    assert bare.exit_code == 2
    wrong = invoke("rl", "train", "arithmetic", "--policy", "x", "--out", tmp_path / "b", "learning_rat=1")
    assert wrong.exit_code == 2
    assert "learning_rate" in wrong.stderr


def test_problems_of_ones_own_are_trained_on_but_for_those_held_out(models, tmp_path):
    rows = [{"prompt": f"Start with {i}, add {i}.", "label": str(2 * i)} for i in range(10, 16)]
    for name, some in (("train.jsonl", rows), ("test.jsonl", rows[:2])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    ask = ["rl", "train", f"file:{tmp_path}/train.jsonl#problem=prompt,answer=label", "--policy", models / "policy",
           "--held-out", 2, "updates=1", "problems=2", "group_size=2", "max_new_tokens=8", "split=newline"]  # fmt: skip
    result = invoke(*ask, "--held-out-file", tmp_path / "test.jsonl", "--out", tmp_path / "rl")
    assert result.exit_code == 0, result.output
    assert "train.jsonl: 2 of 6 problems are held out too and are not trained on, the first: row 1" in result.output
    assert len(json.loads((tmp_path / "rl" / "summary.json").read_text())["held_out"]["after"]["greedy"]) == 2
    refused = invoke("rl", "train", "arithmetic", *ask[3:], "--held-out-file", "x.jsonl", "--out", tmp_path / "no")
    assert refused.exit_code == 2
    assert "--held-out-file goes with a task file:SOURCE" in refused.output
