import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError
from prm_kit.objectives import balanced_class_weights, class_mass, step_cross_entropy


def slow(logits, targets, class_weights, total):
    loss = 0.0
    for row, target in zip(logits, targets, strict=True):
        normaliser = math.log(sum(math.exp(x) for x in row))
        for k in range(3):
            loss -= class_weights[k] * target[k] * (row[k] - normaliser)
    return loss / total


def test_two_steps_by_hand():
    # softmax(0, 0, ln 2) = (1/4, 1/4, 1/2): -ln(1/2) for +1 and -ln(1/4) for 0; mean (0.6931 + 1.3863) / 2
    logits = torch.tensor([[0.0, 0.0, math.log(2)], [0.0, 0.0, math.log(2)]])
    targets = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert step_cross_entropy(logits, class_mass(targets), 2).item() == pytest.approx(1.0397208)


def test_a_soft_target_is_the_mean_of_its_parts():
    logits = torch.tensor([[0.0, 0.0, math.log(2)]])
    # 0.3 x ln 4 + 0.7 x ln 2 = 0.9010913
    loss = step_cross_entropy(logits, torch.tensor([[0.3, 0.0, 0.7]]), 1)
    assert loss.item() == pytest.approx(0.9010913)


def test_class_weights_agree_with_torch_on_hard_targets():
    torch.manual_seed(0)
    logits, classes, weights = torch.randn(9, 3), torch.randint(0, 3, (9,)), torch.tensor([3.0, 0.5, 1.0])
    mass = class_mass(torch.nn.functional.one_hot(classes, 3).float(), weights)
    expected = torch.nn.functional.cross_entropy(logits, classes, weight=weights)
    torch.testing.assert_close(step_cross_entropy(logits, mass, float(mass.sum())), expected)


rows = st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=8)


@given(rows, st.data())
def test_it_equals_the_slow_loop_and_its_parts_add_up_to_the_whole(logits, data):
    targets = [data.draw(st.sampled_from([[1, 0, 0], [0, 1, 0], [0.25, 0.25, 0.5], [0, 0, 0]])) for _ in logits]
    weights = [2.0, 1.0, 0.5]
    cut = data.draw(st.integers(0, len(logits)))
    logits_NK, mass_NK = torch.tensor(logits), class_mass(torch.tensor(targets).float(), torch.tensor(weights))
    total = float(mass_NK.sum()) or 1.0
    whole = step_cross_entropy(logits_NK, mass_NK, total).item()
    parts = step_cross_entropy(logits_NK[:cut], mass_NK[:cut], total) + step_cross_entropy(
        logits_NK[cut:], mass_NK[cut:], total
    )
    assert whole == pytest.approx(slow(logits, targets, weights, total), abs=1e-5)
    assert whole == pytest.approx(parts.item(), abs=1e-5)


def test_its_gradient_is_that_of_finite_differences():
    torch.manual_seed(1)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    mass = torch.rand(4, 3, dtype=torch.float64)
    total = float(mass.sum())

    def loss(x):  # in float64, which the function itself leaves
        return -(mass * torch.log_softmax(x, -1)).sum() / total

    step_cross_entropy(logits, mass, total).backward()
    for n in range(4):
        for k in range(3):
            nudge = torch.zeros(4, 3, dtype=torch.float64)
            nudge[n, k] = 1e-5
            slope = (loss(logits.detach() + nudge) - loss(logits.detach() - nudge)) / 2e-5
            assert logits.grad[n, k].item() == pytest.approx(slope.item(), abs=1e-6)


def test_a_masked_step_has_no_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    step_cross_entropy(logits, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), 1).backward()
    assert logits.grad[0].tolist() == [0, 0, 0]
    assert logits.grad[1].abs().sum() > 0


def test_bfloat16_logits_are_summed_in_float32():
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    assert step_cross_entropy(logits, torch.tensor([[0.0, 0.0, 1.0]]), 1).dtype == torch.float32


def test_other_shapes_and_nothing_to_learn_are_refused():
    with pytest.raises(InputError, match=r"differ in shape"):
        step_cross_entropy(torch.zeros(2, 3), torch.zeros(1, 3), 1)
    with pytest.raises(InputError, match=r"nothing to learn from"):
        step_cross_entropy(torch.zeros(1, 3), torch.zeros(1, 3), 0)


def test_balanced_weights_make_every_class_count_the_same():
    # 1, 2, 5 of 8: 8 / (3 x 1), 8 / (3 x 2), 8 / (3 x 5)
    assert balanced_class_weights([1, 2, 5]) == pytest.approx([8 / 3, 4 / 3, 8 / 15])
    assert balanced_class_weights([2, 0, 6]) == pytest.approx([2, 0, 2 / 3])
