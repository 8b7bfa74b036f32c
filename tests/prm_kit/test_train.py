import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification

from prm_kit.errors import InputError, PrmKitError, UsageError
from prm_kit.model import Prm
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.train import train
from prm_kit.train_settings import LoraSettings, TrainSettings
from tests.prm_kit.training_runs import metrics, sums, weights


def settings(backbone: str, **changes) -> TrainSettings:
    return TrainSettings(**{"backbone": backbone, "learning_rate": 3e-3, "batch_tokens": 100, **changes})


def test_eight_examples_are_learnt_by_heart(backbone, tmp_path):
    examples = sums(8)
    summary = train(settings(backbone, updates=60, batch_tokens=1000, learning_rate=5e-3), examples, [], tmp_path)
    assert summary["train"]["accuracy"] == 1.0
    assert summary["train"]["loss"] < 0.05
    assert summary["better_than_class_prior"]
    prm = Prm.load(tmp_path / "checkpoint")
    for solution, annotation in examples:
        [encoded] = prm.encoder.encode([solution])
        with torch.inference_mode():
            logits = prm.read_logits(
                torch.tensor([encoded.ids]),
                None,
                torch.zeros(len(encoded.steps), dtype=torch.long),
                torch.tensor(encoded.read_positions),
            )
        assert (logits.argmax(-1) - 1).tolist() == list(annotation.values(len(solution.spans)))


def test_an_untrained_head_says_little_more_than_nothing(backbone, tmp_path):
    summary = train(settings(backbone, updates=1), sums(40), sums(20, start=100), tmp_path)
    assert abs(summary["dev_untrained"]["loss"] - math.log(3)) < 0.1


def test_the_checkpoint_loads_in_plain_transformers_and_its_card_says_what_it_was_trained_on(backbone, tmp_path):
    train(settings(backbone, updates=2, neutral_policy="half"), sums(10), [], tmp_path, manifests=["abc"])
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "checkpoint")
    assert model.config.id2label == {0: "-1", 1: "0", 2: "+1"}
    card = Prm.load(tmp_path / "checkpoint").card
    assert (card.neutral_policy, card.target, card.training_data) == ("half", "steps", ("abc",))
    assert not (tmp_path / "state").exists()


def test_the_same_seed_gives_the_same_bytes(backbone, tmp_path):
    for name in ("a", "b"):
        train(settings(backbone, epochs=2), sums(20), sums(8, start=100), tmp_path / name)
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    for name, tensor in weights(tmp_path / "a").items():
        assert torch.equal(tensor, weights(tmp_path / "b")[name])


def test_micro_batches_change_nothing_but_memory(backbone, tmp_path):
    for name, budget in (("whole", 10_000), ("cut", 30)):
        train(settings(backbone, updates=3, batch_tokens=400, micro_batch_tokens=budget), sums(30), [], tmp_path / name)
    whole, cut = metrics(tmp_path / "whole"), metrics(tmp_path / "cut")
    for a, b in zip(whole, cut, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-5)
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "cut")[name], atol=1e-4, rtol=0)


def branches(number: int) -> list[Labelled]:
    """Several last steps after each of a few shared prefixes."""
    found = []
    for i in range(number):
        problem, trunk = i % 3, [f"{j} + 1 = {j + 1}" for j in range(1 + i % 2)]
        solution = Solution.from_steps(f"{problem} ?", [*trunk, f"{i % 5} + 2 = {i % 7}"], "\n")
        values = [None] * len(trunk) + [1 if i % 4 else -1]
        found.append(Labelled(solution, Annotation.of(solution, Rater("construction", "test"), values)))
    return found


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"micro_batch_tokens": 25}])
def test_shared_prefixes_change_nothing_but_speed(backbone, tmp_path, changes):
    for name, share in (("apart", False), ("shared", None)):
        asked = settings(backbone, updates=3, batch_tokens=10_000, share_prefixes=share, **changes)
        train(asked, branches(20), branches(9), tmp_path / name)
    apart, shared = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("apart", "shared"))
    assert (apart["share_prefixes"], shared["share_prefixes"]) == (False, True)
    assert shared["computed_tokens"] < (1.0 if changes else 0.75) * apart["computed_tokens"]
    assert shared["tokens"] == apart["tokens"]
    for a, b in zip(metrics(tmp_path / "apart"), metrics(tmp_path / "shared"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        assert a.get("gradient_norm", 0.0) == pytest.approx(b.get("gradient_norm", 0.0), rel=1e-5)


def test_branches_of_one_problem_are_dealt_into_one_update(backbone, tmp_path):
    train(settings(backbone, epochs=1, batch_tokens=30, share_prefixes=True), branches(20), [], tmp_path)
    assert sum(line["steps"] for line in metrics(tmp_path)) == 20


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2, alpha=4, dropout=0.1)])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(backbone, tmp_path, lora):
    asked = settings(backbone, epochs=3, eval_every=4, checkpoint_every=3, lora=lora, metric="macro_f1")
    data = sums(24), sums(8, start=100)
    train(asked, *data, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def kill(update, updates, line):
        if update == 8 and line["part"] == "train":
            raise KilledError

    with pytest.raises(KilledError):
        train(asked, *data, tmp_path / "killed", progress=kill)
    assert not (tmp_path / "killed/summary.json").exists()
    torch.randn(3)  # other code uses the generator in between
    summary = train(asked, *data, tmp_path / "killed")
    assert summary["resumed"]
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "killed/metrics.jsonl").read_bytes()
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "killed")[name])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_can_go_on(backbone, tmp_path, number):
    asked = settings(backbone, updates=6)
    train(asked, sums(24), [], tmp_path / "whole")

    def interrupt(update, updates, line):
        if update == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(asked, sums(24), [], tmp_path / "cut", progress=interrupt)
    assert signal.getsignal(number) is before
    assert len(metrics(tmp_path / "cut")) == 3
    train(asked, sums(24), [], tmp_path / "cut")
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "cut/metrics.jsonl").read_bytes()


def test_going_on_with_other_settings_or_data_is_refused_by_name(backbone, tmp_path):
    asked = settings(backbone, updates=2)
    summary = train(asked, sums(10), [], tmp_path)
    assert train(asked, sums(10), [], tmp_path) == summary
    with pytest.raises(UsageError, match=r"settings.learning_rate was 0.003, now 0.1"):
        train(settings(backbone, updates=2, learning_rate=0.1), sums(10), [], tmp_path)
    with pytest.raises(UsageError, match=r"data.train was"):
        train(asked, sums(11), [], tmp_path)


def test_a_run_goes_on_only_where_updates_are_made_of_the_same_solutions(backbone, tmp_path, monkeypatch):
    # share_prefixes: null shares on the CPU and not on CUDA, and what is shared is dealt together
    asked = settings(backbone, updates=2)
    train(asked, branches(20), [], tmp_path)
    monkeypatch.setattr("prm_kit.train_forward.WORTH_SHARING", 0.0)
    with pytest.raises(UsageError, match=r"settings.share_prefixes was True, now False"):
        train(asked, branches(20), [], tmp_path)
    told = settings(backbone, updates=2, share_prefixes=True)
    assert train(told, branches(20), [], tmp_path)["share_prefixes"]


def test_training_stops_when_the_development_set_gets_no_better_and_the_best_is_kept(backbone, tmp_path):
    asked = settings(backbone, epochs=30, patience=2, eval_every=2, learning_rate=0.03)
    summary = train(asked, sums(12), sums(12, start=300), tmp_path)
    dev = [line for line in metrics(tmp_path) if line["part"] == "dev"]
    best = min(dev, key=lambda line: line["loss"])
    assert summary["stopped_early"]
    assert summary["best_update"] == best["update"]
    assert summary["updates"] == best["update"] + 4  # two evaluations, two updates apart, without a better one
    assert summary["dev"]["loss"] == best["loss"]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_solutions(backbone, tmp_path):
    asked = settings(backbone, updates=50, learning_rate=1e18, max_gradient_norm=None, warmup=0)
    with pytest.raises(PrmKitError, match=r"is not finite; the weights were left as they were"):
        train(asked, sums(10), [], tmp_path)
    said = json.loads((tmp_path / "nonfinite.json").read_text())
    assert set(said["solutions"]) <= {item.solution.id for item in sums(10)}
    assert said["solutions"]


def test_low_rank_adapters_are_merged_into_a_plain_checkpoint(backbone, tmp_path):
    asked = settings(backbone, updates=30, lora=LoraSettings(rank=4), learning_rate=1e-2)
    summary = train(asked, sums(12), sums(6), tmp_path)
    assert summary["parameters"]["trained"] < summary["parameters"]["all"]
    assert summary["dev"]["loss"] < summary["dev_untrained"]["loss"]
    assert set(weights(tmp_path)) == set(
        AutoModelForTokenClassification.from_pretrained(tmp_path / "checkpoint").state_dict()
    )
    before = load_file(Path(backbone) / "model.safetensors")["layers.0.self_attn.q_proj.weight"]
    assert not torch.equal(weights(tmp_path)["model.layers.0.self_attn.q_proj.weight"], before)


def test_a_layer_that_lora_names_and_the_model_lacks_is_refused(backbone, tmp_path):
    with pytest.raises(UsageError, match=r"no linear layer is called query\. Known: down_proj"):
        train(settings(backbone, lora=LoraSettings(targets=["q_proj", "query"])), sums(8), [], tmp_path)


def test_a_frozen_backbone_stays_as_it_was(backbone, tmp_path):
    summary = train(settings(backbone, updates=5, train_layers=0), sums(12), [], tmp_path)
    assert summary["parameters"]["trained"] == 32 * 3
    before = load_file(Path(backbone) / "model.safetensors")
    after = weights(tmp_path)
    assert all(torch.equal(tensor, after[f"model.{name}"]) for name, tensor in before.items())


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bfloat16"}, {"gradient_checkpointing": True}, {"class_weights": "balanced"}, {"target": "outcome"}],
)
def test_each_way_to_train_lowers_its_loss(backbone, tmp_path, changes):
    train(settings(backbone, updates=25, batch_tokens=1000, **changes), sums(20), [], tmp_path)
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert losses[-1] < losses[0] - 0.1


def test_the_same_activations_computed_twice_give_the_same_run(backbone, tmp_path):
    for name, twice in (("once", False), ("twice", True)):
        train(settings(backbone, updates=3, gradient_checkpointing=twice), sums(12), [], tmp_path / name)
    for a, b in zip(metrics(tmp_path / "once"), metrics(tmp_path / "twice"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)


def test_labels_of_one_class_are_refused(backbone, tmp_path):
    solution = Solution.from_steps("1 ?", ["1 + 1 = 2"], "\n")
    one = Labelled(solution, Annotation.of(solution, Rater("human", "a"), [1]))
    with pytest.raises(InputError, match=r"nothing to learn"):
        train(settings(backbone), [one], [], tmp_path)


def test_a_model_that_learns_nothing_is_said_to_be_no_better_than_the_class_prior(backbone, tmp_path):
    summary = train(settings(backbone, updates=1, learning_rate=1e-9), sums(20), sums(10, start=200), tmp_path)
    assert not summary["better_than_class_prior"]
    assert any("no better than the class prior" in warning for warning in summary["warnings"])


def test_a_device_that_is_not_there_is_refused(backbone, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match=r"device: cuda: there is no CUDA device"):
        train(settings(backbone, device="cuda"), sums(8), [], tmp_path)


def test_patience_without_a_development_set_is_refused(backbone, tmp_path):
    with pytest.raises(UsageError, match=r"patience: nothing to evaluate on"):
        train(settings(backbone, patience=2), sums(8), [], tmp_path)


def test_a_head_that_would_be_trained_alone_to_the_end_is_refused(backbone, tmp_path):
    with pytest.raises(UsageError, match=r"head_updates: 9 of \d updates: none is left"):
        train(settings(backbone, epochs=1, head_updates=9), sums(8), [], tmp_path)


def test_a_development_set_that_no_class_weight_counts_in_is_refused(backbone, tmp_path):
    right = [one for one in sums(30, start=100) if -1 not in one.annotation.values(len(one.solution.spans))]
    with pytest.raises(UsageError, match="no step of the development set counts"):
        train(settings(backbone, updates=1, class_weights=(1, 0, 0)), sums(8), right, tmp_path)


def test_a_prm_that_was_gone_on_from_keeps_its_data_and_loses_its_calibration(backbone, tmp_path):
    prm = Prm.from_backbone(backbone)
    prm.card = prm.card.model_copy(update={"temperature": 2.5, "training_data": ("old",)})
    prm.save(tmp_path / "first")
    train(settings(str(tmp_path / "first"), updates=1), sums(8), [], tmp_path / "second", manifests=("new",))
    card = Prm.load(tmp_path / "second/checkpoint").card
    assert (card.temperature, card.training_data) == (1.0, ("old", "new"))


def test_training_goes_on_from_a_prm(backbone, tmp_path):
    train(settings(backbone, updates=20), sums(20), [], tmp_path / "first")
    first = metrics(tmp_path / "first")
    train(settings(str(tmp_path / "first/checkpoint"), updates=2, warmup=0), sums(20), [], tmp_path / "second")
    assert metrics(tmp_path / "second")[0]["loss"] < first[0]["loss"]


def test_events_for_tensorboard_are_written_when_asked_for(backbone, tmp_path):
    pytest.importorskip("tensorboard")
    train(settings(backbone, updates=2, tensorboard=True), sums(8), [], tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_a_missing_package_is_told_before_anything_is_loaded(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("prm_kit.optimization.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'prm-kit\[tensorboard\]'"):
        train(settings(backbone, tensorboard=True), sums(8), [], tmp_path)
