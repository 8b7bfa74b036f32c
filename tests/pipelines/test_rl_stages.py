"""Recipes of reinforcement learning with stages, one after another."""

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from prm_kit.model import Prm
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

SMALL = [
    "settings.updates=2", "settings.problems=2", "settings.max_new_tokens=8", "settings.split=newline",
    "settings.warmup=0", "settings.learning_rate=0.01", "settings.eval_every=1", "settings.device=cpu", "train_on=6",
    "held_out=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path / "policy")
    Prm.from_backbone(path / "policy").save(path / "prm")
    return path


def run(models, out, recipe, *words):
    asked = [f"policy={models / 'policy'}", f"prm={models / 'prm'}", *SMALL, *words]
    return CliRunner().invoke(app, ["run", str(recipe), *asked, "--out", str(out), "--json"])


STAGES = ["sft={demonstrations: 12, batch_tokens: 400}", "settings.updates=1", "stages.warm-up.updates=2",
          "settings.group_size=2"]  # fmt: skip


def test_stages_follow_each_other_and_what_is_unchanged_is_kept(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run(models, tmp_path, "rl-stages", *STAGES, "stages.warm-up.stop.accuracy=0.9")
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)["rl"]
    assert [(name, one["algorithm"], one["updates"]) for name, one in found["stages"].items()] == [
        ("1-sft", "sft", found["stages"]["1-sft"]["updates"]), ("2-warm-up", "dapo", 2),
        ("3-pairs", "gfpo-anchored", 1), ("4-steady", "srpo", 1),
    ]  # fmt: skip
    stages = tmp_path / "stages"
    inputs = {name: json.loads((stages / name / "run" / "inputs.json").read_text()) for name in found["stages"]}
    asked = {name: one["settings"] for name, one in inputs.items()}
    assert asked["3-pairs"]["policy"] == str(stages / "2-warm-up" / "run" / "checkpoint")
    assert asked["4-steady"]["reference"] == str(stages / "1-sft" / "run" / "checkpoint")
    assert [asked[name]["seed"] for name in list(asked)[1:]] == [0, 1, 2]
    assert found["policy"] == str(stages / "4-steady" / "run" / "checkpoint")
    assert len({str(one["data"]) for one in list(inputs.values())[1:]}) == 1  # the same problems in all
    told = found["stages"]["3-pairs"]["held_out"]
    assert told["before"]["sampled"] == pytest.approx(found["stages"]["2-warm-up"]["held_out"]["after"]["sampled"])

    again = run(models, tmp_path, "rl-stages", *STAGES, "stages.warm-up.stop.accuracy=0.9", "stages.steady.seed=7")
    said = " ".join(again.stderr.split())
    assert again.exit_code == 0
    assert all(f"{name}: unchanged, kept" in said for name in ("1-sft", "2-warm-up", "3-pairs"))
    assert "4-steady: running" in said

    (tmp_path / "notes.txt").write_text("beside the run, in the folder that it is started from")
    once_more = run(models, tmp_path, "rl-stages", *STAGES, "stages.warm-up.stop.accuracy=0.9", "stages.steady.seed=7")
    assert "4-steady: unchanged, kept" in " ".join(once_more.stderr.split())


def test_a_stage_that_was_interrupted_goes_on_where_it_stood(models, tmp_path, monkeypatch):
    from rl.learning import Learner

    words = ["settings.checkpoint_every=1", "stages={a: {algorithm: dr-grpo}, b: {algorithm: grpo}}",
             "settings.group_size=2"]  # fmt: skip
    whole = run(models, tmp_path / "whole", "rl", *words)
    learn, calls = Learner.learn, []

    def stops(self, material, number):
        calls.append(number)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return learn(self, material, number)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", stops)
        assert run(models, tmp_path / "cut", "rl", *words).exit_code == 130
    calls.clear()
    again = run(models, tmp_path / "cut", "rl", *words)
    assert "1-a: unchanged, kept" in again.stderr
    for file in ("metrics.jsonl", "checkpoint/model.safetensors"):
        one, other = (tmp_path / name / "stages" / "2-b" / "run" / file for name in ("cut", "whole"))
        assert one.read_bytes() == other.read_bytes()
    assert json.loads(again.stdout)["rl"]["stages"] == json.loads(whole.stdout)["rl"]["stages"]


def test_reinforcement_learning_may_follow_the_training_of_its_prm(models, data, backbone, tmp_path):
    (tmp_path / "tiny.yaml").write_text(f"""
name: tiny
root: {data}
data: {{train: {{paths: [train.jsonl]}}, test: {{paths: [test.jsonl]}}}}
train: {{sources: [train], dev_fraction: 0.3, orm: false,
         settings: {{backbone: "{backbone}", updates: 1, batch_tokens: 400, device: cpu}}}}
evaluate: {{sources: [test], resamples: 100, examples: 1}}
rl:
  task: arithmetic
  policy: {models / "policy"}
  algorithm: rloo-min
  train_on: 4
  held_out: 2
  settings: {{updates: 1, problems: 2, group_size: 2, max_new_tokens: 8, split: newline, device: cpu}}
""")
    result = CliRunner().invoke(app, ["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rl"]["stages"]["1-rl"]["algorithm"] == "rloo-min"
    about = json.loads((tmp_path / "out" / "stages" / "1-rl" / "run" / "inputs.json").read_text())["about"]
    assert about["prm"] == str(tmp_path / "out" / "stages" / "train" / "prm" / "checkpoint")


def test_what_cannot_run_is_refused_before_the_first_stage(models, tmp_path):
    for words, message in (
        (["prm=null", "algorithm=rloo-min"], "stage rl: algorithm rloo-min wants step rewards"),
        (["algorithm=gppo"], "stage rl: unknown algorithm 'gppo'. Did you mean"),
        (["stages={a: {}, b: {algorithm: dapo, passes: 2}}"], "stage b: passes: 2"),
        (["stages={a: {}, b: {task: file:nowhere.jsonl}}"], "nowhere.jsonl: no such file"),
        (["settings.updats=2"], "settings.updats: unknown key; did you mean 'updates'"),
        (["stages={a: {stop: {patience: 2}, eval_every: null}}"], "stage a: stop.patience: needs held-out"),
        (["sft={}", "prm=/no/where"], "stage rl: prm: /no/where: no such folder"),
        (["stages={a: {}, b: {reference: ../no/where}}"], "stage b: reference: ../no/where: no such folder"),
    ):
        refused = run(models, tmp_path / "out", "rl", *words)
        assert refused.exit_code == 2
        assert message in refused.stderr
        assert not (tmp_path / "out").exists()
