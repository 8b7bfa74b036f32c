import math
from functools import partial

import pytest
import torch

from prm_kit.errors import InputError, UsageError
from rl.loss_reduction import reduced, sequence_mean
from rl.surrogates import (
    ROLLOUT_WEIGHTS,
    SURROGATES,
    cispo,
    clipped_value_loss,
    gmpo,
    gspo,
    masked_tokens,
    ppo_clip,
    reinforce,
    sapo,
    truncated_sequences,
    truncated_tokens,
)


def one(surrogate, ratios, advantage):
    """Loss and its gradient in the log-probabilities, of one row with these ratios."""
    old = torch.zeros(1, len(ratios), dtype=torch.float64)
    new = torch.tensor([ratios], dtype=torch.float64).log().requires_grad_()
    advantages = torch.full((1, len(ratios)), advantage) if isinstance(advantage, float) else torch.tensor([advantage])
    loss = surrogate(new, old, advantages, torch.ones(1, len(ratios), dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    return loss[0].tolist(), gradient[0].tolist()


def test_ppo_clip_by_hand_on_both_sides_of_one():
    # A = 1: -min(rho, clip): 1.5 -> -1.28 and no gradient; .5 -> -.5; A = -1: 1.5 -> 1.5; .5 -> .8 and no gradient
    loss, gradient = one(partial(ppo_clip, high=0.28), [1.5, 0.5, 1.1], 1.0)
    assert loss == pytest.approx([-1.28, -0.5, -1.1])
    assert gradient == pytest.approx([0, -0.5, -1.1])
    loss, gradient = one(partial(ppo_clip, high=0.28), [1.5, 0.5], -1.0)
    assert loss == pytest.approx([1.5, 0.8])
    assert gradient == pytest.approx([1.5, 0])


def test_dual_clip_bounds_the_loss_of_negative_advantages():
    loss, gradient = one(partial(ppo_clip, dual=3.0), [10.0, 2.0], -1.0)
    assert loss == pytest.approx([3, 2])
    assert gradient == pytest.approx([0, 2])
    assert one(partial(ppo_clip, dual=3.0), [0.01], 1.0)[0] == pytest.approx([-0.01])
    with pytest.raises(UsageError, match="dual is 1"):
        one(partial(ppo_clip, dual=1), [1.0], 1.0)


def test_gspo_clips_the_geometric_mean_and_shares_its_gradient():
    # ratios 1.1 and .9: s = sqrt(.99) = .99499; each token's loss is -s, its gradient -s: -s/|o| after the mean
    s = math.sqrt(0.99)
    loss, gradient = one(partial(gspo, low=0.2, high=0.2), [1.1, 0.9], 1.0)
    assert loss == pytest.approx([-s, -s], abs=1e-6)
    assert gradient == pytest.approx([-s, -s], abs=1e-6)
    loss, gradient = one(gspo, [1.1, 0.99], 1.0)
    assert loss == pytest.approx([-1.0004, -1.0004], abs=1e-6)
    assert gradient == [0, 0]


def test_gspo_reduced_is_the_sequence_loss_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    new = torch.rand(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    old = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    advantage = torch.tensor([1.0, -0.5, 2.0])
    lengths = mask.sum(1)
    loss = reduced(
        gspo(new, old, advantage[:, None].expand(3, 4), mask, low=0.3, high=0.3),
        sequence_mean(lengths, torch.zeros(3), 4),
        mask,
    )
    ratio = (((new - old) * mask).sum(1) / lengths).exp()
    plain = -torch.minimum(ratio * advantage, ratio.clamp(0.7, 1.3) * advantage).mean()
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    for a, b in zip(torch.autograd.grad(loss, new), torch.autograd.grad(plain, new), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_gmpo_by_hand():
    # A = 1: log-ratios .6 and -.6, cut at .4 above only: mean -.1, loss -e^-.1; gradient only from the uncut token
    loss, gradient = one(gmpo, [math.exp(0.6), math.exp(-0.6)], 1.0)
    assert loss == pytest.approx([-math.exp(-0.1)] * 2, abs=1e-6)
    assert gradient == pytest.approx([0, -math.exp(-0.1)], abs=1e-6)
    # A = -1: cut below only
    assert one(gmpo, [math.exp(0.6), math.exp(-0.6)], -1.0)[0] == pytest.approx([math.exp(0.1)] * 2, abs=1e-6)


def test_gmpo_refuses_an_advantage_per_token():
    with pytest.raises(UsageError, match="row 0 has several"):
        one(gmpo, [1.0, 1.0], [1.0, 0.5])


def test_cispo_caps_the_weight_and_keeps_the_gradient():
    loss, gradient = one(partial(cispo, cap=2.0), [3.0, 0.5], 1.0)
    assert gradient == pytest.approx([-2, -0.5])
    assert loss == pytest.approx([-2 * math.log(3), -0.5 * math.log(0.5)], abs=1e-6)
    assert one(partial(cispo, floor=0.8), [0.5], 1.0)[1] == pytest.approx([-0.8])


def test_sapo_by_hand():
    # tau 1: 4 sigmoid(.5) = 2.4898 at rho 1.5; derivative 4 s (1 - s) rho = .9400 x 1.5
    s = 1 / (1 + math.exp(-0.5))
    loss, gradient = one(sapo, [1.5], 1.0)
    assert loss == pytest.approx([-4 * s], abs=1e-6)
    assert gradient == pytest.approx([-4 * s * (1 - s) * 1.5], abs=1e-6)
    # the other temperature where A < 0
    t = 1 / (1 + math.exp(-1.05 * 0.5))
    assert one(sapo, [1.5], -1.0)[0] == pytest.approx([4 / 1.05 * t], abs=1e-6)


def test_reinforce_is_minus_a_log_pi():
    loss, gradient = one(reinforce, [0.5], 2.0)
    assert loss == pytest.approx([-2 * math.log(0.5)], abs=1e-6)
    assert gradient == pytest.approx([-2])


@pytest.mark.parametrize("name", SURROGATES)
def test_at_the_old_policy_every_surrogate_has_the_same_gradient(random_batch, name):
    batch = random_batch(seed=7)
    new = batch.old_BT.clone().requires_grad_()
    advantage = torch.randn(len(new), 1, generator=torch.Generator().manual_seed(1)).expand(new.shape)
    weight = sequence_mean(batch.lengths_B, batch.group_B, 32)
    loss = reduced(SURROGATES[name](new, batch.old_BT, advantage, batch.mask_BT), weight, batch.mask_BT)
    (gradient,) = torch.autograd.grad(loss, new)
    expected = torch.where(batch.mask_BT, -advantage * weight[:, None], 0.0)
    assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("name", SURROGATES)
def test_what_stands_in_masked_cells_changes_neither_loss_nor_gradient(random_batch, name):
    batch = random_batch(seed=8)
    junk = torch.where(batch.mask_BT, 0.0, torch.nan)
    advantage = torch.randn(len(junk), 1, generator=torch.Generator().manual_seed(1)).expand(junk.shape)
    found = []
    for extra in (torch.zeros_like(junk), junk):
        new = (batch.reference_BT + extra).requires_grad_()
        loss = SURROGATES[name](new, batch.old_BT + extra, advantage + extra, batch.mask_BT)
        found.append((loss, *torch.autograd.grad(loss.sum(), new)))
    for plain, spoilt in zip(*found, strict=True):
        assert torch.equal(plain, spoilt)
        assert (plain[~batch.mask_BT] == 0).all()


@pytest.mark.parametrize("name", ["reinforce", "ppo_clip", "sapo", "gmpo"])
def test_gradients_equal_finite_differences(name):
    # gspo and cispo hold constant copies of what they differentiate: their gradients are tested by hand above
    generator = torch.Generator().manual_seed(3)
    new = (torch.rand(2, 3, generator=generator) * 0.1).float()
    old = torch.zeros(2, 3)
    advantage = torch.tensor([[0.7], [-1.2]]).expand(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.bool)

    def value(x):
        return SURROGATES[name](x, old, advantage, mask).double().sum()

    x = new.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    for row in range(2):
        for token in range(3):
            step = torch.zeros(2, 3)
            step[row, token] = 1e-2
            slope = (value(new + step) - value(new - step)) / 2e-2
            assert gradient[row, token].item() == pytest.approx(slope.item(), abs=2e-3)


def test_truncated_importance_weights_by_hand():
    old = torch.log(torch.tensor([[3.0, 0.5, 1.5]]))
    roll = torch.zeros(1, 3)
    mask = torch.tensor([[True, True, False]])
    assert truncated_tokens(old, roll, mask)[0].tolist() == pytest.approx([2, 0.5, 0])
    assert truncated_sequences(old, roll, mask)[0].tolist() == pytest.approx([1.5, 1.5, 0])
    assert truncated_sequences(old, roll, mask, cap=1.2)[0].tolist() == pytest.approx([1.2, 1.2, 0])
    # both sides of one: 3 is kept, .4 is not
    assert masked_tokens(torch.log(torch.tensor([[3.0, 0.4, 1.0]])), roll, mask)[0].tolist() == pytest.approx([3, 0, 0])


@pytest.mark.parametrize("name", ROLLOUT_WEIGHTS)
def test_an_engine_that_agrees_with_the_trainer_is_not_corrected(random_batch, name):
    batch = random_batch()
    weight = ROLLOUT_WEIGHTS[name](batch.old_BT.requires_grad_(), batch.old_BT, batch.mask_BT)
    assert torch.equal(weight, batch.mask_BT.float())
    assert not weight.requires_grad


def test_value_loss_by_hand():
    # V = 1, V_old = .5, R = 2, limit .2: clip to .7: max(1, 1.69) / 2 = .845; plain .5
    args = torch.tensor([[1.0]]), torch.tensor([[0.5]]), torch.tensor([[2.0]]), torch.ones(1, 1, dtype=torch.bool)
    assert clipped_value_loss(*args).item() == pytest.approx(0.845)
    assert clipped_value_loss(*args, limit=None).item() == pytest.approx(0.5)


def test_an_advantage_that_is_not_finite_is_refused_by_place():
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(InputError, match="row 0, token 1: the advantage is nan"):
        reinforce(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]), mask)
