import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss

from prm_kit.objectives import Objective, StepTargets
from prm_kit.train_metrics import StepMetrics, baseline_metrics, best_constant, is_better


def steps(rows, solutions=None) -> StepTargets:
    rows = torch.tensor(rows, dtype=torch.float32)
    return StepTargets(rows, torch.tensor(solutions) if solutions else torch.arange(len(rows)))


def of_masses(wrong: int, neutral: int, right: int) -> StepTargets:
    return steps([[1, 0, 0]] * wrong + [[0, 1, 0]] * neutral + [[0, 0, 1]] * right)


def test_hard_targets_give_the_ordinary_figures():
    source = np.random.default_rng(0)
    p = source.dirichlet([1, 1, 1], 50)
    classes = source.integers(0, 3, 50)
    metrics = StepMetrics(Objective())
    logits = torch.from_numpy(np.log(p))
    metrics.add(logits[:20], steps(np.eye(3)[classes[:20]].tolist()))
    metrics.add(logits[20:], steps(np.eye(3)[classes[20:]].tolist()))
    found = metrics.result()
    assert found["n"] == 50
    assert found["loss"] == pytest.approx(log_loss(classes, p))
    assert found["accuracy"] == pytest.approx(accuracy_score(classes, p.argmax(1)))
    assert found["macro_f1"] == pytest.approx(f1_score(classes, p.argmax(1), average="macro"))
    assert found["f1_-1"] == pytest.approx(f1_score(classes, p.argmax(1), average=None)[0])


@pytest.mark.parametrize(("name", "outputs"), [("binary", 2), ("bce", 1), ("mse", 1), ("implicit", 1), ("causal", 2)])
def test_right_and_wrong_give_the_figures_of_two_classes(name, outputs):
    torch.manual_seed(0)
    right, logits = torch.arange(30) % 3 == 0, torch.randn(30, outputs)
    metrics = StepMetrics(Objective(name))
    metrics.add(logits, steps([[0, 0, 1] if r else [1, 0, 0] for r in right.tolist()]))
    found = metrics.result()
    p = torch.sigmoid(logits[:, 0]) if outputs == 1 else torch.softmax(logits, -1)[:, 1]
    loss = brier_score_loss(right, p) if name == "mse" else log_loss(right, p)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["macro_f1"] == pytest.approx(f1_score(right, p > 0.5, average="macro"))
    assert "f1_0" not in found


def test_a_soft_target_counts_in_parts():
    metrics = StepMetrics(Objective())
    metrics.add(torch.tensor([[0.25, 0.25, 0.5]]).log(), steps([[0.3, 0.0, 0.7]]))
    found = metrics.result()
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["loss"] == pytest.approx(0.3 * np.log(4) + 0.7 * np.log(2))
    assert "f1_0" not in found


def test_an_ensemble_is_judged_by_its_mean_probability():
    # members say (1/2, 1/4, 1/4) and (1/4, 1/4, 1/2): the mean gives +1 3/8
    members = torch.tensor([[0.5, 0.25, 0.25, 0.25, 0.25, 0.5]]).log()
    metrics = StepMetrics(Objective("ensemble"))
    metrics.add(members, steps([[0, 0, 1]]))
    assert metrics.result()["loss"] == pytest.approx(np.log(8 / 3))


def test_a_ranking_has_ordered_pairs_instead_of_classes():
    metrics = StepMetrics(Objective("pqm", margin=0.0))
    asked = steps([[0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0]], [0, 0, 1, 1])
    metrics.add(torch.tensor([[1.0], [0], [0], [1]]), asked)
    found = metrics.result()
    assert (found["ordered_pairs"], found["n"]) == (0.5, 4)
    assert set(found) == {"loss", "ordered_pairs", "n"}


def test_the_prior_loses_its_entropy_and_names_the_commonest_class():
    found = baseline_metrics(Objective(), of_masses(1, 1, 2), of_masses(10, 10, 20))
    assert found["loss"] == pytest.approx(0.5 * np.log(4) + 0.5 * np.log(2))
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3) / 3)


def test_under_balanced_weights_the_best_constant_is_uniform():
    objective = Objective("cross-entropy", [4 / 3, 4 / 3, 2 / 3])
    found = baseline_metrics(objective, of_masses(1, 1, 2), of_masses(10, 10, 20))
    assert found["loss"] == pytest.approx(np.log(3))


def test_a_class_that_training_never_saw_costs_much_but_not_everything():
    found = baseline_metrics(Objective(), of_masses(0, 1, 1), of_masses(1, 0, 0))
    assert found["loss"] == pytest.approx(6 * np.log(10), rel=1e-5)


def test_the_baseline_of_a_squared_error_is_its_variance():
    # values 0.2, 0.6: mean 0.4, (0.04 + 0.04) / 2
    values = steps([[0.8, 0, 0.2], [0.4, 0, 0.6]])
    assert baseline_metrics(Objective("mse"), values, values)["loss"] == pytest.approx(0.04, rel=1e-4)


def test_the_baseline_of_a_ranking_is_the_best_single_score():
    objective = Objective("pqm", margin=1.0)
    train = steps([[0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 1]], [0, 0, 0, 1])
    best = best_constant(objective, train)

    def loss(score):
        return objective.loss(torch.full((4, 1), score), train).item()

    assert all(loss(best) <= loss(score) + 1e-6 for score in np.linspace(-5, 5, 101))
    assert baseline_metrics(objective, train, train)["loss"] == pytest.approx(loss(best) / 2)
    assert baseline_metrics(objective, train, train)["ordered_pairs"] == 0.5


def test_sums_of_several_processes_are_the_sums_of_one():
    torch.manual_seed(0)
    logits, asked = torch.randn(6, 3), of_masses(2, 2, 2)
    whole, one, other = (StepMetrics(Objective()) for _ in range(3))
    whole.add(logits, asked)
    one.add(logits[:2], StepTargets(asked.target[:2], asked.solution[:2]))
    other.add(logits[2:], StepTargets(asked.target[2:], asked.solution[2:]))
    one.sums += other.sums
    assert one.result() == pytest.approx(whole.result())


def test_nothing_measured_is_nothing_said():
    assert StepMetrics(Objective()).result() == {"n": 0}


def test_less_loss_is_better_and_more_f1_is():
    low, high = {"loss": 1.0, "macro_f1": 0.2}, {"loss": 2.0, "macro_f1": 0.3}
    assert is_better("loss", low, high)
    assert is_better("macro_f1", high, low)
    assert not is_better("loss", low, low)
    assert is_better("loss", high, None)
