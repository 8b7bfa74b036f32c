import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from prm_kit.checkpoints import load_own
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.policy import Policy
from prm_kit.prm_scorer import PrmScorer
from prm_kit.split import split_solution
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.credit import prime, to_tokens
from rl.online_prm import OnlineJudge, outcome_losses, token_rewards, with_token_rewards
from rl.presets import algorithm
from rl.train import train
from rl.train_settings import RlSettings

PROBLEMS = ArithmeticTask().problems("train", 12, 0)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path)
    return str(path)


def settings(policy, parts=None, **changes):
    asked = {"updates": 3, "problems": 3, "group_size": 4, "max_new_tokens": 16, "most_rounds": 2, "split": "newline",
             "learning_rate": 1e-4, "prm_learning_rate": 1e-2, "device": "cpu"}  # fmt: skip
    return RlSettings(policy=policy, algorithm="prime", parts=parts or {}, **{**asked, **changes})


def has_a_seven(problem, completion):
    return "7" in completion


def run(asked, out, verify=has_a_seven):
    return train(asked, PROBLEMS, verify, out)


def lines(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["part"] == "train"]


def test_rewards_and_loss_by_hand():
    # log-ratios .4, -.2 and 1, -3 times beta .5: r = .2, -.1 | .5 (the last is padding). Sums .1, .5.
    # right: -log sigmoid(.1); wrong: -log sigmoid(-.5); nobody knows: 0
    prm = torch.tensor([[-1.0, -2.2], [-1.0, -4.0], [-1.0, -1.0]])
    reference = torch.tensor([[-1.4, -2.0], [-2.0, -1.0], [-5.0, -1.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    rewards = token_rewards(prm, reference, mask, 0.5)
    assert rewards[:2].tolist() == [pytest.approx([0.2, -0.1]), pytest.approx([0.5, 0.0])]
    losses = outcome_losses(rewards, torch.tensor([1.0, 0.0, math.nan]))
    expected = [math.log(1 + math.exp(-0.1)), math.log(1 + math.exp(0.5)), 0.0]
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    torch.manual_seed(0)
    prm, reference = torch.randn(3, 4, dtype=torch.double, requires_grad=True), torch.randn(3, 4, dtype=torch.double)
    mask, right = torch.rand(3, 4) > 0.3, torch.tensor([1.0, 0.0, math.nan], dtype=torch.double)

    def loss(x):
        return outcome_losses(token_rewards(x, reference, mask, 0.3), right).sum()

    assert torch.autograd.gradcheck(loss, prm)
    (gradient,) = torch.autograd.grad(loss(prm), prm)
    assert (gradient[2] == 0).all()  # what nobody can judge teaches nothing


@given(st.integers(0, 1000), st.sampled_from([0.05, 1.0]))
@examples(max_examples=20, deadline=None)
def test_token_credit_is_the_papers_sum_to_go_of_what_is_above_the_others_means(random_batch, seed, beta):
    batch = random_batch(seed, reference=False)
    torch.manual_seed(seed)
    prm = torch.randn_like(batch.old_BT)
    rewards = token_rewards(prm, batch.reference_BT, batch.mask_BT, beta)
    found, credited = to_tokens(prime(with_token_rewards(batch, rewards)), with_token_rewards(batch, rewards))
    for row, group in enumerate(batch.group_B.tolist()):
        others = [
            (beta * (prm[i] - batch.reference_BT[i]))[batch.mask_BT[i]].mean()
            for i, other in enumerate(batch.group_B.tolist())
            if other == group and i != row and batch.mask_BT[i].any()
        ]
        if not others:
            continue
        mine = beta * (prm[row] - batch.reference_BT[row])[batch.mask_BT[row]] - torch.stack(others).mean()
        expected = [float(mine[t:].sum()) for t in range(len(mine))]
        assert found[row][batch.mask_BT[row]].tolist() == pytest.approx(expected, abs=1e-4)
        assert credited[row][batch.mask_BT[row]].all()


def test_it_starts_with_rewards_of_0_and_learns_what_is_right_from_outcomes_alone(policy, tmp_path):
    asked = settings(
        policy, {"online_prm": {"beta": 0.5}}, updates=12, problems=12, group_size=6, prm_learning_rate=3e-2
    )
    run(asked, tmp_path / "run")
    told = lines(tmp_path / "run")
    first, last = told[0], told[-3:]
    assert first["loss_prm"] == pytest.approx(math.log(2), abs=1e-4)  # rewards of 0: right with 0.5
    assert "process_share" not in first or first["process_share"] < 1e-3
    share = sum(line["accuracy"] for line in told) / len(told)
    prior = -share * math.log(share) - (1 - share) * math.log(1 - share)  # of a guesser that knows the share
    assert sum(line["loss_prm"] for line in last) / 3 < prior - 0.05
    assert sum(line["accuracy_prm"] for line in last) / 3 > max(share, 1 - share) + 0.03
    assert last[-1]["process_share"] > 0.1


def test_it_is_left_as_an_implicit_prm_of_the_same_rewards(policy, tmp_path):
    run(settings(policy, updates=2, shown=30), tmp_path / "run")
    prm = load_own(tmp_path / "run/prm")
    assert prm.card.kind == "implicit"
    shown = [json.loads(line) for line in (tmp_path / "run/rollouts.jsonl").read_text().splitlines()]
    solutions = [split_solution(one["problem"], one["completion"], "newline", attached=False) for one in shown]
    solutions = [one for one in solutions if one.spans and "<|" not in one.completion][:5]
    written = Policy.load(policy)
    for solution, scores in zip(solutions, PrmScorer(prm).score(solutions), strict=True):
        text = solution.completion[: solution.spans[-1][1]]
        (prompt,) = written.prompt_ids([solution.problem])
        ids = torch.tensor([[*prompt, *written.completion_ids([text])[0][:-1]]])
        with torch.no_grad():
            mine, theirs = (m(ids[:, :-1]).logits.log_softmax(-1) for m in (prm.model, written.model))
        ratio = (mine - theirs).gather(-1, ids[:, 1:, None])[0, len(prompt) - 1 :]
        assert sum(scores.values) == pytest.approx(0.05 * float(ratio.sum()), abs=1e-5)


def test_it_can_learn_from_rollouts_before_it_judges_them(policy, tmp_path):
    run(settings(policy, updates=1), tmp_path / "after")
    run(settings(policy, {"online_prm": {"learn_first": True}}, updates=1), tmp_path / "before")
    one, other = lines(tmp_path / "after")[0], lines(tmp_path / "before")[0]
    assert one["loss_prm"] == other["loss_prm"]  # both learn the same
    assert other["process_share"] > 0.01 > one.get("process_share", 0.0)


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(policy, tmp_path, monkeypatch):
    asked = settings(policy, updates=4, checkpoint_every=2)
    whole = run(asked, tmp_path / "whole")
    judged, calls = OnlineJudge.judged, []

    def dies(self, rollouts, batch):
        calls.append(len(rollouts))
        if len(calls) == 4:
            raise RuntimeError("killed")
        return judged(self, rollouts, batch)

    with monkeypatch.context() as patched:
        patched.setattr(OnlineJudge, "judged", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run(asked, tmp_path / "cut")
    assert list((tmp_path / "cut/state").glob("update-*"))
    assert run(asked, tmp_path / "cut") == {**whole, "resumed": True}
    for file in ("metrics.jsonl", "checkpoint/model.safetensors", "prm/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_micro_batches_change_no_result(policy, tmp_path):
    for tokens in (70, 100_000):
        run(settings(policy, updates=2, micro_batch_tokens=tokens), tmp_path / str(tokens))
    for one, other in zip(*(lines(tmp_path / name) for name in ("70", "100000")), strict=True):
        for key in ("loss_prm", "gradient_norm_prm", "loss", "gradient_norm"):
            assert one[key] == pytest.approx(other[key], rel=2e-3, abs=2e-5)


def test_what_cannot_be_is_refused(policy, tmp_path):
    with pytest.raises(UsageError, match=r"which only a credit rule reads: set parts\.credit"):
        algorithm("prime", {"credit": None})
    assert "step rewards" not in algorithm("prime", {}).needs
    with pytest.raises(UsageError, match="wants step rewards: name a PRM"):
        run(settings(policy, {"online_prm": None}), tmp_path / "a")
    with pytest.raises(UsageError, match="reference_every: the PRM of algorithm prime learns against a reference"):
        run(settings(policy, reference_every=1), tmp_path / "c")
    with pytest.raises(PrmKitError, match="update 1: not finite"):
        run(settings(policy, prm_learning_rate=1e30), tmp_path / "b")
