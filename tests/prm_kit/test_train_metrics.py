import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from prm_kit.train_metrics import ClassMetrics, is_better, prior_metrics


def test_hard_targets_give_the_ordinary_figures():
    source = np.random.default_rng(0)
    p = source.dirichlet([1, 1, 1], 50)
    classes = source.integers(0, 3, 50)
    metrics = ClassMetrics()
    metrics.add(np.log(p[:20]), np.eye(3)[classes[:20]])
    metrics.add(np.log(p[20:]), np.eye(3)[classes[20:]])
    found = metrics.result()
    assert found["n"] == 50
    assert found["loss"] == pytest.approx(log_loss(classes, p))
    assert found["accuracy"] == pytest.approx(accuracy_score(classes, p.argmax(1)))
    assert found["macro_f1"] == pytest.approx(f1_score(classes, p.argmax(1), average="macro"))
    assert found["f1_-1"] == pytest.approx(f1_score(classes, p.argmax(1), average=None)[0])


def test_a_soft_target_counts_in_parts():
    metrics = ClassMetrics()
    metrics.add(np.log([[0.25, 0.25, 0.5]]), np.array([[0.3, 0.0, 0.7]]))
    found = metrics.result()
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["loss"] == pytest.approx(0.3 * np.log(4) + 0.7 * np.log(2))
    assert "f1_0" not in found


def test_the_prior_loses_its_entropy_and_names_the_commonest_class():
    found = prior_metrics([0.25, 0.25, 0.5], [10, 10, 20])
    assert found["loss"] == pytest.approx(0.5 * np.log(4) + 0.5 * np.log(2))
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3) / 3)


def test_under_balanced_weights_the_best_constant_is_uniform():
    found = prior_metrics([0.25, 0.25, 0.5], [10, 10, 20], [4 / 3, 4 / 3, 2 / 3])
    assert found["loss"] == pytest.approx(np.log(3))


def test_a_class_that_training_never_saw_costs_much_but_not_everything():
    assert prior_metrics([0, 0.5, 0.5], [1, 0, 0])["loss"] == pytest.approx(6 * np.log(10))


def test_nothing_measured_is_nothing_said():
    assert ClassMetrics().result() == {"n": 0}


def test_less_loss_is_better_and_more_f1_is():
    low, high = {"loss": 1.0, "macro_f1": 0.2}, {"loss": 2.0, "macro_f1": 0.3}
    assert is_better("loss", low, high)
    assert is_better("macro_f1", high, low)
    assert not is_better("loss", low, low)
    assert is_better("loss", high, None)
