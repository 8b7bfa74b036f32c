import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from prm_kit.model import Prm
from prm_kit.policy import Policy
from prm_kit.search import Search
from prm_kit.snapshot import Snapshot
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of an untrained policy and of an untrained PRM on it."""
    path = tmp_path_factory.mktemp("models")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path / "policy")
    Prm.from_backbone(path / "policy").save(path / "prm")
    return path


def run(models, out, *words):
    asked = ["search", "arithmetic", "--policy", models / "policy", "--prm", models / "prm", "--out", out]
    sizes = ["--problems", 5, "--n", 4, "--width", 2, "--max-new-tokens", 12, "--max-steps", 3, "--together", 2]
    return CliRunner().invoke(app, [str(word) for word in [*asked, *sizes, *words]])


@pytest.mark.parametrize("method", ["best-of-n", "beam", "dvts"])
def test_a_search_leaves_its_solutions_for_other_verbs(models, tmp_path, method):
    result = run(models, tmp_path, "--method", method, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert json.loads(result.stdout) == summary
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(found) == summary["problems"] == 5
    assert sum(len(line["candidates"]) for line in found) == summary["solutions"] > 0
    assert set(summary["picked"]) == {"random", "majority", "oracle", "best by last"}
    solutions = list(Snapshot.open(tmp_path / "solutions").iter_solutions())
    assert len(solutions) == summary["different_solutions"]
    assert sum(len(solution.meta["samples"]) for solution in solutions) == summary["solutions"]
    assert summary["spent"]["sampled_tokens"] > 0


def test_a_search_that_was_stopped_goes_on_with_the_problems_that_are_left(models, tmp_path, monkeypatch):
    assert run(models, tmp_path / "whole").exit_code == 0
    search, asked = Search.run, []

    def stops(self, problems, progress=None):
        asked.append(len(problems))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return search(self, problems, progress)

    with monkeypatch.context() as patched:
        patched.setattr(Search, "run", stops)
        assert run(models, tmp_path / "cut").exit_code == 130
    assert asked == [2, 2]
    assert run(models, tmp_path / "cut").exit_code == 0
    whole, cut = (
        [json.loads(line) for line in (tmp_path / name / "found.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    )
    assert cut == whole


def test_a_search_that_was_refused_can_be_asked_for_again_rightly(models, tmp_path):
    assert run(models, tmp_path, "--max-new-tokens", 100_000).exit_code == 2
    assert run(models, tmp_path).exit_code == 0


def test_another_search_needs_another_folder_and_a_wrong_setting_is_refused(models, tmp_path):
    assert run(models, tmp_path).exit_code == 0
    again = run(models, tmp_path, "--seed", 4)
    assert again.exit_code == 2
    assert "seed was 0, now 4" in again.stderr
    wrong = run(models, tmp_path / "other", "--n", 5)
    assert wrong.exit_code == 2
    assert "width must divide n" in wrong.stderr
