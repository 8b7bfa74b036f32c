import pytest
import torch

from prm_kit.errors import UsageError
from rl.covariance import Hold, clip_cov, covariances, held_back
from rl.objective import policy_loss, update_of
from rl.presets import algorithm


def batch_of(make_batch, old):
    return make_batch([1.0, 0.0], lengths=[2, 2], old_BT=torch.tensor(old))


def test_covariances_are_products_of_what_is_left_of_both_means(make_batch):
    # A = 3 1 | -1 -3, mean 0; log pi = -1 -2 | -3 -2, mean -2: products 3*1, 1*0, -1*-1, -3*0
    batch = batch_of(make_batch, [[-1.0, -2.0], [-3.0, -2.0]])
    found = covariances(torch.tensor([[3.0, 1.0], [-1.0, -3.0]]), batch.mask_BT, batch)
    assert found.tolist() == [[3.0, 0.0], [1.0, 0.0]]


def test_covariances_are_those_of_a_slow_loop_and_see_counted_tokens_only(random_batch):
    batch = random_batch(seed=3)
    generator = torch.Generator().manual_seed(1)
    advantage_BT = torch.randn(batch.mask_BT.shape, generator=generator)
    counted = [(row, t) for row, t in batch.mask_BT.nonzero().tolist() if not batch.is_reference_B[row]]
    mean_a = sum(advantage_BT[at].item() for at in counted) / len(counted)
    mean_l = sum(batch.old_BT[at].item() for at in counted) / len(counted)
    found = covariances(advantage_BT, batch.mask_BT, batch)
    for at in counted:
        assert found[at].item() == pytest.approx(
            (advantage_BT[at].item() - mean_a) * (batch.old_BT[at].item() - mean_l), abs=1e-5
        )
    assert int((found != 0).sum()) <= len(counted)


def test_clip_cov_takes_the_advantage_of_its_share_of_the_tokens_between_its_bounds(make_batch):
    batch = batch_of(make_batch, [[-1.0, -2.0], [-3.0, -2.0]])
    advantage_BT = torch.tensor([[3.0, 1.0], [-1.0, -3.0]])
    # covariances 3 0 | 1 0: between 0.5 and 5 lie two; a share of 0.5 of four tokens is both, the least is one
    assert clip_cov(advantage_BT, batch.mask_BT, batch, low=0.5, share=0.5).tolist() == [[0.0, 1.0], [0.0, -3.0]]
    assert int((clip_cov(advantage_BT, batch.mask_BT, batch, low=0.5) != advantage_BT).sum()) == 1
    assert torch.equal(clip_cov(advantage_BT, batch.mask_BT, batch, low=3.5), advantage_BT)
    same = [clip_cov(advantage_BT, batch.mask_BT, batch, low=0.5, seed=seed) for seed in (4, 4)]
    assert torch.equal(*same)
    with pytest.raises(UsageError, match="below high"):
        clip_cov(advantage_BT, batch.mask_BT, batch, low=5.0)


def test_kl_cov_holds_the_tokens_of_the_largest_covariance(make_batch):
    batch = batch_of(make_batch, [[-1.0, -2.0], [-3.0, -2.0]])
    advantage_BT = torch.tensor([[3.0, 1.0], [-1.0, -3.0]])
    for share, expected in ((0.25, [[True, False], [False, False]]), (0.5, [[True, False], [True, False]])):
        assert held_back(Hold(share=share), advantage_BT, batch.mask_BT, batch).tolist() == expected


def test_what_is_held_back_pays_for_every_step_away_from_the_old_policy(random_batch):
    # loss of a held token: -rho A + 2 |log rho|; gradient at log rho = x != 0: weight (-rho A + 2 sign x)
    batch = random_batch(seed=4, reference=False)
    kl_cov = algorithm("kl-cov", {"hold": {"share": 0.2, "weight": 2.0}})
    update = update_of(kl_cov, batch)
    generator = torch.Generator().manual_seed(2)
    new_BT = (batch.old_BT + 0.3 * torch.randn(batch.old_BT.shape, generator=generator)).requires_grad_()
    policy_loss(kl_cov, update, batch, new_BT).total.backward()
    moved_BT = (new_BT - batch.old_BT).detach()
    by_hand_BT = -moved_BT.exp() * update.advantage_BT + torch.where(update.held_BT, 2.0 * moved_BT.sign(), 0.0)
    by_hand_BT = torch.where(update.mask_BT, by_hand_BT * update.weight_B[:, None], 0.0)
    assert torch.allclose(new_BT.grad, by_hand_BT, atol=1e-5)
    # any part of the update has its share of the same loss
    rows = torch.tensor([0, 2])
    part = policy_loss(kl_cov, update.select(rows), batch.select(rows), new_BT.detach()[rows]).total
    rest = torch.tensor([i for i in range(len(new_BT)) if i not in (0, 2)])
    other = policy_loss(kl_cov, update.select(rest), batch.select(rest), new_BT.detach()[rest]).total
    whole = policy_loss(kl_cov, update, batch, new_BT.detach()).total
    assert float(part + other) == pytest.approx(float(whole), abs=1e-5)


def test_a_surrogate_without_the_old_policy_cannot_hold_anything():
    with pytest.raises(UsageError, match="wants a surrogate with that ratio"):
        algorithm("rloo", {"hold": {"weight": 1.0}})
