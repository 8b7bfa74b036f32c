import json
import math
import os
import signal

import pytest
import torch
from pydantic import ValidationError

from prm_kit.engines.engine import Limits
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import InputError, UsageError
from prm_kit.policy import Policy
from prm_kit.sft import completion_logits, encode_demonstrations, evaluate_demonstrations, fine_tune, learning_rate
from prm_kit.sft_settings import SftSettings
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from prm_kit.tasks.task import Demonstration

DEMONSTRATIONS = ArithmeticTask().demonstrations("train", 8, 0)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    path = tmp_path_factory.mktemp("untrained")
    Policy.of(arithmetic_policy(0, hidden=32, layers=1), arithmetic_tokenizer()).save(path)
    return path


def asked(untrained, **changes):
    base = {"policy": str(untrained), "epochs": 4, "batch_tokens": 200, "learning_rate": 1e-2, "device": "cpu"}
    return SftSettings(**(base | {"log_every": 1} | changes))


def test_eight_demonstrations_are_learnt_by_heart_and_written_again(untrained, tmp_path):
    settings = asked(untrained, epochs=120, batch_tokens=10_000, decay_from=0.5)
    summary = fine_tune(settings, DEMONSTRATIONS, DEMONSTRATIONS, tmp_path)
    assert summary["dev"]["before"]["loss"] > 3.0
    assert summary["dev"]["after"]["loss"] < 0.05
    policy = Policy.load(tmp_path / "checkpoint")
    prompts = policy.prompt_ids([d.problem for d in DEMONSTRATIONS])
    rollouts = TransformersEngine(policy.model).generate(prompts, 1, Limits(100, policy.stop_ids, temperature=0.0))
    assert [policy.text(group[0]) for group in rollouts] == [d.completion for d in DEMONSTRATIONS]


def test_the_loss_is_that_of_the_completion_tokens_one_by_one(untrained):
    policy = Policy.load(untrained)
    encoded = encode_demonstrations(policy, DEMONSTRATIONS[:3], None)
    loss, tokens, hits = 0.0, 0, 0
    for demonstration in encoded:  # the slow reference: no padding, no slicing of logits
        ids = torch.tensor(demonstration.ids)
        with torch.inference_mode():
            log_probabilities = policy.model(ids[None]).logits[0].log_softmax(-1)
        for position in range(demonstration.prompt_length, len(ids)):
            loss -= log_probabilities[position - 1, ids[position]].item()
            hits += int(log_probabilities[position - 1].argmax() == ids[position])
            tokens += 1
    for budget in (1, 10_000):
        found = evaluate_demonstrations(policy.model, encoded, budget)
        assert found == pytest.approx({"loss": loss / tokens, "token_accuracy": hits / tokens}, abs=1e-5)


def test_prompts_are_never_targets(untrained):
    policy = Policy.load(untrained)
    encoded = encode_demonstrations(policy, DEMONSTRATIONS[:4], None)
    _, target_BT = completion_logits(policy.model, encoded)
    expected = sum(len(d.ids) - d.prompt_length for d in encoded)
    assert int((target_BT != -100).sum()) == expected
    assert encoded[0].ids[-1] == policy.tokenizer.eos_token_id


def test_micro_batches_change_memory_and_not_the_weights(untrained, tmp_path):
    losses = []
    for budget in (1, 10_000):
        fine_tune(asked(untrained, micro_batch_tokens=budget), DEMONSTRATIONS, [], tmp_path / str(budget))
        lines = (tmp_path / str(budget) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_stopped_run_goes_on_to_the_same_metrics(untrained, tmp_path):
    def stop(done, total, line):
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    settings = asked(untrained)
    fine_tune(settings, DEMONSTRATIONS, [], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(settings, DEMONSTRATIONS, [], tmp_path / "stopped", progress=stop)
    assert not (tmp_path / "stopped" / "summary.json").exists()
    assert fine_tune(settings, DEMONSTRATIONS, [], tmp_path / "stopped")["resumed"]
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]
    weights = [Policy.load(tmp_path / name / "checkpoint").model.state_dict() for name in ("whole", "stopped")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_finished_run_is_not_redone_and_other_settings_are_refused(untrained, tmp_path):
    summary = fine_tune(asked(untrained), DEMONSTRATIONS, [], tmp_path)
    assert fine_tune(asked(untrained), DEMONSTRATIONS, [], tmp_path) == summary
    with pytest.raises(UsageError, match="learning_rate was"):
        fine_tune(asked(untrained, learning_rate=1e-3), DEMONSTRATIONS, [], tmp_path)


def test_the_learning_rate_rises_stays_and_falls():
    settings = SftSettings(policy="x", learning_rate=2.0, warmup=0.1, decay_from=0.6, final_learning_rate=0.5)
    # at 0.05 half of the rise; at 0.8 half of the fall from 2.0 to 1.0
    for share, rate in ((0.05, 1.0), (0.1, 2.0), (0.6, 2.0), (0.8, 1.5), (1.0, 1.0)):
        assert math.isclose(learning_rate(share, settings), rate)
    constant = SftSettings(policy="x", warmup=0.0, decay_from=1.0, learning_rate=3.0)
    assert learning_rate(0.0, constant) == learning_rate(1.0, constant) == 3.0
    with pytest.raises(ValidationError, match="would fall before it has risen"):
        SftSettings(policy="x", warmup=0.5, decay_from=0.1)


def test_a_demonstration_that_does_not_fit_is_refused_and_never_cut(untrained, tmp_path):
    with pytest.raises(InputError, match=r"demonstration 0: \d+ tokens, more than the 20 allowed"):
        fine_tune(asked(untrained, max_tokens=20), DEMONSTRATIONS, [], tmp_path)
    with pytest.raises(InputError, match="demonstration 1: its completion is blank"):
        fine_tune(asked(untrained), [DEMONSTRATIONS[0], Demonstration("x", " ")], [], tmp_path)
    with pytest.raises(UsageError, match="no demonstrations"):
        fine_tune(asked(untrained), [], [], tmp_path)
