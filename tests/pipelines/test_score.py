"""What `score` and `eval` do with solutions that are too long for a PRM."""

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluate import check_scored, evaluate_models
from pipelines.recipe import EvaluateStage
from pipelines.score import BATCH, check_rejected, score_into
from prm_kit.encode import TooLongError
from prm_kit.errors import InputError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores

# Template, problem "1 + 2 = ?" and newline are 6 tokens; each step is its words and a mark.
FITS = Solution.from_steps("1 + 2 = ?", ["so 3", "so again 3"], "\n")
LONG_STEP = Solution.from_steps("1 + 3 = ?", ["so 4", "so " * 12 + "4"], "\n")
OTHER = Solution.from_steps("2 + 2 = ?", ["so 4"], "\n")


@pytest.fixture(scope="module")
def scorer(backbone):
    prm = Prm.from_backbone(backbone)
    prm.card = prm.card.model_copy(update={"max_tokens": 16})
    return PrmScorer(prm)


class Unbounded:
    """Gives every step the number 2.5; two steps are too many."""

    name = "unbounded"

    def score(self, solutions):
        for solution in solutions:
            if len(solution.spans) > 1:
                raise TooLongError("too long", solution.id, len(solution.spans), 1)
        return [StepScores((None,), (2.5,)) for _ in solutions]


def scored(folder, scorer, solutions):
    return score_into(folder / "scores.jsonl", scorer, solutions, "min", lambda _: None)


def test_a_step_longer_than_the_window_is_refused_alone_and_named(tmp_path, scorer):
    found, rejected = scored(tmp_path, scorer, [FITS, LONG_STEP, OTHER])
    assert found.keys() == {FITS.id, OTHER.id}
    (reject,) = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert (reject["solution_id"], reject["step"], reject["limit"]) == (LONG_STEP.id, 1, 16)
    assert reject["tokens"] > 16
    assert f"solution {LONG_STEP.id}: step 1 has {reject['tokens']} tokens" in reject["reason"]
    assert rejected == {"count": 1, "of": 3, "first": [reject["reason"]], "file": "rejects.jsonl"}


def test_the_others_score_as_if_the_refused_one_were_not_there(tmp_path, scorer):
    found, _ = scored(tmp_path, scorer, [FITS, LONG_STEP, OTHER])
    assert [found[FITS.id], found[OTHER.id]] == scorer.score([FITS, OTHER])


def test_a_second_run_names_the_refused_ones_again_and_scores_nothing_twice(tmp_path, scorer):
    first = scored(tmp_path, scorer, [FITS, LONG_STEP])
    lines = (tmp_path / "scores.jsonl").read_text()
    assert scored(tmp_path, scorer, [FITS, LONG_STEP]).rejected == first.rejected
    assert (tmp_path / "scores.jsonl").read_text() == lines


def test_too_large_a_share_of_refused_solutions_fails_at_the_end(tmp_path, scorer):
    _, rejected = scored(tmp_path, scorer, [FITS, LONG_STEP, OTHER])
    check_rejected(rejected, 1 / 3)
    with pytest.raises(InputError, match=r"1 of 3 solutions are too long(.|\n)*rejects\.jsonl(.|\n)*step 1"):
        check_rejected(rejected, 0.3)


def test_the_share_of_refused_solutions_is_of_those_asked_for_each_counted_once(tmp_path, scorer):
    scored(tmp_path, scorer, [FITS, OTHER])
    again = [LONG_STEP, *(Solution.from_steps(f"{i} ?", ["so 4"]) for i in range(BATCH)), LONG_STEP]
    assert scored(tmp_path, scorer, [LONG_STEP]).rejected["of"] == 1
    rejected = scored(tmp_path, scorer, again).rejected
    assert (rejected["count"], rejected["of"]) == (1, 1 + BATCH)


def test_a_line_that_holds_no_scores_is_named(tmp_path, scorer):
    scored(tmp_path, scorer, [FITS])
    file = tmp_path / "scores.jsonl"
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(InputError, match=r"scores\.jsonl: line 2 holds no scores"):
        scored(tmp_path, scorer, [FITS])


def test_scores_of_a_checkpoint_that_has_changed_since_are_not_gone_on_with(tmp_path, backbone, data, capsys):
    words = ["score", tmp_path / "model", data / "test.jsonl", "--out", tmp_path / "out", "--json"]
    for seed, code in ((0, 0), (1, 2)):
        Prm.from_backbone(backbone, seed=seed).save(tmp_path / "model")
        with pytest.raises(SystemExit) as stop:
            app([str(word) for word in words])
        assert (stop.value.code or 0) == code
    assert "a model that has changed since" in capsys.readouterr().err


def test_a_refusal_of_something_else_is_not_taken_for_one_of_these(tmp_path):
    class Confused(Unbounded):
        def score(self, solutions):
            raise TooLongError("too long", "another", 2, 1)

    with pytest.raises(TooLongError):
        scored(tmp_path, Confused(), [FITS])


@pytest.mark.parametrize("unbounded", [True, False])
def test_an_evaluation_counts_what_is_too_long_against_the_model_and_says_so(tmp_path, scorer, unbounded):
    rater = Rater("human", "ann")
    rows = [
        Labelled(FITS, Annotation.of(FITS, rater, [1, -1])),
        Labelled(LONG_STEP, Annotation.of(LONG_STEP, rater, [1, -1])),
        Labelled(OTHER, Annotation.of(OTHER, rater, [1])),
    ]
    evaluation = evaluate_models(
        {"prm": Unbounded() if unbounded else scorer},
        rows,
        dev=[],
        dev_name="",
        train=[],
        settings=EvaluateStage(sources=[], resamples=100),
        seed=0,
        name="made",
        about={},
        folder=tmp_path,
        progress=lambda *_: None,
    )
    refused = 2 if unbounded else 1
    assert evaluation["rejected"]["prm"]["count"] == refused
    assert any(f"prm abstains on {refused} of 3 solutions" in warning for warning in evaluation["warnings"])
    assert evaluation["steps"]["prm"]["n"] == 5
    assert evaluation["steps"]["prm"]["answered"] == 5 - 2 * refused
    with pytest.raises(InputError, match=r"rejects-prm\.jsonl"):
        check_scored(evaluation, 0.1)


def test_scores_of_a_server_are_not_gone_on_with_by_another_prm(backbone, tmp_path, monkeypatch):
    served = {"fingerprint": "old"}
    monkeypatch.setattr("prm_kit.serve.remote.RemoteScorer.ask", lambda self: served["fingerprint"])
    monkeypatch.setattr("pipelines.scorers.scorer_of", lambda *_, **__: Unbounded())
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"problem": "1 + 1 ?", "steps": ["2"], "labels": [1]}) + "\n")
    words = ["score", "http://127.0.0.1:1", str(data), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, words).exit_code == 0
    served["fingerprint"] = "new"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert "a model that has changed since" in again.output
