import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.evaluate.temperature import at_bound, fit_temperature, tempered, with_temperature
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores


def one_step(i, value):
    solution = Solution.from_steps(f"p{i}", ["a step"])
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), [value]))


def test_a_temperature_divides_the_logits():
    # (0.8, 0.2): the logits differ by log 4; halved by T = 2 they differ by log 2: (2/3, 1/3). p = 0 stays 0.
    assert tempered(np.array([[0.8, 0.0, 0.2]]), 2.0)[0] == pytest.approx([2 / 3, 0.0, 1 / 3])
    logits = np.array([[1.0, -2.0, 0.5]])
    p = np.exp(logits) / np.exp(logits).sum()
    divided = np.exp(logits / 3) / np.exp(logits / 3).sum()
    assert tempered(p, 3.0) == pytest.approx(divided)


def test_the_temperature_that_the_labels_were_drawn_at_is_found():
    # Of ten steps with p(+1) = 0.9, six are +1: the best p is 0.6, so log(9) / T = log(1.5), T = 5.419
    items = [one_step(i, 1 if i < 6 else -1) for i in range(10)]
    found = fit_temperature(items, [StepScores(((0.1, 0.0, 0.9),))] * 10, "dev")
    assert found.value == pytest.approx(np.log(9) / np.log(1.5), rel=1e-3)
    assert found.nll == pytest.approx(-0.6 * np.log(0.6) - 0.4 * np.log(0.4), abs=1e-6)
    assert found.nll_before == pytest.approx(-0.6 * np.log(0.9) - 0.4 * np.log(0.1))
    assert (found.n, found.chosen_on, at_bound(found.value)) == (10, "dev", False)


def test_a_scorer_that_is_always_right_ends_at_the_bound_and_a_certain_one_is_left_alone():
    items = [one_step(i, 1) for i in range(4)]
    assert at_bound(fit_temperature(items, [StepScores(((0.3, 0.1, 0.6),))] * 4, "dev").value)
    assert fit_temperature(items, [StepScores(((0.0, 0.0, 1.0),))] * 4, "dev").value == 1.0


@given(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), st.floats(0.1, 10.0))
def test_a_temperature_keeps_the_order_of_the_classes_and_the_sum(raw, temperature):
    p = np.array([raw]) / sum(raw)
    after = tempered(p, temperature)
    assert after.sum() == pytest.approx(1.0)
    assert all(after[0, i] >= after[0, j] for i in range(3) for j in range(3) if p[0, i] >= p[0, j])
    assert tempered(after, 1 / temperature) == pytest.approx(p, abs=1e-6)


def test_abstentions_stay_and_unbounded_scores_are_refused():
    assert with_temperature([StepScores((None, (0.8, 0.0, 0.2)))], 2.0)[0].probabilities[0] is None
    with pytest.raises(UsageError, match="dev: unbounded scores are no probabilities"):
        fit_temperature([one_step(0, 1)], [StepScores((None,), (3.5,))], "dev")
    with pytest.raises(InputError, match="no judged step was answered"):
        fit_temperature([one_step(0, 1)], [StepScores((None,))], "dev")
