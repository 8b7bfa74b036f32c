import math

import pytest
import torch

from prm_kit.errors import UsageError
from rl.pair_losses import (
    PAIR_LOSSES,
    PairTensors,
    advantage_pair_loss,
    advantage_pairs,
    gfpo,
    gfpo_anchored,
    gfpo_gated,
    srpo,
)
from rl.pairs import Candidates, Pair, ranked

NEW = torch.log(torch.tensor([[0.5, 0.4, 0.3], [0.5, 0.2, 1.0]]))
OLD = torch.log(torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.4, 1.0]]))
MASK = torch.tensor([[True, True, True], [True, True, False]])
PAIRS = PairTensors.of([Pair(0, 1, gap=0.5, fork=1, weight=1.0)])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_gfpo_as_printed():
    # log(.5 x .4 x .3) - log(.5 x .2) = log .6: sigmoid(log .6) = .6 / 1.6
    assert gfpo(NEW, None, None, MASK, PAIRS).item() == pytest.approx(-math.log(0.6 / 1.6), abs=1e-6)


def test_gfpo_anchored_by_hand():
    # after the fork: better moved (log 2 + 0) / 2, worse -log 2; gap .5 x -log sigmoid(1.5 log 2);
    # NLL of the better, per token: -(log .4 + log .3) / 2, x .1
    expected = -0.5 * math.log(sigmoid(1.5 * math.log(2))) - 0.1 * (math.log(0.4) + math.log(0.3)) / 2
    assert gfpo_anchored(NEW, OLD, None, MASK, PAIRS).item() == pytest.approx(expected, abs=1e-6)


def test_gfpo_gated_by_hand():
    # after the fork, as sums: better moved log 2 + 0, worse -log 2; NLL of the better -(log .4 + log .3), x .1
    expected = -0.5 * math.log(sigmoid(2 * math.log(2))) - 0.1 * (math.log(0.4) + math.log(0.3))
    assert gfpo_gated(NEW, OLD, None, MASK, PAIRS).item() == pytest.approx(expected, abs=1e-6)
    # went wrong in its first token, before the fork: there both are the same prediction, so nothing is left of it
    before = PairTensors.of([Pair(0, 1, gap=0.5, fork=1, weight=1.0, wrong=(0, 1))])
    expected = -0.5 * math.log(sigmoid(math.log(2))) - 0.1 * (math.log(0.4) + math.log(0.3))
    assert gfpo_gated(NEW, OLD, None, MASK, before).item() == pytest.approx(expected, abs=1e-6)


def test_the_gated_form_lowers_the_worse_one_only_where_it_went_wrong():
    new = torch.full((2, 6), -0.5, requires_grad=True)
    mask = torch.tensor([[True] * 6, [True, True, False, True, True, True]])  # a hole is no token
    pairs = PairTensors.of([Pair(0, 1, gap=1.0, fork=1, weight=1.0, wrong=(2, 4))])
    (gradient,) = torch.autograd.grad(gfpo_gated(new, new.detach(), None, mask, pairs, likelihood=0.0).sum(), new)
    assert gradient.tolist() == [[0, -0.5, -0.5, -0.5, -0.5, -0.5], [0, 0, 0, 0.5, 0.5, 0]]


def test_srpo_and_advantage_pairs_by_hand():
    # moved from the anchor: log 2 and -log 2
    new = NEW.clone().requires_grad_()
    assert srpo(new, None, OLD, MASK, PAIRS, beta=0.5).item() == pytest.approx(
        -math.log(sigmoid(math.log(2))), abs=1e-6
    )
    assert advantage_pairs(new, OLD, None, MASK, PAIRS).item() == pytest.approx(
        -math.log(sigmoid(2 * math.log(2))), abs=1e-6
    )


def test_a_pair_loss_over_advantages_from_rewards_is_refused():
    # The trap: its gradient is zero, and nothing would say so.
    with pytest.raises(UsageError, match="come from rewards has no gradient"):
        advantage_pair_loss(torch.tensor([1.0, 0.0]), PAIRS)
    with torch.no_grad():
        assert advantage_pair_loss(torch.tensor([1.0, 0.0]), PAIRS).item() == pytest.approx(-math.log(sigmoid(1)))


def test_a_shared_prefix_cancels_where_both_sides_are_one_prediction():
    prefix = torch.tensor([-0.7], requires_grad=True)
    tails = torch.tensor([[-0.2, -0.4], [-0.9, -0.1]], requires_grad=True)
    new = torch.cat([prefix.expand(2, 1), tails], dim=1)
    whole = gfpo(new, None, None, torch.ones(2, 3, dtype=torch.bool), PAIRS)
    suffix = gfpo(tails, None, None, torch.ones(2, 2, dtype=torch.bool), PAIRS)
    assert whole.item() == pytest.approx(suffix.item(), abs=1e-6)
    of_prefix, of_tails = torch.autograd.grad(whole.sum(), (prefix, tails))
    assert of_prefix.item() == pytest.approx(0, abs=1e-7)
    assert torch.allclose(of_tails, torch.autograd.grad(suffix.sum(), tails)[0])


def test_the_printed_form_beats_a_longer_loser_for_nothing_and_the_anchored_form_does_not():
    # The trap: same token probabilities, the worse one is ten times as long.
    mask = torch.tensor([[True] * 2 + [False] * 18, [True] * 20])
    new = torch.full((2, 20), math.log(0.5))
    pairs = PairTensors.of([Pair(0, 1, gap=1.0, fork=0, weight=1.0)])
    assert gfpo(new, None, None, mask, pairs).item() < 1e-4
    assert gfpo_anchored(new, new, None, mask, pairs, likelihood=0.0).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_equal_finite_differences_and_masked_cells_are_not_read(name):
    def value(x):
        return PAIR_LOSSES[name](x, OLD, OLD, MASK, PAIRS).double().sum()

    x = NEW.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    assert gradient[~MASK].abs().max() == 0
    for row, token in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        step = torch.zeros(2, 3)
        step[row, token] = 1e-2
        with torch.enable_grad():
            slope = (value((NEW + step).requires_grad_()) - value((NEW - step).requires_grad_())) / 2e-2
        assert gradient[row, token].item() == pytest.approx(slope.item(), abs=1e-3)
    junk = torch.where(MASK, 0.0, torch.nan)
    spoilt = (NEW + junk).requires_grad_()
    assert PAIR_LOSSES[name](spoilt, OLD + junk, OLD + junk, MASK, PAIRS).item() == pytest.approx(value(x).item())


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_any_cut_of_the_pairs_adds_up_to_the_whole(name):
    generator = torch.Generator().manual_seed(0)
    new, old = torch.rand(6, 5, generator=generator).requires_grad_(), torch.rand(6, 5, generator=generator)
    mask = torch.rand(6, 5, generator=generator) > 0.3
    pairs = ranked(Candidates([0, 0, 0, 1, 1, 1], [1, 0, 0.5, 1, 0, 0], [[k] for k in range(6)]), 0)

    def loss(some):
        tensors = PairTensors.of(some)
        return (PAIR_LOSSES[name](new, old, old, mask, tensors) * tensors.weight_P).sum()

    parts = loss(pairs[:2]) + loss(pairs[2:3]) + loss(pairs[3:])
    assert parts.item() == pytest.approx(loss(pairs).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "missing"), [(gfpo_anchored, "old"), (gfpo_gated, "old"), (srpo, "reference"), (advantage_pairs, "old")]
)
def test_a_missing_anchor_is_said(loss, missing):
    with pytest.raises(UsageError, match=f"{loss.__name__} needs the .*{missing}"):
        loss(NEW, None, None, MASK, PAIRS)
