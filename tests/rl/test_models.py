import json
import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from prm_kit.distributed import World
from prm_kit.engines.engine import Limits
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from prm_kit.train_settings import LoraSettings
from rl.models import Models, PolicyEngine
from rl.presets import algorithm
from rl.train import train
from rl.train_settings import RlSettings

TASK = ArithmeticTask()
PROBLEMS = TASK.problems("train", 6, 0)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path)
    return str(path)


def settings(policy, name="grpo", **changes):
    asked = {
        "updates": 2,
        "problems": 3,
        "group_size": 4,
        "max_new_tokens": 40,
        "split": "newline",
        "learning_rate": 1e-2,
        "parts": {"weights": {"process": 0.0, "format": 0.0}},
        "device": "cpu",
    }
    return RlSettings(policy=policy, algorithm=name, **{**asked, **changes})


def sevens(rollouts):
    """The share of tokens that are the digit 7."""
    return [one.solution.completion.count("7") / len(one.rollout.ids) for one in rollouts]


def run(asked, out, **fields):
    return train(asked, PROBLEMS, lambda _, text: len(text) % 2 == 0, out, **fields)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def models(policy, name, **changes):
    asked = settings(policy, name, **changes)
    return Models.of(Policy.load(policy), asked, algorithm(name), World())


def moved(adapters_of):
    """Give the adapters something to add; their second factor starts at 0."""
    with torch.no_grad():
        for name, parameter in adapters_of.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)


def test_with_adapters_the_reference_is_the_policy_without_them(policy):
    made = models(policy, "srpo", lora=LoraSettings(rank=2))
    assert made.reference is None  # no second copy
    start = Policy.load(policy).model
    prompt, limits = [[1, 2, 3]], Limits(5, (0,), 0.0)
    before = PolicyEngine(made).generate(prompt, 1, limits)
    moved(made.policy.model)
    trained, compared = (PolicyEngine(made, of_reference=flag).generate(prompt, 1, limits) for flag in (False, True))
    assert compared[0][0].log_probabilities == pytest.approx(before[0][0].log_probabilities, abs=1e-6)
    assert trained[0][0].log_probabilities != pytest.approx(before[0][0].log_probabilities, abs=1e-3)
    ids = torch.tensor(prompt)
    with made.reference_policy() as reference:
        torch.testing.assert_close(reference.model(ids).logits, start(ids).logits)
    assert all(p.requires_grad for name, p in made.policy.model.named_parameters() if "lora_" in name)


def test_only_adapters_and_the_head_of_the_value_model_learn(policy):
    made = models(policy, "ppo", lora=LoraSettings(rank=2, targets=["q_proj"]))
    names = [name for name, p in made.trained.named_parameters() if p.requires_grad]
    assert all("lora_" in name or name.startswith("value.head") for name in names)
    assert {"value.head.weight", "value.head.bias"} <= set(names)
    assert sum(len(group["params"]) for group in made.optimizer().param_groups) == len(names)


def test_adapters_learn_go_on_as_if_nothing_had_happened_and_are_merged(policy, tmp_path, monkeypatch):
    from rl.learning import Learner

    asked = settings(
        policy, "ppo", lora=LoraSettings(rank=4), updates=8, checkpoint_every=4, parts={"weights": {"final": 0.0}}
    )
    fields = {"rewards": {"sevens": (1.0, sevens)}}
    learn, calls = Learner.learn, []

    def dies(self, material, number):
        calls.append(number)
        if len(calls) == 6:
            raise RuntimeError("killed")
        return learn(self, material, number)

    run(asked, tmp_path / "whole", **fields)
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run(asked, tmp_path / "cut", **fields)
    assert run(asked, tmp_path / "cut", **fields)["resumed"]
    for file in ("metrics.jsonl", "checkpoint/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    rewards = [line["sevens"] for line in lines(tmp_path / "whole")]
    assert sum(rewards[-2:]) > sum(rewards[:2])
    before, after = (Policy.load(path).model.state_dict() for path in (policy, tmp_path / "whole" / "checkpoint"))
    assert before.keys() == after.keys()  # a plain checkpoint
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_bfloat16_is_near_float32_and_the_difference_to_what_was_sampled_is_written_down(policy, tmp_path):
    for precision in ("float32", "bfloat16"):
        run(settings(policy, updates=1, precision=precision), tmp_path / precision)
    exact, rounded = (lines(tmp_path / name)[0] for name in ("float32", "bfloat16"))
    assert exact["mismatch"] <= exact["mismatch_most"] < 1e-4
    assert exact["mismatch"] < rounded["mismatch"] < 0.05  # bfloat16 has 8 bits: the sampled token is rounded apart
    assert rounded["clip_share"] == exact["clip_share"] == 0
    weights = Policy.load(tmp_path / "bfloat16" / "checkpoint", dtype="auto").model
    assert {p.dtype for p in weights.parameters()} == {torch.float32}


def test_adapters_that_would_sample_otherwise_than_they_learn_are_refused(policy):
    with pytest.raises(ValidationError, match="dropout would make another policy"):
        settings(policy, lora=LoraSettings(dropout=0.1))
    with pytest.raises(ValidationError, match="four_bit is for training a PRM"):
        settings(policy, lora=LoraSettings(four_bit=True))


def test_an_engine_that_samples_otherwise_is_seen_and_corrected_for(policy, tmp_path, monkeypatch):
    generate = PolicyEngine.generate

    def shifted(self, *asked):
        found = generate(self, *asked)
        return [
            [replace(one, log_probabilities=tuple(value - 0.1 for value in one.log_probabilities)) for one in group]
            for group in found
        ]

    parts = {"weights": {"process": 0.0, "format": 0.0}, "rollout_weight": "truncated_tokens"}
    asked = settings(policy, updates=1, parts=parts)
    run(asked, tmp_path / "alike")
    monkeypatch.setattr(PolicyEngine, "generate", shifted)
    run(asked, tmp_path / "apart")
    alike, apart = (lines(tmp_path / name)[0] for name in ("alike", "apart"))
    assert apart["mismatch"] == pytest.approx(0.1, abs=1e-4)
    # every token weighs exp(0.1), which is below the cap of 2
    assert apart["gradient_norm"] / alike["gradient_norm"] == pytest.approx(math.exp(0.1), rel=1e-3)
