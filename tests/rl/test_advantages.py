import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from prm_kit.errors import UsageError
from rl.advantages import (
    ESTIMATORS,
    against_greedy,
    against_reference_log_ratio,
    critic,
    critic_steps,
    gae_length_adaptive,
    gae_tokens,
    group_mean,
    group_mean_whitened,
    group_zscore,
    leave_one_out,
    leave_one_out_constant,
    mixed_baseline,
    step_index_mean,
    uncentred,
    whitened,
    zero_truncated,
)
from rl.returns import critic_targets

CENTRED = ("group_mean", "group_zscore", "leave_one_out", "step_index_mean")


def outcome(estimator, batch):
    """Advantage of each row for its reward, and that it is the same at every token."""
    credit = batch.reward_B[:, None].expand(batch.mask_BT.shape)
    return estimator(credit, batch.mask_BT, batch)


def first(advantage):
    return advantage[:, 0].tolist()


def test_group_mean_is_reward_minus_mean(make_batch):
    # mean of 1, 0, 0, 1 is 0.5
    assert first(outcome(group_mean, make_batch([1, 0, 0, 1]))) == [0.5, -0.5, -0.5, 0.5]


def test_group_zscore_divides_by_the_sample_deviation(make_batch):
    # 1, 0, 0, 0: mean .25, variance (.5625 + 3 x .0625) / 3 = .25, std .5: (1 - .25) / .5 = 1.5 and -.5
    found = first(outcome(group_zscore, make_batch([1, 0, 0, 0])))
    assert found == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    # population: variance .1875, std .4330: .75 / .4330 = 1.7321
    assert first(outcome(partial(group_zscore, ddof=0), make_batch([1, 0, 0, 0])))[0] == pytest.approx(
        1.73205, abs=1e-4
    )


def test_leave_one_out_compares_with_the_others(make_batch):
    # for 1 of (1, 0, .5): 1 - .25; for 0: 0 - .75; for .5: .5 - .5
    assert first(outcome(leave_one_out, make_batch([1, 0, 0.5]))) == pytest.approx([0.75, -0.75, 0.0])


def test_leave_one_out_is_a_multiple_of_the_group_mean(random_batch):
    batch = random_batch(reference=False)
    assert torch.allclose(outcome(leave_one_out, batch), outcome(group_mean, batch) * 4 / 3, atol=1e-6)


def test_pures_baseline_divides_by_the_constant_length(make_batch):
    # rewards 1, 0, .5 on 2, 4, 6 tokens, max 64: for the first (0 x 4 + .5 x 6) / (2 x 64) = .0234375
    batch = make_batch([1, 0, 0.5], lengths=[2, 4, 6])
    assert first(outcome(leave_one_out_constant, batch)) == pytest.approx(
        [1 - 3 / 128, 0 - (2 + 3) / 128, 0.5 - 2 / 128]
    )


def test_step_index_mean_compares_steps_of_the_same_number(make_batch):
    # step 0: 1 and 0, mean .5; step 1: only the first row has it, so nobody to be compared with
    batch = make_batch([0, 0], steps=[[1.0, 0.4], [0.0]])
    credit = torch.tensor([[1.0, 1.0, 0.4, 0.4], [0.0, 0.0, 9.0, 9.0]])
    found = step_index_mean(credit, batch.mask_BT, batch)
    assert found.tolist() == [[0.5, 0.5, 0, 0], [-0.5, -0.5, 0, 0]]


def test_mixed_baseline_blends_mean_and_value(make_batch):
    # mean .5, V = .2 and .8, share .25: 1 - .125 - .15 = .725; 0 - .125 - .6 = -.725
    batch = make_batch([1, 0], values_BT=torch.tensor([[0.2, 9, 9], [0.8, 9, 9]]))
    assert first(outcome(partial(mixed_baseline, share=0.25), batch)) == pytest.approx([0.725, -0.725])
    # the value alone also works for a single rollout
    alone = make_batch([1], values_BT=torch.tensor([[0.2, 9, 9]]))
    assert first(outcome(partial(mixed_baseline, share=0.0), alone)) == pytest.approx([0.8])


def test_the_greedy_rollout_is_the_baseline_and_is_not_trained(make_batch):
    batch = make_batch([1, 0, 0.25], is_reference_B=torch.tensor([False, False, True]))
    assert first(outcome(against_greedy, batch)) == [0.75, -0.25, 0.0]
    # nor does it move any other baseline
    assert first(outcome(group_mean, batch)) == [0.5, -0.5, 0.0]
    assert first(outcome(leave_one_out, batch)) == [1.0, -1.0, 0.0]
    assert first(outcome(whitened, batch))[2] == 0.0


def test_a_group_without_its_greedy_rollout_is_refused(make_batch):
    batch = make_batch([1, 0, 1], groups=[4, 4, 9], is_reference_B=torch.tensor([False, True, False]))
    with pytest.raises(UsageError, match=r"group 9.*the greedy rollout is missing"):
        outcome(against_greedy, batch)


def test_the_log_ratio_is_a_constant_beside_the_reward(make_batch):
    # 1 - .25 - .5 x (log .9 - log .45) = .75 - .3466
    old = torch.full((2, 3), math.log(0.9)).requires_grad_()
    batch = make_batch(
        [1, 0.25],
        is_reference_B=torch.tensor([False, True]),
        old_BT=old,
        reference_BT=torch.full((2, 3), math.log(0.45)),
    )
    found = outcome(partial(against_reference_log_ratio, beta=0.5), batch)
    assert found[0].tolist() == pytest.approx([0.75 - 0.5 * math.log(2)] * 3)
    assert not found.requires_grad


def test_the_printed_log_ratio_alone_would_push_away_from_the_reference():
    # The trap: E_pi[A grad log pi] with A = log pi - log ref is grad KL(pi || ref), and an objective is ascended.
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([0.0, 0.4, -0.3, 0.1], dtype=torch.float64), 0)
    log_pi = torch.log_softmax(logits, 0)
    pi = log_pi.exp().detach()
    objective = (pi * (log_pi.detach() - reference) * log_pi).sum()
    (ascent,) = torch.autograd.grad(objective, logits, retain_graph=True)
    (of_kl,) = torch.autograd.grad((log_pi.exp() * (log_pi - reference)).sum(), logits)
    assert torch.cosine_similarity(ascent, of_kl, 0) == pytest.approx(1.0)


def test_whitening_is_over_tokens_so_long_rows_weigh_more(make_batch):
    # tokens 1, 0, 0, 0: mean .25, sample variance .25: (1 - .25) / .5 and (0 - .25) / .5
    found = outcome(whitened, make_batch([1, 0], lengths=[1, 3]))
    assert first(found) == pytest.approx([1.5, -0.5])


def test_baseline_then_whitening(make_batch):
    # A = .5, -.5, 0, 0 on one token each: mean 0, variance .5 / 3 = .16667
    found = outcome(group_mean_whitened, make_batch([1, 0, 1, 1], lengths=[1] * 4, groups=[0, 0, 1, 1]))
    assert first(found) == pytest.approx([0.5 / math.sqrt(0.5 / 3), -0.5 / math.sqrt(0.5 / 3), 0, 0], abs=1e-5)


def test_gae_by_hand(make_batch):
    # V = .5, .4, .2, reward 1 at the end, gamma .9, lam .5:
    # d2 = 1 - .2 = .8; d1 = .9 x .2 - .4 = -.22; d0 = .9 x .4 - .5 = -.14
    # A2 = .8; A1 = -.22 + .45 x .8 = .14; A0 = -.14 + .45 x .14 = -.077
    batch = make_batch([1], values_BT=torch.tensor([[0.5, 0.4, 0.2]]))
    found = outcome(partial(gae_tokens, gamma=0.9, lam=0.5), batch)
    assert found[0].tolist() == pytest.approx([-0.077, 0.14, 0.8])


def test_gae_with_lambda_one_is_the_credit_minus_the_value(random_batch):
    batch = random_batch()
    credit = torch.rand(batch.mask_BT.shape)
    assert torch.allclose(
        gae_tokens(credit, batch.mask_BT, batch, lam=1.0), critic(credit, batch.mask_BT, batch), atol=1e-5
    )


def slow_gae(rewards, values, gamma, lam):
    deltas = [r + gamma * (values[k + 1] if k + 1 < len(values) else 0) - values[k] for k, r in enumerate(rewards)]
    return [sum((gamma * lam) ** (j - k) * deltas[j] for j in range(k, len(deltas))) for k in range(len(deltas))]


@pytest.mark.parametrize("adaptive", [False, True])
def test_gae_equals_its_definition_with_holes_cut_out(random_batch, adaptive):
    batch = random_batch(seed=3, width=30, reference=False)
    estimator = partial(gae_length_adaptive, alpha=0.2, gamma=0.97) if adaptive else partial(gae_tokens, gamma=0.97)
    found = outcome(estimator, batch)
    for row in range(len(found)):
        written = batch.mask_BT[row]
        n = int(written.sum())
        lam = min(1, max(0, 1 - 1 / (0.2 * n))) if adaptive else 0.95
        rewards = [0.0] * (n - 1) + [float(batch.reward_B[row])]
        expected = slow_gae(rewards, batch.values_BT[row][written].tolist(), 0.97, lam)
        assert found[row][written].tolist() == pytest.approx(expected, abs=1e-5)
        assert (found[row][~written] == 0).all()


def test_lambda_of_short_rows_is_cut_to_zero(make_batch):
    # length 3, alpha .05: 1 - 1 / .15 < 0, so the advantage is the TD error
    batch = make_batch([1], values_BT=torch.tensor([[0.5, 0.4, 0.2]]))
    assert outcome(gae_length_adaptive, batch)[0].tolist() == pytest.approx([-0.1, -0.2, 0.8])


def test_critic_steps_takes_the_value_at_the_step_start(make_batch):
    batch = make_batch([0], steps=[[0.0, 0.0]], step_lengths=[[2, 3]], values_BT=torch.tensor([[0.1, 9, 0.3, 9, 9]]))
    found = critic_steps(torch.ones(1, 5), batch.mask_BT, batch)
    assert found[0].tolist() == pytest.approx([0.9, 0.9, 0.7, 0.7, 0.7])


def test_decoupled_critic_targets_are_the_monte_carlo_return(make_batch):
    batch = make_batch([1], values_BT=torch.tensor([[0.5, 0.4, 0.2]]))
    credit = torch.ones(1, 3)
    assert critic_targets(credit, batch.values_BT, batch.mask_BT)[0].tolist() == pytest.approx([1, 1, 1])
    # lambda 0: r + V of the next
    assert critic_targets(credit, batch.values_BT, batch.mask_BT, lam=0.0)[0].tolist() == pytest.approx([0.4, 0.2, 1])


def test_truncated_rollouts_can_be_zeroed(make_batch):
    batch = make_batch([1, 0], truncated_B=torch.tensor([True, False]))
    assert first(outcome(zero_truncated, batch)) == [0, 0]
    assert first(outcome(zero_truncated, replace(batch, truncated_B=torch.tensor([False, False])))) == [1, 0]


@pytest.mark.parametrize("name", CENTRED)
def test_a_group_of_equal_rewards_has_no_advantage(make_batch, name):
    found = outcome(ESTIMATORS[name], make_batch([0.1] * 3, lengths=[2, 3, 4]))
    assert found.abs().max() < 1e-6


@pytest.mark.parametrize("name", [*CENTRED, "leave_one_out_constant"])
def test_a_group_of_one_has_no_advantage(make_batch, name):
    assert outcome(ESTIMATORS[name], make_batch([0.7, 1, 0], groups=[5, 1, 1]))[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_estimator_looks_at_masked_cells_or_row_order(random_batch, name):
    batch = random_batch(seed=1)
    credit = torch.rand(batch.mask_BT.shape)
    found = ESTIMATORS[name](credit, batch.mask_BT, batch)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert (found[~batch.mask_BT] == 0).all()

    junk = torch.where(batch.mask_BT, 0.0, torch.nan)
    spoilt = replace(
        batch,
        old_BT=batch.old_BT + junk,
        reference_BT=batch.reference_BT + junk,
        values_BT=batch.values_BT + junk,
        step_BT=torch.where(batch.mask_BT, batch.step_BT, -1),
    )
    assert torch.equal(ESTIMATORS[name](credit + junk, batch.mask_BT, spoilt), found)

    order = torch.randperm(len(credit), generator=torch.Generator().manual_seed(2))
    moved = replace(batch.select(order), group_B=1000 - batch.group_B[order])
    assert torch.allclose(ESTIMATORS[name](credit[order], batch.mask_BT[order], moved), found[order], atol=1e-6)


@pytest.mark.parametrize("name", CENTRED)
def test_shifting_all_rewards_changes_nothing(random_batch, name):
    batch = random_batch(reference=False)
    shifted = replace(batch, reward_B=batch.reward_B + 3)
    assert torch.allclose(outcome(ESTIMATORS[name], shifted), outcome(ESTIMATORS[name], batch), atol=1e-5)


def test_the_std_turns_crumbs_into_full_size_advantages(make_batch):
    # The trap: an all-wrong group that differs by format crumbs; without the std it stays small.
    crumbs = make_batch([0.10, 0.12, 0.11, 0.10])
    assert first(outcome(group_zscore, crumbs)) == pytest.approx([-0.78, 1.31, 0.26, -0.78], abs=0.01)
    assert max(map(abs, first(outcome(group_mean, crumbs)))) < 0.013


def test_a_spread_inside_of_rows_of_equal_means_does_not_divide_by_nothing(make_batch):
    batch = make_batch([0, 0], lengths=[2, 2])
    credit = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert group_zscore(credit, batch.mask_BT, batch).abs().max() < 1


def test_uncentred_is_the_credit(make_batch):
    assert first(outcome(uncentred, make_batch([1, 0.5]))) == [1, 0.5]


def test_a_missing_critic_is_said(make_batch):
    with pytest.raises(UsageError, match="gae_tokens needs values_BT"):
        outcome(gae_tokens, make_batch([1], values_BT=None))


def test_opo_compares_with_the_mean_weighed_by_length(make_batch):
    # lengths 1 and 3, rewards 1 and 0: baseline (1*1 + 3*0) / 4 = 0.25
    batch = make_batch([1.0, 0.0], lengths=[1, 3])
    reward_BT = batch.reward_B[:, None].expand(batch.mask_BT.shape)
    found = ESTIMATORS["length_weighted_mean"](reward_BT, batch.mask_BT, batch)
    assert found.tolist() == [[0.75, 0.0, 0.0], [-0.25, -0.25, -0.25]]
    assert float(found.sum()) == 0.0  # so the advantages of a group add up to nothing, token by token
    alone = make_batch([1.0], lengths=[2])
    assert not ESTIMATORS["length_weighted_mean"](torch.ones(1, 2), alone.mask_BT, alone).any()
