import pytest
import torch

from prm_kit.errors import InputError
from rl.loss_reduction import REDUCTIONS, reduced

LENGTHS = torch.tensor([1, 3, 2, 0])
GROUPS = torch.tensor([7, 7, 9, 9])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # three rows with tokens, six tokens, groups of 4 and 2 tokens
        ("sequence_mean", [1 / 3, 1 / 9, 1 / 6, 0]),
        ("token_mean", [1 / 6, 1 / 6, 1 / 6, 0]),
        ("prompt_mean", [1 / 8, 1 / 8, 1 / 4, 0]),
        ("sequence_sum", [1 / 3, 1 / 3, 1 / 3, 0]),
        ("constant_length", [1 / 30, 1 / 30, 1 / 30, 0]),
    ],
)
def test_weights_by_hand(name, expected):
    assert REDUCTIONS[name](LENGTHS, GROUPS, 10).tolist() == pytest.approx(expected)


def slow(name, losses, groups, max_tokens):
    """The definitions, on lists of token losses."""
    rows = [row for row in losses if row]
    if name == "sequence_mean":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    if name == "token_mean":
        return sum(map(sum, rows)) / sum(map(len, rows))
    if name == "prompt_mean":
        by_group = {}
        for row, group in zip(losses, groups, strict=True):
            by_group.setdefault(group, []).extend(row)
        means = [sum(one) / len(one) for one in by_group.values() if one]
        return sum(means) / len(means)
    return sum(map(sum, rows)) / len(rows) / (max_tokens if name == "constant_length" else 1)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("cut", [1, 2, 5, 12])
def test_any_cut_of_an_update_adds_up_to_the_whole(random_batch, name, cut):
    batch = random_batch(seed=9)
    batch.mask_BT[3] = False  # a row without tokens
    losses = torch.randn(batch.mask_BT.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = REDUCTIONS[name](batch.lengths_B, batch.group_B, 32)
    whole = reduced(losses, weight, batch.mask_BT)
    lists = [row[mask].tolist() for row, mask in zip(losses, batch.mask_BT, strict=True)]
    assert whole.item() == pytest.approx(slow(name, lists, batch.group_B.tolist(), 32), abs=1e-6)

    order = torch.randperm(len(losses), generator=torch.Generator().manual_seed(cut))
    parts = [reduced(losses[rows], weight[rows], batch.mask_BT[rows]) for rows in order.split(cut)]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, losses, retain_graph=True)[0] for loss in (whole, sum(parts))]
    assert torch.allclose(*gradients, atol=1e-7)


@pytest.mark.parametrize("name", ["sequence_mean", "token_mean", "prompt_mean", "sequence_sum", "constant_length"])
def test_doubling_the_batch_leaves_the_loss(name):
    # The trap: a sum over rows without 1 / N doubles here.
    twice = REDUCTIONS[name](torch.cat([LENGTHS, LENGTHS]), torch.cat([GROUPS, GROUPS + 100]), 10)
    assert torch.allclose(twice[:4] * 2, REDUCTIONS[name](LENGTHS, GROUPS, 10))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_row_without_tokens_is_not_counted(name):
    # The trap: one empty row among seven scaled the loss by 6 / 7.
    assert torch.allclose(REDUCTIONS[name](LENGTHS, GROUPS, 10)[:3], REDUCTIONS[name](LENGTHS[:3], GROUPS[:3], 10))


def test_a_loss_that_is_not_finite_is_refused_by_place():
    with pytest.raises(InputError, match="row 1, token 0: the loss is inf"):
        reduced(torch.tensor([[0.0], [float("inf")]]), torch.ones(2), torch.ones(2, 1, dtype=torch.bool))
