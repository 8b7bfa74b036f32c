"""Every objective through the whole of training: learnt by heart, cut, killed, saved, read again."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from prm_kit.checkpoints import load_own
from prm_kit.encode import Encoded
from prm_kit.errors import UsageError
from prm_kit.model import Prm
from prm_kit.objectives import OBJECTIVES
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Annotation, Labelled, Solution, StepLabel
from prm_kit.train import train
from prm_kit.train_settings import LoraSettings, TrainSettings
from tests.prm_kit.training_runs import metrics, sums, weights

ASKED = {
    "cross-entropy": {},
    "ordinal": {},
    "binary": {"neutral_policy": "negative"},
    "bce": {"neutral_policy": "half"},
    "mse": {"neutral_policy": "half"},
    "pqm": {"neutral_policy": "positive", "learning_rate": 1e-2, "beta2": 0.95},
    "ensemble": {"members": 3},
    "causal": {"neutral_policy": "negative"},
    "implicit": {"target": "outcome", "beta": 1.0},
}
CAUSAL = ("causal", "implicit")


def with_shares(labelled: Labelled) -> Labelled:
    """The same labels as shares of four rollouts: 3 of 4 where a step is right, 1 of 4 where it is wrong."""
    solution, annotation = labelled
    shares = {1: (0.25, 0.0, 0.75), -1: (0.75, 0.0, 0.25), 0: (0.0, 1.0, 0.0)}
    labels = tuple(StepLabel(one.step, one.value, one.step_hash, shares[one.value], 4) for one in annotation.labels)
    return Labelled(solution, Annotation(solution.id, annotation.rater, labels))


def settings(name: str, backbone: str, language_model: str, **changes) -> TrainSettings:
    source = language_model if name in CAUSAL else backbone
    standard = {"backbone": source, "objective": name, "learning_rate": 5e-3, "batch_tokens": 1000, "seed": 1}
    return TrainSettings(**{**standard, **ASKED[name], **changes})


def learnt(name: str, score, solution: Solution, labels: list) -> bool:
    """Whether the scores of a solution are on the side that its labels say (0 is on none where it is one of two)."""
    pairs = [(value, label) for value, label in zip(score.values, labels, strict=True)]
    if name == "implicit":
        return (pairs[-1][0] > 0) == solution.is_correct
    if name == "pqm":
        return all((value > 0) == (label != -1) for value, label in pairs)
    return all((value > 0) == (label == 1) for value, label in pairs if label != 0)


def as_published(name: str, folder: Path, prm: Prm, encoded: Encoded) -> torch.Tensor:
    """What plain transformers makes of the checkpoint: values per step, or probabilities of the three classes."""
    family = AutoModelForCausalLM if name in CAUSAL else AutoModelForTokenClassification
    ids = torch.tensor(encoded.ids)
    with torch.inference_mode():
        logits = family.from_pretrained(folder, dtype=torch.float32)(ids[None]).logits[0]
        if name == "implicit":
            reference = AutoModelForCausalLM.from_pretrained(folder / "reference", dtype=torch.float32)
            ratio = logits.log_softmax(-1) - reference(ids[None]).logits[0].log_softmax(-1)
            tokens = range(encoded.prompt_length, len(ids))
            return torch.stack(
                [sum(ratio[t - 1, ids[t]] for t in tokens if t <= end) for end in encoded.read_positions]
            )
    read = logits[encoded.read_positions]
    if name == "pqm":
        return read[:, 0]
    return prm.readout.probabilities(read[:, list(prm.card.verdict_ids)] if name == "causal" else read)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_eight_examples_are_learnt_by_heart_and_plain_transformers_reads_the_checkpoint_the_same(
    name, backbone, language_model, tmp_path
):
    examples = sums(8)
    summary = train(settings(name, backbone, language_model, updates=70), examples, [], tmp_path)
    assert summary["objective"] == name
    assert summary["better_than_class_prior"]
    prm = load_own(tmp_path / "checkpoint")
    scores = PrmScorer(prm).score([solution for solution, _ in examples])
    for (solution, annotation), score in zip(examples, scores, strict=True):
        assert learnt(name, score, solution, annotation.values(len(solution.spans)))
        assert (score.uncertainty is not None) == (name == "ensemble")
    [encoded] = prm.encoder.encode([examples[5].solution])
    found = torch.tensor(scores[5].values if scores[5].unbounded else scores[5].probabilities)
    expected = as_published(name, tmp_path / "checkpoint", prm, encoded)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("name", ["pqm", "implicit"])
def test_micro_batches_change_nothing_but_memory(name, backbone, language_model, tmp_path):
    for folder, budget in (("whole", 10_000), ("cut", 30)):
        asked = settings(name, backbone, language_model, updates=2, micro_batch_tokens=budget)
        train(asked, sums(12), [], tmp_path / folder)
    for a, b in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "cut"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param(name, {}, marks=[] if name in ("pqm", "ensemble", "implicit") else pytest.mark.slow)
        for name in OBJECTIVES
    ]
    + [("cross-entropy", {"head_updates": updates}) for updates in (2, 3)]
    + [("cross-entropy", {"head_updates": 2, "lora": LoraSettings(rank=2, dropout=0.1)})],
)
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(name, changes, backbone, language_model, tmp_path):
    asked = settings(name, backbone, language_model, updates=4, checkpoint_every=2, eval_every=4, **changes)
    data = sums(6), sums(4, start=100)
    train(asked, *data, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def kill(update, updates, line):
        if update == 3 and line["part"] == "train":
            raise KilledError

    with pytest.raises(KilledError):
        train(asked, *data, tmp_path / "killed", progress=kill)
    torch.randn(3)
    assert train(asked, *data, tmp_path / "killed")["resumed"]
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "killed/metrics.jsonl").read_bytes()
    for key, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "killed")[key])


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_the_head_learns_alone_first_and_the_rest_joins_with_a_warm_up_of_its_own(backbone, tmp_path, lora):
    asked = {"backbone": backbone, "learning_rate": 1e-2, "batch_tokens": 1000, "warmup": 0.5, "schedule": "constant"}
    both = TrainSettings(updates=8, head_updates=4, lora=lora, **asked)
    train(both, sums(8), [], tmp_path / "both")
    lines = metrics(tmp_path / "both")
    # two stages of four updates; each rises over half of them: 5e-3, then 1e-2
    assert [line["learning_rate"] for line in lines] == pytest.approx([5e-3, 1e-2, 1e-2, 1e-2] * 2)
    train(TrainSettings(updates=4, train_layers=0, **asked), sums(8), [], tmp_path / "head")
    alone = metrics(tmp_path / "head")
    assert [line["loss"] for line in lines[:4]] == pytest.approx([line["loss"] for line in alone], rel=1e-6)
    before = load_file(f"{backbone}/model.safetensors")
    after_head, after_both = weights(tmp_path / "head"), weights(tmp_path / "both")
    assert all(torch.equal(tensor, after_head[f"model.{key}"]) for key, tensor in before.items())
    assert not any(torch.equal(before[key], after_both[f"model.{key}"]) for key in before if "proj.weight" in key)


def test_a_margin_of_nothing_is_a_margin(backbone, tmp_path):
    found = []
    for margin in (0.0, 4.0):
        asked = TrainSettings(backbone=backbone, objective="pqm", neutral_policy="drop", updates=1, margin=margin)
        train(asked, sums(8), [], tmp_path / str(margin))
        found.append(metrics(tmp_path / str(margin))[0]["loss"])
    assert found[0] < found[1] - 1  # a wrong step at the height of the right ones costs log 2, not log(1 + e^4)


def test_shares_are_learnt_as_they_are(backbone, tmp_path):
    """Three of four rollouts right: the probability goes to 0.75, not to 1."""
    examples = [with_shares(one) for one in sums(6)]
    asked = TrainSettings(
        backbone=backbone, objective="mse", neutral_policy="drop", updates=120, learning_rate=1e-2, batch_tokens=1000
    )
    train(asked, examples, [], tmp_path)
    scores = PrmScorer(load_own(tmp_path / "checkpoint")).score([solution for solution, _ in examples])
    for (_, annotation), score in zip(examples, scores, strict=True):
        for label in annotation.labels:
            if label.value:
                assert score.probabilities[label.step][2] == pytest.approx(label.shares[2], abs=0.1)


def test_going_on_needs_the_head_that_the_objective_trains(backbone, language_model, tmp_path):
    train(settings("ensemble", backbone, language_model, updates=1), sums(4), [], tmp_path / "first")
    again = {"backbone": str(tmp_path / "first/checkpoint"), "updates": 1}
    summary = train(TrainSettings(objective="ensemble", **again), sums(4), [], tmp_path / "second")
    assert summary["updates"] == 1
    asked = TrainSettings(objective="binary", neutral_policy="drop", **again)
    with pytest.raises(UsageError, match=r"readout ensemble; objective binary needs"):
        train(asked, sums(4), [], tmp_path / "third")
    with pytest.raises(UsageError, match=r"members: .* keeps its own \(3\)"):
        train(TrainSettings(objective="ensemble", members=4, **again), sums(4), [], tmp_path / "fourth")
