import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError
from prm_kit.objective_kinds import OBJECTIVE_KINDS
from prm_kit.objectives import (
    OBJECTIVES,
    Objective,
    StepTargets,
    balanced_class_weights,
    log_score,
    ordered_pairs,
    ranking_loss,
    squared_error,
)
from prm_kit.readout import READOUTS

THREE = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.25, 0.25, 0.5], [0, 0, 0]]
TWO = [[1, 0, 0], [0, 0, 1], [0.25, 0, 0.75], [0, 0, 0]]


def outputs(name: str, members: int = 4) -> int:
    kind = OBJECTIVE_KINDS[name]
    return len(READOUTS[kind.readout].labels) * (members if kind.members else 1)


def targets(name: str, rows: list[list[float]], solutions: list[int], seed: int = 0) -> StepTargets:
    weight = None
    if OBJECTIVE_KINDS[name].members:
        weight = torch.rand(len(rows), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return StepTargets(torch.tensor(rows, dtype=torch.float64).reshape(-1, 3), torch.tensor(solutions), weight)


def part(whole: StepTargets, chosen: list[int]) -> StepTargets:
    """Some of the steps, with the solutions numbered anew."""
    numbers = whole.solution[chosen]
    again = torch.unique(numbers, return_inverse=True)[1] if chosen else numbers
    return StepTargets(whole.target[chosen], again, None if whole.weight is None else whole.weight[chosen])


def slow_log_score(log_p: list[list[float]], mass: list[list[float]]) -> float:
    return -sum(m * p for row, logs in zip(mass, log_p, strict=True) for m, p in zip(row, logs, strict=True) if m)


def slow_ranking(values: list[float], rows: list[list[float]], solutions: list[int], margin: float) -> float:
    """Equation 10 of arXiv 2410.11287, step by step."""
    loss = 0.0
    for solution in set(solutions):
        mine = [(q, t) for q, t, s in zip(values, rows, solutions, strict=True) if s == solution]
        right = [0.0, *(q for q, t in mine if t[2] > t[0])]
        wrong = [q for q, t in mine if t[2] < t[0]]
        against = sum(math.exp(q + margin) for q in wrong)
        terms = [
            -math.log(math.exp(right[t]) / (sum(map(math.exp, right[: t + 1])) + against))
            for t in range(0 if wrong else 1, len(right))
        ]
        loss += sum(terms) / len(terms) if terms else 0.0
    return loss


def test_two_steps_by_hand():
    # softmax(0, 0, ln 2) = (1/4, 1/4, 1/2): -ln(1/2) for +1 and -ln(1/4) for 0; mean (0.6931 + 1.3863) / 2
    logits = torch.tensor([[0.0, 0.0, math.log(2)], [0.0, 0.0, math.log(2)]])
    objective, asked = Objective(), StepTargets(torch.tensor([[0.0, 0, 1], [0, 1, 0]]), torch.tensor([0, 0]))
    assert (objective.loss(logits, asked) / objective.total(asked)).item() == pytest.approx(1.0397208)


def test_a_soft_target_is_the_mean_of_its_parts_and_a_value_in_between_stays_one():
    # three classes: 0.3 x ln 4 + 0.7 x ln 2 = 0.9010913; one logit ln 3 (p = 3/4): 0.3 x ln 4 + 0.7 x ln(4/3) = 0.6172
    asked = StepTargets(torch.tensor([[0.3, 0.0, 0.7]]), torch.tensor([0]))
    assert Objective().loss(torch.tensor([[0.0, 0.0, math.log(2)]]), asked).item() == pytest.approx(0.9010913)
    assert Objective("bce").loss(torch.tensor([[math.log(3)]]), asked).item() == pytest.approx(0.6172656)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(math.log(3)), torch.tensor(0.7))
    assert expected.item() == pytest.approx(0.6172656)


def test_the_squared_error_of_a_value_by_hand():
    # sigmoid(0) = 0.5: (0.5 - 0.7)^2 = 0.04, and (0.5 - 0)^2 = 0.25; a masked step adds nothing
    mass = torch.tensor([[0.3, 0, 0.7], [1, 0, 0], [0, 0, 0]])
    assert squared_error(torch.zeros(3, 1), mass).item() == pytest.approx(0.29)


def test_a_ranking_by_hand():
    # right, right, wrong with scores ln 1, ln 2, ln 1 and margin ln 3: W = 3, Q_0 = ln 1.
    # t=0: -ln(1 / (1 + 3)); t=1: -ln(1 / (1 + 1 + 3)); t=2: -ln(2 / (1 + 1 + 2 + 3)): ln 4, ln 5, ln 3.5; mean 1.4162
    values = torch.tensor([0.0, math.log(2), 0.0])
    rows = torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 0, 0]])
    found = ranking_loss(values, rows, torch.zeros(3, dtype=torch.long), math.log(3))
    assert found.item() == pytest.approx((math.log(4) + math.log(5) + math.log(3.5)) / 3)
    # without the wrong step: t=1: ln 2, t=2: ln 2; the start has nothing to be above
    found = ranking_loss(values[:2], rows[:2], torch.zeros(2, dtype=torch.long), math.log(3))
    assert found.item() == pytest.approx(math.log(2))


def test_class_weights_agree_with_torch_on_hard_targets():
    torch.manual_seed(0)
    logits, classes, weights = torch.randn(9, 3), torch.randint(0, 3, (9,)), torch.tensor([3.0, 0.5, 1.0])
    objective = Objective("cross-entropy", weights.tolist())
    asked = StepTargets(torch.nn.functional.one_hot(classes, 3).float(), torch.zeros(9, dtype=torch.long))
    expected = torch.nn.functional.cross_entropy(logits, classes, weight=weights)
    torch.testing.assert_close(objective.loss(logits, asked) / objective.total(asked), expected)


@given(st.data())
def test_the_log_score_and_the_ranking_equal_their_slow_loops(data):
    rows = data.draw(st.lists(st.sampled_from(TWO), min_size=1, max_size=9))
    values = [data.draw(st.floats(-4, 4)) for _ in rows]
    solutions = sorted(data.draw(st.integers(0, 2)) for _ in rows)
    target = torch.tensor(rows).float()
    found = ranking_loss(torch.tensor(values), target, torch.tensor(solutions), 2.0)
    assert found.item() == pytest.approx(slow_ranking(values, rows, solutions, 2.0), abs=1e-4)
    log_p = torch.log_softmax(torch.tensor([[v, 0.0, -v] for v in values]), dim=-1)
    assert log_score(log_p, target).item() == pytest.approx(slow_log_score(log_p.tolist(), rows), abs=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_an_update_has_the_same_loss_and_gradient_however_it_is_cut(name, cuts):
    """Cut between solutions, as micro-batches are."""
    torch.manual_seed(1)
    solutions = [0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5]
    rows = THREE if OBJECTIVE_KINDS[name].knows_neutral else TWO
    whole = targets(name, [rows[i % len(rows)] for i in range(12)], solutions)
    objective = Objective(name, (2.0, 1.0, 0.5) if OBJECTIVE_KINDS[name].class_weights else None)
    logits = torch.randn(12, outputs(name), dtype=torch.float64)
    total = objective.total(whole)
    once = logits.clone().requires_grad_()
    expected = objective.loss(once, whole) / total
    expected.backward()
    pieces = logits.clone().requires_grad_()
    found = 0.0
    for cut in range(cuts):
        chosen = [n for n, solution in enumerate(solutions) if solution % cuts == cut]
        loss = objective.loss(pieces[chosen], part(whole, chosen)) / total
        loss.backward()
        found += loss.item()
    assert found == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(pieces.grad, once.grad)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_gradient_is_that_of_finite_differences(name):
    torch.manual_seed(2)
    rows = THREE if OBJECTIVE_KINDS[name].knows_neutral else TWO
    asked = targets(name, [rows[i % len(rows)] for i in range(7)], [0, 0, 1, 2, 2, 2, 3])
    objective = Objective(name)
    logits = torch.randn(7, outputs(name), dtype=torch.float64, requires_grad=True)
    objective.loss(logits, asked).backward()
    for n in range(7):
        for k in range(logits.shape[1]):
            nudge = torch.zeros_like(logits)
            nudge[n, k] = 1e-6
            slope = (objective.loss(logits + nudge, asked) - objective.loss(logits - nudge, asked)) / 2e-6
            assert logits.grad[n, k].item() == pytest.approx(slope.item(), abs=1e-7, rel=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_masked_step_has_no_gradient_and_half_precision_is_summed_in_float32(name):
    logits = torch.randn(3, outputs(name)).bfloat16().requires_grad_()
    asked = targets(name, [[0, 0, 0], [1, 0, 0], [0, 0, 1]], [0, 1, 1])
    asked = StepTargets(asked.target.float(), asked.solution, None if asked.weight is None else asked.weight.float())
    loss = Objective(name).loss(logits, asked)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad[0].abs().sum() == 0
    assert logits.grad[1].abs().sum() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_perfect_head_has_next_to_no_loss_and_a_wrong_one_much(name):
    right = {"ordinal": [[-40, 0], [80, -40]], "bce": [[-40], [40]], "mse": [[-40], [40]], "pqm": [[-40], [40]]}
    logits = torch.tensor(right.get(name) or ([[-40], [40]] if outputs(name) == 1 else [[40, -40], [-40, 40]]))
    if outputs(name) % 3 == 0:
        logits = torch.tensor([[40, -40, -40], [-40, -40, 40]]).repeat(1, outputs(name) // 3)
    asked = targets(name, [[1, 0, 0], [0, 0, 1]], [0, 0])
    objective = Objective(name)
    assert objective.loss(logits.double(), asked) / objective.total(asked) < 1e-4
    assert objective.loss(logits.flip(0).double(), asked) / objective.total(asked) > 0.9


def test_a_members_weights_say_how_much_it_learns():
    asked = StepTargets(torch.tensor([[1.0, 0, 0]]), torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
    logits = torch.zeros(1, 6, requires_grad=True)
    loss = Objective("ensemble").loss(logits, asked)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(3))  # of the first member alone
    assert logits.grad[0, 3:].tolist() == [0, 0, 0]
    assert Objective("ensemble").total(asked) == 1


def test_pairs_of_a_right_and_a_wrong_step_are_counted_within_solutions():
    # first solution: right 2 and 1, wrong 1: above, level; second: wrong only
    rows = torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
    assert ordered_pairs(torch.tensor([2.0, 1, 1, 5]), StepTargets(rows, torch.tensor([0, 0, 0, 1]))) == (2, 1.5)


def test_a_step_that_is_as_right_as_wrong_is_not_ranked():
    rows = [[0.5, 0, 0.5], [0, 0, 0]]
    asked = targets("pqm", rows, [0, 1])
    assert Objective("pqm").total(asked) == 0
    assert Objective("pqm").loss(torch.randn(2, 1), asked).item() == 0


def test_what_does_not_fit_is_refused_by_name():
    asked = StepTargets(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0]))
    with pytest.raises(InputError, match=r"differ"):
        Objective().loss(torch.zeros(2, 3), asked)
    with pytest.raises(InputError, match=r"objective binary knows right and wrong only"):
        Objective("binary").total(asked)
    with pytest.raises(InputError, match=r"ensemble of 2 needs the weight"):
        Objective("ensemble").loss(torch.zeros(1, 6), asked)


def test_the_names_are_the_same_everywhere():
    assert list(OBJECTIVES) == list(OBJECTIVE_KINDS)


def test_balanced_weights_make_every_class_count_the_same():
    # 1, 2, 5 of 8: 8 / (3 x 1), 8 / (3 x 2), 8 / (3 x 5)
    assert balanced_class_weights([1, 2, 5]) == pytest.approx([8 / 3, 4 / 3, 8 / 15])
    assert balanced_class_weights([2, 0, 6]) == pytest.approx([2, 0, 2 / 3])
