"""What a schedule asks of the loop: ends by a rule, references of other origin, references that move on."""

import json
from statistics import fmean

import pytest
import torch

from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.learning import Learner
from rl.train import train
from rl.train_settings import RlSettings

TASK = ArithmeticTask()
PROBLEMS, HELD_OUT = TASK.problems("train", 8, 0), TASK.problems("dev", 3, 0)


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    path = tmp_path_factory.mktemp("policies")
    for seed in (0, 1):
        Policy.of(arithmetic_policy(seed, hidden=16, layers=1), arithmetic_tokenizer()).save(path / str(seed))
    return path


def settings(policies, algorithm="dr-grpo", **changes):
    asked = {"updates": 6, "problems": 2, "group_size": 3, "max_new_tokens": 12, "split": "newline",
             "learning_rate": 1e-2, "device": "cpu", "eval_samples": 1}  # fmt: skip
    return RlSettings(policy=str(policies / "0"), algorithm=algorithm, **{**asked, **changes})


def digits(rollouts):
    """A reward of one's own: the share of characters that are digits."""
    return [fmean(c.isdigit() for c in one.solution.completion or " ") for one in rollouts]


def run(asked, out, held_out=HELD_OUT):
    return train(asked, PROBLEMS, TASK.verify, out, held_out=held_out, rewards={"digits": (1.0, digits)})


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_rule_ends_a_run_with_a_last_evaluation_and_says_why(policies, tmp_path):
    # a group of one is compared with nobody
    summary = run(settings(policies, group_size=1, stop={"no_signal": 0.5}), tmp_path)
    assert summary["updates"] == 5
    assert summary["stopped"] == "100% of the groups of 5 updates had nothing to learn from"
    assert [line["update"] for line in lines(tmp_path) if line["part"] == "held_out"] == [0, 5]
    assert (tmp_path / "checkpoint" / "policy.json").exists()
    assert run(settings(policies), tmp_path / "whole")["stopped"] is None


def test_a_run_that_was_killed_ends_by_the_same_rule(policies, tmp_path, monkeypatch):
    asked = settings(policies, stop={"patience": 2}, eval_every=1, checkpoint_every=1)
    whole = run(asked, tmp_path / "whole")
    learn, calls = Learner.learn, []

    def dies(self, material, number):
        calls.append(number)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return learn(self, material, number)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run(asked, tmp_path / "cut")
    summary = run(asked, tmp_path / "cut")
    assert whole["stopped"] is not None
    assert {**summary, "resumed": False} == whole
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_the_reference_policy_may_be_another_than_the_start(policies, tmp_path):
    own = run(settings(policies, "grpo", updates=1), tmp_path / "own", held_out=())
    other = run(settings(policies, "grpo", updates=1, reference=str(policies / "1")), tmp_path / "other", held_out=())
    assert own["last"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert abs(other["last"]["kl"]) > 1e-3


def test_a_reference_that_moves_on_is_the_policy_of_that_update_and_survives_a_kill(policies, tmp_path, monkeypatch):
    asked = settings(policies, "grpo", updates=4, reference_every=2, checkpoint_every=3, learning_rate=3e-2)
    run(asked, tmp_path / "whole")
    moved = [line["kl"] for line in lines(tmp_path / "whole") if line["part"] == "train"]
    # updates 0 and 2 begin with the reference where the policy is
    assert moved[0] == pytest.approx(0.0, abs=1e-6)
    assert moved[2] == pytest.approx(0.0, abs=1e-6)
    assert abs(moved[1]) > 1e-5
    assert abs(moved[3]) > 1e-5
    learn = Learner.learn

    def dies(self, material, number):
        if number == 3:
            raise RuntimeError("killed")
        return learn(self, material, number)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run(asked, tmp_path / "cut")
    run(asked, tmp_path / "cut")
    for file in ("metrics.jsonl", "checkpoint/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_reference_of_other_words_is_refused(policies, tmp_path):
    tokenizer = arithmetic_tokenizer()
    tokenizer.add_tokens(["abacus"])
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), tokenizer).save(tmp_path / "other")
    with pytest.raises(UsageError, match="another vocabulary"):
        run(settings(policies, "grpo", reference=str(tmp_path / "other")), tmp_path / "run")


def test_one_step_without_importance_ratio_is_unbiased_and_a_second_one_is_not():
    # Two answers, p(first) = p, reward 1 for the first. The policy gradient in the logit is p (1 - p). From rollouts
    # of the old p = 1/2, A log pi gives sum_y p_old(y) R(y) d log p(y) = p_old (1 - p) where p is the policy that
    # learns: right at p = p_old only. Weighed by p / p_old it is right at every p.
    for logit in (0.0, 1.0):
        theta = torch.tensor(logit, requires_grad=True)
        p, p_old = torch.sigmoid(theta), 0.5
        true = float((p * (1 - p)).detach())
        (plain,) = torch.autograd.grad(p_old * torch.log(p), theta, retain_graph=True)
        (weighed,) = torch.autograd.grad(p_old * (p / p_old), theta)
        assert float(weighed) == pytest.approx(true)
        assert (float(plain) == pytest.approx(true)) == (logit == 0.0)
