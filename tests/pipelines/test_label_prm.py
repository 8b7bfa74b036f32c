import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.label.checkpoint import checkpoint_name, checkpoint_version
from prm_kit.ledger import Ledger
from prm_kit.model import Prm
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path / "policy")
    Prm.from_backbone(path / "policy", seed=0).save(path / "checkpoint")
    return path / "checkpoint"


def run(data, checkpoint, out, *words):
    asked = ["label", "prm", data / "test.jsonl", "--checkpoint", checkpoint, "--out", out, "--json", *words]
    done = CliRunner().invoke(app, [str(word) for word in asked])
    return done, json.loads((out / "summary.json").read_text()) if done.exit_code == 0 else None


def annotations(out):
    with Ledger(out / "ledger.sqlite", must_exist=True) as ledger:
        return list(ledger.current())


def test_every_step_is_labelled_with_its_probabilities_and_people_are_compared_with(data, checkpoint, tmp_path):
    done, summary = run(data, checkpoint, tmp_path, "--min-confidence", "0")
    assert done.exit_code == 0, done.output
    assert (summary["labelled"], summary["coverage"]) == (24, 1.0)
    assert summary["reference"] == {"-1": 8, "0": 16, "1": 40}
    for annotation in annotations(tmp_path):
        assert (annotation.rater.kind, annotation.rater.name) == ("prm", checkpoint.parent.name)
        assert all(sum(label.shares) == pytest.approx(1) for label in annotation.labels)
    _, summary = run(data, checkpoint, tmp_path, "--min-confidence", "0")
    assert (summary["already_labelled"], summary["labelled"]) == (24, 0)


def test_a_prm_that_is_not_sure_says_nothing(data, checkpoint, tmp_path):
    _, summary = run(data, checkpoint, tmp_path, "--min-confidence", "1.0")
    assert summary["labelled_steps"] == 0
    assert {label.value for a in annotations(tmp_path) for label in a.labels} == {None}


def test_an_outcome_model_is_refused(data, checkpoint, tmp_path):
    other = tmp_path / "orm"
    prm = Prm.load(checkpoint)
    prm.card = prm.card.model_copy(update={"target": "outcome"})
    prm.save(other)
    done, _ = run(data, other, tmp_path / "out")
    assert done.exit_code == 2
    assert "final answers alone" in done.output


def test_a_checkpoint_signs_with_the_folder_that_says_most_and_with_its_bytes(tmp_path):
    folder = tmp_path / "good-policy" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("1")
    assert checkpoint_name(folder) == "good-policy"
    assert checkpoint_name(folder.parent) == "good-policy"
    assert checkpoint_name(folder, "another") == "another"
    before = checkpoint_version(folder)
    assert checkpoint_version(folder) == before
    (folder / "weights").write_text("2")
    assert checkpoint_version(folder) != before
