import math

import pytest
import torch

from rl.regularizers import DIVERGENCES, k1, k2, k3, sequence_k1_reward, token_k1_reward

MASK = torch.tensor([[True, True, False]])


def test_estimators_by_hand():
    new, reference = torch.log(torch.tensor([[0.5, 0.2, 0.9]])), torch.log(torch.tensor([[0.25, 0.4, 0.1]]))
    assert k1(new, reference, MASK)[0].tolist() == pytest.approx([math.log(2), -math.log(2), 0])
    assert k2(new, reference, MASK)[0].tolist() == pytest.approx([math.log(2) ** 2 / 2] * 2 + [0])
    # r = reference / pi = .5: .5 + log 2 - 1; r = 2: 2 - log 2 - 1
    assert k3(new, reference, MASK)[0].tolist() == pytest.approx([math.log(2) - 0.5, 1 - math.log(2), 0])


def exact(logits, reference):
    log_pi = torch.log_softmax(logits, 0)
    return (log_pi.exp() * (log_pi - reference)).sum()


def test_values_and_gradients_in_expectation():
    # k1 and k3 have the KL as mean; the gradient of k1 is 0, that of k2 is the gradient of the KL, that of k3 is not.
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([0.0, 0.4, -0.3, 0.1], dtype=torch.float64), 0)
    (of_kl,) = torch.autograd.grad(exact(logits, reference), logits)
    log_pi = torch.log_softmax(logits, 0)
    weight = log_pi.exp().detach()
    mask = torch.ones(1, 4, dtype=torch.bool)
    slopes = {}
    for name, estimate in DIVERGENCES.items():
        mean = (weight * estimate(log_pi[None], reference[None], mask)[0]).sum()
        if name != "k2":
            assert mean.item() == pytest.approx(exact(logits, reference).item(), abs=1e-6)
        (slopes[name],) = torch.autograd.grad(mean, logits, retain_graph=True)
    assert slopes["k1"].abs().max() < 1e-6
    assert torch.allclose(slopes["k2"], of_kl, atol=1e-6)
    assert not torch.allclose(slopes["k3"], of_kl, atol=1e-2)


def test_extreme_log_ratios_stay_finite():
    assert torch.isfinite(k3(torch.tensor([[0.0]]), torch.tensor([[-1e4]]), torch.tensor([[True]]))).all()
    assert torch.isfinite(k3(torch.tensor([[-1e4]]), torch.tensor([[0.0]]), torch.tensor([[True]]))).all()


def test_penalties_in_the_reward_by_hand():
    old = torch.tensor([[0.3, 9.0, 0.2, 0.1]])
    mask = torch.tensor([[True, False, True, True]])
    reference = torch.zeros(1, 4)
    assert sequence_k1_reward(old, reference, mask)[0].tolist() == pytest.approx([0.6, 0, 0.6, 0.6])
    # what is still to come, a hole skipped
    assert token_k1_reward(old, reference, mask)[0].tolist() == pytest.approx([0.6, 0, 0.3, 0.1])
